// What a bot remembers: it keeps nothing on a disk of its own, so that it can be stopped and started anywhere.
import { and, asc, eq, gt, isNull, lt, or, type SQL, sql } from "drizzle-orm";
import type { Config } from "../config.ts";
import { botNotes } from "../people-schema.ts";

export interface Note {
  readonly key: string;
  readonly value: unknown;
  readonly updatedAt: number;
}

export interface Notes {
  /** @returns false when there was one and `ifAbsent` was asked for. */
  put(
    key: string,
    value: unknown,
    options: { readonly ttlSeconds?: number | undefined; readonly ifAbsent?: boolean | undefined },
  ): Promise<boolean>;
  get(key: string): Promise<Note | undefined>;
  /** Those of a prefix, in the order of their keys. */
  list(prefix: string, limit: number, after?: string): Promise<Note[]>;
  /** Takes it away; of two takers one gets it. */
  take(key: string): Promise<Note | undefined>;
  deleteExpired(): Promise<void>;
}

export function newNotes({ db }: Pick<Config, "db">): Notes {
  const alive = () => or(isNull(botNotes.expires_at), gt(botNotes.expires_at, Date.now())) as SQL;
  const toNote = ({ key, value, updated_at }: typeof botNotes.$inferSelect): Note => ({ key, value, updatedAt: updated_at });

  return {
    async put(key, value, { ttlSeconds, ifAbsent }) {
      const now = Date.now();
      const row = { value, updated_at: now, expires_at: ttlSeconds === undefined ? null : now + ttlSeconds * 1000 };
      const written = await db
        .insert(botNotes)
        .values({ key, ...row })
        // An expired one counts as absent.
        .onConflictDoUpdate({ target: botNotes.key, set: row, ...(ifAbsent ? { setWhere: sql`${botNotes.expires_at} <= ${now}` } : {}) })
        .returning({ key: botNotes.key });
      return written.length > 0;
    },
    get: async (key) =>
      (
        await db
          .select()
          .from(botNotes)
          .where(and(eq(botNotes.key, key), alive()))
      ).map(toNote)[0],
    list: async (prefix, limit, after) =>
      (
        await db
          .select()
          .from(botNotes)
          .where(and(sql`substr(${botNotes.key}, 1, length(${prefix})) = ${prefix}`, gt(botNotes.key, after ?? ""), alive()))
          .orderBy(asc(botNotes.key))
          .limit(limit)
      ).map(toNote),
    take: async (key) =>
      (
        await db
          .delete(botNotes)
          .where(and(eq(botNotes.key, key), alive()))
          .returning()
      ).map(toNote)[0],
    async deleteExpired() {
      await db.delete(botNotes).where(lt(botNotes.expires_at, Date.now()));
    },
  };
}
