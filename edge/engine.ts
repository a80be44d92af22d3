// The calls of the engine protocol. Only this file and engine-http.ts, which carries them, know where engines are and how to talk to them;
// what is special about those on Modal is in cold-start.ts. What comes back is validated.
import type { z } from "zod";
import { DirectionsProgress, type DirectionsRequest, DirectionsResult } from "../shared/directions.ts";
import { TillerError } from "../shared/errors.ts";
import { FeaturesResult, RowsResult, SimilarResult } from "../shared/features.ts";
import { EngineReport, type GenerateRequest, GenerateResult, type ModelInfo, ModelList, TokenEvent } from "../shared/protocol.ts";
import { ActivationsResult, LatentsResult, ScoreResult, TokenizeResult } from "../shared/readings.ts";
import type { ColdStart } from "./cold-start.ts";
import type { Config, EngineAddress } from "./config.ts";
import { AT_ONCE, headersOf, NOT_FOUND, parse, post, readEvents, readJson, send } from "./engine-http.ts";

/** Longer than an engine is silent while it reads a model. */
const HEALTH_TIMEOUT_MS = 5000;
const POLL_TIMEOUT_MS = 20_000;

export type EngineEvent =
  | { readonly event: "token"; readonly data: TokenEvent }
  | { readonly event: "done"; readonly data: GenerateResult };

/** The first engine whose pattern fits the model. */
export function findEngine(config: Config, model: string): EngineAddress | undefined {
  return config.engines.find(({ models }) => fits(models, model));
}

function fits(pattern: string, model: string): boolean {
  const escaped = pattern.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${escaped.join(".*")}$`).test(model);
}

/** What an engine serves. */
export async function listModels(
  engine: EngineAddress,
  config: Config,
  signal?: AbortSignal,
  cold?: ColdStart,
): Promise<readonly ModelInfo[]> {
  const response = await send(engine, config, "/models", {}, signal, cold);
  return parse(ModelList, await readJson(response), "/models").models;
}

/** Whether the engine says it is well, within two seconds. */
export async function isHealthy(engine: EngineAddress): Promise<boolean> {
  try {
    const init: RequestInit = { headers: headersOf(engine), signal: AbortSignal.timeout(HEALTH_TIMEOUT_MS) };
    // Modal's keys follow no redirect.
    const response = await fetch(`${engine.url}/health`, engine.modal === undefined ? init : { ...init, redirect: "manual" });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}

/**
 * Generates all rows and waits for the end. Aborting `signal` closes the connection, which frees the engine's rows.
 * @throws TillerError; the signal's reason when it was aborted.
 */
export async function generate(
  engine: EngineAddress,
  config: Config,
  request: GenerateRequest,
  signal: AbortSignal,
  cold?: ColdStart,
): Promise<GenerateResult> {
  const response = await send(engine, config, "/generate", post(withDeadline(request, config), "application/json"), signal, cold);
  return parse(GenerateResult, await readJson(response), "/generate");
}

/** Calls that generate nothing, and their answers. */
interface Readings {
  "/tokenize": TokenizeResult;
  "/activations": ActivationsResult;
  "/latents": LatentsResult;
  "/score": ScoreResult;
  "/rows": RowsResult;
  "/similar": SimilarResult;
  "/features": FeaturesResult;
}
const READINGS: { readonly [Path in keyof Readings]: z.ZodType<Readings[Path]> } = {
  "/tokenize": TokenizeResult,
  "/activations": ActivationsResult,
  "/latents": LatentsResult,
  "/score": ScoreResult,
  "/rows": RowsResult,
  "/similar": SimilarResult,
  "/features": FeaturesResult,
};

/**
 * Asks the engine something about texts.
 * @throws TillerError; the signal's reason when it was aborted.
 */
export async function read<Path extends keyof Readings>(
  engine: EngineAddress,
  config: Config,
  path: Path,
  request: object,
  signal: AbortSignal,
): Promise<Readings[Path]> {
  const timed = AT_ONCE.has(path) ? request : { ...request, deadline_ms: config.engineTimeoutMs };
  const response = await send(engine, config, path, post(timed, "application/json"), signal);
  const schema: z.ZodType<Readings[Path]> = READINGS[path];
  return parse(schema, await readJson(response), path);
}

/** Ends a named generation, if it runs. An engine that does not answer has none. */
export async function cancelGeneration(engine: EngineAddress, config: Config, id: string): Promise<void> {
  try {
    const response = await send(engine, config, "/cancel", post({ id }, "application/json"), AbortSignal.timeout(HEALTH_TIMEOUT_MS));
    await response.body?.cancel();
  } catch {
    // The generation also ends when whoever reads it leaves.
  }
}

/** What an engine answers that will tell of a generation at `callback_url`. */
export const ACCEPTED = "accepted";

/**
 * Starts a generation for a job.
 * @returns its events, or ACCEPTED when the engine will call back. Otherwise as `openGeneration`.
 */
export async function startGeneration(
  engine: EngineAddress,
  config: Config,
  request: GenerateRequest,
  signal: AbortSignal,
): Promise<AsyncGenerator<EngineEvent> | typeof ACCEPTED> {
  const response = await send(engine, config, "/generate", post(withDeadline(request, config), "text/event-stream"), signal);
  if (response.status !== 202) return generationOf(response);
  await response.body?.cancel();
  return ACCEPTED;
}

/** What an engine that calls back says of a generation when it is asked; undefined when it knows none of this name. */
export async function findGeneration(engine: EngineAddress, config: Config, id: string): Promise<EngineReport | undefined> {
  const response = await send(engine, config, `/generations/${id}`, {}, AbortSignal.timeout(POLL_TIMEOUT_MS)).catch((error: unknown) => {
    if (error instanceof TillerError && error.cause === NOT_FOUND) return undefined;
    throw error;
  });
  return response === undefined ? undefined : parse(EngineReport, await readJson(response), "/generations");
}

/**
 * Starts a generation and returns its events. The promise fails when the engine refuses before it starts; the events fail when it
 * stops half way. They end with `done`, or they throw: never silently.
 */
export async function openGeneration(
  engine: EngineAddress,
  config: Config,
  request: GenerateRequest,
  signal: AbortSignal,
  cold?: ColdStart,
): Promise<AsyncGenerator<EngineEvent>> {
  return generationOf(await send(engine, config, "/generate", post(withDeadline(request, config), "text/event-stream"), signal, cold));
}

async function generationOf(response: Response): Promise<AsyncGenerator<EngineEvent>> {
  return generationEvents(await readEvents(response, "/generate"));
}

async function* generationEvents(events: AsyncGenerator<{ event: string; data: unknown }>): AsyncGenerator<EngineEvent> {
  for await (const { event, data } of events) {
    if (event === "token") yield { event, data: parse(TokenEvent, data, "token event") };
    else if (event === "done") yield { event, data: parse(GenerateResult, data, "done event") };
  }
}

/**
 * Derives a direction from texts.
 * @param progress is told how many texts were read, now and then.
 * @throws TillerError; the signal's reason when it was aborted before the engine began.
 */
export async function derive(
  engine: EngineAddress,
  config: Config,
  request: DirectionsRequest,
  signal: AbortSignal,
  progress: (read: DirectionsProgress) => void,
): Promise<DirectionsResult> {
  const timed = { ...request, deadline_ms: config.engineTimeoutMs };
  const response = await send(engine, config, "/directions", post(timed, "text/event-stream"), signal);
  for await (const { event, data } of await readEvents(response, "/directions")) {
    if (event === "progress") progress(parse(DirectionsProgress, data, "progress event"));
    else if (event === "done") return parse(DirectionsResult, data, "done event");
  }
  throw new TillerError("engine_failed", undefined, { cause: "the events ended without done" });
}

/** The engine gives up when we would: a connection that broke unnoticed does not keep its rows. */
const withDeadline = (request: GenerateRequest, config: Config): GenerateRequest => ({ ...request, deadline_ms: config.engineTimeoutMs });
