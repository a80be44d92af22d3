// The engine protocol over HTTP (node:http): reads and checks requests, writes JSON or server-sent events. Computes nothing.
import { createHash, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { z } from "zod";
import { type DirectionsProgress, DirectionsRequest, type DirectionsResult } from "../../shared/directions.ts";
import { TillerError } from "../../shared/errors.ts";
import {
  FeaturesRequest,
  type FeaturesResult,
  RowsRequest,
  type RowsResult,
  SimilarRequest,
  type SimilarResult,
} from "../../shared/features.ts";
import {
  CancelRequest,
  type EngineReport,
  type GenerateEvent,
  GenerateRequest,
  type GenerateResult,
  type ModelInfo,
  type TokenEvent,
  toEngineError,
} from "../../shared/protocol.ts";
import {
  ActivationsRequest,
  type ActivationsResult,
  LatentsRequest,
  type LatentsResult,
  ScoreRequest,
  type ScoreResult,
  TokenizeRequest,
  type TokenizeResult,
} from "../../shared/readings.ts";
import { formatEvent } from "../../shared/sse.ts";
import type { CallbackRequest, Callbacks } from "./callbacks.ts";
import { directionsEvents } from "./directions/events.ts";
import { sendEvents } from "./event-stream.ts";

/** What the server serves. */
export interface EngineService {
  models(): ModelInfo[];
  /** How long each phase of the last start of each model took, in milliseconds since it began; engines that do not measure have none. */
  phases?(): Record<string, Readonly<Record<string, number>>>;
  /** Throws a TillerError before its first event when the request cannot be run; aborting the signal frees what it uses. */
  generate(request: GenerateRequest, signal: AbortSignal): AsyncIterable<GenerateEvent>;
  score(request: ScoreRequest, signal: AbortSignal): Promise<ScoreResult>;
  latents(request: LatentsRequest, signal: AbortSignal): Promise<LatentsResult>;
  activations(request: ActivationsRequest, signal: AbortSignal): Promise<ActivationsResult>;
  /** Refuses like `generate`. `progress` is called after every text. */
  directions(request: DirectionsRequest, signal: AbortSignal, progress: (progress: DirectionsProgress) => void): Promise<DirectionsResult>;
  tokenize(request: TokenizeRequest): Promise<TokenizeResult>;
  rows(request: RowsRequest, signal: AbortSignal): Promise<RowsResult>;
  similar(request: SimilarRequest, signal: AbortSignal): Promise<SimilarResult>;
  features(request: FeaturesRequest): Promise<FeaturesResult>;
  /** Ends the generation of this name. @returns whether one ran. */
  cancel(id: string): boolean;
}

export interface ServerOptions {
  /** Bearer token every caller must send; undefined = none is asked for. */
  readonly token?: string | undefined;
  /** Generations that report to their `callback_url`; absent: everything is answered at once. */
  readonly callbacks?: Callbacks | undefined;
  /** Receives one line per failure on our side. */
  readonly log: (line: string) => void;
}

/** The most texts of /directions, DIRECTION_LIMITS.bytes, take three times as much where a caller escapes all letters outside ASCII. */
const BODY_LIMIT = 16 * 2 ** 20;

/** An HTTP server that is not listening yet. */
export function newServer(service: EngineService, options: ServerOptions): Server {
  return createServer((request, response) => {
    handle(service, options, request, response).catch((thrown: unknown) => {
      const error = TillerError.from(thrown);
      // Work that ended because its caller left is no failure.
      const left = response.destroyed && error.cause instanceof DOMException && error.cause.name === "AbortError";
      if (error.status >= 500 && !left) options.log(`${request.method} ${request.url}: ${error.code}: ${describe(error.cause ?? error)}`);
      fail(response, error);
    });
  });
}

const describe = (cause: unknown): string => (cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause));

async function handle(service: EngineService, options: ServerOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const target = request.url ?? "/";
  const pathname = URL.canParse(target, "http://engine") ? new URL(target, "http://engine").pathname : target;
  const method = pathname.startsWith(GENERATIONS) && options.callbacks !== undefined ? "GET" : ROUTES.get(pathname);
  if (method === undefined)
    throw new TillerError("not_found", `There is no ${pathname}; an engine answers ${[...ROUTES.keys()].join(", ")}.`);
  if (request.method !== method) {
    response.setHeader("allow", method);
    throw new TillerError("method_not_allowed", `${pathname} takes ${method}, not ${request.method}.`);
  }
  // Liveness is not a secret, and whoever watches an engine should not need its token.
  if (pathname === "/health") {
    const models = service.models().map((model) => model.id);
    return sendJson(response, 200, { status: "ok", models, ...(service.phases === undefined ? {} : { phases: service.phases() }) });
  }
  if (options.token !== undefined && !tokenMatches(request.headers.authorization, options.token)) {
    throw new TillerError("unauthorized", "This engine needs its token: Authorization: Bearer <token>.");
  }
  if (pathname.startsWith(GENERATIONS)) return sendJson(response, 200, await findReport(options.callbacks, pathname));
  if (pathname === "/models") return sendJson(response, 200, { models: service.models() });
  const text = await readBody(request, response);
  const controller = new AbortController();
  response.once("close", () => controller.abort());
  const { signal } = controller;
  const answer = ANSWERS.get(pathname);
  if (answer !== undefined) return sendJson(response, 200, await answer(service, text, signal));
  const streams = request.headers.accept?.includes("text/event-stream") === true;
  if (pathname === "/directions") {
    const wanted = parseBody(DirectionsRequest, text);
    if (streams)
      return sendEvents(
        directionsEvents((progress) => service.directions(wanted, signal, progress)),
        response,
      );
    return sendJson(response, 200, await service.directions(wanted, signal, () => undefined));
  }
  const asked = parseBody(GenerateRequest, text);
  const { callbacks } = options;
  if (callbacks !== undefined && answersLater(asked)) {
    // Whoever runs it for its caller waits for its end; its caller does not.
    if (pathname === "/run") await callbacks.run(asked, signal);
    else await callbacks.accept(asked);
    return sendJson(response, pathname === "/run" ? 200 : 202, { id: asked.id });
  }
  if (pathname === "/run") throw new TillerError("invalid_request", "/run needs id and callback_url, and an engine with a token.");
  const events = service.generate(asked, signal)[Symbol.asyncIterator]();
  if (streams) await sendEvents(events, response);
  else await sendResult(events, response);
}

/** Calls that take JSON and answer JSON, and nothing else. */
const ANSWERS = new Map<string, (service: EngineService, body: string, signal: AbortSignal) => Promise<unknown>>([
  ["/score", (service, body, signal) => service.score(parseBody(ScoreRequest, body), signal)],
  ["/latents", (service, body, signal) => service.latents(parseBody(LatentsRequest, body), signal)],
  ["/activations", (service, body, signal) => service.activations(parseBody(ActivationsRequest, body), signal)],
  ["/tokenize", (service, body) => service.tokenize(parseBody(TokenizeRequest, body))],
  ["/rows", (service, body, signal) => service.rows(parseBody(RowsRequest, body), signal)],
  ["/similar", (service, body, signal) => service.similar(parseBody(SimilarRequest, body), signal)],
  ["/features", (service, body) => service.features(parseBody(FeaturesRequest, body))],
  ["/cancel", async (service, body) => ({ canceled: service.cancel(parseBody(CancelRequest, body).id) })],
]);

const ROUTES: ReadonlyMap<string, string> = new Map([
  ["/health", "GET"],
  ["/models", "GET"],
  ["/generate", "POST"],
  ["/run", "POST"],
  ["/directions", "POST"],
  ...[...ANSWERS.keys()].map((pathname) => [pathname, "POST"] as const),
]);

/** Followed by the id of a generation that reports. */
const GENERATIONS = "/generations/";

const answersLater = (request: GenerateRequest): request is CallbackRequest =>
  request.id !== undefined && request.callback_url !== undefined;

async function findReport(callbacks: Callbacks | undefined, pathname: string): Promise<EngineReport> {
  const report = await callbacks?.find(pathname.slice(GENERATIONS.length));
  if (report === undefined) throw new TillerError("not_found", "There is no such generation here.");
  return report;
}

/** Compares digests, so that neither the length nor a common beginning shows in the time it takes. */
function tokenMatches(header: string | undefined, token: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(header ?? ""), digest(`Bearer ${token}`));
}

async function readBody(request: IncomingMessage, response: ServerResponse): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const chunk of request as AsyncIterable<Uint8Array>) {
      size += chunk.length;
      if (size > BODY_LIMIT) {
        // What is still coming is not read: the connection ends with the answer.
        response.setHeader("connection", "close");
        throw new TillerError("too_large", `The body is larger than ${BODY_LIMIT} bytes.`);
      }
      chunks.push(chunk);
    }
  } catch (error) {
    // A caller that leaves in the middle of its body is no failure of ours.
    throw error instanceof TillerError ? error : new TillerError("invalid_request", "The body ended too early.", { cause: error });
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parseBody<Schema extends z.ZodType>(schema: Schema, text: string): z.output<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new TillerError("invalid_request", "The body is not JSON.");
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0] as z.core.$ZodIssue;
  throw new TillerError("invalid_request", `${issue.path.join(".") || "body"}: ${issue.message}.`);
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

/** An error as the answer, or as the last event of a stream that has begun. */
function fail(response: ServerResponse, error: TillerError): void {
  if (response.destroyed || response.writableEnded) return;
  if (response.headersSent) {
    response.end(formatEvent("error", toEngineError(error)));
    return;
  }
  if (error.retryAfterSeconds !== undefined) response.setHeader("retry-after", String(error.retryAfterSeconds));
  sendJson(response, error.status, toEngineError(error));
}

async function sendResult(events: AsyncIterator<GenerateEvent>, response: ServerResponse): Promise<void> {
  const tokens = new Map<string, TokenEvent[]>();
  for (;;) {
    const next = await events.next();
    // Without a `done` the caller is gone: nobody reads an answer.
    if (next.done) return;
    const { event, data } = next.value;
    if (event === "token") {
      const row = tokens.get(data.row);
      if (row === undefined) tokens.set(data.row, [data]);
      else row.push(data);
    }
    if (event === "done") {
      const result: GenerateResult = { ...data, rows: data.rows.map((row) => ({ ...row, tokens: tokens.get(row.name) ?? [] })) };
      sendJson(response, 200, result);
    }
  }
}
