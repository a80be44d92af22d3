import { describe, expect, it } from "vitest";
import golden from "../../shared/golden/sample.json" with { type: "json" };
import { philox, uniform } from "./random.ts";
import { klDivergence, logprobs, predict, sampleToken } from "./sampler.ts";

const plain = { temperature: 1, top_p: 1, top_k: 0, frequency_penalty: 0, presence_penalty: 0 };
const none = new Map<number, number>();
const draw = (logits: number[], more: Partial<typeof plain>, u: number, counts = none) =>
  sampleToken(predict(logits, { ...plain, ...more }.temperature), counts, { ...plain, ...more }, u);

describe("the counter-based generator", () => {
  it("passes the known-answer tests published with Philox4x32-10", () => {
    const all = 0xffffffff;
    expect(philox([0, 0, 0, 0], [0, 0])).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    expect(philox([all, all, all, all], [all, all])).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
    expect(philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])).toEqual([
      0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1,
    ]);
  });

  it.each(golden.draws)("draws $uniform for seed $seed at position $position", ({ seed, position, uniform: wanted }) => {
    expect(uniform(seed, position)).toBe(wanted);
  });

  it("is even over positions", () => {
    const draws = Array.from({ length: 20_000 }, (_, i) => uniform(16, i));
    expect(draws.reduce((a, b) => a + b) / draws.length).toBeCloseTo(0.5, 1);
    for (let tenth = 0; tenth < 10; tenth++) {
      const share = draws.filter((u) => u >= tenth / 10 && u < (tenth + 1) / 10).length / draws.length;
      expect(Math.abs(share - 0.1)).toBeLessThan(0.01);
    }
  });
});

describe("sampling", () => {
  it.each(golden.cases.map((test, i) => ({ ...test, i })))("case $i agrees with the reference", ({ logits, counts, sampling, u, id }) => {
    const counted = new Map(Object.entries(counts as unknown as Record<string, number>).map(([token, n]) => [Number(token), n]));
    expect(sampleToken(predict(logits, sampling.temperature), counted, sampling, u)).toBe(id);
  });

  it("gives each token its probability", () => {
    const logits = [0, 1, 2];
    const total = logits.reduce((sum, x) => sum + Math.exp(x), 0);
    const counts = [0, 0, 0];
    for (let i = 0; i < 10_000; i++) {
      const id = draw(logits, {}, (i + 0.5) / 10_000);
      counts[id] = (counts[id] as number) + 1;
    }
    for (const [id, x] of logits.entries()) expect((counts[id] as number) / 10_000).toBeCloseTo(Math.exp(x) / total, 3);
  });

  it("takes the lowest id among equals at temperature 0, and nothing but the best near it", () => {
    expect(draw([1, 3, 3, 2], { temperature: 0 }, 0.9)).toBe(1);
    for (const u of [0, 0.5, 1 - 2 ** -24]) expect(draw([1, 3, 2.9, 2], { temperature: 1e-6 }, u)).toBe(1);
  });

  it("always returns a token that top_p and top_k allow, even at the end of the range", () => {
    for (const u of [0, 0.5, 1 - 2 ** -24]) {
      expect(draw([5, 1, 1], { top_p: 0.01 }, u)).toBe(0);
      expect([0, 2]).toContain(draw([5, 1, 4], { top_k: 2 }, u));
    }
  });

  it("keeps the tokens that a full sort would keep, equals by lower id", () => {
    for (let trial = 0; trial < 60; trial++) {
      // Few values, so that the limits fall among equals.
      const levels = trial % 2 === 0 ? 16 : 2;
      const logits = Float32Array.from({ length: 300 }, (_, i) => (4 * Math.round(levels * uniform(trial, i))) / levels);
      const top_k = Math.floor(uniform(trial, 1000) * 250);
      const top_p = trial % 3 === 0 ? 1 : 0.05 + 0.9 * uniform(trial, 1001);
      const sorted = [...logits.keys()].sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
      const ranked = top_k === 0 ? sorted : sorted.slice(0, top_k);
      const masses = ranked.map((id) => Math.exp((logits[id] as number) - (logits[sorted[0] as number] as number)));
      const wanted = top_p * masses.reduce((a, b) => a + b);
      const before = masses.map((_, rank) => masses.slice(0, rank).reduce((a, b) => a + b, 0));
      const kept = top_p === 1 ? ranked : ranked.filter((_, rank) => (before[rank] as number) < wanted);
      const draws = Array.from({ length: 100 }, (_, i) => i / 100).concat(1 - 2 ** -24);
      const prediction = predict(logits, 1);
      const drawn = draws.map((u) => sampleToken(prediction, none, { ...plain, top_k, top_p }, u));
      expect(drawn.filter((id) => !kept.includes(id))).toEqual([]);
      expect([drawn.at(0), drawn.at(-1)]).toEqual([Math.min(...kept), Math.max(...kept)]);
    }
  });

  it("keeps exactly top_k of which the rest is very rare", () => {
    const logits = [20, 19, ...Array.from({ length: 500 }, () => 5)];
    for (const u of [0, 0.9, 1 - 2 ** -24]) expect(draw(logits, { top_k: 2 }, u)).toBe(u === 0 ? 0 : 1);
    expect(draw(logits, { top_k: 3 }, 1 - 2 ** -24)).toBe(2);
    expect(draw(logits, { top_k: 2, top_p: 0.99 }, 1 - 2 ** -24)).toBe(1);
  });

  it("leaves the prediction as it was", () => {
    const prediction = predict([1, 2, 3], 1);
    const before = structuredClone(prediction);
    sampleToken(prediction, new Map([[1, 4]]), { ...plain, frequency_penalty: 2, top_k: 1 }, 0.3);
    expect(prediction).toEqual(before);
  });

  it("brings back what a float32 probability has lost when a penalty takes the rest away", () => {
    const settings = { ...plain, temperature: 0.1, frequency_penalty: 2 };
    const { logProbs, probs, top } = predict([20, 10, 9], settings.temperature);
    const single = { logProbs: Float32Array.from(logProbs), probs: Float32Array.from(probs), top };
    expect(single.probs[1]).toBeLessThan(1e-38);
    for (const u of [1e-6, 0.5, 0.9]) expect(sampleToken(single, new Map([[0, 8]]), settings, u)).toBe(1);
  });

  it("refuses logits that are not finite", () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) expect(() => draw([1, bad, 2], {}, 0.5)).toThrow(/not finite/);
  });
});

describe("log probabilities", () => {
  const logits = [0.5, -1, 2, 2, 0];
  const prediction = predict(logits, 1);
  const z = Math.log(logits.reduce((sum, x) => sum + Math.exp(x), 0));

  it("are those of the softmax, the most likely first and equals by id", () => {
    const { logprob, top } = logprobs(prediction, 1, 3);
    expect(logprob).toBeCloseTo(-1 - z, 12);
    expect(top.map((t) => t.id)).toEqual([2, 3, 0]);
    expect(top[0]?.logprob).toBeCloseTo(2 - z, 12);
    expect(logprobs(prediction, 1, 0).top).toEqual([]);
    expect(logprobs(prediction, 1, 10).top).toHaveLength(5);
  });

  it("survive large logits", () => {
    expect(logprobs(predict([10_000, 9_999], 1), 0, 0).logprob).toBeCloseTo(-Math.log(1 + Math.exp(-1)), 6);
  });

  it("give a KL that is zero for equal, positive for other distributions, and right for two coins", () => {
    expect(klDivergence(prediction, prediction)).toBe(0);
    expect(klDivergence(prediction, predict([0, 0, 0, 0, 0], 1))).toBeGreaterThan(0);
    const [p, q] = [0.8, 0.3];
    const coin = (x: number) => predict([Math.log(x), Math.log(1 - x)], 1);
    expect(klDivergence(coin(p), coin(q))).toBeCloseTo(p * Math.log(p / q) + (1 - p) * Math.log((1 - p) / (1 - q)), 6);
  });
});
