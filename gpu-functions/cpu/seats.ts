// Which row sits in which slot of a session. The first `decoding` slots decode, the next ones are prefilled; rows move, with their part of the
// cache, so that both groups have no gaps.
import type { Edits } from "./edit-slots.ts";
import type { Job, Sequence } from "./job.ts";
import type { DecoderSession } from "./session.ts";

export interface Seat {
  readonly job: Job;
  readonly row: Sequence;
  /** Programs the slot's buffers hold, to write them only when they change. */
  written: Edits | undefined;
}

export class Seats {
  /** By slot. */
  private readonly seats: Seat[] = [];
  private readonly session: DecoderSession;
  decoding = 0;

  constructor(session: DecoderSession) {
    this.session = session;
  }

  get length(): number {
    return this.seats.length;
  }

  at(slot: number): Seat {
    return this.seats[slot] as Seat;
  }

  /** By slot, those that decode and those that are prefilled. */
  all(): readonly Seat[] {
    return this.seats;
  }

  /** Whether so many more rows have room. */
  fit(rows: number): boolean {
    return this.seats.length + rows <= this.session.settings.slots;
  }

  add(job: Job): void {
    for (const row of job.rows) this.seats.push({ job, row, written: undefined });
  }

  /** Frees the slots of rows that ended and of jobs that were cancelled or failed. */
  release(): void {
    for (let slot = this.seats.length - 1; slot >= 0; slot--) {
      const { job, row } = this.at(slot);
      if (job.ended || row.finished) this.leave(slot);
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
    const seat = this.at(from);
    this.session.cache.move(from, to, seat.row.length);
    seat.written = undefined;
    this.seats[to] = seat;
  }

  /** A row that was prefilled decodes from now on. */
  startDecoding(row: Sequence): void {
    const slot = this.seats.findIndex((seat) => seat.row === row);
    // Leaving rows may have left another request's row in front of this one.
    if (slot !== this.decoding) this.swap(slot, this.decoding);
    this.decoding++;
  }

  private swap(a: number, b: number): void {
    const [first, second] = [this.at(a), this.at(b)];
    this.session.cache.swap(a, b, Math.max(first.row.length, second.row.length));
    first.written = undefined;
    second.written = undefined;
    this.seats[a] = second;
    this.seats[b] = first;
  }

  /** What the slot's next calls apply. */
  writeEdits(slot: number, edits: Edits): void {
    const seat = this.at(slot);
    if (seat.written === edits) return;
    this.session.edits.set(slot, edits);
    seat.written = edits;
  }
}
