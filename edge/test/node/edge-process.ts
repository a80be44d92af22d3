// The edge as a server on a real port, in the runtime it is deployed to, with a fresh database. Not wrangler's test harness: that
// one passes outgoing calls through Node, where a refused or dropped connection to the engine no longer looks like one.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { convertV4MiniflareOptions, Miniflare, type V4WorkerOptions } from "miniflare";
import { unstable_getMiniflareWorkerOptions } from "wrangler";
import { newId } from "../../../shared/ids.ts";
import { newApiKey } from "../../../shared/keys.ts";

export interface EdgeProcess {
  /** Origin, without a trailing slash. */
  readonly url: string;
  /** Creates a user and returns the header that makes a call theirs. */
  newUser(hourlyLimit?: number): Promise<{ readonly "x-api-key": string }>;
  close(): Promise<void>;
}

export interface EdgeBundle {
  /** Starts the Worker. @param vars settings and secrets by name, over those of wrangler.toml. */
  start(vars: Record<string, string>): Promise<EdgeProcess>;
  remove(): Promise<void>;
}

/** Bundles the Worker once for any number of starts. */
export async function bundleEdge(): Promise<EdgeBundle> {
  const folder = await mkdtemp(path.join(tmpdir(), "tiller-edge-"));
  const wrangler = spawn(process.execPath, ["node_modules/wrangler/bin/wrangler.js", "deploy", "--dry-run", "--outdir", folder], {
    env: { ...process.env, WRANGLER_SEND_METRICS: "false", WRANGLER_HIDE_BANNER: "true" },
    stdio: ["ignore", "ignore", "inherit"],
  });
  const [code] = await once(wrangler, "exit");
  if (code !== 0) throw new Error("The Worker cannot be bundled.");
  return { start: (vars) => start(folder, vars), remove: () => rm(folder, { recursive: true, force: true }) };
}

async function start(folder: string, vars: Record<string, string>): Promise<EdgeProcess> {
  const { workerOptions } = unstable_getMiniflareWorkerOptions("wrangler.toml");
  const worker = {
    ...workerOptions,
    name: "tiller",
    bindings: { ...(workerOptions.bindings as Record<string, string>), ...vars },
    modules: [{ type: "ESModule", path: path.join(folder, "index.js") }],
    modulesRoot: folder,
  } as V4WorkerOptions;
  const miniflare = new Miniflare(convertV4MiniflareOptions({ host: "127.0.0.1", port: 0, cf: false, workers: [worker] }));
  const url = (await miniflare.ready).origin;
  const db = await miniflare.getD1Database("DB");
  for (const file of (await readdir("migrations")).filter((name) => name.endsWith(".sql")).sort()) {
    const sql = await readFile(path.join("migrations", file), "utf8");
    await db.batch(sql.split("--> statement-breakpoint").map((statement) => db.prepare(statement)));
  }
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
    close: () => miniflare.dispose(),
  };
}
