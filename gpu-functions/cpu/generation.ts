// One request while it runs: what its rows take next, their receipts, and the events its caller reads. Knows nothing of slots.
import { TillerError } from "../../shared/errors.ts";
import type { GenerateEvent, GenerateRequest, RowResult, TokenEvent } from "../../shared/protocol.ts";
import type { Probe } from "./activations.ts";
import { type Job, type Lead, type Sequence, type Wanted, WORTH_SHARING } from "./job.ts";
import type { Kept } from "./kept.ts";
import { uniform } from "./random.ts";
import { Row, type RowPlan } from "./row.ts";
import { klDivergence, logprobs, type Prediction, type RankedToken, sampleToken } from "./sampler.ts";
import type { Step } from "./step.ts";
import type { Tokenizer } from "./tokenizer.ts";

export class Generation implements Job {
  readonly rows: readonly Row[];
  readonly temperature: number;
  readonly timing = { queue_ms: 0, prefill_ms: 0, decode_ms: 0 };
  private readonly leads: ReadonlyMap<Sequence, Lead>;
  readonly request: GenerateRequest;
  private readonly tokenizer: Tokenizer;
  private readonly created = performance.now();
  private readonly pending: GenerateEvent[] = [];
  private wake: (() => void) | undefined;
  private error: TillerError | undefined;
  /** No more work is wanted: done, failed or cancelled. */
  ended = false;
  /** Resolves when it failed or was cancelled: nothing that it waits for is wanted any more. */
  readonly givenUp: Promise<void>;
  private giveUp: () => void = () => undefined;
  /** Resolves when no more work is wanted. */
  readonly over: Promise<void>;
  private end: () => void = () => undefined;

  /** What every text is asked for besides, when it is written; absent: texts are not compared. */
  readonly probes: readonly Probe[] | undefined;

  constructor(request: GenerateRequest, plans: readonly RowPlan[], tokenizer: Tokenizer, probes?: readonly Probe[]) {
    this.request = request;
    this.tokenizer = tokenizer;
    this.probes = probes;
    this.temperature = request.sampling.temperature;
    this.rows = plans.map((plan) => new Row(plan, request, tokenizer));
    this.leads = findLeads(this.rows);
    this.over = new Promise((resolve) => {
      this.end = resolve;
    });
    this.givenUp = new Promise((resolve) => {
      this.giveUp = resolve;
    });
  }

  /** All rows have slots. */
  admitted(): void {
    this.timing.queue_ms = performance.now() - this.created;
  }

  cancel(): void {
    this.ended = true;
    this.end();
    this.giveUp();
    this.wake?.();
  }

  fail(error: TillerError): void {
    if (this.ended) return;
    this.error = error;
    this.cancel();
  }

  /** Events in order until the last; throws the error that ended the generation. A cancelled one just stops. */
  async *events(): AsyncGenerator<GenerateEvent> {
    for (;;) {
      while (this.pending.length > 0) yield this.pending.shift() as GenerateEvent;
      if (this.error !== undefined) throw this.error;
      if (this.ended) return;
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  wants(row: Sequence, _start: number, end: number): Wanted {
    const before = new Set(this.keptWith(row).map(({ from }) => from as number));
    return { logits: end === row.prompt.length ? [end - 1] : [], before: [...before] };
  }

  /** What is kept of the residuals of a row's prompt: its own, and that of rows whose prompt is computed with it. */
  private keptWith(row: Sequence): Kept[] {
    return this.rows.flatMap(({ kept }, i) =>
      kept?.from !== undefined && (this.leads.get(this.rows[i] as Row)?.row ?? this.rows[i]) === row ? [kept] : [],
    );
  }

  computed(row: Sequence, _start: number, end: number, step: Step): void {
    for (const kept of this.keptWith(row)) kept.arrived(step.before(kept.from as number));
    if (end !== row.prompt.length) return;
    const { logProbs, probs, top } = step.prediction(0);
    (row as Row).first = { logProbs: logProbs.slice(), probs: probs.slice(), top };
  }

  prefilled(): void {
    this.advance((row) => row.first as Prediction);
    for (const row of this.rows) row.first = undefined;
  }

  decoded(predictionOf: (row: Sequence) => Prediction, residualOf: (row: Sequence) => Float32Array): void {
    for (const row of this.rows) if (row.kept?.lacks(row.length - row.prompt.length)) row.kept.arrived(residualOf(row));
    this.advance(predictionOf);
  }

  leadOf(row: Sequence): Lead | undefined {
    return this.leads.get(row);
  }

  inherited(row: Sequence, lead: Sequence): void {
    (row as Row).first = (lead as Row).first;
  }

  /** Takes the next token of every unfinished row. */
  advance(predictionOf: (row: Row) => Prediction): void {
    if (this.ended) return;
    try {
      const running = this.rows.filter((row) => !row.ended);
      const baseline = running.find((row) => row.name === this.request.kl_baseline);
      for (const row of running) this.take(row, predictionOf(row), baseline === undefined ? undefined : predictionOf(baseline));
      if (this.allFinished) this.finish();
    } catch (error) {
      this.fail(TillerError.from(error));
    }
    this.wake?.();
  }

  /** Takes a token that was chosen elsewhere. `kl` as in its event; undefined where nobody asks. */
  told(row: Row, token: RankedToken & { top: readonly RankedToken[] }, kl: number | null | undefined): void {
    if (this.ended) return;
    try {
      this.tell(row, token, kl === undefined ? undefined : () => kl);
    } catch (error) {
      this.fail(TillerError.from(error));
    }
    this.wake?.();
  }

  /** All rows have ended and their receipts are known. */
  conclude(): void {
    if (this.ended) return;
    try {
      this.finish();
    } catch (error) {
      this.fail(TillerError.from(error));
    }
    this.wake?.();
  }

  /** Tokens that end a row. */
  get eosIds(): ReadonlySet<number> {
    return this.tokenizer.eosIds;
  }

  private take(row: Row, prediction: Prediction, baseline: Prediction | undefined): void {
    const { sampling, kl_baseline } = this.request;
    const index = row.generated.length;
    row.kept?.predicted(index, prediction.logProbs);
    const id = row.known[index] ?? sampleToken(prediction, row.counts, sampling, uniform(sampling.seed, index));
    const kl = () => (baseline === undefined ? null : klDivergence(prediction, baseline));
    this.tell(row, { id, ...logprobs(prediction, id, sampling.logprobs) }, kl_baseline === undefined ? undefined : kl);
  }

  /**
   * A row's next token, wherever it was chosen: its event, unless an earlier run told it.
   * @param kl from the baseline's row; undefined where nobody asks.
   */
  private tell(row: Row, { id, logprob, top }: RankedToken & { top: readonly RankedToken[] }, kl: (() => number | null) | undefined): void {
    const index = row.generated.length;
    const text = row.add(id);
    if (text === undefined || index < row.known.length) return;
    const event: TokenEvent = {
      row: row.name,
      index,
      id,
      text,
      token: this.tokenizer.tokenString(id),
      logprob,
      top: top.map((entry) => ({ ...entry, token: this.tokenizer.tokenString(entry.id) })),
    };
    if (kl !== undefined && row.name !== this.request.kl_baseline) event.kl = kl();
    this.pending.push({ event: "token", data: event });
  }

  get allFinished(): boolean {
    return this.rows.every((row) => row.finished);
  }

  /** Says the end. @throws TillerError `steering_not_applied` when a row's edits changed nothing. */
  private finish(): void {
    for (const row of this.rows) row.edits.requireEffect(row.name);
    const rows = this.rows.map((row) => ({
      name: row.name,
      text: row.text,
      finish_reason: row.reason as RowResult["finish_reason"],
      receipts: row.edits.receipts(),
    }));
    const usage = {
      prompt_tokens: Math.max(0, ...this.rows.map((row) => row.prompt.length)),
      completion_tokens: this.rows.reduce((sum, row) => sum + row.generated.length, 0),
    };
    this.pending.push({ event: "done", data: { rows, usage, timing: { ...this.timing } } });
    this.ended = true;
    this.end();
  }
}

/**
 * Which rows can be computed with the first row that no edit of the prompt touches: rows of the same prompt (the same array). A row whose edits change inside the prompt cannot: its
 * parts end elsewhere, and other parts give other last bits.
 */
function findLeads(rows: readonly Row[]): ReadonlyMap<Sequence, Lead> {
  const boundaries = new Map(rows.map((row) => [row, row.edits.firstPromptBoundary()]));
  const lead = rows.find((row) => boundaries.get(row) === undefined);
  const leads = new Map<Sequence, Lead>();
  for (const [row, from] of boundaries) {
    if (lead === undefined || row === lead || row.prompt !== lead.prompt) continue;
    const { length } = row.prompt;
    const uniform = row.edits.changesAt(0, length) === length;
    if (from === undefined || (uniform && from * length >= WORTH_SHARING)) leads.set(row, { row: lead, from });
  }
  return leads;
}
