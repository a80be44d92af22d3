// The user of a local installation. Keys are stored hashed only, here as everywhere: one is shown when it is made, and never again.
import type { D1Database } from "@cloudflare/workers-types";
import { newId } from "../shared/ids.ts";
import { newApiKey } from "../shared/keys.ts";

const USER = "local";
const BOT = "local-discord-bot";
const DEMONSTRATION = "demonstration";

/** Creates the user if there is none yet. Returns whether it has a key that the person at this machine may know. */
export async function ensureLocalUser(db: D1Database, now: number): Promise<{ readonly hasKey: boolean }> {
  await db.prepare("INSERT OR IGNORE INTO users (id, name, created_at) VALUES (?, ?, ?)").bind(USER, USER, now).run();
  // A demonstration that was killed could not take its key back.
  await db.prepare("DELETE FROM api_keys WHERE user_id = ? AND name = ?").bind(USER, DEMONSTRATION).run();
  const row = await db
    .prepare("SELECT count(*) AS n FROM api_keys WHERE user_id = ? AND revoked_at IS NULL")
    .bind(USER)
    .first<{ n: number }>();
  return { hasKey: (row?.n ?? 0) > 0 };
}

/** Makes another key of the local user; the ones there are stay valid. */
export const createLocalKey = (db: D1Database, now: number): Promise<string> => insertKey(db, "npm start", now);

/** Runs `use` with a key that is good for as long as it runs, so that no key has to be kept on disk. */
export async function withDemonstrationKey<T>(db: D1Database, now: number, use: (key: string) => Promise<T>): Promise<T> {
  const key = await insertKey(db, DEMONSTRATION, now);
  try {
    return await use(key);
  } finally {
    await db.prepare("DELETE FROM api_keys WHERE user_id = ? AND name = ?").bind(USER, DEMONSTRATION).run();
  }
}

/** Makes the credential of a Discord bot on this machine: it acts for Discord users, and does nothing else. */
export async function createBotKey(db: D1Database, now: number): Promise<string> {
  await db.prepare("INSERT OR IGNORE INTO users (id, name, created_at) VALUES (?, ?, ?)").bind(BOT, "Discord bot", now).run();
  return insertKey(db, "npm start -- --bot-key", now, BOT, "discord");
}

async function insertKey(db: D1Database, name: string, now: number, user = USER, scope: "user" | "discord" = "user"): Promise<string> {
  const { key, hash, prefix } = await newApiKey();
  await db
    .prepare("INSERT INTO api_keys (id, user_id, hash, prefix, name, created_at, scope) VALUES (?, ?, ?, ?, ?, ?, ?)")
    .bind(newId(), user, hash, prefix, name, now, scope)
    .run();
  return key;
}
