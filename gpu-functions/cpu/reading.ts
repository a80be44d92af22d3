// A text that is read, not continued: its logits and residuals, position by position.
import { RowEdits } from "./edits.ts";
import type { Job, Sequence, Wanted } from "./job.ts";
import { logprobs } from "./sampler.ts";
import type { Step } from "./step.ts";

export interface ReadWish {
  readonly ids: readonly number[];
  readonly edits: RowEdits;
  /** Log probabilities are wanted of these ids, the first of them after the position `scoreFrom`; absent: none. */
  readonly targets?: readonly number[];
  readonly scoreFrom?: number;
  /** Likely tokens that are wanted with each. */
  readonly top?: number;
  /** Boundaries whose residuals are wanted, after their edits. */
  readonly boundaries?: readonly number[];
  /** Called once for every position, in order. What it is given dies when it returns. */
  readonly each: (position: number, found: { scored?: Scored; residual(boundary: number): Float32Array }) => void;
}

/** ln p of a target, and the likeliest tokens in its place. */
export type Scored = ReturnType<typeof logprobs>;

/** Predictions of this many positions are held at once. */
const PREDICTED = 32;

export class Reading implements Job {
  readonly rows: readonly [Sequence & { finished: boolean | undefined }];
  readonly timing = { queue_ms: 0, prefill_ms: 0, decode_ms: 0 };
  readonly temperature = 1;
  readonly chunk?: number;
  /** Resolves when every position was read. */
  readonly done: Promise<void>;
  /** Resolves when no more work is wanted. */
  readonly over: Promise<void>;
  ended = false;
  readonly wish: ReadWish;
  private readonly scoreFrom: number | undefined;
  private readonly created = performance.now();
  private settle: { resolve: () => void; reject: (error: Error) => void } = { resolve: () => undefined, reject: () => undefined };

  constructor(wish: ReadWish) {
    this.wish = wish;
    this.scoreFrom = wish.targets === undefined ? undefined : (wish.scoreFrom ?? 0);
    this.rows = [{ prompt: wish.ids, edits: wish.edits, length: 0, finished: undefined, lastId: 0 }];
    if (wish.targets !== undefined) this.chunk = PREDICTED;
    this.done = new Promise((resolve, reject) => {
      this.settle = { resolve, reject };
    });
    // Whoever cancels does not wait for it.
    this.over = this.done.catch(() => undefined);
  }

  admitted(): void {
    this.timing.queue_ms = performance.now() - this.created;
  }

  cancel(): void {
    this.fail(new DOMException("The reading was cancelled.", "AbortError"));
  }

  fail(error: Error): void {
    if (this.ended) return;
    this.ended = true;
    this.settle.reject(error);
  }

  wants(_row: Sequence, start: number, end: number): Wanted {
    const from = Math.max(start, this.scoreFrom ?? end);
    return { logits: Array.from({ length: Math.max(0, end - from) }, (_, i) => from + i), captures: this.wish.boundaries ?? [] };
  }

  computed(_row: Sequence, start: number, end: number, step: Step): void {
    const { targets = [], top = 0 } = this.wish;
    const count = end - start;
    const from = Math.max(start, this.scoreFrom ?? end);
    this.tell(start, end, (position) => {
      const residual = (boundary: number) => {
        const captured = step.captured(boundary);
        const width = captured.length / count;
        return captured.subarray((position - start) * width, (position - start + 1) * width);
      };
      const target = position < from ? undefined : targets[position - (this.scoreFrom ?? end)];
      return target === undefined ? { residual } : { residual, scored: logprobs(step.prediction(position - from), target, top) };
    });
  }

  /** Positions [start, end) were read: `find` gives what was found at each. */
  tell(start: number, end: number, find: (position: number) => Parameters<ReadWish["each"]>[1]): void {
    try {
      for (let position = start; position < end; position++) this.wish.each(position, find(position));
    } catch (error) {
      this.fail(error as Error);
    }
  }

  prefilled(): void {
    this.rows[0].finished = true;
    this.ended = true;
    this.settle.resolve();
  }

  decoded(): void {}

  leadOf(): undefined {}

  inherited(): void {}
}

/** A reading of a text without edits. */
export const plainEdits = (length: number, shape: ConstructorParameters<typeof RowEdits>[3]): RowEdits =>
  new RowEdits([], length, new Set(), shape);
