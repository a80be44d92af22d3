import { expect, it } from "vitest";
import { uniform } from "../random.ts";
import { areaUnderCurve, effectSize } from "./judge.ts";

it("counts the pairs that are in order, equal ones half", () => {
  for (let round = 0; round < 30; round++) {
    // Of few values, so that many are equal.
    const draw = (count: number, from: number) =>
      Array.from({ length: count }, (_, i) => Math.floor(uniform(round, from + i) * (3 + round)));
    const [positive, negative] = [draw(1 + (round % 7), 0), draw(1 + (round % 5), 100)];
    const wanted = positive.flatMap((a) => negative.map((b) => (a > b ? 1 : a === b ? 0.5 : 0) as number));
    const sum = wanted.reduce((a, b) => a + b, 0);
    expect(areaUnderCurve({ positive, negative })).toBeCloseTo(sum / wanted.length, 12);
  }
  expect(areaUnderCurve({ positive: [], negative: [1] })).toBeNull();
});

it("measures the distance of means in deviations", () => {
  // Variances 1 and 4, of 3 and 3 scores: pooled 2.5.
  expect(effectSize({ positive: [4, 5, 6], negative: [-1, 1, 3] })).toBeCloseTo(4 / Math.sqrt(2.5), 12);
  // Of 2 and 4: (2 + 3 x 4) / 4.
  expect(effectSize({ positive: [1, 3], negative: [0, 0, 0, 4] })).toBeCloseTo(1 / Math.sqrt(14 / 4), 12);
  expect(effectSize({ positive: [1, 1], negative: [0, 0] })).toBeNull();
  expect(effectSize({ positive: [1], negative: [0, 2, 3] })).toBeNull();
});
