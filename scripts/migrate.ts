// Applies /migrations to a local D1 and keeps the same book as `wrangler d1 migrations apply`, so that both agree on what is done.
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import type { D1Database } from "@cloudflare/workers-types";

const BOOK = `CREATE TABLE IF NOT EXISTS "d1_migrations"(
		id         INTEGER PRIMARY KEY AUTOINCREMENT,
		name       TEXT UNIQUE,
		applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL
)`;
const BREAK = "--> statement-breakpoint";

/**
 * Applies what is not applied yet, each file as one batch: all of it or none of it.
 * @returns names of the files that were applied now.
 * @throws Error naming the file that failed.
 */
export async function applyMigrations(db: D1Database, folder: string): Promise<readonly string[]> {
  const files = (await readdir(folder))
    .filter((name) => /^\d+_.*\.sql$/.test(name))
    .sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
  await db.prepare(BOOK).run();
  const { results } = await db.prepare('SELECT name FROM "d1_migrations"').all<{ name: string }>();
  const done = new Set(results.map((row) => row.name));
  const pending = files.filter((name) => !done.has(name));
  for (const name of pending) {
    const statements = (await readFile(path.join(folder, name), "utf8"))
      .split(BREAK)
      .map((statement) => statement.trim())
      .filter((statement) => statement !== "");
    try {
      await db.batch([...statements.map((sql) => db.prepare(sql)), db.prepare('INSERT INTO "d1_migrations" (name) VALUES (?)').bind(name)]);
    } catch (cause) {
      throw new Error(`The migration ${name} cannot be applied: ${(cause as Error).message}`, { cause });
    }
  }
  return pending;
}
