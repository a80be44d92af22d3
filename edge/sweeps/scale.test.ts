import { describe, expect, it } from "vitest";
import { type Axis, formatNumber, linear, logarithmic, niceStep, type Scale } from "./scale.ts";

const labels = ({ ticks }: Scale) => ticks.map(({ label }) => label).join(" ");
const axis = (values: number[], more: Partial<Axis> = {}): Axis => ({ values, range: [0, 100], ticks: 5, ...more });

describe("a step", () => {
  it.each([
    [100, 5, 20],
    [1, 5, 0.2],
    [0.3, 3, 0.1],
    [7, 5, 2],
    [32, 5, 10],
    [0.0011, 4, 0.0005],
    [123_456, 6, 50_000],
  ])("for a span of %d in %d parts is %d", (span, parts, step) => {
    expect(niceStep(span, parts)).toBeCloseTo(step, 12);
  });
});

describe("a linear axis", () => {
  it.each([
    [[0, 100], "0 20 40 60 80 100"],
    [[-16, 16], "\u221220 \u221210 0 10 20"],
    [[0, 0.3], "0 0.1 0.2 0.3"],
    [[1.02, 1.31], "1 1.1 1.2 1.3 1.4"],
    [[3, 7, 5, 4], "3 4 5 6 7"],
    [[8], "4 6 8 10 12"],
    [[-15000, 15000], "\u221220k \u221210k 0 10k 20k"],
    [[0], "\u22121 \u22120.5 0 0.5 1"],
    [[-5], "\u22128 \u22127 \u22126 \u22125 \u22124 \u22123 \u22122"],
  ])("of %j has the ticks %s", (values, expected) => {
    const scale = linear(axis(values));
    expect(labels(scale)).toBe(expected);
    for (const value of values) expect(scale.at(value)).toBeGreaterThanOrEqual(0);
    for (const value of values) expect(scale.at(value)).toBeLessThanOrEqual(100);
  });

  it("puts its ends at the ends of the range, either way round, and the middle in the middle", () => {
    for (const range of [
      [10, 210],
      [300, 100],
    ] as const) {
      const { at, domain } = linear(axis([0, 40], { range }));
      expect([at(domain[0]), at(domain[1]), at(20)]).toEqual([...range, (range[0] + range[1]) / 2]);
    }
  });

  it.each([
    [[0, 24], "0 5 10 15 20"],
    [[-8, 24], "0 10 20"],
    [[-20, 30], "\u221220 \u221210 0 10 20 30"],
    [[0.1, 0.7], "0.2 0.4 0.6"],
  ])("that is tight, of %j, has the ticks %s and ends where they do", (values, expected) => {
    const scale = linear(axis(values, { tight: true }));
    expect(labels(scale)).toBe(expected);
    expect(values.map(scale.at)).toEqual([0, 100]);
  });

  it("writes its unit behind every number", () => {
    expect(labels(linear(axis([0, 100], { ticks: 2, unit: "%" })))).toBe("0% 50% 100%");
  });
});

describe("a logarithmic axis", () => {
  it.each([
    [[1, 4], "1 2 5"],
    [[0.9, 4.2], "0.5 1 2 5"],
    [[0.95, 38], "0.5 1 2 5 10 20 50"],
    [[1, 900], "1 10 100 1000"],
    [[1, 3e7], "1 100 10k 1M"],
    [[3], "2 5 10"],
    [[0.3, 0.4], "0.2 0.5"],
    [[1, 5e11], "1 100 10k 1M 100M 1e10"],
  ])("of %j has the ticks %s", (values, expected) => {
    const scale = logarithmic(axis(values, { ticks: 6 }));
    expect(labels(scale)).toBe(expected);
    expect(scale.at(scale.domain[0])).toBeCloseTo(0, 9);
    expect(scale.at(scale.domain[1])).toBeCloseTo(100, 9);
    for (const value of values) expect(scale.at(value)).toBeGreaterThanOrEqual(-1e-9);
    for (const value of values) expect(scale.at(value)).toBeLessThanOrEqual(100 + 1e-9);
  });

  it("makes equal factors equal ways", () => {
    const { at } = logarithmic(axis([1, 1000]));
    expect(at(10) - at(1)).toBeCloseTo(at(500) - at(50), 9);
  });
});

it.each([
  [0, "0"],
  [-0.25, "\u22120.25"],
  [2e-7, "2e\u22127"],
  [5e6, "5e6"],
])("%d is written %s", (value, text) => {
  expect(formatNumber(value)).toBe(text);
});
