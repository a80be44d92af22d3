import path from "node:path";
import { expect, it } from "vitest";
import type { Shape } from "../blocks.ts";
import { fixtures } from "../fixture.ts";
import { newPace } from "../pace.ts";
import { Encoders } from "../sae-encoder.ts";
import { openSafetensors, readTensor } from "../safetensors.ts";
import { openSources } from "../sources.ts";
import { chooseLatents, decodeLatents, LatentCounter } from "./latent-counts.ts";

const shape: Shape = { layers: 4, width: 48, heads: 3, kvHeads: 3, headDim: 16, vocab: 320, context: 160 };
const root = path.join(fixtures, "saes");
const sources = openSources(root, shape);
const sae = sources.sae("2-standard");
const file = openSafetensors(path.join(root, "expected.safetensors"));
/** Residuals [16, 48], and their activations [16, 32] as the autoencoder's own library has them. */
const stream = readTensor(file, "residuals");
const activations = readTensor(file, "2-standard");
const { latents } = sae;

/** More tokens than wait at once, of texts of any length, and of both sides. */
const TEXTS = Array.from({ length: 300 }, (_, i) => ({
  counted: Array.from({ length: 16 }, (_, t) => t).filter((t) => (t * 7 + i * 5) % 16 <= i % 9),
  positive: i % 3 !== 0,
}));

it("counts every token of both sides, however many, and whatever else waits", async () => {
  const encoders = new Encoders(1);
  for (const layers of [1, 128_000]) {
    const counter = new LatentCounter(encoders, sae, layers);
    for (const { counted, positive } of TEXTS) await counter.add(stream, counted, positive);
    await counter.flush();
    for (const positive of [true, false]) {
      const { tokens, fired, sum } = positive ? counter.counts.positive : counter.counts.negative;
      const all = TEXTS.filter((text) => text.positive === positive).flatMap(({ counted }) => counted);
      expect(all.length).toBeGreaterThan(300);
      expect(tokens).toBe(all.length);
      for (let i = 0; i < latents; i++) {
        const values = all.map((t) => activations[t * latents + i] as number);
        expect(fired[i]).toBe(values.filter((value) => value !== 0).length);
        expect(sum[i]).toBeCloseTo(
          values.reduce((a, b) => a + b, 0),
          2,
        );
      }
    }
  }
  await encoders.close();
});

const side = (tokens: number, fired: number[], sum: number[]) => ({ tokens, fired: Float64Array.from(fired), sum: Float64Array.from(sum) });

it("chooses by frequency, not by count, and the lower index among equals", async () => {
  // Latent 0 fires as often of the tokens, 1 less often, 2 and 4 more often by the same, 3 by more, but less strongly.
  const counts = { positive: side(10, [5, 1, 4, 6, 4], [10, 9, 8, 6, 8]), negative: side(20, [10, 6, 4, 6, 4], [1, 1, 4, 12, 16]) };
  const found = (top_k: number, values: "dif_mean" | "tar_mean") =>
    chooseLatents(counts, { top_k, values }).map(({ index, value }) => [index, value]);
  expect(found(9, "dif_mean")).toEqual([
    [3, 0],
    [2, 1],
    [4, 0],
  ]);
  expect(found(2, "tar_mean")).toEqual([
    [3, 1],
    [2, 2],
  ]);
  expect(chooseLatents(counts, { top_k: 1, values: "dif_mean" })).toEqual([
    { index: 3, value: 0, frequency: { positive: 0.6, negative: 0.3 }, mean: { positive: 1, negative: 2 } },
  ]);
});

it("adds up decoder rows as they steer", async () => {
  const of = (index: number, value: number) => ({
    ...{ index, value, frequency: { positive: 1, negative: 0 }, mean: { positive: value, negative: 0 } },
  });
  const vector = await decodeLatents(sae, [of(3, 2), of(9, 0), of(7, -0.5)], newPace(new AbortController().signal, undefined));
  const row = (index: number) => sources.direction({ model: "saes", source: "2-standard", index }).direction;
  vector.forEach((value, d) => expect(value).toBeCloseTo(2 * (row(3)[d] as number) - 0.5 * (row(7)[d] as number), 6));
});
