// The CPU engine below its server: decode and prefill speed, what edits cost, how close a step comes to the memory's speed.
import { readFileSync } from "node:fs";
import path from "node:path";
import { openCheckpoint } from "../../gpu-functions/cpu/checkpoint.ts";
import { FAMILIES } from "../../gpu-functions/cpu/family.ts";
import { CHUNK, DecoderSession } from "../../gpu-functions/cpu/session.ts";
import { compilePoint } from "../../shared/steering.ts";
import { measureBandwidth } from "./bandwidth.ts";
import { alternate, median, spread, table } from "./frame.ts";
import { readConfig } from "./shapes.ts";

export interface EngineBench {
  /** Model directory; its name is printed. */
  readonly model: string;
  readonly threads: number;
  readonly rounds: number;
  readonly say: (line: string) => void;
}

const ROWS = 8;
/** Tokens decoded per sample, from this many cached positions on. */
const STEPS = 32;
const CONTEXT = 32;
/** Weights smaller than this may stay in the last-level cache between steps. */
const CACHE_BYTES = 64e6;

export async function benchEngine({ model, threads, rounds, say }: EngineBench): Promise<void> {
  const config = (await readConfig(model)) as { model_type?: string };
  const family = FAMILIES.find(({ id }) => id === config.model_type);
  if (family === undefined) throw new Error(`${model} is a ${config.model_type} model, which this engine does not run.`);
  const checkpoint = openCheckpoint(model);
  const shape = family.load(config, new Set(checkpoint.tensors.keys()), checkpoint.firstFile);
  const cacheLength = Math.min(shape.shape.context, 256);
  const settings = { slots: ROWS, threads, cacheLength };
  const residentBefore = residentBytes();
  const started = performance.now();
  const hooked = new DecoderSession(shape, checkpoint, settings);
  await hooked.prefill(0, [0], 0, [0]);
  const loadMs = performance.now() - started;
  const residentAfter = residentBytes();
  const plain = new DecoderSession(shape, checkpoint, settings, "plain");
  const { layers, width, vocab } = hooked.shape;
  const stepBytes = bytesPerStep(checkpoint.tensors);
  say(`\nengine: ${path.basename(model)}, ${layers} layers of ${width}, vocabulary ${vocab}, ${threads} threads, ${rounds} rounds`);

  const boundary = Math.floor(layers / 2);
  const direction = Float32Array.from({ length: width }, (_, i) => Math.sin(i + 1));
  const edit = new Map([[boundary, compilePoint([{ method: "SIMPLE_ADDITIVE", strength: 0.1, direction }], width)]]);
  // Slot 0 stays plain, the others are steered: a pair is what one request makes, eight rows are four of them.
  for (let slot = 1; slot < ROWS; slot += 2) hooked.setEdits(slot, edit);
  const prompt = Array.from({ length: CONTEXT }, (_, i) => (i * 7) % vocab);
  for (const session of [hooked, plain]) for (let slot = 0; slot < ROWS; slot++) await session.prefill(slot, prompt, 0, []);

  const decode = (session: DecoderSession, rows: number) => async (): Promise<number> => {
    const ids = Array.from({ length: rows }, (_, row) => (row * 11 + 1) % vocab);
    const begin = performance.now();
    for (let step = 0; step < STEPS; step++) await session.decode(ids, new Array<number>(rows).fill(CONTEXT + step));
    return (performance.now() - begin) / STEPS;
  };
  const chunk = Array.from({ length: Math.min(CHUNK, cacheLength) }, (_, i) => (i * 13) % vocab);
  const prefill = (session: DecoderSession) => async (): Promise<number> => {
    const begin = performance.now();
    await session.prefill(ROWS - 1, chunk, 0, []);
    return performance.now() - begin;
  };
  const step = await alternate(
    {
      plain1: decode(plain, 1),
      hooked1: decode(hooked, 1),
      plain2: decode(plain, 2),
      pair: decode(hooked, 2),
      plain8: decode(plain, 8),
      eight: decode(hooked, 8),
      prefillPlain: prefill(plain),
      prefill: prefill(hooked),
    },
    rounds,
    2,
  );
  const bandwidth = await measureBandwidth(threads, 5);
  const line = (name: string, samples: readonly number[], tokens: number, baseline: readonly number[]): string[] => [
    name,
    spread(samples, 3),
    ((tokens / median(samples)) * 1000).toFixed(0),
    median(samples.map((sample, i) => sample / (baseline[i] as number))).toFixed(3),
  ];
  const rows = [
    ["", "ms per step, median (min to max)", "tokens/s", "times the graph without hooks"],
    line("decode, 1 row, graph without hooks", step.plain1, 1, step.plain1),
    line("decode, 1 plain row", step.hooked1, 1, step.plain1),
    line("decode, steered pair", step.pair, 2, step.plain2),
    line("decode, 8 rows, 4 steered", step.eight, 8, step.plain8),
    line(`prefill of ${chunk.length} tokens, steered`, step.prefill, chunk.length, step.prefillPlain),
  ];
  for (const text of table(rows)) say(`  ${text}`);
  const best = Math.max(...bandwidth);
  const used = stepBytes / (median(step.hooked1) / 1000);
  say(`  weights read per step: ${(stepBytes / 1e6).toFixed(1)} MB, at ${(used / 1e9).toFixed(1)} GB/s in a step of 1 row`);
  say(
    `  memory reads in this run (memchr over 256 MB per thread, ${threads} threads): ${(best / 1e9).toFixed(1)} GB/s; ` +
      `a step uses ${((used / best) * 100).toFixed(0)}% of it${stepBytes < CACHE_BYTES ? "; these weights fit in a processor's cache, so it could use more than all" : ""}`,
  );
  say(
    `  session load ${loadMs.toFixed(0)} ms, memory ${((residentAfter - residentBefore) / 1e6).toFixed(0)} MB on top of ${(residentBefore / 1e6).toFixed(0)} MB`,
  );
  hooked.close();
  plain.close();
}

/** Float32 of everything but the position table, of which a step reads one row; the token table is also the output's weight. */
function bytesPerStep(tensors: ReadonlyMap<string, { readonly shape: readonly number[] }>): number {
  return [...tensors].reduce(
    (sum, [name, { shape }]) => (name.endsWith("wpe.weight") ? sum : sum + 4 * shape.reduce((a, b) => a * b, 1)),
    0,
  );
}

function residentBytes(): number {
  try {
    const kilobytes = /VmRSS:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    if (kilobytes !== undefined) return Number(kilobytes) * 1024;
  } catch {
    // Not Linux: the runtime's own number will do.
  }
  return process.memoryUsage().rss;
}
