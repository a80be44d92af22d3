import { expect, it } from "vitest";
import { uniform } from "../random.ts";
import { greatestOfTridiagonal, principalComponent } from "./pca.ts";
import { dot, norm, type Pass } from "./vectors.ts";

const passOf =
  (rows: readonly (readonly number[])[]): Pass =>
  async (visit) =>
    rows.forEach((values, i) => visit(i, values));
let drawn = 0;
/** About normal, the same in every run. */
const normal = () => Array.from({ length: 12 }, () => uniform(7, drawn++)).reduce((a, b) => a + b) - 6;

/** Rows whose variance along dimension d is about spreads[d] squared, turned by reflections so that no axis is special. */
function rowsOf(count: number, spreads: readonly number[], shift: number): number[][] {
  const mirrors = [1, 2, 3].map(() => spreads.map(() => normal()));
  return Array.from({ length: count }, () => {
    let row = spreads.map((spread) => spread * normal() + shift);
    for (const mirror of mirrors) {
      const factor = (2 * dot(row, mirror)) / dot(mirror, mirror);
      row = row.map((value, d) => value - factor * (mirror[d] as number));
    }
    return row;
  });
}

function covarianceOf(rows: readonly (readonly number[])[]): number[][] {
  const width = rows[0]?.length as number;
  const mean = Array.from({ length: width }, (_, d) => rows.reduce((sum, row) => sum + (row[d] as number), 0) / rows.length);
  return mean.map((_, a) =>
    mean.map(
      (_, b) =>
        rows.reduce((sum, row) => sum + ((row[a] as number) - (mean[a] as number)) * ((row[b] as number) - (mean[b] as number)), 0) /
        rows.length,
    ),
  );
}

/** All eigenvalues of a symmetric matrix by Jacobi's rotations, with the vector of the greatest. */
function jacobi(matrix: readonly (readonly number[])[]): { values: number[]; vector: number[] } {
  const a = matrix.map((row) => [...row]);
  const vectors = a.map((_, i) => a.map((_, j) => (i === j ? 1 : 0)));
  const at = (m: number[][], i: number, j: number) => (m[i] as number[])[j] as number;
  for (let sweep = 0; sweep < 15; sweep++) {
    for (let p = 0; p < a.length; p++) {
      for (let q = p + 1; q < a.length; q++) {
        if (at(a, p, q) === 0) continue;
        const angle = 0.5 * Math.atan2(2 * at(a, p, q), at(a, q, q) - at(a, p, p));
        const [c, s] = [Math.cos(angle), Math.sin(angle)];
        const turn = (m: number[][], i: number, j: number, k: number, l: number) => {
          const [x, y] = [at(m, i, j), at(m, k, l)];
          (m[i] as number[])[j] = c * x - s * y;
          (m[k] as number[])[l] = s * x + c * y;
        };
        for (let k = 0; k < a.length; k++) turn(a, p, k, q, k);
        for (let k = 0; k < a.length; k++) turn(a, k, p, k, q);
        for (let k = 0; k < a.length; k++) turn(vectors, k, p, k, q);
      }
    }
  }
  const values = a.map((row, i) => row[i] as number);
  const best = values.indexOf(Math.max(...values));
  return { values, vector: vectors.map((row) => row[best] as number) };
}

it.each([
  ["one clear component", 60, [5, 2, 1, 1, 0.5, 0.2], 3],
  ["two nearly equal ones", 200, [3, 2.99, 1, 1, 1, 1, 0.1, 0.1], 0],
  ["fewer rows than dimensions", 5, Array(20).fill(1) as number[], 10],
  ["a mean far from zero", 40, [1, 0.5, 0.5, 0.1], 1000],
  ["more dimensions than vectors are held", 100, Array.from({ length: 72 }, (_, d) => 1 / (1 + d / 40)), 0.1],
] as const)("finds the component of a whole decomposition: %s", async (_name, count, spreads, shift) => {
  const rows = rowsOf(count, [...spreads], shift);
  const found = await principalComponent(spreads.length, passOf(rows));
  if (found === undefined) throw new Error("no component");
  const { values, vector } = jacobi(covarianceOf(rows));
  const [greatest = 0] = values.sort((a, b) => b - a);
  expect(found.variance / greatest).toBeCloseTo(1, 10);
  expect(found.share).toBeCloseTo(greatest / values.reduce((a, b) => a + b), 9);
  expect(norm(found.direction)).toBeCloseTo(1, 12);
  expect(Math.abs(dot(found.direction, vector))).toBeCloseTo(1, 9);
  const mean = spreads.map((_, d) => rows.reduce((sum, row) => sum + (row[d] as number), 0));
  expect(dot(found.direction, mean)).toBeGreaterThan(0);
});

it("starts again where more vectors are needed than are held", async () => {
  // Two rows along every axis, whose variances are close to each other: the first axis has the greatest.
  const width = 400;
  const axis = (d: number, value: number) => Array.from({ length: width }, (_, i) => (i === d ? value : 0) + 0.5);
  const rows = Array.from({ length: width }, (_, d) => [1, -1].map((sign) => axis(d, sign * Math.sqrt(1 - d * 1e-4)))).flat();
  let passes = 0;
  const found = await principalComponent(width, (visit) => {
    passes++;
    return passOf(rows)(visit);
  });
  expect(passes).toBeGreaterThan(70);
  expect(found?.direction[0]).toBeCloseTo(1, 8);
  expect(found?.variance).toBeCloseTo(1 / width, 12);
});

it("finds none where all rows are the same", async () => {
  expect(await principalComponent(3, passOf(Array(5).fill([1, 2, 3])))).toBeUndefined();
});

it("solves small tridiagonal matrices", () => {
  expect(greatestOfTridiagonal([3], [])).toEqual({ value: expect.closeTo(3, 12), vector: [1] });
  const { value, vector } = greatestOfTridiagonal([2, 2, 2], [1, 1]);
  expect(value).toBeCloseTo(2 + Math.SQRT2, 12);
  [0.5, Math.SQRT1_2, 0.5].forEach((wanted, i) => expect(vector[i]).toBeCloseTo(wanted, 12));
  // Parts that hang together by nothing but rounding.
  expect(greatestOfTridiagonal([1, 5, 2], [1e-17, 1e-17]).vector[1]).toBeCloseTo(1, 12);
});
