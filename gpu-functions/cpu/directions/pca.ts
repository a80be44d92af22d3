// The first principal component of rows that are only ever read one after another: Lanczos' method with full reorthogonalisation
// (Golub and Van Loan, Matrix Computations, 10.3), which multiplies by the covariance and never holds it. All in float64.
import { uniform } from "../random.ts";
import { addScaled, dot, meanOf, norm, type Pass, scaled } from "./vectors.ts";

export interface Component {
  /** [width], of length one; its sign makes its product with the rows' mean positive. */
  readonly direction: Float64Array;
  /** Of the rows along it (sum over rows / rows), and as a share of their whole variance. */
  readonly variance: number;
  readonly share: number;
}

/** ||C v - theta v|| / theta at which the component is taken. */
const TOLERANCE = 1e-10;
/** Vectors that are held; then the method starts again from the best direction so far. */
const BASIS = 64;
/** Where the two greatest variances are nearly the same, their directions are hardly told apart: what is found after so many passes is taken. */
const PASSES = 640;

/** @returns undefined when all rows are the same. */
export async function principalComponent(width: number, pass: Pass): Promise<Component | undefined> {
  const { mean, count } = await meanOf(width, pass);
  const row = new Float64Array(width);
  const centred = (values: ArrayLike<number>) => {
    for (let d = 0; d < width; d++) row[d] = (values[d] as number) - (mean[d] as number);
    return row;
  };
  let total = 0;
  await pass((_, values) => {
    const x = centred(values);
    total += dot(x, x) / count;
  });
  if (total === 0) return undefined;
  const multiply = async (v: Float64Array) => {
    const product = new Float64Array(width);
    await pass((_, values) => {
      const x = centred(values);
      addScaled(product, dot(x, v) / count, x);
    });
    return product;
  };
  // A start of no particular direction: the mean itself may be at right angles to the component.
  let found: Eigenpair = { vector: Float64Array.from({ length: width }, (_, d) => uniform(1, d) - 0.5), value: 0, converged: false };
  for (let passes = 0; passes < PASSES && !found.converged; passes += BASIS) found = await lanczos(found.vector, multiply);
  const direction = scaled(found.vector, (dot(found.vector, mean) < 0 ? -1 : 1) / norm(found.vector));
  return { direction, variance: found.value, share: found.value / total };
}

interface Eigenpair {
  readonly vector: Float64Array;
  readonly value: number;
  readonly converged: boolean;
}

/** The greatest eigenvalue in the space of v, C v, C C v ..., and its vector. */
async function lanczos(start: Float64Array, multiply: (v: Float64Array) => Promise<Float64Array>): Promise<Eigenpair> {
  const basis = [scaled(start, 1 / norm(start))];
  const diagonal: number[] = [];
  const beside: number[] = [];
  for (;;) {
    const last = basis.at(-1) as Float64Array;
    const next = await multiply(last);
    diagonal.push(dot(next, last));
    // Twice: once is not enough to be orthogonal to the last bit.
    for (const each of [...basis, ...basis]) addScaled(next, -dot(next, each), each);
    const length = norm(next);
    const { value, vector } = greatestOfTridiagonal(diagonal, beside);
    const converged = length * Math.abs(vector.at(-1) as number) <= TOLERANCE * value;
    if (converged || basis.length === BASIS) {
      const whole = new Float64Array(start.length);
      basis.forEach((each, i) => addScaled(whole, vector[i] as number, each));
      return { vector: whole, value, converged };
    }
    beside.push(length);
    basis.push(scaled(next, 1 / length));
  }
}

/**
 * The greatest eigenvalue of a symmetric tridiagonal matrix with positive entries beside its diagonal, and its vector of length one.
 * Bisection (the matrix minus x has negative pivots only where x is greater), then inverse iteration from just above, where elimination
 * needs no pivoting; no entry of the vector is negative, so that the start, all ones, is never at right angles to it.
 */
export function greatestOfTridiagonal(diagonal: readonly number[], beside: readonly number[]): { value: number; vector: number[] } {
  const size = diagonal.length;
  const at = (i: number) => Math.abs(beside[i] ?? 0);
  const isAbove = (x: number) => {
    let pivot = -1;
    for (let i = 0; i < size; i++) {
      pivot = (diagonal[i] as number) - x - (i === 0 ? 0 : at(i - 1) ** 2 / pivot);
      if (!(pivot < 0)) return false;
    }
    return true;
  };
  let low = Math.max(...diagonal);
  let high = diagonal.reduce((most, value, i) => Math.max(most, value + (i === 0 ? 0 : at(i - 1)) + at(i)), low);
  high += Math.abs(high) * Number.EPSILON * 4 + Number.MIN_VALUE;
  for (;;) {
    const middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;
    if (isAbove(middle)) high = middle;
    else low = middle;
  }
  let vector = new Array<number>(size).fill(1);
  for (let round = 0; round < 4; round++) {
    vector = solveBelow(high, diagonal, beside, vector);
    const length = Math.hypot(...vector);
    vector = vector.map((value) => value / length);
  }
  return { value: high, vector };
}

/** x of (shift - T) x = b, where shift is above every eigenvalue of T. */
function solveBelow(shift: number, diagonal: readonly number[], beside: readonly number[], b: readonly number[]): number[] {
  const pivots: number[] = [];
  const x: number[] = [];
  // Rounding may leave nothing of the last pivot: any small number in its place gives the same direction.
  const least = Math.abs(shift) * Number.EPSILON + Number.MIN_VALUE;
  for (const [i, value] of diagonal.entries()) {
    const before = beside[i - 1] ?? 0;
    const factor = i === 0 ? 0 : before / (pivots[i - 1] as number);
    pivots.push(Math.max(shift - value - factor * before, least));
    x.push((b[i] as number) + factor * (x[i - 1] ?? 0));
  }
  for (let i = x.length - 1; i >= 0; i--) x[i] = ((x[i] as number) + (beside[i] ?? 0) * (x[i + 1] ?? 0)) / (pivots[i] as number);
  return x;
}
