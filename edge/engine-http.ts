// How a request goes to an engine and what comes back: addresses, keys, deadlines, JSON and events, and what each failure means to the
// caller. What cannot be used becomes a TillerError of the table: an engine's own code when the caller can act on it, `engine_*` when the
// fault is on our side.
import type { z } from "zod";
import { type ErrorCode, TillerError } from "../shared/errors.ts";
import { EngineErrorBody, fromEngineError } from "../shared/protocol.ts";
import { parseEvents } from "../shared/sse.ts";
import { type ColdStart, fetchModal, isGateway } from "./cold-start.ts";
import type { Config, EngineAddress } from "./config.ts";

/** Seconds after which a caller should try an engine that did not answer again. */
const RETRY_SECONDS = 5;
export const NOT_FOUND = "no such generation";
/** Calls that are answered at once: they take no deadline, and where they are silent the engine is not there yet. */
export const AT_ONCE: ReadonlySet<string> = new Set(["/tokenize", "/features"]);

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

export const post = (body: unknown, accept: string): RequestInit => ({
  method: "POST",
  body: JSON.stringify(body),
  headers: { "content-type": "application/json", accept },
});

export const headersOf = ({ token, modal }: EngineAddress): Record<string, string> => ({
  ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
  ...(modal === undefined ? {} : { "Modal-Key": modal.key, "Modal-Secret": modal.secret }),
});

/**
 * Sends a request and waits for the answer's beginning, until `config.engineTimeoutMs` are over or `gone` is aborted.
 * @throws TillerError when the engine refuses or cannot be reached; the reason of `gone` when it was aborted.
 */
export async function send(
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
  const init: RequestInit = { ...rest, headers: { ...(own as Record<string, string> | undefined), ...headersOf(engine) }, signal };
  const quick = rest.body === undefined || AT_ONCE.has(path);
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

export async function readJson(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch (error) {
    throw isTimeout(error) ? timedOut(error) : unusable("the answer was cut off or is not JSON", error);
  }
}

/**
 * The events of a stream, whose data were JSON. It ends with the event `done`, or it throws: never silently.
 * @param what names the call in the log.
 */
export async function readEvents(response: Response, what: string): Promise<AsyncGenerator<{ event: string; data: unknown }>> {
  const type = response.headers.get("content-type") ?? "";
  if (response.body === null || !type.startsWith("text/event-stream")) {
    await response.body?.cancel();
    throw unusable(`${what} answered ${type || "no content type"} instead of an event stream`);
  }
  return eventsOf(response.body);
}

async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<{ event: string; data: unknown }> {
  const events = parseEvents(body);
  try {
    for (;;) {
      const next = await events.next().catch((error: unknown) => {
        throw isTimeout(error) ? timedOut(error) : unusable("the stream broke", error);
      });
      if (next.done) throw unusable("the stream ended without a done event");
      const { event, data } = next.value;
      if (event === "error") throw asCallerError(fromEngineError(decode(data)));
      yield { event, data: decode(data) };
      if (event === "done") return;
    }
  } finally {
    await events.return(undefined);
  }
}

function decode(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch (error) {
    throw unusable("an event is not JSON", error);
  }
}

export function parse<Schema extends z.ZodType>(schema: Schema, value: unknown, what: string): z.output<Schema> {
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
