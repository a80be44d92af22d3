// The tiny models of ../fixtures and what PyTorch computes with them (make.py, families.py), opened for tests.
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import type { Positions } from "../../shared/protocol.ts";
import type { ResolvedEdit } from "../../shared/steering.ts";
import type { Storage } from "./blocks.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { openDirectory } from "./directory.ts";
import { RowEdits } from "./edits.ts";
import type { FamilyModel } from "./family.ts";
import { openSafetensors, readTensor } from "./safetensors.ts";
import { CHUNK, DecoderSession } from "./session.ts";
import { computedBlocks } from "./sidecar.ts";

export const fixtures = path.join(import.meta.dirname, "..", "fixtures");

export interface CaseEdit extends Omit<ResolvedEdit, "direction"> {
  boundary: number;
  vector: number;
  positions?: Positions;
}

export interface Case {
  name: string;
  ids: number[];
  /** Length of the prompt: what the positions of edits refer to. */
  prompt: number;
  /** Positions whose expected values are kept. */
  keep: number[];
  edits: CaseEdit[];
}

export interface Forward {
  /** [T][V] */
  logits: Float32Array[];
  /** [L + 1][T][D] */
  resid: Float32Array[][];
}

/** Names of all models with cases. */
export const FIXTURES: readonly string[] = readdirSync(fixtures).flatMap((file) =>
  file.endsWith(".cases.json") ? [file.slice(0, -".cases.json".length)] : [],
);

/** The model of a directory, by the family its configuration names. */
export function loadFamily(directory: string): { family: FamilyModel; checkpoint: Checkpoint } {
  const { model, checkpoint } = openDirectory(directory);
  return { family: model, checkpoint };
}

export class Fixture {
  readonly cases: readonly Case[];
  readonly width: number;
  readonly layers: number;
  readonly vocab: number;
  readonly session: DecoderSession;
  private readonly expected;
  private readonly vectors: Float32Array;

  constructor(name: string, storage: Storage = "float32") {
    const { cases, width, layers, vocab } = JSON.parse(readFileSync(path.join(fixtures, `${name}.cases.json`), "utf8")) as Pick<
      Fixture,
      "cases" | "width" | "layers" | "vocab"
    >;
    this.cases = cases;
    this.width = width;
    this.layers = layers;
    this.vocab = vocab;
    this.expected = openSafetensors(path.join(fixtures, `${name}.expected.safetensors`));
    this.vectors = readTensor(this.expected, "vectors");
    const { family, checkpoint } = loadFamily(path.join(fixtures, name));
    this.session = new DecoderSession(family, checkpoint, {
      slots: 4,
      threads: 1,
      cacheLength: family.shape.context,
      blocks: storage === "q8" ? computedBlocks(checkpoint) : undefined,
    });
  }

  case(name: string): Case {
    const found = this.cases.find((test) => test.name === name);
    if (found === undefined) throw new Error(`there is no case '${name}'`);
    return found;
  }

  direction(vector: number): Float32Array {
    return this.vectors.slice(vector * this.width, (vector + 1) * this.width);
  }

  rowEdits({ edits, prompt }: Pick<Case, "edits" | "prompt">): RowEdits {
    const placed = edits.map((edit, index) => ({
      ...edit,
      index,
      schedule: "constant" as const,
      direction: this.direction(edit.vector),
      point: "",
      positions: edit.positions ?? "all",
    }));
    return new RowEdits(placed, prompt, new Set(), this.session.shape);
  }

  /** Runs a sequence in one slot: the first `prefill` tokens in chunks of at most `chunk`, the rest token by token. */
  async forward(ids: readonly number[], edits: RowEdits, prefill: number, slot = 0, chunk = CHUNK): Promise<Forward> {
    const boundaries = Array.from({ length: this.layers + 1 }, (_, b) => b);
    const result: Forward = { logits: [], resid: boundaries.map(() => []) };
    const { session, width } = this;
    for (let start = 0; start < ids.length; ) {
      const limit = start < prefill ? Math.min(start + chunk, prefill) : start + 1;
      const end = edits.changesAt(start, limit);
      session.edits.set(slot, edits.at(start));
      const all = Array.from({ length: end - start }, (_, t) => t);
      const step = await session.prefill(slot, ids.slice(start, end), start, all, { captures: boundaries });
      for (const t of all) {
        edits.record(start + t, step.measured, 0, t);
        result.logits.push(step.logits(t).slice());
        for (const b of boundaries) (result.resid[b] as Float32Array[]).push(step.captured(b).slice(t * width, (t + 1) * width));
      }
      start = end;
    }
    return result;
  }

  /** What PyTorch gives for a position that the case keeps: logits [V] and every boundary [L + 1][D]. */
  wanted({ name, keep }: Case, position: number): { logits: Float32Array; resid: Float32Array[] } {
    const k = keep.indexOf(position);
    if (k < 0) throw new Error(`case '${name}' does not keep position ${position}`);
    const { vocab, width, layers } = this;
    const resid = readTensor(this.expected, `${name}.resid`);
    return {
      logits: readTensor(this.expected, `${name}.logits`).subarray(k * vocab, (k + 1) * vocab),
      resid: Array.from({ length: layers + 1 }, (_, b) => resid.subarray((b * keep.length + k) * width, (b * keep.length + k + 1) * width)),
    };
  }
}

/** Worst absolute difference beyond what a relative error of 1e-4 explains. */
export function worst(actual: Float32Array, wanted: Float32Array): number {
  let max = 0;
  for (let i = 0; i < wanted.length; i++) {
    const difference = Math.abs((actual[i] as number) - (wanted[i] as number));
    max = Math.max(max, Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference - 1e-4 * Math.abs(wanted[i] as number));
  }
  return max;
}
