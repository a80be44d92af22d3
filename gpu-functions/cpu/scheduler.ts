// Continuous batching over one model's slots: requests wait in order, join when all their rows have slots, are prefilled in
// chunks between the others' decode steps, and leave at any step. Texts that are only read need no slot: batches of them are computed
// between the steps.
import { TillerError } from "../../shared/errors.ts";
import type { GenerateEvent } from "../../shared/protocol.ts";
import { BATCH } from "./batch.ts";
import { BatchReading, type EachText } from "./batch-reading.ts";
import type { Generation } from "./generation.ts";
import type { Job, Lead, Sequence } from "./job.ts";
import type { Runner } from "./model.ts";
import { remaining } from "./read-text.ts";
import { type Reading, wholeReading } from "./reading.ts";
import { type Seat, Seats } from "./seats.ts";
import { CHUNK, type DecoderSession } from "./session.ts";
import type { Step } from "./step.ts";

/** Requests that may wait for slots; more are told to come back. */
const QUEUE_LIMIT = 64;

export class Scheduler implements Runner {
  private readonly session: DecoderSession;
  private readonly waiting: Job[] = [];
  /** Texts that are read in batches, in turn. */
  private readonly batched: BatchReading[] = [];
  private readonly seats: Seats;
  private running: Promise<void> | undefined;
  private closed = false;

  constructor(session: DecoderSession) {
    this.session = session;
    this.seats = new Seats(session);
  }

  load(): { rows: number; waiting: number } {
    return { rows: this.seats.length, waiting: this.waiting.length + this.batched.length };
  }

  async *run(generation: Generation, signal: AbortSignal, deadlineMs?: number): AsyncGenerator<GenerateEvent> {
    const leave = this.submit(generation, this.waiting, signal, deadlineMs);
    try {
      yield* generation.events();
    } finally {
      leave();
    }
  }

  async read(reading: Reading, signal: AbortSignal, deadlineMs?: number): Promise<void> {
    const leave = this.submit(reading, this.waiting, signal, deadlineMs);
    try {
      await reading.done;
    } finally {
      leave();
    }
  }

  async readTexts(
    texts: readonly (readonly number[])[],
    boundaries: readonly number[],
    each: EachText,
    signal: AbortSignal,
    deadlineMs?: number,
  ): Promise<void> {
    const began = performance.now();
    const short = new Map([...texts.entries()].filter(([, ids]) => ids.length <= this.chunk));
    if (short.size > 0) {
      const reading = new BatchReading(short, boundaries, each, () => this.wake());
      const leave = this.submit(reading, this.batched, signal, deadlineMs);
      try {
        await reading.done;
      } finally {
        leave();
      }
    }
    for (const [text, ids] of texts.entries()) {
      if (short.has(text)) continue;
      const { reading, residuals } = wholeReading(ids, boundaries, this.session.shape);
      await this.read(reading, signal, remaining(deadlineMs, began));
      await each(text, residuals);
    }
  }

  /** Queues a job; the function that is returned takes it out again, whatever it is doing. */
  private submit<T extends Pick<Job, "cancel" | "fail">>(
    job: T,
    queue: T[],
    signal: AbortSignal,
    deadlineMs: number | undefined,
  ): () => void {
    if (this.closed) throw new TillerError("engine_unavailable", "The engine is shutting down.", { retryAfterSeconds: 5 });
    if (this.load().waiting >= QUEUE_LIMIT) {
      throw new TillerError("engine_busy", `${QUEUE_LIMIT} requests wait for this model already. Try again in a few seconds.`, {
        retryAfterSeconds: 5,
      });
    }
    const cancel = () => job.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    if (signal.aborted) cancel();
    const late = () => job.fail(new TillerError("engine_timeout", `The request was not done after its deadline of ${deadlineMs} ms.`));
    const deadline = deadlineMs === undefined ? undefined : setTimeout(late, deadlineMs);
    queue.push(job);
    this.wake();
    return () => {
      clearTimeout(deadline);
      signal.removeEventListener("abort", cancel);
      job.cancel();
      this.wake();
    };
  }

  private wake(): void {
    this.running ??= this.loop();
  }

  /** Ends every job with an error and waits until the session is idle. */
  async close(): Promise<void> {
    this.closed = true;
    const error = new TillerError("engine_unavailable", "The engine is shutting down.", { retryAfterSeconds: 5 });
    for (const job of [...this.waiting, ...this.batched, ...this.seats.all().map((seat) => seat.job)]) job.fail(error);
    await this.running;
  }

  private async loop(): Promise<void> {
    // Not before `running` is this loop: one that ended at once would be taken for one that runs for ever.
    await Promise.resolve();
    try {
      for (;;) {
        this.dropEnded();
        this.seats.release();
        this.admit();
        if (this.seats.length === 0 && this.waiting.length === 0 && !this.batched.some(({ ready }) => ready)) return;
        try {
          if (this.seats.decoding < this.seats.length) await this.prefillOne();
          if (this.seats.decoding > 0) await this.decodeAll();
        } catch (error) {
          // A failed call says nothing about one row: everybody in the batch is told, nobody waits for ever.
          for (const seat of this.seats.all()) seat.job.fail(new TillerError("engine_failed", undefined, { cause: error }));
        }
        await this.readBatch();
        // Short steps run on this thread: let sockets be read and written between them.
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
    } finally {
      this.running = undefined;
    }
  }

  /** Forgets jobs that are no longer wanted before their turn has come. */
  private dropEnded(): void {
    for (const queue of [this.waiting, this.batched]) for (let i = queue.length - 1; i >= 0; i--) if (queue[i]?.ended) queue.splice(i, 1);
  }

  private admit(): void {
    for (;;) {
      const next = this.waiting[0];
      if (next === undefined || !this.seats.fit(next.rows.length)) return;
      this.waiting.shift();
      next.admitted();
      this.seats.add(next);
    }
  }

  /** One chunk of one prompt, with those that follow it. Rows of a request wait for each other, so that they decode in step. */
  private async prefillOne(): Promise<void> {
    const slot = this.seats
      .all()
      .findIndex(({ row, job }, i) => i >= this.seats.decoding && !isPrefilled(row) && job.leadOf(row) === undefined);
    const { row, job } = this.seats.at(slot);
    const followers = this.seats.all().flatMap((seat, i) => (seat.job === job && job.leadOf(seat.row)?.row === row ? [i] : []));
    const start = row.length;
    const end = this.partEnd(start, this.seats.at(slot));
    this.seats.writeEdits(slot, row.edits.at(start));
    const { logits, captures = [], before = [] } = job.wants(row, start, end);
    const begins = followers.flatMap((follower) => job.leadOf(this.seats.at(follower).row)?.from ?? []);
    const began = performance.now();
    const options = { captures: [...new Set([...captures, ...begins])], before, temperature: job.temperature };
    const offsets = logits.map((position) => position - start);
    const ids = row.prompt.slice(start, end);
    const { width } = this.session.shape;
    const step = await (row.below === undefined
      ? this.session.prefill(slot, ids, start, offsets, options)
      : this.session.prefillFrom(
          row.below.from,
          row.below.residual.subarray(start * width, end * width),
          slot,
          ids,
          start,
          offsets,
          options,
        ));
    for (let position = start; position < end; position++) row.edits.record(position, step.measured, 0, position - start);
    row.length = end;
    job.computed(row, start, end, step);
    const residuals = new Map(begins.map((boundary) => [boundary, step.captured(boundary).slice()]));
    for (const follower of followers) await this.follow(follower, slot, start, residuals);
    job.timing.prefill_ms += performance.now() - began;
    if (!job.rows.every(isPrefilled)) return;
    job.prefilled();
    for (const each of job.rows) if (each.finished === undefined) this.seats.startDecoding(each);
  }

  /** Brings a follower as far as its lead has just come from `start`: with the lead's cache, and its own layers where it has edits. */
  private async follow(slot: number, leadSlot: number, start: number, residuals: ReadonlyMap<number, Float32Array>): Promise<void> {
    const { row, job } = this.seats.at(slot);
    const { row: lead, from } = job.leadOf(row) as Lead;
    this.session.cache.move(leadSlot, slot, lead.length, start, from);
    if (from === undefined) {
      row.length = lead.length;
      if (isPrefilled(row)) job.inherited(row, lead);
      return;
    }
    const { width } = this.session.shape;
    const residual = residuals.get(from) as Float32Array;
    const reach = Math.min(lead.length, row.prompt.length);
    for (let at = start; at < reach; at = row.length) {
      const end = row.edits.changesAt(at, reach);
      this.seats.writeEdits(slot, row.edits.at(at));
      const offsets = job.wants(row, at, end).logits.map((position) => position - at);
      const part = residual.subarray((at - start) * width, (end - start) * width);
      const options = { temperature: job.temperature };
      const step = await this.session.prefillFrom(from, part, slot, row.prompt.slice(at, end), at, offsets, options);
      for (let position = at; position < end; position++) row.edits.record(position, step.measured, 0, position - at);
      row.length = end;
      job.computed(row, at, end, step);
    }
  }

  /**
   * Parts of a prompt end at fixed positions, whatever else runs: another split would add the same numbers in another order, and a row
   * must not depend on its neighbours by a single bit.
   */
  private partEnd(start: number, { row, job }: Seat): number {
    const size = Math.min(this.chunk, job.chunk ?? CHUNK);
    return row.edits.changesAt(start, Math.min((Math.floor(start / size) + 1) * size, row.prompt.length));
  }

  private get chunk(): number {
    return this.session.settings.chunk ?? CHUNK;
  }

  /** A batch of texts. Nobody's rows wait for more of them than for a part of a prompt. */
  private async readBatch(): Promise<void> {
    const at = this.batched.findIndex(({ ready }) => ready);
    if (at < 0) return;
    const [reading] = this.batched.splice(at, 1) as [BatchReading];
    this.batched.push(reading);
    try {
      const batch = reading.take(this.seats.length === 0 ? BATCH : this.chunk);
      const residual = await this.session.texts.read(
        batch.map((text) => reading.ids(text)),
        reading.boundaries,
      );
      // Copies: the next batch is computed while these are used.
      reading.give(
        batch,
        batch.map((_, row) => reading.boundaries.map((boundary) => residual(row, boundary).slice())),
      );
    } catch (error) {
      reading.fail(new TillerError("engine_failed", undefined, { cause: error }));
    }
  }

  private async decodeAll(): Promise<void> {
    const { decoding } = this.seats;
    const seats = this.seats
      .all()
      .slice(0, decoding)
      .filter((seat) => !seat.row.finished && !seat.job.ended);
    if (seats.length < decoding) return; // release() closes the gaps first.
    seats.forEach((seat, slot) => this.seats.writeEdits(slot, seat.row.edits.at(seat.row.length)));
    const began = performance.now();
    const step = await this.session.decode(
      seats.map((seat) => seat.row.lastId),
      seats.map((seat) => seat.row.length),
      seats.map((seat) => seat.job.temperature),
      [...new Set(seats.flatMap(({ row }) => row.keeps ?? []))],
    );
    const elapsed = performance.now() - began;
    this.afterDecode(seats, step, elapsed);
  }

  private afterDecode(seats: readonly Seat[], step: Step, elapsed: number): void {
    const slots = new Map<Sequence, number>();
    const { width } = this.session.shape;
    seats.forEach((seat, slot) => {
      if (!seat.row.ended) seat.row.edits.record(seat.row.length, step.measured, slot, 0);
      seat.row.length++;
      slots.set(seat.row, slot);
    });
    for (const job of new Set(seats.map((seat) => seat.job))) {
      job.timing.decode_ms += elapsed;
      const slotOf = (row: Sequence) => slots.get(row) as number;
      job.decoded(
        (row) => step.prediction(slotOf(row)),
        (row) => step.before(row.keeps as number).subarray(slotOf(row) * width, (slotOf(row) + 1) * width),
      );
    }
  }
}

const isPrefilled = (row: Sequence): boolean => row.length >= row.prompt.length;
