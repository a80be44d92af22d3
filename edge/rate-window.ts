// One caller's uses of the last hour, in a Durable Object of its own. A log of times, not a counter: the window slides exactly, and
// because a take is one synchronous piece of code, parallel takes never share a place. The log in memory decides; its copy in SQLite is
// written right after the answer, so that no steer waits for a disk, and is read when the object wakes up again.
import { DurableObject } from "cloudflare:workers";

export interface WindowState {
  readonly success: boolean;
  /** Uses left after this call. */
  readonly remaining: number;
  /** Epoch milliseconds at which the oldest use leaves the window; now, when there is none. */
  readonly reset: number;
}

/** Longer than any window in use. */
const FORGET_MS = 2 * 3_600_000;

export class RateWindow extends DurableObject {
  private readonly sql: SqlStorage;
  /** Times of the uses, oldest first. */
  private uses: number[];
  /** Whether this instance knows that an alarm is set; spares a storage read per take. */
  private alarmSet = false;

  constructor(ctx: DurableObjectState, env: unknown) {
    super(ctx, env as never);
    this.sql = ctx.storage.sql;
    this.sql.exec("CREATE TABLE IF NOT EXISTS uses (at INTEGER NOT NULL)");
    this.sql.exec("CREATE INDEX IF NOT EXISTS uses_at ON uses (at)");
    this.uses = this.sql
      .exec<{ at: number }>("SELECT at FROM uses ORDER BY at")
      .toArray()
      .map(({ at }) => at);
  }

  /**
   * Adds `count` uses (below 0: gives back that many of the newest; 0: only looks) to a window of `windowMs` that holds `limit`.
   * All or nothing: `success` is false, and nothing is added, when they do not all fit.
   */
  take(count: number, limit: number, windowMs: number): WindowState {
    const now = Date.now();
    this.dropUntil(now - windowMs);
    const success = count <= 0 || this.uses.length + count <= limit;
    if (success && count > 0) this.add(count, now);
    else if (count < 0) this.giveBack(-count);
    const oldest = this.uses[0];
    return { success, remaining: Math.max(0, limit - this.uses.length), reset: oldest === undefined ? now : oldest + windowMs };
  }

  /** Forgets all uses. */
  async clear(): Promise<void> {
    this.uses = [];
    this.sql.exec("DELETE FROM uses");
  }

  /** Forgets a caller who has been quiet, so that an address seen once does not stay stored for ever. */
  override async alarm(): Promise<void> {
    this.alarmSet = false;
    const newest = this.uses.at(-1);
    if (newest === undefined) return;
    if (Date.now() - newest >= FORGET_MS) return this.clear();
    await this.wakeAt(newest + FORGET_MS);
  }

  private dropUntil(time: number): void {
    const kept = this.uses.findIndex((at) => at > time);
    const gone = kept === -1 ? this.uses.length : kept;
    if (gone === 0) return;
    this.uses.splice(0, gone);
    this.afterwards(() => this.sql.exec("DELETE FROM uses WHERE at <= ?", time));
  }

  private add(count: number, now: number): void {
    for (let i = 0; i < count; i++) this.uses.push(now);
    this.afterwards(async () => {
      for (let i = 0; i < count; i++) this.sql.exec("INSERT INTO uses (at) VALUES (?)", now);
      if (!this.alarmSet) await this.wakeAt(now + FORGET_MS);
    });
  }

  private giveBack(count: number): void {
    this.uses.splice(-count);
    this.afterwards(() => this.sql.exec("DELETE FROM uses WHERE rowid IN (SELECT rowid FROM uses ORDER BY at DESC LIMIT ?)", count));
  }

  private async wakeAt(time: number): Promise<void> {
    this.alarmSet = true;
    await this.ctx.storage.setAlarm(time);
  }

  /** A write before the answer would hold the answer back until it is on disk. Calls keep their order. */
  private afterwards(write: () => unknown): void {
    this.ctx.waitUntil(scheduler.wait(0).then(write));
  }
}
