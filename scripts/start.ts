// `npm start`: edge and engine on this machine, one steer shown, then serving until Ctrl-C. Every failure is one sentence.
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { findDemonstration, renderDemonstration, type SteerBody, steer } from "./demonstration.ts";
import { ROOT } from "./edge-bundle.ts";
import { type LocalEdge, readEngineNeeds, STATE, startEdge } from "./local-edge.ts";
import { EngineKeeper, type EngineSettings, startEngine } from "./local-engine.ts";
import { createBotKey, createLocalKey, ensureLocalUser, withDemonstrationKey } from "./local-user.ts";
import { storedModels, storeFolder } from "./models/store.ts";
import { claimPort, HOST } from "./ports.ts";
import { HELP, parseStartOptions, type StartOptions } from "./start-options.ts";

const BUNDLED = path.join(ROOT, "gpu-functions", "bundled");
/** One Ctrl-C arrives twice: from the terminal, and forwarded by npm. Only a later one means "now". */
const SAME_CTRL_C_MS = 500;

const say = (line: string): void => console.log(line);

/** What runs and how to end it: filled while starting, so that Ctrl-C at any moment ends what there is. */
class Running {
  edge: LocalEdge | undefined;
  engine: EngineKeeper | undefined;
  private stoppingSince: number | undefined;

  async stop(code: number): Promise<never> {
    this.stoppingSince ??= performance.now();
    await Promise.allSettled([this.edge?.close(), this.engine?.stop()]);
    process.exit(code);
  }

  /** First signal: stop in order. A later one: stop at once. */
  onSignal(): void {
    if (this.stoppingSince === undefined) {
      say("\nStopping.");
      void this.stop(0);
    } else if (performance.now() - this.stoppingSince > SAME_CTRL_C_MS) {
      this.engine?.kill();
      process.exit(1);
    }
  }
}

async function main(): Promise<void> {
  const options = parseStartOptions(process.argv.slice(2));
  if (options.help) return say(HELP);
  const running = new Running();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => running.onSignal());
  // The process that handed over to this one is gone.
  process.once("disconnect", () => running.onSignal());
  try {
    await serve(options, running);
  } catch (error) {
    console.error((error as Error).message);
    await running.stop(1);
  }
}

async function serve(options: StartOptions, running: Running): Promise<void> {
  const ready = findModels(options.models);
  const demonstration = await findDemonstration(ready);
  const models = [...ready, ...(options.models.length > 0 ? [] : findPulled(ready))];
  const port = options.port === 0 ? 0 : await claimPort(options.port, "edge", "--port");
  const done = stopwatch();
  say("Preparing the Worker.");
  const needs = await readEngineNeeds();
  done("Worker bundled");
  const token = needs.token ?? randomBytes(32).toString("base64url");
  const settings: EngineSettings = {
    port: needs.local ? await claimPort(options.enginePort, "engine", "--engine-port") : options.enginePort,
    token,
    models,
    // A pulled model may take minutes to load: it is loaded when it is asked for.
    warm: ready.length,
    threads: options.threads,
  };
  if (needs.local) {
    say(`Loading ${namesOf(ready)}.${models.length > ready.length ? ` On request: ${namesOf(models.slice(ready.length))}.` : ""}`);
    const engine = await startEngine(settings);
    running.engine = new EngineKeeper(engine, settings, say, (sentence) => {
      console.error(sentence);
      void running.stop(1);
    });
    done(`Engine on ${engine.url}`);
  } else say("ENGINES names no engine of this machine, so none is started.");
  const edge = await startEdge({ port, engine: { url: `http://${HOST}:${settings.port}`, token }, state: options.state ?? STATE });
  running.edge = edge;
  if (edge.migrated.length > 0) say(`Database brought up to date: ${edge.migrated.join(", ")}.`);
  done(`Edge on ${edge.url}`);
  const { hasKey } = await ensureLocalUser(edge.db, Date.now());
  const key = hasKey && !options.newKey ? undefined : await createLocalKey(edge.db, Date.now());
  await demonstrate(demonstration, edge, options);
  if (key === undefined) say("Key    shown at the first start and stored as a hash only; npm start -- --new-key makes another.");
  else say(`Key    ${key}\n       Shown this once: send it as x-api-key. Calls without a key work too, fewer of them.`);
  if (options.botKey)
    say(
      `Bot    TILLER_SERVICE_KEY=${await createBotKey(edge.db, Date.now())}\n       Shown this once: docs/discord.md tells where it goes.`,
    );
  if (options.once) await running.stop(0);
  say("\nServing until Ctrl-C.");
}

async function demonstrate(body: SteerBody | undefined, edge: LocalEdge, options: StartOptions): Promise<void> {
  if (body === undefined) {
    const sentence = "No model directory here has a demonstration in its tiller.json.";
    if (options.once) throw new Error(sentence);
    return say(`${sentence}\nDocs   ${edge.url}/docs`);
  }
  try {
    const answer = await withDemonstrationKey(edge.db, Date.now(), (key) => steer(edge.url, key, body));
    const screen = {
      width: Math.min(process.stdout.columns || 100, 140),
      color: process.stdout.isTTY === true && !process.env.NO_COLOR,
    };
    say("");
    for (const line of renderDemonstration(body, answer, edge.url, screen)) say(line);
  } catch (error) {
    if (options.once) throw error;
    // What was started may still be of use, for instance to find out why.
    console.error((error as Error).message);
  }
}

function findModels(asked: readonly string[]): string[] {
  for (const directory of asked) {
    if (!existsSync(path.join(directory, "config.json"))) {
      throw new Error(`There is no model in ${directory}: a model directory has config.json, model.safetensors and tokenizer.json.`);
    }
  }
  if (asked.length > 0) return asked.map((directory) => path.resolve(directory));
  const bundled = existsSync(BUNDLED) ? readdirSync(BUNDLED).map((name) => path.join(BUNDLED, name)) : [];
  const models = bundled.filter((directory) => existsSync(path.join(directory, "config.json")));
  if (models.length === 0) {
    throw new Error(
      "The bundled model is missing from gpu-functions/bundled: restore it with git checkout, or serve one of your own with --model DIR.",
    );
  }
  return models;
}

const namesOf = (directories: readonly string[]): string => directories.map((directory) => path.basename(directory)).join(", ");

/** Models of the store; of those that cannot be served it says why, and the others are served all the same. */
function findPulled(others: readonly string[]): string[] {
  const taken = new Set(others.map((directory) => path.basename(directory)));
  return storedModels(storeFolder()).flatMap(({ id, directory, problem }) => {
    const reason = taken.has(id) ? "a bundled model has that name" : problem;
    if (reason === undefined) return [directory];
    console.error(`Not served: ${id} of ${storeFolder()}: ${reason}.`);
    return [];
  });
}

/** Says what is done and how long it took since the last time. */
function stopwatch(): (what: string) => void {
  let since = performance.now();
  return (what) => {
    const now = performance.now();
    say(`  ${what} (${((now - since) / 1000).toFixed(1)} s)`);
    since = now;
  };
}

main().catch((error: unknown) => {
  console.error((error as Error).message);
  process.exit(1);
});
