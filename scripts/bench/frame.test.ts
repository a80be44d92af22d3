import { expect, it } from "vitest";
import { measureBandwidth } from "./bandwidth.ts";
import { alternate, percentile, spread, table } from "./frame.ts";

it.each([
  [0, 1],
  [0.5, 5],
  [0.99, 10],
  [1, 10],
])("the percentile %d of 1 to 10 is %d", (p, value) => {
  expect(percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], p)).toBe(value);
});

it("measures by turns, forwards and backwards, and leaves the warm-up out", async () => {
  const order: string[] = [];
  const subject = (name: string) => async (): Promise<number> => order.push(name);
  const samples = await alternate({ a: subject("a"), b: subject("b") }, 2, 1);
  expect(order).toEqual(["b", "a", "a", "b", "b", "a"]);
  expect(samples).toEqual({ a: [3, 6], b: [4, 5] });
});

it("shows a median with the least and the greatest, in columns", () => {
  const rows = [
    ["name", "ms"],
    ["longer name", spread([3, 1, 2], 1)],
  ];
  expect(table(rows)).toEqual(["name                        ms", "longer name   2.0 (1.0 to 3.0)"]);
});

it("reads memory with every thread at once", async () => {
  const passes = await measureBandwidth(2, 2);
  expect(passes).toHaveLength(2);
  for (const rate of passes) expect(Number.isFinite(rate) && rate > 0).toBe(true);
});
