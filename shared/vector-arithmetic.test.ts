import { describe, expect, it } from "vitest";
import { cosine, dot, lengthOf, orthogonalPart, weightedSum, withLength } from "./vector-arithmetic.ts";

const WIDTH = 64;
/** Numbers that look random and are the same every time. */
const vector = (seed: number, width = WIDTH): Float64Array =>
  Float64Array.from({ length: width }, (_, i) => (Math.sin(seed * 12.9898 + i * 78.233) * 43_758.5453) % 1);
const must = (found: Float64Array | undefined): Float64Array => {
  if (found === undefined) throw new Error("nothing is left");
  return found;
};
const sum = (...terms: (readonly [number, ArrayLike<number>])[]) => weightedSum(terms.map(([weight, values]) => ({ weight, values })));
const [a, b, c, d] = [vector(1), vector(2), vector(3), vector(4)];

describe("a sum with weights", () => {
  it("is the sum of its parts, whatever their order", () => {
    const whole = must(sum([2, a], [-0.5, b], [3, c]));
    for (let i = 0; i < WIDTH; i++) expect(whole[i]).toBeCloseTo(2 * (a[i] as number) - 0.5 * (b[i] as number) + 3 * (c[i] as number), 12);
    expect(cosine(whole, must(sum([3, c], [2, a], [-0.5, b])))).toBeCloseTo(1, 12);
    expect(sum([1, a])).toEqual(a);
  });

  it("is nothing where its terms cancel, as exactly or as roughly as float32 holds them", () => {
    expect(sum([1, a], [-1, a])).toBeUndefined();
    expect(sum([2, a], [-1, a.map((value) => 2 * value)])).toBeUndefined();
    expect(sum([1, a], [-1, Float32Array.from(a)])).toBeUndefined();
    expect(sum([0, a], [0, b])).toBeUndefined();
    expect(sum([1, a], [-1.001, a])).toBeDefined();
  });
});

describe("the part orthogonal to others", () => {
  const parts = (rest: Float64Array, others: readonly Float64Array[]) => others.map((other) => Math.abs(cosine(rest, other) ?? 1));

  it("has nothing of any of them, and what was taken off lies in their span", () => {
    const rest = must(orthogonalPart(a, [b, c, d]));
    expect(Math.max(...parts(rest, [b, c, d]))).toBeLessThan(1e-14);
    // Pythagoras: the two parts make up the vector.
    const taken = must(sum([1, a], [-1, rest]));
    expect(dot(rest, rest) + dot(taken, taken)).toBeCloseTo(dot(a, a), 12);
    expect(orthogonalPart(taken, [b, c, d])).toBeUndefined();
  });

  it("is the same whatever their order and lengths, and taking it again changes nothing", () => {
    const rest = must(orthogonalPart(a, [b, c]));
    expect(lengthOf(must(sum([1, rest], [-0.999, must(orthogonalPart(a, [c.map((value) => -7 * value), b]))])))).toBeCloseTo(
      0.001 * lengthOf(rest),
      12,
    );
    const again = must(orthogonalPart(rest, [b, c]));
    for (let i = 0; i < WIDTH; i++) expect(again[i]).toBeCloseTo(rest[i] as number, 13);
  });

  it("stays exact where the others are nearly the same", () => {
    const near = b.map((value, i) => value + 1e-5 * (c[i] as number));
    const rest = must(orthogonalPart(a, [b, near]));
    expect(Math.max(...parts(rest, [b, near]))).toBeLessThan(1e-14);
    expect(Math.max(...parts(rest, [c]))).toBeLessThan(1e-9);
  });

  it("does not mind others that depend on each other, rounded ones and zeros", () => {
    const rest = must(orthogonalPart(a, [b, c]));
    const mixed = must(sum([1, b], [2, c]));
    for (const others of [
      [b, c, mixed],
      [mixed, b, c],
      [b, Float64Array.from(Float32Array.from(b)), c],
      [new Float64Array(WIDTH), b, c],
    ]) {
      const same = must(orthogonalPart(a, others));
      expect(1 - (cosine(same, rest) ?? 0)).toBeLessThan(1e-9);
    }
  });

  it("is nothing where the vector lies in their span, and all of it where there are none", () => {
    expect(orthogonalPart(must(sum([1, b], [2, c])), [c, b])).toBeUndefined();
    expect(orthogonalPart(Float32Array.from(b), [b])).toBeUndefined();
    expect(orthogonalPart(a, [])).toEqual(a);
    // As many as the space has dimensions leave nothing.
    const all = Array.from({ length: 5 }, (_, i) => vector(i + 10, 5));
    expect(orthogonalPart(vector(99, 5), all)).toBeUndefined();
  });
});

describe("lengths and cosines", () => {
  it("are those of geometry", () => {
    expect(lengthOf([3, 4])).toBe(5);
    expect(lengthOf(withLength(a, 2.5))).toBeCloseTo(2.5, 12);
    expect(cosine(withLength(a, 9), a)).toBeCloseTo(1, 12);
    expect(cosine([1, 0], [0, 1])).toBe(0);
    expect(cosine([3, 4], [-6, -8])).toBe(-1);
    expect(cosine([0, 0], [1, 0])).toBeNull();
  });
});
