// What the scheduler runs: sequences of tokens, each in a slot of its own. What is wanted of them is the job's affair.
import type { RowEdits } from "./edits.ts";
import type { Prediction } from "./sampler.ts";
import type { Step } from "./step.ts";

/** One sequence in a slot. */
export interface Sequence {
  readonly prompt: readonly number[];
  readonly edits: RowEdits;
  /** Positions computed so far. */
  length: number;
  /** Set when nothing more is to be computed. */
  readonly finished: unknown;
  /** Its last token was chosen: what is still computed is in no receipt. */
  readonly ended?: boolean;
  /** The token to compute next once the prompt is done. */
  readonly lastId: number;
  /** Where its prompt is computed from; absent: from its tokens. */
  readonly below?: Below | undefined;
  /** A boundary whose residual, before its edits, is wanted of every step. */
  readonly keeps?: number | undefined;
}

/** The residuals [positions, width] that reach a boundary below which nothing is edited. */
export interface Below {
  readonly from: number;
  readonly residual: Float32Array;
}

/** Absolute positions whose logits a job wants, and boundaries whose residuals it wants, after or before their edits, of a part of a prompt. */
export interface Wanted {
  readonly logits: readonly number[];
  readonly captures?: readonly number[];
  readonly before?: readonly number[];
}

export interface Job {
  readonly rows: readonly Sequence[];
  readonly timing: { queue_ms: number; prefill_ms: number; decode_ms: number };
  /** No more work is wanted: done, failed or cancelled. */
  readonly ended: boolean;
  /** What predictions are made with. */
  readonly temperature: number;
  /** Longest part of a prompt to compute at once; the scheduler's own bound when absent. */
  readonly chunk?: number;
  /** All rows have slots. */
  admitted(): void;
  cancel(): void;
  fail(error: Error): void;
  wants(row: Sequence, start: number, end: number): Wanted;
  /** Positions [start, end) of the row were computed; logits come in the order they were wanted. */
  computed(row: Sequence, start: number, end: number, step: Step): void;
  /** Every row's prompt was computed: rows that are not finished go on to decode. */
  prefilled(): void;
  /** One more token of every unfinished row was computed. @param residualOf what the boundary got that a row `keeps`. */
  decoded(predictionOf: (row: Sequence) => Prediction, residualOf: (row: Sequence) => Float32Array): void;
  /** The sequence whose prompt a row's prompt is computed with; undefined when it is computed on its own. */
  leadOf(row: Sequence): Lead | undefined;
  /** All of a prompt was taken from its lead. */
  inherited(row: Sequence, lead: Sequence): void;
}

/** Below its first edit a row computes what an unedited row computes: it takes that row's residuals and cache. */
export interface Lead {
  readonly row: Sequence;
  /** First boundary that the follower computes itself; undefined: it takes everything. */
  readonly from: number | undefined;
}

/** Tokens times layers that must be spared before a graph that begins in the middle is worth its memory and its load. */
export const WORTH_SHARING = 256;
