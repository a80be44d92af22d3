// What every benchmark shares: the machine it ran on, runs that alternate with their baseline, medians, tables.
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, freemem, loadavg, release, totalmem, type } from "node:os";
import path from "node:path";
import { ROOT } from "../edge-bundle.ts";

const GB = 1e9;

/** Lines that say where numbers come from: without them no number means anything. */
export function describeMachine(): string[] {
  const version = (name: string): string =>
    (JSON.parse(readFileSync(path.join(ROOT, "node_modules", name, "package.json"), "utf8")) as { version: string }).version;
  return [
    `CPU       ${cpus()[0]?.model.trim() ?? "unknown"}, ${availableParallelism()} threads available`,
    `Memory    ${(totalmem() / GB).toFixed(1)} GB, ${(freemem() / GB).toFixed(1)} GB free`,
    `System    ${type()} ${release()}, load ${loadavg()
      .map((load) => load.toFixed(1))
      .join(" ")}`,
    `Software  Node ${process.versions.node}, onnxruntime ${version("onnxruntime-node")}, workerd ${version("workerd")}`,
  ];
}

/** The value below which a share `p` (0 to 1) of the samples lies, by nearest rank. */
export function percentile(samples: readonly number[], p: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(Math.max(Math.ceil(p * sorted.length) - 1, 0), sorted.length - 1)] ?? Number.NaN;
}

export const median = (samples: readonly number[]): number => percentile(samples, 0.5);

/**
 * Measures several things by turns, so that a machine that slows down slows all of them: `burst` samples of each in a row, `rounds`
 * times, after `warmup` rounds that do not count. Every other round goes backwards: what comes first in a round has no advantage. In
 * a burst, work that goes on after a sample falls on the next one of the same subject.
 */
export async function alternate<Name extends string>(
  subjects: Readonly<Record<Name, () => Promise<number>>>,
  rounds: number,
  warmup: number,
  burst = 1,
): Promise<Record<Name, number[]>> {
  const names = Object.keys(subjects) as Name[];
  const samples = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<Name, number[]>;
  for (let round = -warmup; round < rounds; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      for (let i = 0; i < burst; i++) {
        const sample = await subjects[name]();
        if (round >= 0) samples[name].push(sample);
      }
    }
  }
  return samples;
}

/** Rows as lines with aligned columns: the first to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join("   ")
      .trimEnd(),
  );
}

/** `3.21 (3.10 to 3.44)`: the median of the samples, with the least and the greatest. */
export function spread(samples: readonly number[], digits = 2): string {
  const [least, greatest] = [Math.min(...samples), Math.max(...samples)];
  return `${median(samples).toFixed(digits)} (${least.toFixed(digits)} to ${greatest.toFixed(digits)})`;
}

/** Memory of this process that is in RAM. */
export function residentBytes(): number {
  try {
    const kilobytes = /VmRSS:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    if (kilobytes !== undefined) return Number(kilobytes) * 1024;
  } catch {
    // Not Linux: the runtime's own number will do.
  }
  return process.memoryUsage().rss;
}
