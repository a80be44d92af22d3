// The edge as a server on a real port, in the runtime it is deployed to, with a fresh database: the runner of `npm start`. Not wrangler's
// test harness: that one passes outgoing calls through Node, where a refused or dropped connection to the engine no longer looks like one.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { startEdge } from "../../../scripts/local-edge.ts";
import { newId } from "../../../shared/ids.ts";
import { newApiKey } from "../../../shared/keys.ts";

export interface EdgeProcess {
  /** Origin, without a trailing slash. */
  readonly url: string;
  /** Creates a user and returns the header that makes a call theirs. */
  newUser(hourlyLimit?: number): Promise<{ readonly "x-api-key": string }>;
  close(): Promise<void>;
}

/** Starts the Worker. @param bindings settings and secrets by name, over those of wrangler.toml; ENGINES is one of them. */
export async function startEdgeProcess(bindings: Record<string, string>): Promise<EdgeProcess> {
  const state = await mkdtemp(path.join(tmpdir(), "tiller-edge-"));
  const { url, db, close } = await startEdge({ port: 0, state, engine: { url: "http://127.0.0.1:8788", token: "" }, bindings });
  return {
    url,
    async newUser(hourlyLimit) {
      const { key, hash, prefix } = await newApiKey();
      const user = newId();
      await db.batch([
        db.prepare("INSERT INTO users (id, name, created_at, hourly_limit) VALUES (?, 'test', 0, ?)").bind(user, hourlyLimit ?? null),
        db
          .prepare("INSERT INTO api_keys (id, user_id, hash, prefix, name, created_at) VALUES (?, ?, ?, ?, 'test', 0)")
          .bind(newId(), user, hash, prefix),
      ]);
      return { "x-api-key": key };
    },
    async close() {
      await close();
      await rm(state, { recursive: true, force: true });
    },
  };
}
