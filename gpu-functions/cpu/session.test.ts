import { readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { Positions } from "../../shared/protocol.ts";
import { compilePoint, type ResolvedEdit } from "../../shared/steering.ts";
import { RowEdits } from "./edits.ts";
import { gpt2 } from "./gpt2.ts";
import { openSafetensors, readTensor } from "./safetensors.ts";
import { CHUNK, DecoderSession, type Edits } from "./session.ts";

interface CaseEdit extends Omit<ResolvedEdit, "direction"> {
  boundary: number;
  vector: number;
  positions?: Positions;
}
interface Case {
  name: string;
  ids: number[];
  prompt: number;
  keep: number[];
  edits: CaseEdit[];
}

const fixtures = path.join(import.meta.dirname, "..", "fixtures");
const { cases, width, layers, vocab } = JSON.parse(readFileSync(path.join(fixtures, "tiny-gpt2.cases.json"), "utf8")) as {
  cases: Case[];
  width: number;
  layers: number;
  vocab: number;
};
const expected = openSafetensors(path.join(fixtures, "tiny-gpt2.expected.safetensors"));
const vectors = readTensor(expected, "vectors");
const config = JSON.parse(readFileSync(path.join(fixtures, "tiny-gpt2", "config.json"), "utf8")) as unknown;

function newSession(): DecoderSession {
  const checkpoint = openSafetensors(path.join(fixtures, "tiny-gpt2", "model.safetensors"));
  const family = gpt2.load(config, new Set(checkpoint.tensors.keys()), "model.safetensors");
  return new DecoderSession(family, checkpoint, { slots: 4, threads: 1, cacheLength: family.shape.context });
}
const session = newSession();
afterAll(() => session.close());

const rowEdits = (edits: readonly CaseEdit[], prompt: number): RowEdits =>
  new RowEdits(
    edits.map((e) => ({
      ...e,
      direction: vectors.slice(e.vector * width, (e.vector + 1) * width),
      point: "",
      positions: e.positions ?? "all",
    })),
    prompt,
    new Set(),
    session.shape,
  );

interface Forward {
  /** [T][V] */
  logits: Float32Array[];
  /** [L + 1][T][D] */
  resid: Float32Array[][];
}

/** Runs a sequence in one slot: the first `prefill` tokens in chunks of at most `chunk`, the rest token by token. */
async function forward(ids: readonly number[], edits: RowEdits, prefill: number, slot = 0, chunk = CHUNK): Promise<Forward> {
  const boundaries = Array.from({ length: layers + 1 }, (_, b) => b);
  const result: Forward = { logits: [], resid: boundaries.map(() => []) };
  for (let start = 0; start < ids.length; ) {
    const limit = start < prefill ? Math.min(start + chunk, prefill) : start + 1;
    const end = edits.changesAt(start, limit);
    session.setEdits(slot, edits.at(start));
    const all = Array.from({ length: end - start }, (_, t) => t);
    const step = await session.prefill(slot, ids.slice(start, end), start, all, boundaries);
    for (const t of all) {
      edits.record(start + t, step.measured, 0, t);
      result.logits.push(step.logits(t).slice());
      for (const b of boundaries) (result.resid[b] as Float32Array[]).push(step.captured(b).slice(t * width, (t + 1) * width));
    }
    start = end;
  }
  return result;
}

/** Worst absolute difference beyond what a relative error of 1e-4 explains. */
function worst(actual: Float32Array, wanted: Float32Array): number {
  let max = 0;
  for (let i = 0; i < wanted.length; i++) {
    const difference = Math.abs((actual[i] as number) - (wanted[i] as number));
    max = Math.max(max, Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference - 1e-4 * Math.abs(wanted[i] as number));
  }
  return max;
}

function compare(test: Case, run: Forward): void {
  const logits = readTensor(expected, `${test.name}.logits`);
  const resid = readTensor(expected, `${test.name}.resid`);
  const kept = test.keep.length;
  test.keep.forEach((position, k) => {
    expect(worst(run.logits[position] as Float32Array, logits.subarray(k * vocab, (k + 1) * vocab)), `logits at ${position}`).toBeLessThan(
      2e-4,
    );
    for (let b = 0; b <= layers; b++) {
      const wanted = resid.subarray((b * kept + k) * width, (b * kept + k + 1) * width);
      expect(worst((run.resid[b] as Float32Array[])[position] as Float32Array, wanted), `boundary ${b} at ${position}`).toBeLessThan(2e-4);
    }
  });
}

describe("a GPT-2 forward agrees with PyTorch at every position and every boundary", () => {
  it.each(cases)("$name, prompt in one call", async (test) => {
    compare(test, await forward(test.ids, rowEdits(test.edits, test.prompt), test.prompt));
  });

  it.each(cases)("$name, token by token over the cache", async (test) => {
    compare(test, await forward(test.ids, rowEdits(test.edits, test.prompt), 0));
  });
});

describe("exactness", () => {
  const test = cases.find((c) => c.name === "plain-short") as Case;
  const direction = vectors.slice(0, width);
  const at = (boundary: number, edit: Partial<ResolvedEdit>): Edits =>
    new Map([[boundary, compilePoint([{ method: "SIMPLE_ADDITIVE", strength: 3, direction, ...edit }], width)]]);
  const captures = Array.from({ length: layers + 1 }, (_, b) => b);
  async function run(edits: Edits, slot = 0, ids = test.ids): Promise<{ logits: Float32Array; resid: Float32Array[] }> {
    session.setEdits(slot, edits);
    const step = await session.prefill(slot, ids, 0, [ids.length - 1], captures);
    return { logits: step.logits(0).slice(), resid: captures.map((b) => step.captured(b).slice()) };
  }

  it("zero strength equals the baseline bit for bit", async () => {
    const plain = await run(new Map());
    for (let b = 0; b <= layers; b++) {
      expect((await run(at(b, { strength: 0 }))).logits).toEqual(plain.logits);
      expect((await run(at(b, { method: "ORTHOGONAL_DECOMP", strength: 1 }))).logits).toEqual(plain.logits);
    }
  });

  it("a bound that is never reached equals the baseline bit for bit, on the graph with ordered edits", async () => {
    const plain = await run(new Map());
    expect((await run(at(2, { method: "PROJECTION_CAP", strength: 1e6 }))).logits).toEqual(plain.logits);
  });

  it("an edit at boundary L leaves every lower boundary bit-equal and changes L and all above", async () => {
    const plain = await run(new Map());
    for (const edit of [{}, { method: "PROJECTION_CAP" as const, strength: -5 }]) {
      for (let b = 0; b <= layers; b++) {
        const edited = await run(at(b, edit));
        for (let other = 0; other <= layers; other++) {
          if (other < b) expect(edited.resid[other]).toEqual(plain.resid[other]);
          else expect(edited.resid[other]).not.toEqual(plain.resid[other]);
        }
        expect(edited.logits).not.toEqual(plain.logits);
      }
    }
  });

  it("the edited boundary differs by exactly the edit", async () => {
    const plain = await run(new Map());
    const edited = await run(at(2, {}));
    const before = plain.resid[2] as Float32Array;
    const after = edited.resid[2] as Float32Array;
    after.forEach((value, i) => expect(value).toBe(Math.fround((before[i] as number) + Math.fround(3 * (direction[i % width] as number)))));
  });

  it("chunks of any length give the same bits as one call", async () => {
    const long = cases.find((c) => c.name === "several-boundaries-long") as Case;
    const whole = await forward(long.ids, rowEdits(long.edits, long.prompt), long.prompt);
    for (const chunk of [7, 64]) {
      const parts = await forward(long.ids, rowEdits(long.edits, long.prompt), long.prompt, 1, chunk);
      expect(parts.logits.at(-1)).toEqual(whole.logits.at(-1));
    }
  });

  it("a row decodes to the same bits alone, beside plain rows and beside rows with ordered edits", async () => {
    const edits = at(1, {});
    const decode = async (others: readonly Edits[]): Promise<Float32Array> => {
      const all = [edits, ...others];
      for (const [slot, each] of all.entries()) await run(each, slot);
      const step = await session.decode(
        all.map((_, slot) => 5 + slot),
        all.map(() => test.ids.length),
      );
      return step.logits(0).slice();
    };
    const alone = await decode([]);
    expect(await decode([new Map()])).toEqual(alone);
    expect(await decode([new Map(), at(3, { strength: -2 })])).toEqual(alone);
    expect(await decode([at(2, { method: "PROJECTION_CAP", strength: 0 }), new Map()])).toEqual(alone);
  });

  it("moved and swapped caches decode to the same bits", async () => {
    await run(at(1, {}), 0);
    const decode = async (slot: number, first: number) => {
      session.setEdits(slot, at(1, {}));
      const step = await session.prefill(slot, [first], test.ids.length, [0]);
      return step.logits(0).slice();
    };
    const wanted = await decode(0, 9);
    session.moveCache(0, 3, test.ids.length);
    expect(await decode(3, 9)).toEqual(wanted);
    await run(new Map(), 2, [...test.ids].reverse());
    session.swapCache(3, 2, test.ids.length);
    expect(await decode(2, 9)).toEqual(wanted);
  });
});

describe("receipts", () => {
  it("report the positions changed and the mean relative change that the formulas give", async () => {
    const test = cases.find((c) => c.name === "positions-ranges") as Case;
    const edits = rowEdits(test.edits, test.prompt);
    const run = await forward(test.ids, edits, test.prompt);
    const [additive, cap] = edits.receipts();
    expect(additive).toMatchObject({ positions: 5, positions_changed: 5 });
    expect(cap?.positions).toBe(test.ids.length);
    expect(cap?.positions_changed).toBeLessThan(test.ids.length);
    const plain = await forward(test.ids, rowEdits([], test.prompt), test.prompt);
    const length = (v: Float32Array) => Math.sqrt(v.reduce((sum, x) => sum + x * x, 0));
    const direction = vectors.slice(0, width);
    const relative = [1, 2, 6, 7, 8].map((p) => (2 * length(direction)) / length(relativeTo(run, plain, test, p)));
    expect(additive?.mean_relative_delta).toBeCloseTo(relative.reduce((a, b) => a + b) / 5, 4);
  });

  /** h before boundary 1's edits: what the stream was there when only lower boundaries (which have none) had acted. */
  function relativeTo(run: Forward, plain: Forward, test: Case, position: number): Float32Array {
    // Later positions read edited keys and values only above boundary 1, so boundary 1 before its edits equals the plain stream
    // when the edits are at boundary 1 alone.
    expect(test.edits.every((e) => e.boundary === 1)).toBe(true);
    expect(run.resid[0]).toEqual(plain.resid[0]);
    return (plain.resid[1] as Float32Array[])[position] as Float32Array;
  }
});
