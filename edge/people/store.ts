// People of other services in D1: found or made at first use, connected with an account, signed in.
import { and, eq, gt, lt } from "drizzle-orm";
import { newId } from "../../shared/ids.ts";
import { hashApiKey } from "../../shared/keys.ts";
import type { Config } from "../config.ts";
import { identities, linkCodes, sessions } from "../people-schema.ts";
import { apiKeys, users } from "../schema.ts";
import type { Person } from "./acting.ts";

const PROVIDER = "discord";
const LINK_MS = 600_000;
export const SESSION_MS = 30 * 24 * 3_600_000;

export interface People {
  /** The user of a person: made when there is none. */
  userOf(person: Person): Promise<{ readonly userId: string; readonly hourlyLimit: number | null }>;
  /** Who of Discord a user is; undefined when they are not connected. */
  identityOf(userId: string): Promise<{ readonly subject: string; readonly name: string } | undefined>;
  newLink(userId: string): Promise<{ readonly code: string; readonly expiresAt: number } | undefined>;
  /** Whose code it is; undefined when it is used, too old, or none. */
  findLink(code: string): Promise<{ readonly name: string } | undefined>;
  /** Uses the code: the person is that user from now on, and what they had here comes with them. @returns whether it was good. */
  useLink(code: string, userId: string): Promise<boolean>;
  /** Their next use of the bot makes a new user. */
  disconnect(userId: string): Promise<void>;
  /** @returns the cookie's secret. */
  newSession(userId: string): Promise<string>;
  sessionUser(secret: string): Promise<string | undefined>;
  endSession(secret: string): Promise<void>;
}

/** Tables whose rows belong to a user and go with them: all but keys and sessions. */
const OWNED = [
  ...["steers", "vectors", "activation_tests", "models", "source_sets", "features", "activations", "labels", "lists"],
  ...["list_items", "list_comments", "jobs", "webhook_endpoints", "webhook_deliveries"],
] as const;

export function newPeople({ db }: Pick<Config, "db">): People {
  const d1 = db.$client;

  const find = async (subject: string) =>
    (
      await db
        .select({ userId: users.id, hourlyLimit: users.hourly_limit, name: identities.name })
        .from(identities)
        .innerJoin(users, eq(users.id, identities.user_id))
        .where(and(eq(identities.provider, PROVIDER), eq(identities.subject, subject)))
    )[0];

  const goodCode = async (code: string) => and(eq(linkCodes.hash, await hashApiKey(code)), gt(linkCodes.expires_at, Date.now()));

  return {
    async userOf({ id: subject, name }) {
      const known = await find(subject);
      if (known !== undefined) {
        if (known.name !== name)
          await db
            .update(identities)
            .set({ name })
            .where(and(eq(identities.provider, PROVIDER), eq(identities.subject, subject)));
        return known;
      }
      const [userId, now] = [newId(), Date.now()];
      const unknown = "WHERE NOT EXISTS (SELECT 1 FROM identities WHERE provider = ? AND subject = ?)";
      // Of two first uses at once the second finds the first one's row, and makes no user.
      await d1.batch([
        d1.prepare(`INSERT INTO users (id, name, created_at) SELECT ?, ?, ? ${unknown}`).bind(userId, name, now, PROVIDER, subject),
        d1
          .prepare(`INSERT INTO identities (provider, subject, user_id, name, created_at) SELECT ?, ?, ?, ?, ? ${unknown}`)
          .bind(PROVIDER, subject, userId, name, now, PROVIDER, subject),
      ]);
      const made = await find(subject);
      if (made === undefined) throw new Error("an identity was not written");
      return made;
    },
    identityOf: async (userId) =>
      (await db.select({ subject: identities.subject, name: identities.name }).from(identities).where(eq(identities.user_id, userId)))[0],
    async newLink(userId) {
      const [identity] = await db.select().from(identities).where(eq(identities.user_id, userId));
      if (identity === undefined) return undefined;
      const code = newSecret();
      const expiresAt = Date.now() + LINK_MS;
      const { provider, subject } = identity;
      await db.batch([
        db.delete(linkCodes).where(and(eq(linkCodes.provider, provider), eq(linkCodes.subject, subject))),
        db.insert(linkCodes).values({ hash: await hashApiKey(code), provider, subject, expires_at: expiresAt }),
      ]);
      return { code, expiresAt };
    },
    async findLink(code) {
      const [row] = await db
        .select({ name: identities.name })
        .from(linkCodes)
        .innerJoin(identities, and(eq(identities.provider, linkCodes.provider), eq(identities.subject, linkCodes.subject)))
        .where(await goodCode(code));
      return row;
    },
    async useLink(code, userId) {
      const [used] = await db
        .select({ hash: linkCodes.hash, subject: linkCodes.subject, before: identities.user_id })
        .from(linkCodes)
        .innerJoin(identities, and(eq(identities.provider, linkCodes.provider), eq(identities.subject, linkCodes.subject)))
        .where(await goodCode(code));
      if (used === undefined) return false;
      const { hash, subject, before } = used;
      const [key] = await db.select({ id: apiKeys.id }).from(apiKeys).where(eq(apiKeys.user_id, before)).limit(1);
      // What an account with keys has is its own; a user that Discord made brings everything along.
      const moved = key !== undefined || before === userId ? [] : OWNED;
      // All or nothing, and by one of two who use the code at once: every statement but the last asks whether it is still there.
      const still = "EXISTS (SELECT 1 FROM link_codes WHERE hash = ?)";
      const results = await d1.batch([
        ...moved.map((table) => d1.prepare(`UPDATE ${table} SET user_id = ? WHERE user_id = ? AND ${still}`).bind(userId, before, hash)),
        d1
          .prepare(`UPDATE identities SET user_id = ? WHERE provider = ? AND subject = ? AND ${still}`)
          .bind(userId, PROVIDER, subject, hash),
        d1.prepare("DELETE FROM link_codes WHERE hash = ?").bind(hash),
      ]);
      return (results.at(-1)?.meta.changes ?? 0) > 0;
    },
    async disconnect(userId) {
      await db.delete(identities).where(eq(identities.user_id, userId));
    },
    async newSession(userId) {
      const secret = newSecret();
      const now = Date.now();
      await db.batch([
        db.delete(sessions).where(lt(sessions.expires_at, now)),
        db.insert(sessions).values({ hash: await hashApiKey(secret), user_id: userId, created_at: now, expires_at: now + SESSION_MS }),
      ]);
      return secret;
    },
    async sessionUser(secret) {
      const good = and(eq(sessions.hash, await hashApiKey(secret)), gt(sessions.expires_at, Date.now()));
      return (await db.select({ userId: sessions.user_id }).from(sessions).where(good))[0]?.userId;
    },
    async endSession(secret) {
      await db.delete(sessions).where(eq(sessions.hash, await hashApiKey(secret)));
    },
  };
}

/** 32 random bytes in base64url. */
export const newSecret = (): string =>
  btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(32))))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
