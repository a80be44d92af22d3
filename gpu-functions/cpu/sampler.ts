// From logits to a token: pure functions of numbers. Order: penalties, temperature, top_k, top_p, one draw.
import { TillerError } from "../../shared/errors.ts";
import { LIMITS, type Sampling } from "../../shared/protocol.ts";

export interface RankedToken {
  readonly id: number;
  readonly logprob: number;
}

/** The distribution of one next token, as a graph computes it or `predict` does. */
export interface Prediction {
  /** log softmax(logits), [V]. */
  readonly logProbs: Float32Array | Float64Array;
  /** softmax(logits / temperature), [V]; without meaning at temperature 0. */
  readonly probs: Float32Array | Float64Array;
  /** The most likely tokens, ties by lower id: at least as many as a request may ask for. */
  readonly top: readonly RankedToken[];
}

/** The definition of a prediction, in float64. @param logits [V]. */
export function predict(logits: ArrayLike<number>, temperature: number): Prediction {
  const softmax = (scores: Float64Array) => {
    const peak = Math.max(...scores);
    const masses = scores.map((score) => Math.exp(score - peak));
    const total = masses.reduce((sum, mass) => sum + mass, 0);
    return { probs: masses.map((mass) => mass / total), logProbs: scores.map((score) => score - peak - Math.log(total)) };
  };
  const scores = Float64Array.from(logits);
  const { logProbs } = softmax(scores);
  const ranked = [...logProbs.keys()].sort((a, b) => (logProbs[b] as number) - (logProbs[a] as number) || a - b);
  const top = ranked.slice(0, LIMITS.topLogprobs).map((id) => ({ id, logprob: logProbs[id] as number }));
  return { logProbs, probs: softmax(temperature === 0 ? scores : scores.map((score) => score / temperature)).probs, top };
}

/**
 * Picks the next token.
 *
 * Penalties are subtracted from the logits of generated tokens (`frequency_penalty` times the count, `presence_penalty` once), as
 * OpenAI documents them. Temperature 0 takes the largest logit, the lowest id among equals. Otherwise the kept tokens' masses are
 * walked in ascending id until they pass u times their sum: an order that needs no sort, so that engines agree on it.
 *
 * @param prediction made at the temperature of `sampling`; not changed.
 * @param counts how often each id was generated.
 * @param u the draw, in [0, 1).
 * @throws TillerError `engine_failed` when a logit is not finite.
 */
export function sampleToken(
  prediction: Prediction,
  counts: ReadonlyMap<number, number>,
  sampling: Pick<Sampling, "temperature" | "top_p" | "top_k" | "frequency_penalty" | "presence_penalty">,
  u: number,
): number {
  const { temperature, top_p, top_k, frequency_penalty, presence_penalty } = sampling;
  const best = prediction.top[0];
  if (best === undefined || !Number.isFinite(best.logprob)) throw notFinite();
  const penalties = new Map<number, number>();
  if (frequency_penalty !== 0 || presence_penalty !== 0) {
    for (const [id, count] of counts) penalties.set(id, frequency_penalty * count + presence_penalty);
  }
  if (temperature === 0) return penalties.size === 0 ? best.id : argmax(penalised(prediction.logProbs, penalties));
  const masses = massesOf(prediction, penalties, temperature);
  let total = 0;
  for (let id = 0; id < masses.length; id++) total += masses[id] as number;
  if (top_k > 0 || top_p < 1) total = truncate(masses, total, top_k, top_p);
  const target = u * total;
  let sum = 0;
  let last = best.id;
  for (let id = 0; id < masses.length; id++) {
    const mass = masses[id] as number;
    if (mass === 0) continue;
    sum += mass;
    if (sum > target) return id;
    last = id;
  }
  // Rounding can leave the sum a hair below the target.
  return last;
}

/** Penalties that change a mass by more than e^this are worked out from the logarithms: what float32 rounded to nothing may count then. */
const SAFE_EXPONENT = 20;

/** Probabilities after penalties, but for a common factor, [V]. */
function massesOf(prediction: Prediction, penalties: ReadonlyMap<number, number>, temperature: number): Float64Array {
  const steepest = Math.max(0, ...[...penalties.values()].map(Math.abs)) / temperature;
  if (steepest <= SAFE_EXPONENT) {
    const masses = scratch(prediction.probs.length);
    masses.set(prediction.probs);
    for (const [id, penalty] of penalties) masses[id] = (masses[id] as number) * Math.exp(-penalty / temperature);
    return masses;
  }
  const scores = penalised(prediction.logProbs, penalties);
  const peak = scores[argmax(scores)] as number;
  // Relative to the peak before dividing: a tiny temperature then gives -Infinity for the others, never NaN for the best.
  for (let id = 0; id < scores.length; id++) scores[id] = Math.exp(((scores[id] as number) - peak) / temperature);
  return scores;
}

function penalised(logProbs: Prediction["logProbs"], penalties: ReadonlyMap<number, number>): Float64Array {
  const scores = scratch(logProbs.length);
  scores.set(logProbs);
  for (const [id, penalty] of penalties) scores[id] = (scores[id] as number) - penalty;
  return scores;
}

/**
 * Zeroes the masses outside top_k and top_p (in this order; at least one stays) and returns the sum of what is left. Ranks are taken
 * from a heap, one at a time until enough: sorting a vocabulary of 50,000 costs more than the model's step.
 */
function truncate(masses: Float64Array, total: number, topK: number, topP: number): number {
  if (heap.length < masses.length) heap = new Int32Array(masses.length);
  const count = gather(masses, total, topK, topP);
  for (let at = (count >> 1) - 1; at >= 0; at--) sink(masses, at, count);
  let size = count;
  // The best that is left moves behind the shrinking heap: rank r ends at heap[count - 1 - r].
  const take = (): number => {
    const id = heap[0] as number;
    size--;
    heap[0] = heap[size] as number;
    heap[size] = id;
    sink(masses, 0, size);
    return masses[id] as number;
  };
  let keep = count;
  let kept = total;
  if (topK > 0 && topK <= count) {
    keep = topK;
    kept = 0;
    for (let rank = 0; rank < keep; rank++) kept += take();
  }
  if (topP < 1) {
    const wanted = topP * kept;
    let rank = 0;
    let sum = 0;
    for (; rank < keep && sum < wanted; rank++) sum += count - size > rank ? (masses[heap[count - 1 - rank] as number] as number) : take();
    keep = rank;
    kept = sum;
  }
  for (let at = 0; at < count - keep; at++) masses[heap[at] as number] = 0;
  return kept;
}

/** Of tokens less likely than this, a distribution may have thousands, and seldom one that is kept. */
const RARE = 1 / 16_384;

/** Puts the ids that may be kept into the heap, in no order, zeroes the others, and returns how many they are. */
function gather(masses: Float64Array, total: number, topK: number, topP: number): number {
  const least = RARE * total;
  let [likely, mass] = [0, 0];
  for (let id = 0; id < masses.length; id++) {
    if ((masses[id] as number) <= least) continue;
    likely++;
    mass += masses[id] as number;
  }
  const enough = topK > 0 ? likely >= topK : mass >= topP * total;
  let count = 0;
  for (let id = 0; id < masses.length; id++) {
    if ((masses[id] as number) > (enough ? least : 0)) heap[count++] = id;
    else masses[id] = 0;
  }
  return count;
}

/** Ids as a heap, the largest mass (the lowest id among equals) first; reused by every call. */
let heap = new Int32Array(0);

/** Moves heap[at] down to its place among the first `size`. */
function sink(masses: Float64Array, at: number, size: number): void {
  const id = heap[at] as number;
  const mass = masses[id] as number;
  let hole = at;
  for (let child = 2 * hole + 1; child < size; child = 2 * hole + 1) {
    if (child + 1 < size && precedes(masses, heap[child + 1] as number, heap[child] as number)) child++;
    const below = heap[child] as number;
    const other = masses[below] as number;
    if (mass > other || (mass === other && id < below)) break;
    heap[hole] = below;
    hole = child;
  }
  heap[hole] = id;
}

function precedes(masses: Float64Array, a: number, b: number): boolean {
  const [first, second] = [masses[a] as number, masses[b] as number];
  return first > second || (first === second && a < b);
}

function argmax(scores: ArrayLike<number>): number {
  let best = 0;
  for (let id = 1; id < scores.length; id++) if ((scores[id] as number) > (scores[best] as number)) best = id;
  return best;
}

/** What ends a request whose logits are not finite. */
export const notFinite = (): TillerError =>
  new TillerError("engine_failed", "The model's logits are not finite: the strength is probably far too large. Use a smaller one.");

/** ln p of one token, and the `top` most likely ones (ties by lower id): temperature 1, no penalties. */
export function logprobs(prediction: Prediction, id: number, top: number): { logprob: number; top: readonly RankedToken[] } {
  return { logprob: prediction.logProbs[id] as number, top: prediction.top.slice(0, top) };
}

/** KL(p || q) in nats, in float64. Never below 0. */
export function klDivergence(p: Prediction, q: Prediction): number {
  let sum = 0;
  for (let id = 0; id < p.logProbs.length; id++) {
    const lp = p.logProbs[id] as number;
    if (lp === Number.NEGATIVE_INFINITY) continue;
    sum += Math.exp(lp) * (lp - (q.logProbs[id] as number));
  }
  return Math.max(0, sum);
}

let memory = new Float64Array(0);
/** Working memory reused by every call: nothing is kept in it between calls. */
function scratch(length: number): Float64Array {
  if (memory.length < length) memory = new Float64Array(length);
  return memory.length === length ? memory : memory.subarray(0, length);
}
