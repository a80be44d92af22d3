// What one call of a session found, as views on the memory that the graph wrote.
import { type Shape, SLOTS, STATS_PER_BOUNDARY, TOP } from "./blocks.ts";
import type { Buffers } from "./buffers.ts";
import type { Prediction } from "./sampler.ts";

/** Outputs with one row for each row of logits. */
export const PER_LOGIT_ROW = ["logits", "log_probs", "probs", "top_values", "top_ids"] as const;
/** Likely tokens that the graph lists. */
export const topOf = ({ vocab }: Shape): number => Math.min(TOP, vocab);

/** Reads of one call's edits: what the hooks measured. */
export interface Measured {
  /** s = h U of the row's slots, ||h||^2 before and ||delta||^2 of the boundary's edits. */
  reads(row: number, token: number, boundary: number): Float32Array;
  residualSquared(row: number, token: number, boundary: number): number;
  deltaSquared(row: number, token: number, boundary: number): number;
}

export interface Step {
  /** Logits of the wanted rows, [V] each; views that the next call overwrites. */
  logits(row: number): Float32Array;
  /** The same rows' distributions; views too. */
  prediction(row: number): Prediction;
  readonly measured: Measured;
  /** resid_b after edits, [B, T, D]; only of captured boundaries, valid until the next call. */
  captured(boundary: number): Float32Array;
  /** The same before the boundary's edits; only of boundaries where it was wanted. */
  before(boundary: number): Float32Array;
}

/** @param call rows and new tokens per row of the call, and the boundary it began at. */
export function stepOf(
  buffers: Buffers,
  shape: Shape,
  { rows, tokens, from }: { readonly rows: number; readonly tokens: number; readonly from: number },
): Step {
  const { vocab, width, layers } = shape;
  const top = topOf(shape);
  const perRow = (name: (typeof PER_LOGIT_ROW)[number], size: number) => {
    const all = buffers.float32(name);
    return (row: number) => all.subarray(row * size, (row + 1) * size);
  };
  const [logits, logProbs, probs] = [perRow("logits", vocab), perRow("log_probs", vocab), perRow("probs", vocab)];
  const topValues = perRow("top_values", top);
  const topIds = buffers.int32("top_ids");
  const stats = buffers.float32("stats");
  const boundaries = layers + 1 - from;
  const at = (row: number, token: number, b: number) => ((row * tokens + token) * boundaries + b - from) * STATS_PER_BOUNDARY;
  return {
    logits,
    prediction: (row) => ({
      logProbs: logProbs(row),
      probs: probs(row),
      top: Array.from(topValues(row), (logprob, i) => ({ id: topIds[row * top + i] as number, logprob })),
    }),
    measured: {
      reads: (row, token, b) => stats.subarray(at(row, token, b), at(row, token, b) + SLOTS),
      residualSquared: (row, token, b) => stats[at(row, token, b) + SLOTS] as number,
      deltaSquared: (row, token, b) => stats[at(row, token, b) + SLOTS + 1] as number,
    },
    captured: (b) => buffers.float32(`resid_${b}`).subarray(0, rows * tokens * width),
    before: (b) => buffers.float32(`before_${b}`).subarray(0, rows * tokens * width),
  };
}
