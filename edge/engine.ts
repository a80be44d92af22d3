// The only file that knows where engines are and how to talk to them; what is special about those on Modal is in cold-start.ts. What
// comes back is validated; what cannot be used becomes a TillerError of the table: an engine's own code when the caller can act on it,
// `engine_*` when the fault is on our side.
import type { z } from "zod";
import { type ErrorCode, TillerError } from "../shared/errors.ts";
import { FeaturesResult, RowsResult, SimilarResult } from "../shared/features.ts";
import {
  EngineErrorBody,
  EngineReport,
  fromEngineError,
  type GenerateRequest,
  GenerateResult,
  type ModelInfo,
  ModelList,
  TokenEvent,
} from "../shared/protocol.ts";
import { ActivationsResult, LatentsResult, TokenizeResult } from "../shared/readings.ts";
import { parseEvents } from "../shared/sse.ts";
import { type ColdStart, fetchModal, isGateway } from "./cold-start.ts";
import type { Config, EngineAddress } from "./config.ts";

/** Seconds after which a caller should try an engine that did not answer again. */
const RETRY_SECONDS = 5;
/** Longer than an engine is silent while it reads a model. */
const HEALTH_TIMEOUT_MS = 5000;
const POLL_TIMEOUT_MS = 20_000;
const NOT_FOUND = "no such generation";

/** Codes that say something about the caller's request. Any other code of an engine is about our deployment. */
const CALLERS_CODES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "invalid_request",
  "prompt_too_long",
  "model_not_found",
  "feature_not_found",
  "too_large",
  "steering_not_applied",
  "engine_busy",
  "engine_timeout",
  "engine_unavailable",
  "canceled",
]);

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
    const init: RequestInit = { headers: headers(engine), signal: AbortSignal.timeout(HEALTH_TIMEOUT_MS) };
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
  "/rows": RowsResult;
  "/similar": SimilarResult;
  "/features": FeaturesResult;
}
const READINGS: { readonly [Path in keyof Readings]: z.ZodType<Readings[Path]> } = {
  "/tokenize": TokenizeResult,
  "/activations": ActivationsResult,
  "/latents": LatentsResult,
  "/rows": RowsResult,
  "/similar": SimilarResult,
  "/features": FeaturesResult,
};
/** They are answered at once. */
const WITHOUT_DEADLINE: ReadonlySet<keyof Readings> = new Set(["/tokenize", "/features"] as const);

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
  const timed = WITHOUT_DEADLINE.has(path) ? request : { ...request, deadline_ms: config.engineTimeoutMs };
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
  if (response.status !== 202) return eventsOf(response);
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
  return eventsOf(await send(engine, config, "/generate", post(withDeadline(request, config), "text/event-stream"), signal, cold));
}

async function eventsOf(response: Response): Promise<AsyncGenerator<EngineEvent>> {
  const type = response.headers.get("content-type") ?? "";
  if (response.body === null || !type.startsWith("text/event-stream")) {
    await response.body?.cancel();
    throw unusable(`/generate answered ${type || "no content type"} instead of an event stream`);
  }
  return readGeneration(response.body);
}

async function* readGeneration(body: ReadableStream<Uint8Array>): AsyncGenerator<EngineEvent> {
  const events = parseEvents(body);
  try {
    for (;;) {
      const next = await events.next().catch((error: unknown) => {
        throw isTimeout(error) ? timedOut(error) : unusable("the stream broke", error);
      });
      if (next.done) throw unusable("the stream ended without a done event");
      const { event, data } = next.value;
      if (event === "token") yield { event, data: parse(TokenEvent, decode(data), "token event") };
      else if (event === "error") throw asCallerError(fromEngineError(decode(data)));
      else if (event === "done") {
        yield { event, data: parse(GenerateResult, decode(data), "done event") };
        return;
      }
    }
  } finally {
    await events.return(undefined);
  }
}

const post = (body: unknown, accept: string): RequestInit => ({
  method: "POST",
  body: JSON.stringify(body),
  headers: { "content-type": "application/json", accept },
});

/** The engine gives up when we would: a connection that broke unnoticed does not keep its rows. */
const withDeadline = (request: GenerateRequest, config: Config): GenerateRequest => ({ ...request, deadline_ms: config.engineTimeoutMs });

const headers = ({ token, modal }: EngineAddress): Record<string, string> => ({
  ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
  ...(modal === undefined ? {} : { "Modal-Key": modal.key, "Modal-Secret": modal.secret }),
});

async function send(
  engine: EngineAddress,
  config: Config,
  path: string,
  { headers: own, ...rest }: RequestInit,
  gone: AbortSignal | undefined,
  cold?: ColdStart,
): Promise<Response> {
  const deadline = AbortSignal.timeout(config.engineTimeoutMs);
  const signal = gone === undefined ? deadline : AbortSignal.any([gone, deadline]);
  const url = engine.url + path;
  const init: RequestInit = { ...rest, headers: { ...(own as Record<string, string> | undefined), ...headers(engine) }, signal };
  const quick = rest.body === undefined || WITHOUT_DEADLINE.has(path as keyof Readings);
  let response: Response;
  try {
    response = engine.modal === undefined ? await fetch(url, init) : await fetchModal(url, init, { config, quick, signal, gone, cold });
  } catch (error) {
    if (error instanceof TillerError) throw error;
    if (deadline.aborted) throw timedOut(error);
    if (gone?.aborted) throw error;
    throw new TillerError("engine_unavailable", undefined, { cause: error, retryAfterSeconds: RETRY_SECONDS });
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => undefined);
  if (isGateway(response.status, body)) {
    throw new TillerError("engine_unavailable", undefined, {
      cause: `${path} answered ${response.status}`,
      retryAfterSeconds: RETRY_SECONDS,
    });
  }
  if (response.status === 401 && engine.modal !== undefined && !EngineErrorBody.safeParse(body).success)
    throw unusable(`Modal refused the proxy key of the engine of ${engine.models}`);
  // "No such generation" is an answer, and no fault of anybody.
  if (response.status === 404 && path.startsWith("/generations/")) throw new TillerError("engine_failed", undefined, { cause: NOT_FOUND });
  throw asCallerError(fromEngineError(body));
}

async function readJson(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch (error) {
    throw isTimeout(error) ? timedOut(error) : unusable("the answer was cut off or is not JSON", error);
  }
}

function decode(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch (error) {
    throw unusable("an event is not JSON", error);
  }
}

function parse<Schema extends z.ZodType>(schema: Schema, value: unknown, what: string): z.output<Schema> {
  const result = schema.safeParse(value);
  if (!result.success) throw unusable(`${what} is not what the protocol says`, result.error);
  return result.data;
}

/** An engine's "wrong token" must not reach the caller as "your key is wrong". */
export function asCallerError(error: TillerError): TillerError {
  if (!CALLERS_CODES.has(error.code)) return error.code === "engine_failed" ? error : unusable(`the engine answered ${error.code}`, error);
  if (error.status !== 503 || error.retryAfterSeconds !== undefined) return error;
  return new TillerError(error.code, error.message, { cause: error, retryAfterSeconds: RETRY_SECONDS });
}

const isTimeout = (error: unknown): boolean => error instanceof DOMException && error.name === "TimeoutError";
const timedOut = (cause: unknown): TillerError => new TillerError("engine_timeout", undefined, { cause });
const unusable = (detail: string, cause?: unknown): TillerError => new TillerError("engine_failed", undefined, { cause: cause ?? detail });
