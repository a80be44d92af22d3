import { expect, it } from "vitest";
import { uniform } from "../random.ts";
import { fitProbe } from "./probe.ts";
import { dot, norm, type Pass } from "./vectors.ts";

const passOf =
  (rows: readonly (readonly number[])[]): Pass =>
  async (visit) =>
    rows.forEach((values, i) => visit(i, values));

/** Rows of two sides, `apart` in the first dimensions. */
function sidesOf(count: number, width: number, apart: number): number[][] {
  return Array.from({ length: count }, (_, i) =>
    Array.from({ length: width }, (_, d) => uniform(3, i * width + d) - 0.5 + (i % 3 === 0 && d < 2 ? apart : 0) + 10),
  );
}
const isPositive = (row: number) => row % 3 === 0;

/** The loss as it is defined, of weights on the rows as they came. */
function lossOf(rows: readonly (readonly number[])[], weights: ArrayLike<number>, bias: number, scale: number): number {
  const mean = (rows[0] as number[]).map((_, d) => rows.reduce((sum, row) => sum + (row[d] as number), 0) / rows.length);
  return rows.reduce((sum, row, i) => {
    const z = row.map((value, d) => (value - (mean[d] as number)) / scale);
    return sum + Math.log1p(Math.exp((isPositive(i) ? -1 : 1) * (dot(z, weights) + bias)));
  }, dot(weights, weights) / 2);
}

it.each([
  ["sides that overlap", 300, 6, 0.1],
  ["sides that lie apart", 60, 5, 4],
  ["more dimensions than rows", 12, 40, 0.3],
] as const)("is at the least of its loss: %s", async (_name, count, width, apart) => {
  const rows = sidesOf(count, width, apart);
  const found = await fitProbe(width, passOf(rows), isPositive);
  if (found === undefined) throw new Error("no probe");
  const { weights, bias, scale } = found;
  const least = lossOf(rows, weights, bias, scale);
  // Convex: whatever is a little away in any dimension is not less, and the slope there is nothing.
  const step = 1e-4;
  for (let d = 0; d <= width; d++) {
    const [up, down] = [step, -step].map((by) =>
      lossOf(
        rows,
        weights.map((value, i) => (i === d ? value + by : value)),
        d === width ? bias + by : bias,
        scale,
      ),
    ) as [number, number];
    expect(Math.min(up, down)).toBeGreaterThan(least);
    expect(Math.abs(up - down) / (2 * step)).toBeLessThan(1e-7);
  }
});

it("has the weights that one dimension and two rows have on paper", async () => {
  // z = -1 and 1, b = 0: w = 2 / (1 + e^w).
  const found = await fitProbe(1, passOf([[7], [3]]), (row) => row === 0);
  expect(found?.scale).toBe(2);
  const w = found?.weights[0] as number;
  expect(w).toBeCloseTo(2 / (1 + Math.exp(w)), 9);
  expect(found?.bias).toBeCloseTo(0, 9);
});

it("does not depend on where the rows lie, nor on their scale", async () => {
  const rows = sidesOf(90, 4, 0.4);
  const moved = rows.map((row) => row.map((value) => 50 * value - 3));
  const [one, other] = [await fitProbe(4, passOf(rows), isPositive), await fitProbe(4, passOf(moved), isPositive)];
  if (one === undefined || other === undefined) throw new Error("no probe");
  expect(norm(one.weights.map((value, d) => value - (other.weights[d] as number)))).toBeLessThan(1e-8);
  expect(other.scale / one.scale).toBeCloseTo(50, 9);
});

it("finds none where all rows are the same", async () => {
  expect(await fitProbe(2, passOf(Array(6).fill([1, 2])), isPositive)).toBeUndefined();
});
