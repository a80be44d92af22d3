// Users and their keys in D1.
import { and, asc, count, desc, eq, isNull, like, or, sql } from "drizzle-orm";
import { TillerError } from "../../shared/errors.ts";
import { newId } from "../../shared/ids.ts";
import { newApiKey } from "../../shared/keys.ts";
import type { Config } from "../config.ts";
import { LIMITS } from "../limits.ts";
import { apiKeys, lists, steers, users, vectors } from "../schema.ts";

export type SavedUser = typeof users.$inferSelect;
export type SavedKey = typeof apiKeys.$inferSelect;

export interface Accounts {
  user(id: string): Promise<SavedUser | undefined>;
  /** How many of each a user has. */
  kept(userId: string): Promise<{ vectors: number; steers: number; lists: number; keys: number }>;
  /** The newest first, revoked ones too. */
  keys(userId: string): Promise<SavedKey[]>;
  /** @throws TillerError `conflict` when the user has as many as a user may have. */
  newKey(userId: string, name: string): Promise<{ readonly key: string; readonly row: SavedKey }>;
  /**
   * Whether there was such a key of the user's.
   * @throws TillerError `conflict` for the last one that works: nobody could sign in to make another.
   */
  revoke(userId: string, keyId: string): Promise<boolean>;
  /** The credential of a bot, with a user of its own that nobody is. */
  newServiceKey(name: string): Promise<{ readonly key: string; readonly row: SavedKey }>;
  /** The newest first, revoked ones too. */
  serviceKeys(): Promise<SavedKey[]>;
  /** Whether there was such a one that worked. */
  revokeServiceKey(keyId: string): Promise<boolean>;
  newUser(name: string, hourlyLimit: number | null): Promise<SavedUser>;
  /** undefined when there is no such user. */
  update(id: string, changes: Partial<Pick<SavedUser, "name" | "hourly_limit">>): Promise<SavedUser | undefined>;
  list(page: { readonly query?: string | undefined; readonly limit: number; readonly offset: number }): Promise<SavedUser[]>;
  /** How many keys worked until now. */
  revokeAll(userId: string): Promise<number>;
}

export function newAccounts({ db }: Config): Accounts {
  const working = (userId: string) => and(eq(apiKeys.user_id, userId), isNull(apiKeys.revoked_at));

  return {
    user: async (id) => (await db.select().from(users).where(eq(users.id, id)))[0],
    async kept(userId) {
      const [a, b, c, d] = await db.batch([
        db
          .select({ n: count() })
          .from(vectors)
          .where(and(eq(vectors.user_id, userId), isNull(vectors.deleted_at))),
        db.select({ n: count() }).from(steers).where(eq(steers.user_id, userId)),
        db.select({ n: count() }).from(lists).where(eq(lists.user_id, userId)),
        db.select({ n: count() }).from(apiKeys).where(working(userId)),
      ]);
      return { vectors: a[0]?.n ?? 0, steers: b[0]?.n ?? 0, lists: c[0]?.n ?? 0, keys: d[0]?.n ?? 0 };
    },
    keys: (userId) => db.select().from(apiKeys).where(eq(apiKeys.user_id, userId)).orderBy(desc(apiKeys.created_at), asc(apiKeys.id)),
    async newKey(userId, name) {
      const { key, hash, prefix } = await newApiKey();
      const row: SavedKey = {
        ...{ id: newId(), user_id: userId, hash, prefix, name, scope: "user", created_at: Date.now() },
        ...{ last_used_at: null, revoked_at: null },
      };
      const [{ n } = { n: 0 }] = await db.select({ n: count() }).from(apiKeys).where(working(userId));
      if (n >= LIMITS.keysPerUser)
        throw new TillerError("conflict", `You have ${n} keys, and ${LIMITS.keysPerUser} is the limit: revoke one first.`);
      await db.insert(apiKeys).values(row);
      return { key, row };
    },
    async revoke(userId, keyId) {
      // The count is taken by the statement that revokes: of two calls at once, one keeps its key.
      const others = sql`(SELECT count(*) FROM ${apiKeys} AS k WHERE k.user_id = ${userId} AND k.revoked_at IS NULL AND k.id <> ${keyId}) > 0`;
      const mine = and(working(userId), eq(apiKeys.id, keyId));
      const revoked = await db.update(apiKeys).set({ revoked_at: Date.now() }).where(and(mine, others)).returning({ id: apiKeys.id });
      if (revoked.length > 0) return true;
      const [left] = await db.select({ id: apiKeys.id }).from(apiKeys).where(mine);
      if (left === undefined) return false;
      throw new TillerError("conflict", "This is your last key that works: make another first, and revoke this one with it.");
    },
    async newServiceKey(name) {
      const { key, hash, prefix } = await newApiKey();
      const now = Date.now();
      const user: SavedUser = { id: newId(), name, created_at: now, hourly_limit: null, webhook_secret: null };
      const row: SavedKey = {
        ...{ id: newId(), user_id: user.id, hash, prefix, name, scope: "discord", created_at: now },
        ...{ last_used_at: null, revoked_at: null },
      };
      await db.batch([db.insert(users).values(user), db.insert(apiKeys).values(row)]);
      return { key, row };
    },
    serviceKeys: () => db.select().from(apiKeys).where(eq(apiKeys.scope, "discord")).orderBy(desc(apiKeys.created_at), asc(apiKeys.id)),
    async revokeServiceKey(keyId) {
      const working = and(eq(apiKeys.id, keyId), eq(apiKeys.scope, "discord"), isNull(apiKeys.revoked_at));
      return (await db.update(apiKeys).set({ revoked_at: Date.now() }).where(working).returning({ id: apiKeys.id })).length > 0;
    },
    async newUser(name, hourlyLimit) {
      const row: SavedUser = { id: newId(), name, created_at: Date.now(), hourly_limit: hourlyLimit, webhook_secret: null };
      await db.insert(users).values(row);
      return row;
    },
    async update(id, changes) {
      if (Object.keys(changes).length === 0) return (await db.select().from(users).where(eq(users.id, id)))[0];
      return (await db.update(users).set(changes).where(eq(users.id, id)).returning())[0];
    },
    list({ query, limit, offset }) {
      const pattern = `%${(query ?? "").replace(/[%_]/g, "")}%`;
      const where = query === undefined ? undefined : or(like(users.name, pattern), like(users.id, pattern));
      return db.select().from(users).where(where).orderBy(desc(users.created_at), asc(users.id)).limit(limit).offset(offset);
    },
    revokeAll: async (userId) =>
      (await db.update(apiKeys).set({ revoked_at: Date.now() }).where(working(userId)).returning({ id: apiKeys.id })).length,
  };
}
