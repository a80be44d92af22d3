import { describe, expect, it } from "vitest";
import { BATCH } from "./batch.ts";
import { BatchReading } from "./batch-reading.ts";
import { FIXTURES, Fixture } from "./fixture.ts";

const STORAGES = FIXTURES.flatMap((name) => (["float32", "q8"] as const).map((storage) => [name, storage] as const));

describe.each(STORAGES)("a batch of %s in %s", (name, storage) => {
  it("has the bits of each text alone at every boundary, whatever stands beside it", async () => {
    const { session, layers, vocab } = new Fixture(name, storage);
    const textOf = (length: number, seed: number) => Array.from({ length }, (_, i) => (i * 31 + seed * 17 + 5) % vocab);
    session.edits.set(0, new Map());
    const all = Array.from({ length: layers + 1 }, (_, b) => b);
    for (const lengths of [
      [1],
      [1, 1, 1],
      [3, 2, 1],
      [7, 12, 12, 9],
      [40, 41, 42],
      [64, 60],
      [127],
      [17, 16, 15, 14, 13, 12, 11],
      [2, 1],
    ]) {
      const texts = lengths.map(textOf);
      const wanted: Float32Array[][] = [];
      for (const text of texts) {
        const step = await session.prefill(0, text, 0, [], { captures: all });
        wanted.push(all.map((b) => step.captured(b).slice()));
      }
      for (const boundaries of [[0], [1], [layers], all]) {
        const residual = await session.texts.read(texts, boundaries);
        for (const row of texts.keys()) for (const b of boundaries) expect(residual(row, b)).toEqual(wanted[row]?.[b]);
      }
    }
    session.close();
  });
});

describe("packing", () => {
  const lengths = Array.from({ length: 300 }, (_, i) => 1 + ((i * 37) % 45)).concat([BATCH, 100, 60, 59]);
  const reading = () =>
    new BatchReading(
      new Map(lengths.map((length, i) => [i, Array(length).fill(0)])),
      [0],
      () => undefined,
      () => undefined,
    );
  const sizeOf = (batch: readonly number[]) => batch.length * Math.max(...batch.map((text) => lengths[text] as number));

  it("takes every text once, in full batches with little padding", async () => {
    const packed = reading();
    const taken: number[] = [];
    let [positions, batches] = [0, 0];
    while (taken.length < lengths.length) {
      const batch = packed.take(BATCH);
      packed.give(batch, []);
      await packed.given;
      expect(sizeOf(batch)).toBeLessThanOrEqual(BATCH);
      positions += sizeOf(batch);
      batches++;
      taken.push(...batch);
    }
    expect(taken.toSorted((a, b) => a - b)).toEqual([...lengths.keys()]);
    const tokens = lengths.reduce((a, b) => a + b, 0);
    expect(positions / tokens).toBeLessThan(1.05);
    expect(positions / batches).toBeGreaterThan(0.8 * BATCH);
    await packed.done;
    expect([packed.ended, packed.ready]).toEqual([true, false]);
  });

  it("stops while two batches wait for their reader", async () => {
    const packed = reading();
    for (const expected of [true, false]) {
      packed.give(packed.take(BATCH), []);
      expect(packed.ready).toBe(expected);
    }
    await packed.given;
    expect(packed.ready).toBe(true);
  });
});
