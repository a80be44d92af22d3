// Logistic regression between two sides, as scikit-learn's LogisticRegression(C=1) has it: minimises
//   ||w||^2 / 2 + C sum_i log(1 + exp(-y_i (w . z_i + b))),   y_i = 1 or -1,
// over rows that are only ever read one after another: Newton's method, its steps by conjugate gradients (Lin, Weng and Keerthi, "Trust
// region Newton method for large-scale logistic regression", JMLR 2008, with a line search). z are the rows x, centred and divided by one
// number, the root of their mean square length: their geometry stays, and C does not depend on the model's scale.
import { addScaled, dot, meanOf, norm, type Pass } from "./vectors.ts";

const C = 1;
/** ||gradient|| at which the weights are taken. */
const TOLERANCE = 1e-8;
const NEWTON_STEPS = 100;
const CG_STEPS = 250;

export interface Probe {
  /** [width], of z. */
  readonly weights: Float64Array;
  readonly bias: number;
  /** Root mean square length of the centred rows: z = (x - mean) / scale. */
  readonly scale: number;
}

/**
 * @param isPositive the side of each row.
 * @returns undefined when all rows are the same.
 */
export async function fitProbe(width: number, pass: Pass, isPositive: (row: number) => boolean): Promise<Probe | undefined> {
  const { mean, count } = await meanOf(width, pass);
  const row = new Float64Array(width + 1);
  // The last value of a row is 1 and its weight the bias.
  row[width] = 1;
  let squares = 0;
  await pass((_, values) => {
    for (let d = 0; d < width; d++) squares += ((values[d] as number) - (mean[d] as number)) ** 2;
  });
  const scale = Math.sqrt(squares / Math.max(1, count));
  if (scale === 0) return undefined;
  const eachRow: Pass = (visit) =>
    pass((i, values) => {
      for (let d = 0; d < width; d++) row[d] = ((values[d] as number) - (mean[d] as number)) / scale;
      visit(i, row);
    });
  const sides = Float64Array.from({ length: count }, (_, i) => (isPositive(i) ? 1 : -1));
  const all = await minimise(width, eachRow, sides);
  return { weights: all.subarray(0, width), bias: all[width] as number, scale };
}

/** @returns the weights and the bias. */
async function minimise(width: number, eachRow: Pass, sides: Float64Array): Promise<Float64Array> {
  const weights = new Float64Array(width + 1);
  /** w . z + b of every row. */
  const scores = new Float64Array(sides.length);
  for (let step = 0; step < NEWTON_STEPS; step++) {
    // 1 - probability of the right side.
    const wrong = sides.map((side, i) => 1 / (1 + Math.exp(side * (scores[i] as number))));
    const gradient = withoutBias(weights);
    await eachRow((i, z) => addScaled(gradient, -C * (sides[i] as number) * (wrong[i] as number), z));
    if (norm(gradient) <= TOLERANCE) break;
    const curvature = wrong.map((value) => C * value * (1 - value));
    const { direction, change } = await newtonStep(gradient, curvature, eachRow);
    const length = lineSearch(weights, direction, gradient, scores, change, sides);
    if (length === 0) break;
    addScaled(weights, length, direction);
    addScaled(scores, length, change);
  }
  return weights;
}

/** The gradient of ||w||^2 / 2: the bias is not penalised. */
function withoutBias(weights: Float64Array): Float64Array {
  const copy = weights.slice();
  copy[copy.length - 1] = 0;
  return copy;
}

/** Solves H p = -gradient by conjugate gradients, the more exactly the nearer the end is. `change` is what p does to every row's score. */
async function newtonStep(
  gradient: Float64Array,
  curvature: Float64Array,
  eachRow: Pass,
): Promise<{ direction: Float64Array; change: Float64Array }> {
  const direction = new Float64Array(gradient.length);
  const change = new Float64Array(curvature.length);
  const rest = gradient.map((value) => -value);
  let search = rest.slice();
  let squares = dot(rest, rest);
  const enough = squares * Math.min(0.1, Math.sqrt(squares)) ** 2;
  for (let step = 0; step < CG_STEPS && squares > enough; step++) {
    const product = withoutBias(search);
    const scores = new Float64Array(curvature.length);
    await eachRow((i, z) => {
      const score = dot(z, search);
      scores[i] = score;
      addScaled(product, (curvature[i] as number) * score, z);
    });
    const size = squares / dot(search, product);
    if (!Number.isFinite(size)) break;
    addScaled(direction, size, search);
    addScaled(change, size, scores);
    addScaled(rest, -size, product);
    const before = squares;
    squares = dot(rest, rest);
    search = search.map((value, i) => (rest[i] as number) + (squares / before) * value);
  }
  return { direction, change };
}

/** The first of 1, 1/2, 1/4 ... that makes the loss enough smaller; 0 when none does, which is at its least. */
function lineSearch(
  weights: Float64Array,
  direction: Float64Array,
  gradient: Float64Array,
  scores: Float64Array,
  change: Float64Array,
  sides: Float64Array,
): number {
  const [w, p] = [withoutBias(weights), withoutBias(direction)];
  const [ww, wp, pp] = [dot(w, w), dot(w, p), dot(p, p)];
  const loss = (t: number) => {
    let sum = (ww + t * (2 * wp + t * pp)) / 2;
    for (const [i, side] of sides.entries()) sum += C * softplus(-side * ((scores[i] as number) + t * (change[i] as number)));
    return sum;
  };
  const begin = loss(0);
  const slope = dot(gradient, direction);
  // Near its least the loss changes by less than it is rounded.
  const rounding = 1e-13 * begin;
  for (let t = 1; t > 1e-10; t /= 2) if (loss(t) <= begin + 1e-4 * t * slope + rounding) return t;
  return 0;
}

/** log(1 + exp(x)) */
const softplus = (x: number): number => Math.max(0, x) + Math.log1p(Math.exp(-Math.abs(x)));
