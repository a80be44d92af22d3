// How far a run has come, in a file of lines beside its results: a run that was stopped, however it was, goes on where it was.
import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { Unit, Written } from "./cells.ts";
import type { Vector } from "./vectors.ts";

/** A unit and what every cell wrote for it. */
export interface Done extends Unit {
  readonly written: readonly Written[];
}

/** The first line of the file. */
interface Head {
  /** Digest of everything that the result depends on. */
  readonly inputs: string;
  readonly vectors: readonly Vector[];
}

/** Begins a file: the vectors were made. */
export function beginPartial(file: string, head: Head): void {
  writeFileSync(file, `${JSON.stringify(head)}\n`);
}

export function addPartial(file: string, done: Done): void {
  appendFileSync(file, `${JSON.stringify(done)}\n`);
}

/** What was noted for the same inputs; "other" when it is of other inputs or damaged, undefined when there is nothing. */
export function loadPartial(file: string, inputs: string): { vectors: readonly Vector[]; done: Done[] } | "other" | undefined {
  if (!existsSync(file)) return undefined;
  const text = readFileSync(file, "utf8");
  // A run that was killed may leave a line that is not whole: what follows it would be no line either.
  const whole = text.slice(0, text.lastIndexOf("\n") + 1);
  try {
    const [head, ...lines] = whole.split("\n").slice(0, -1);
    const { inputs: noted, vectors } = JSON.parse(head ?? "") as Head;
    if (noted !== inputs) return "other";
    const done = lines.map((line) => JSON.parse(line) as Done);
    if (whole !== text) writeFileSync(file, whole);
    return { vectors, done };
  } catch {
    return "other";
  }
}

export function dropPartial(file: string): void {
  rmSync(file, { force: true });
}
