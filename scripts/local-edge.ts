// The Worker on this machine, tuned: the bundle straight in Miniflare, without wrangler dev's proxy, explorer and request tail.
// `npm start`, the benchmarks and the end-to-end tests all run this one.
import path from "node:path";
import type { D1Database } from "@cloudflare/workers-types";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare, type V4WorkerOptions } from "miniflare";
import { bundleEdge, ROOT, type WorkerOptions } from "./edge-bundle.ts";
import { applyMigrations } from "./migrate.ts";
import { HOST } from "./ports.ts";

/** Where wrangler keeps the local state of this checkout: `wrangler dev` and `wrangler d1` see the same data. */
export const STATE = path.join(ROOT, ".wrangler", "state", "v3");
/** The address in wrangler.toml's ENGINES that means "the engine of this machine", wherever it really listens. */
const LOCAL_ENGINE = "http://127.0.0.1:8788";

export interface EdgeSettings {
  /** 0 = any free port. */
  readonly port: number;
  /** The engine of this machine: its rows of ENGINES are pointed at `url`, with `token`. */
  readonly engine: { readonly url: string; readonly token: string };
  /** Folder that D1 and Durable Objects live in. */
  readonly state: string;
  /** Further bindings, over those of wrangler.toml and .dev.vars. */
  readonly bindings?: Readonly<Record<string, string>>;
}

export interface LocalEdge {
  /** Without a trailing slash. */
  readonly url: string;
  readonly db: D1Database;
  /** Migrations applied by this start. */
  readonly migrated: readonly string[];
  /** Runs the cron now, and not only each minute. */
  cron(): Promise<void>;
  close(): Promise<void>;
}

/** What this checkout's wrangler.toml and .dev.vars ask of a local engine. */
export async function readEngineNeeds(): Promise<{ readonly local: boolean; readonly token: string | undefined }> {
  const { bindings } = (await bundleEdge()).options;
  const token = bindings.ENGINE_TOKEN;
  return { local: String(bindings.ENGINES ?? "").includes(`"${LOCAL_ENGINE}"`), token: typeof token === "string" ? token : undefined };
}

/** Bundles (or finds) the Worker, starts it, and brings its database up to date. */
export async function startEdge(settings: EdgeSettings): Promise<LocalEdge> {
  const { file, modules, options } = await bundleEdge();
  const { assets, ...own } = options;
  const worker: V4WorkerOptions = {
    ...own,
    bindings: bindingsOf(options, settings),
    name: NAME,
    modules: [{ type: "ESModule", path: file }, ...modules],
    modulesRoot: path.dirname(file),
    // Callers reach the Worker itself: no development proxy and no asset router in front of it, which every request would pay for.
    // The Worker serves its assets on its own (run_worker_first) and finds them next door.
    unsafeDirectSockets: [{ host: HOST, port: settings.port }],
    serviceBindings: { [assets.binding]: ASSETS },
  };
  const files: V4WorkerOptions = { name: ASSETS, modules: true, script: NO_WORKER, assets: { ...assets, ...FILES_ALONE } };
  const before = new Map(SIGNALS.map((signal) => [signal, process.listeners(signal)]));
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({
      host: HOST,
      port: 0,
      cf: false,
      log: new Log(LogLevel.ERROR),
      logRequests: false,
      telemetry: { enabled: false },
      unsafeLocalExplorer: false,
      unsafeObservability: false,
      resourcePersistencePath: settings.state,
      workers: [worker, files],
    }),
  );
  // Miniflare ends the process at once on a signal; whoever called decides here in which order things stop.
  for (const [signal, kept] of before) {
    for (const listener of process.listeners(signal)) if (!kept.includes(listener)) process.off(signal, listener);
  }
  try {
    await miniflare.ready;
    const url = (await miniflare.unsafeGetDirectURL(NAME)).origin;
    const db = (await miniflare.getD1Database("DB")) as unknown as D1Database;
    const migrated = await applyMigrations(db, path.join(ROOT, "migrations"));
    const cron = await startCron(miniflare);
    const close = async () => {
      await cron.stop();
      await miniflare.dispose();
    };
    return { url, db, migrated, cron: cron.run, close };
  } catch (error) {
    await miniflare.dispose().catch(() => undefined);
    throw error;
  }
}

/** Miniflare has no clock for crons: at once and every minute, as wrangler.toml asks. After a crash it is what makes jobs go on. */
async function startCron(miniflare: Miniflare): Promise<{ run(): Promise<void>; stop(): Promise<void> }> {
  const worker = await miniflare.getWorker(NAME);
  const run = async () => {
    const { outcome } = await worker.scheduled({ cron: "* * * * *" });
    if (outcome !== "ok") console.error(`The edge's cron failed: ${outcome}`);
  };
  await run();
  let running = Promise.resolve();
  const timer = setInterval(() => {
    running = running.then(run).catch((error: Error) => console.error(`The edge's cron failed: ${error.message}`));
  }, MINUTE_MS);
  return {
    run,
    stop() {
      clearInterval(timer);
      return running;
    },
  };
}

const MINUTE_MS = 60_000;
const NAME = "tiller";
const ASSETS = "tiller-assets";
/** Never asked: what is no file is not found. */
const NO_WORKER = "export default {};";
const FILES_ALONE = { run_worker_first: false, routerConfig: { has_user_worker: false } };
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

function bindingsOf(options: WorkerOptions, { engine, bindings }: EdgeSettings): Record<string, string> {
  const own = options.bindings;
  return {
    ...own,
    ENGINES: String(own.ENGINES ?? "").replaceAll(`"${LOCAL_ENGINE}"`, JSON.stringify(engine.url)),
    ENGINE_TOKEN: engine.token,
    // Works without a network, and reaches receivers on this machine, which nobody else can make it call.
    WEBHOOK_DNS: "",
    WEBHOOK_ALLOW: String(own.WEBHOOK_ALLOW || "127.0.0.1:*,localhost:*"),
    ...bindings,
  };
}
