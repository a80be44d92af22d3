// A text that is read, not continued: its predictions and residuals, position by position; or with and without its edits, to compare.
import { RowEdits } from "./edits.ts";
import { type Below, type Job, type Lead, type Sequence, type Wanted, WORTH_SHARING } from "./job.ts";
import { logprobs, type Prediction } from "./sampler.ts";
import { CHUNK } from "./session.ts";
import type { Step } from "./step.ts";

export interface ReadWish {
  readonly ids: readonly number[];
  readonly edits: RowEdits;
  /** Log probabilities are wanted of these ids, the first of them after the position `scoreFrom`; absent: none. */
  readonly targets?: readonly number[];
  readonly scoreFrom?: number;
  /** Positions that are predicted at once, at most; absent: as many as are computed at once. */
  readonly part?: number;
  /** Likely tokens that are wanted with each. */
  readonly top?: number;
  /** Called once for every target, in order. */
  readonly scored?: (target: number, found: Scored) => void;
  /**
   * No edits, with which the text is read too: every target is compared, and residuals are those without edits. `edits`, of which there
   * must be some, then act up to the position that predicts the last target.
   */
  readonly plain?: RowEdits;
  /** Log probabilities with edits of every target, [targets, V], that are known already: then `edits` are none, and all is compared with these. */
  readonly steered?: Float32Array;
  /** Where the text is read from; no boundary below is wanted then. */
  readonly below?: Below | undefined;
  /** Boundaries whose residuals are wanted, after their edits. */
  readonly boundaries?: readonly number[];
  /** Called once for every position, in order, where boundaries are wanted. What it is given dies when it returns. */
  readonly each?: (position: number, found: { residual(boundary: number): Float32Array }) => void;
}

/** ln p of a target, and the likeliest tokens in its place. `plain`: without edits, and KL(with || without) in nats. */
export type Scored = ReturnType<typeof logprobs> & { readonly plain?: { readonly logprob: number; readonly kl: number } };

/** Log probabilities that are held at once, and positions of which there is always room for the predictions. */
const HELD = 2 ** 22;
const LEAST = 32;
/** The longest part of a text whose predictions are held at once: longer parts are faster. */
export const partOf = (vocab: number): number => Math.max(LEAST, Math.min(CHUNK, 2 ** Math.floor(Math.log2(HELD / vocab))));

/** Memory for predictions that goes from one reading to the next: making megabytes for each costs more than filling them. */
const spare: Float32Array[] = [];
const SPARE = 2;

export class Reading implements Job {
  /** The last one has the edits; where it is compared, one without comes before it. */
  readonly rows: readonly (Sequence & { finished: boolean | undefined })[];
  readonly timing = { queue_ms: 0, prefill_ms: 0, decode_ms: 0 };
  readonly temperature = 1;
  readonly chunk?: number;
  /** Resolves when every position was read. */
  readonly done: Promise<void>;
  /** Resolves when no more work is wanted. */
  readonly over: Promise<void>;
  ended = false;
  readonly wish: ReadWish;
  /** Positions that targets are predicted at: [first, end). */
  private readonly predicted: readonly [first: number, end: number];
  /** Log probabilities without edits of the part that was computed last: [positions, V] from the position `first` on. */
  private plain: { readonly first: number; readonly logProbs: Float32Array } | undefined;
  private readonly lead: Lead | undefined;
  private readonly created = performance.now();
  private settle: { resolve: () => void; reject: (error: Error) => void } = { resolve: () => undefined, reject: () => undefined };

  constructor(wish: ReadWish) {
    const { ids, edits, targets, scoreFrom = 0 } = wish;
    this.wish = wish;
    this.predicted = [scoreFrom, scoreFrom + (targets?.length ?? 0)];
    const row = (prompt: readonly number[], edits: RowEdits) => ({ prompt, edits, length: 0, finished: undefined, lastId: 0 });
    if (wish.plain !== undefined) {
      const plain = row(ids, wish.plain);
      this.rows = [plain, row(ids.slice(0, this.predicted[1]), edits)];
      const lowest = Math.min(...edits.edits.map(({ boundary }) => boundary));
      // One that shares nothing is still computed in step, so that both predictions of a position are there at once.
      this.lead = { row: plain, from: lowest * ids.length >= WORTH_SHARING ? lowest : 0 };
    } else this.rows = [{ ...row(ids, edits), below: wish.below }];
    if (wish.part !== undefined) this.chunk = wish.part;
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
    this.end();
    this.settle.reject(error);
  }

  wants(row: Sequence, start: number, end: number): Wanted {
    const [first, last] = [Math.max(start, this.predicted[0]), Math.min(end, this.predicted[1])];
    return {
      logits: Array.from({ length: Math.max(0, last - first) }, (_, i) => first + i),
      captures: row === this.rows[0] ? (this.wish.boundaries ?? []) : [],
    };
  }

  computed(row: Sequence, start: number, end: number, step: Step): void {
    const { logits, captures = [] } = this.wants(row, start, end);
    if (captures.length > 0) this.tellResiduals(start, end, (boundary) => step.captured(boundary));
    if (row === this.rows.at(-1)) this.tell(() => this.tellTargets(logits, step));
    else this.keep(logits, step);
  }

  private keep(positions: readonly number[], step: Step): void {
    const [first] = positions;
    if (first === undefined || this.ended) return;
    const vocab = step.logits(0).length;
    let memory = this.plain?.logProbs ?? spare.pop();
    if (memory === undefined || memory.length < positions.length * vocab) memory = new Float32Array(positions.length * vocab);
    for (const i of positions.keys()) memory.set(step.prediction(i).logProbs, i * vocab);
    this.plain = { first, logProbs: memory };
  }

  private tellTargets(positions: readonly number[], step: Step): void {
    const { targets = [], top = 0, scored, steered } = this.wish;
    for (const [i, position] of positions.entries()) {
      const target = position - this.predicted[0];
      const id = targets[target] as number;
      const prediction = step.prediction(i);
      const vocab = prediction.logProbs.length;
      if (steered !== undefined) {
        const { logProbs } = prediction;
        const edited = steered.subarray(target * vocab, (target + 1) * vocab);
        const plain = { logprob: logProbs[id] as number, kl: divergenceOf(edited, logProbs) };
        scored?.(target, { logprob: edited[id] as number, top: [], plain });
        continue;
      }
      const plain = this.plain?.logProbs.subarray((position - this.plain.first) * vocab).subarray(0, vocab);
      const compared = plain && { logprob: plain[id] as number, kl: divergence(prediction, plain) };
      scored?.(target, { ...logprobs(prediction, id, top), ...(compared && { plain: compared }) });
    }
  }

  /** Positions [start, end) were read. @param stream of a boundary [end - start, width]. */
  tellResiduals(start: number, end: number, stream: (boundary: number) => Float32Array): void {
    this.tell(() => {
      for (let position = start; position < end; position++) {
        const residual = (boundary: number) => {
          const all = stream(boundary);
          const width = all.length / (end - start);
          return all.subarray((position - start) * width, (position - start + 1) * width);
        };
        this.wish.each?.(position, { residual });
      }
    });
  }

  /** Does what tells whoever wished; what that throws ends the reading. */
  tell(found: () => void): void {
    try {
      if (!this.ended) found();
    } catch (error) {
      this.fail(error as Error);
    }
  }

  prefilled(): void {
    for (const row of this.rows) row.finished = true;
    this.end();
    this.settle.resolve();
  }

  private end(): void {
    this.ended = true;
    if (this.plain !== undefined && spare.length < SPARE) spare.push(this.plain.logProbs);
    this.plain = undefined;
  }

  decoded(): void {}

  leadOf(row: Sequence): Lead | undefined {
    return row === this.rows[0] ? undefined : this.lead;
  }

  inherited(): void {}
}

/**
 * KL(p || q) in nats, in float64. Never below 0.
 * @param p made at temperature 1: its probabilities are there and need not be worked out again.
 */
function divergence({ logProbs, probs }: Prediction, q: Float32Array): number {
  let sum = 0;
  for (let id = 0; id < q.length; id++) {
    const mass = probs[id] as number;
    if (mass > 0) sum += mass * ((logProbs[id] as number) - (q[id] as number));
  }
  return Math.max(0, sum);
}

/** exp(-k / EXP_STEPS), down to masses of which a whole vocabulary is no part of a KL that anybody sees. */
const EXP_STEPS = 1024;
const EXP_LEAST = 40;
const EXP = Float64Array.from({ length: EXP_LEAST * EXP_STEPS }, (_, k) => Math.exp(-k / EXP_STEPS));

/**
 * KL(p || q) in nats of two distributions' logarithms, in float64, with exp to a relative error of 2e-10: Math.exp of every token of a
 * vocabulary would take a fourth of the time of the model. Never below 0.
 */
export function divergenceOf(p: ArrayLike<number>, q: ArrayLike<number>): number {
  let sum = 0;
  for (let id = 0; id < p.length; id++) {
    const logarithm = p[id] as number;
    const depth = -logarithm * EXP_STEPS;
    if (!(depth < EXP_LEAST * EXP_STEPS)) continue;
    const k = depth | 0;
    const r = (depth - k) / EXP_STEPS;
    sum += (EXP[k] as number) * (1 - r * (1 - r / 2)) * (logarithm - (q[id] as number));
  }
  return Math.max(0, sum);
}

/** A reading of a text without edits. */
export const plainEdits = (length: number, shape: ConstructorParameters<typeof RowEdits>[3]): RowEdits =>
  new RowEdits([], length, new Set(), shape);

/** Reads a text without edits. Its residuals [T, width] at each of the boundaries are there when it is done. */
export function wholeReading(
  ids: readonly number[],
  boundaries: readonly number[],
  shape: ConstructorParameters<typeof RowEdits>[3],
): { reading: Reading; residuals: readonly Float32Array[] } {
  const residuals = boundaries.map(() => new Float32Array(ids.length * shape.width));
  const each: ReadWish["each"] = (position, { residual }) => {
    for (const [i, boundary] of boundaries.entries()) (residuals[i] as Float32Array).set(residual(boundary), position * shape.width);
  };
  const edits = plainEdits(ids.length, shape);
  return { reading: new Reading({ ids, edits, boundaries: [...new Set(boundaries)], each }), residuals };
}
