// From logits to a token: pure functions of numbers. Order: penalties, temperature, top_k, top_p, one draw.
import { TillerError } from "../../shared/errors.ts";
import type { Sampling } from "../../shared/protocol.ts";

export interface RankedToken {
  readonly id: number;
  readonly logprob: number;
}

/**
 * Picks the next token.
 *
 * Penalties are subtracted from the logits of generated tokens (`frequency_penalty` times the count, `presence_penalty` once), as
 * OpenAI documents them. Temperature 0 takes the largest logit, the lowest id among equals. Otherwise the kept tokens' masses are
 * walked in ascending id until they pass u times their sum: an order that needs no sort, so that engines agree on it.
 *
 * @param logits [V]; not changed.
 * @param counts how often each id was generated.
 * @param u the draw, in [0, 1).
 * @throws TillerError `engine_failed` when a logit is not finite.
 */
export function sampleToken(
  logits: Float32Array,
  counts: ReadonlyMap<number, number>,
  sampling: Pick<Sampling, "temperature" | "top_p" | "top_k" | "frequency_penalty" | "presence_penalty">,
  u: number,
): number {
  const { temperature, top_p, top_k, frequency_penalty, presence_penalty } = sampling;
  const scores = scratch(logits.length);
  scores.set(logits);
  if (frequency_penalty !== 0 || presence_penalty !== 0) {
    for (const [id, count] of counts) scores[id] = (scores[id] as number) - frequency_penalty * count - presence_penalty;
  }
  const best = argmax(scores);
  if (temperature === 0) return best;
  const peak = scores[best] as number;
  // Relative to the peak before dividing: a tiny temperature then gives -Infinity for the others, never NaN for the best.
  let total = 0;
  for (let id = 0; id < scores.length; id++) {
    const mass = Math.exp(((scores[id] as number) - peak) / temperature);
    scores[id] = mass;
    total += mass;
  }
  if (top_k > 0 || top_p < 1) total = truncate(scores, total, top_k, top_p);
  const target = u * total;
  let sum = 0;
  let last = best;
  for (let id = 0; id < scores.length; id++) {
    const mass = scores[id] as number;
    if (mass === 0) continue;
    sum += mass;
    if (sum > target) return id;
    last = id;
  }
  // Rounding can leave the sum a hair below the target.
  return last;
}

/**
 * Zeroes the masses outside top_k and top_p (in this order; at least one stays) and returns the sum of what is left. Ranks are taken
 * from a heap, one at a time until enough: sorting a vocabulary of 50,000 costs more than the model's step.
 */
function truncate(masses: Float64Array, total: number, topK: number, topP: number): number {
  if (heap.length < masses.length) heap = new Int32Array(masses.length);
  let count = 0;
  for (let id = 0; id < masses.length; id++) if ((masses[id] as number) > 0) heap[count++] = id;
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
  if (topK > 0 && topK < count) {
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
  let finite = true;
  for (let id = 0; id < scores.length; id++) {
    const score = scores[id] as number;
    if (!Number.isFinite(score)) finite = false;
    if (score > (scores[best] as number)) best = id;
  }
  if (!finite)
    throw new TillerError("engine_failed", "The model's logits are not finite: the strength is probably far too large. Use a smaller one.");
  return best;
}

/**
 * ln p of one token and the `top` most likely ones (ties by lower id) under softmax(logits): temperature 1, no penalties.
 * @param logits [V].
 */
export function logprobs(logits: Float32Array, id: number, top: number): { logprob: number; top: RankedToken[] } {
  const normaliser = logSumExp(logits);
  const ranked: number[] = [];
  if (top > 0) {
    for (let candidate = 0; candidate < logits.length; candidate++) {
      const value = logits[candidate] as number;
      if (ranked.length === top && value <= (logits[ranked[top - 1] as number] as number)) continue;
      let place = ranked.length;
      while (place > 0 && value > (logits[ranked[place - 1] as number] as number)) place--;
      ranked.splice(place, 0, candidate);
      if (ranked.length > top) ranked.pop();
    }
  }
  const of = (token: number) => (logits[token] as number) - normaliser;
  return { logprob: of(id), top: ranked.map((token) => ({ id: token, logprob: of(token) })) };
}

/** KL(softmax(p) || softmax(q)) in nats, in float64; p and q are logits [V]. Never below 0. */
export function klDivergence(p: Float32Array, q: Float32Array): number {
  const [zp, zq] = [logSumExp(p), logSumExp(q)];
  let sum = 0;
  for (let id = 0; id < p.length; id++) {
    const lp = (p[id] as number) - zp;
    sum += Math.exp(lp) * (lp - ((q[id] as number) - zq));
  }
  return Math.max(0, sum);
}

function logSumExp(logits: Float32Array): number {
  let peak = Number.NEGATIVE_INFINITY;
  for (const value of logits) if (value > peak) peak = value;
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - peak);
  return peak + Math.log(sum);
}

let memory = new Float64Array(0);
/** Working memory reused by every call: nothing is kept in it between calls. */
function scratch(length: number): Float64Array {
  if (memory.length < length) memory = new Float64Array(length);
  return memory.length === length ? memory : memory.subarray(0, length);
}
