// One caller's uses of the last hour, in a SQLite Durable Object of its own. A log of times, not a counter: the window slides
// exactly, and because a take is one synchronous piece of code, parallel takes never share a place.
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
  /** Whether this instance knows that an alarm is set; spares a storage read per take. */
  private alarmSet = false;

  constructor(ctx: DurableObjectState, env: unknown) {
    super(ctx, env as never);
    this.sql = ctx.storage.sql;
    this.sql.exec("CREATE TABLE IF NOT EXISTS uses (at INTEGER NOT NULL)");
    this.sql.exec("CREATE INDEX IF NOT EXISTS uses_at ON uses (at)");
  }

  /**
   * Adds `count` uses (below 0: gives back that many of the newest; 0: only looks) to a window of `windowMs` that holds `limit`.
   * All or nothing: `success` is false, and nothing is added, when they do not all fit.
   */
  async take(count: number, limit: number, windowMs: number): Promise<WindowState> {
    const now = Date.now();
    let { used, oldest } = this.count();
    if (oldest !== null && oldest <= now - windowMs) {
      this.sql.exec("DELETE FROM uses WHERE at <= ?", now - windowMs);
      ({ used, oldest } = this.count());
    }
    const success = count <= 0 || used + count <= limit;
    if (success && count > 0) {
      for (let i = 0; i < count; i++) this.sql.exec("INSERT INTO uses (at) VALUES (?)", now);
      used += count;
      oldest ??= now;
    } else if (count < 0) {
      this.sql.exec("DELETE FROM uses WHERE rowid IN (SELECT rowid FROM uses ORDER BY at DESC LIMIT ?)", -count);
      ({ used, oldest } = this.count());
    }
    if (success && count > 0 && !this.alarmSet) {
      this.alarmSet = true;
      await this.ctx.storage.setAlarm(now + FORGET_MS);
    }
    return { success, remaining: Math.max(0, limit - used), reset: oldest === null ? now : oldest + windowMs };
  }

  /** Forgets all uses. */
  async clear(): Promise<void> {
    this.sql.exec("DELETE FROM uses");
  }

  /** Forgets a caller who has been quiet, so that an address seen once does not stay stored for ever. */
  override async alarm(): Promise<void> {
    this.alarmSet = false;
    const newest = this.sql.exec<{ at: number | null }>("SELECT max(at) AS at FROM uses").one().at;
    if (newest === null) return;
    if (Date.now() - newest >= FORGET_MS) {
      this.sql.exec("DELETE FROM uses");
      return;
    }
    this.alarmSet = true;
    await this.ctx.storage.setAlarm(newest + FORGET_MS);
  }

  private count(): { used: number; oldest: number | null } {
    return this.sql.exec<{ used: number; oldest: number | null }>("SELECT count(*) AS used, min(at) AS oldest FROM uses").one();
  }
}
