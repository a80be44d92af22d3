// An engine as a process: reads its environment, serves the protocol, leaves cleanly. What is served is the caller's affair.
//   PORT (8788; 0 = any free)  HOST (127.0.0.1)  ENGINE_TOKEN  MODELS (comma-separated directories)
//   CACHE_MB (KV cache of one model)  MODELS_MB (all loaded models together)  WARM (models loaded at the start; all that fit)
import type { AddressInfo } from "node:net";
import path from "node:path";
import type { Callbacks } from "./callbacks.ts";
import { type EngineService, newServer } from "./server.ts";

const BUNDLED = path.join(import.meta.dirname, "..", "bundled", "tiller-tales");
const LOOPBACK = new Set(["127.0.0.1", "::1", "localhost"]);

/** What every engine is told by its environment. */
export interface EngineEnvironment {
  readonly directories: readonly string[];
  readonly cacheBytes: number | undefined;
  readonly memoryBytes: number | undefined;
  readonly warm: number | undefined;
  readonly log: (line: string) => void;
}

/** Ends the process with one sentence; a start that fails has no stack trace worth a user's time. */
export function refuse(sentence: string): never {
  console.error(sentence);
  process.exit(1);
}

/** A whole number of the environment. */
export function wholeNumber(name: string, fallback: number | undefined, max: number): number | undefined {
  const text = process.env[name];
  if (text === undefined || text === "") return fallback;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || value > max) refuse(`${name} must be a whole number from 0 to ${max}, not '${text}'.`);
  return value;
}

/** One of the words that a setting may be; the first when it is not set. */
export function oneOfWords<Word extends string>(name: string, words: readonly [Word, ...Word[]]): Word {
  const text = process.env[name] || words[0];
  return words.find((word) => word === text) ?? refuse(`${name} must be ${words.join(", ")}, not '${text}'.`);
}

const bytes = (name: string): number | undefined => {
  const megabytes = wholeNumber(name, undefined, 100_000_000);
  return megabytes === undefined ? undefined : megabytes * 1e6;
};

/**
 * Serves what `load` gives until the process is told to stop, or whoever started it is gone.
 * @param newCallbacks for engines whose callers need not wait.
 */
export async function serveEngine(
  load: (environment: EngineEnvironment) => Promise<EngineService & { close(): Promise<void> }>,
  newCallbacks?: (engine: EngineService, token: string) => Callbacks,
): Promise<void> {
  const port = wholeNumber("PORT", 8788, 65_535) as number;
  const warm = wholeNumber("WARM", undefined, 1_000_000);
  const host = process.env.HOST || "127.0.0.1";
  const token = process.env.ENGINE_TOKEN || undefined;
  const directories = (process.env.MODELS || BUNDLED)
    .split(",")
    .map((directory) => directory.trim())
    .filter((directory) => directory !== "");
  if (directories.length === 0) refuse("MODELS names no directory: list model directories, separated by commas.");
  if (token === undefined && !LOOPBACK.has(host))
    refuse(`HOST is ${host}, which others can reach: set ENGINE_TOKEN to the token they must send.`);

  /** What has to end before the process does: nothing while the models load. */
  let end = async (): Promise<void> => undefined;
  let stopping = false;
  async function stop(): Promise<void> {
    if (stopping) return;
    stopping = true;
    await end();
    process.exit(0);
  }
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => void stop());
  // Started by a supervisor with a channel: when it is gone, however it went, so are we. It may go while the models load, or even
  // before this line runs; `connected` is undefined where there never was a channel.
  process.on("disconnect", () => void stop());
  if (process.connected === false) process.exit(0);

  const log = (line: string) => console.log(`  ${line}`);
  const engine = await load({ directories, cacheBytes: bytes("CACHE_MB"), memoryBytes: bytes("MODELS_MB"), warm, log }).catch(
    (error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error);
      refuse(`The engine cannot start: ${reason.replace(/\.$/, "")}.`);
    },
  );

  const server = newServer(engine, {
    ...{ token, log: (line: string) => console.error(line) },
    // Without a token there is nothing to sign a report with: then everything is answered at once.
    callbacks: token === undefined ? undefined : newCallbacks?.(engine, token),
  });
  server.once("error", (error: NodeJS.ErrnoException) => {
    refuse(
      error.code === "EADDRINUSE"
        ? `Port ${port} of ${host} is in use: stop what uses it, or choose another with PORT.`
        : `The engine cannot listen on ${host}:${port}: ${error.message}.`,
    );
  });
  server.listen(port, host, () => {
    const models = engine.models().map((model) => model.id);
    console.log(JSON.stringify({ port: (server.address() as AddressInfo).port, models }));
  });
  end = async () => {
    server.close();
    await engine.close();
    server.closeAllConnections();
  };
}
