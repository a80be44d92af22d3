// Continuous batching over one model's slots: requests wait in order, join when all their rows have slots, are prefilled in
// chunks between the others' decode steps, and leave at any step. Slots 0 .. decoding - 1 decode, the next ones are prefilled.
import { TillerError } from "../../shared/errors.ts";
import type { GenerateEvent } from "../../shared/protocol.ts";
import type { Generation, Row } from "./generation.ts";
import { CHUNK, type DecoderSession, type Edits, type Step } from "./session.ts";

/** Requests that may wait for slots; more are told to come back. */
const QUEUE_LIMIT = 64;

interface Seat {
  readonly generation: Generation;
  readonly row: Row;
  /** Programs the slot's buffers hold, to write them only when they change. */
  written: Edits | undefined;
}

export class Scheduler {
  private readonly session: DecoderSession;
  private readonly waiting: Generation[] = [];
  /** seats[i] is slot i; the first `decoding` of them decode. */
  private readonly seats: Seat[] = [];
  private decoding = 0;
  private running: Promise<void> | undefined;
  private closed = false;

  constructor(session: DecoderSession) {
    this.session = session;
  }

  /** Rows that hold a slot and requests that wait: what health reports and what tests watch. */
  load(): { rows: number; waiting: number } {
    return { rows: this.seats.length, waiting: this.waiting.length };
  }

  /**
   * Runs a generation and yields its events. Leaving the iteration, or aborting the signal, frees its slots within one step.
   * @throws TillerError `engine_busy` at once when too many requests wait; the generation's own error at the end.
   */
  async *run(generation: Generation, signal: AbortSignal): AsyncGenerator<GenerateEvent> {
    if (this.closed) throw new TillerError("engine_unavailable", "The engine is shutting down.", { retryAfterSeconds: 5 });
    if (this.waiting.length >= QUEUE_LIMIT) {
      throw new TillerError("engine_busy", `${QUEUE_LIMIT} requests wait for this model already. Try again in a few seconds.`, {
        retryAfterSeconds: 5,
      });
    }
    const cancel = () => generation.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    if (signal.aborted) cancel();
    this.waiting.push(generation);
    this.running ??= this.loop();
    try {
      yield* generation.events();
    } finally {
      signal.removeEventListener("abort", cancel);
      generation.cancel();
    }
  }

  /** Ends every generation with an error and waits until the session is idle. */
  async close(): Promise<void> {
    this.closed = true;
    const error = new TillerError("engine_unavailable", "The engine is shutting down.", { retryAfterSeconds: 5 });
    for (const generation of [...this.waiting, ...this.seats.map((seat) => seat.generation)]) generation.fail(error);
    await this.running;
  }

  private async loop(): Promise<void> {
    try {
      for (;;) {
        this.release();
        this.admit();
        if (this.seats.length === 0 && this.waiting.length === 0) return;
        try {
          if (this.decoding < this.seats.length) await this.prefillOne();
          if (this.decoding > 0) await this.decodeAll();
        } catch (error) {
          // A failed call says nothing about one row: everybody in the batch is told, nobody waits for ever.
          for (const seat of this.seats) seat.generation.fail(new TillerError("engine_failed", undefined, { cause: error }));
        }
        // Short steps run on this thread: let sockets be read and written between them.
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
    } finally {
      this.running = undefined;
    }
  }

  /** Frees the slots of rows that ended and of generations that were cancelled or failed. */
  private release(): void {
    for (let i = this.waiting.length - 1; i >= 0; i--) if (this.waiting[i]?.ended) this.waiting.splice(i, 1);
    for (let slot = this.seats.length - 1; slot >= 0; slot--) {
      const seat = this.seats[slot] as Seat;
      if (seat.generation.ended || seat.row.finished) this.leave(slot);
    }
  }

  private leave(slot: number): void {
    if (slot < this.decoding) {
      this.decoding--;
      this.move(this.decoding, slot);
      this.move(this.seats.length - 1, this.decoding);
    } else {
      this.move(this.seats.length - 1, slot);
    }
    this.seats.pop();
  }

  private move(from: number, to: number): void {
    if (from === to) return;
    const seat = this.seats[from] as Seat;
    this.session.moveCache(from, to, seat.row.length);
    seat.written = undefined;
    this.seats[to] = seat;
  }

  private admit(): void {
    for (;;) {
      const next = this.waiting[0];
      if (next === undefined || this.seats.length + next.rows.length > this.session.settings.slots) return;
      this.waiting.shift();
      next.admitted();
      for (const row of next.rows) this.seats.push({ generation: next, row, written: undefined });
    }
  }

  private writeEdits(slot: number, edits: Edits): void {
    const seat = this.seats[slot] as Seat;
    if (seat.written === edits) return;
    this.session.setEdits(slot, edits);
    seat.written = edits;
  }

  /** One chunk of one prompt. Rows of a request wait for each other, so that they decode in step. */
  private async prefillOne(): Promise<void> {
    const slot = this.seats.findIndex((seat, i) => i >= this.decoding && !seat.row.prefilled);
    const { row, generation } = this.seats[slot] as Seat;
    const start = row.length;
    const end = row.edits.changesAt(start, Math.min(start + CHUNK, row.prompt.length));
    this.writeEdits(slot, row.edits.at(start));
    const last = end === row.prompt.length;
    const began = performance.now();
    const step = await this.session.prefill(slot, row.prompt.slice(start, end), start, last ? [end - start - 1] : []);
    generation.timing.prefill_ms += performance.now() - began;
    for (let position = start; position < end; position++) row.edits.record(position, step.measured, 0, position - start);
    row.length = end;
    if (!last) return;
    row.firstLogits = step.logits(0).slice();
    if (!generation.rows.every((other) => other.prefilled)) return;
    generation.advance((other) => other.firstLogits as Float32Array);
    for (const other of generation.rows) {
      other.firstLogits = undefined;
      this.startDecoding(this.seats.findIndex((seat) => seat.row === other));
    }
  }

  private startDecoding(slot: number): void {
    // Leaving rows may have left another request's row in front of this one.
    if (slot !== this.decoding) this.swap(slot, this.decoding);
    this.decoding++;
  }

  private swap(a: number, b: number): void {
    this.session.swapCache(a, b, Math.max((this.seats[a] as Seat).row.length, (this.seats[b] as Seat).row.length));
    const [first, second] = [this.seats[a] as Seat, this.seats[b] as Seat];
    first.written = undefined;
    second.written = undefined;
    this.seats[a] = second;
    this.seats[b] = first;
  }

  private async decodeAll(): Promise<void> {
    const seats = this.seats.slice(0, this.decoding).filter((seat) => !seat.row.finished && !seat.generation.ended);
    if (seats.length < this.decoding) return; // release() closes the gaps first.
    seats.forEach((seat, slot) => this.writeEdits(slot, seat.row.edits.at(seat.row.length)));
    const began = performance.now();
    const step = await this.session.decode(
      seats.map((seat) => seat.row.lastId),
      seats.map((seat) => seat.row.length),
    );
    const elapsed = performance.now() - began;
    this.afterDecode(seats, step, elapsed);
  }

  private afterDecode(seats: readonly Seat[], step: Step, elapsed: number): void {
    const slots = new Map<Row, number>();
    seats.forEach((seat, slot) => {
      seat.row.edits.record(seat.row.length, step.measured, slot, 0);
      seat.row.length++;
      slots.set(seat.row, slot);
    });
    for (const generation of new Set(seats.map((seat) => seat.generation))) {
      generation.timing.decode_ms += elapsed;
      generation.advance((row) => step.logits(slots.get(row) as number));
    }
  }
}
