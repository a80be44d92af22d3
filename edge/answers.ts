// How every failure leaves the edge: one JSON shape, one log line for what is our fault.
import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import { ERRORS, type ErrorCode, TillerError } from "../shared/errors.ts";
import type { App } from "./app.ts";

export const ErrorBody = z
  .object({
    error: z.string().openapi({ example: "n_tokens must be a whole number from 1 to 256." }),
    message: z.string().openapi({ description: "The same sentence: clients of Neuronpedia read either." }),
    code: z.enum(Object.keys(ERRORS) as [ErrorCode, ...ErrorCode[]]).openapi({ example: "invalid_request" }),
    requestId: z.string().openapi({ description: "Also in the x-request-id header. Quote it when you report a problem." }),
  })
  .openapi("Error");
export type ErrorBody = z.infer<typeof ErrorBody>;

/** The body of a 429: Neuronpedia's keys and ours. */
export const RateLimited = ErrorBody.extend({
  endpoint: z.string().openapi({ example: "/api/steer" }),
  limitPerWindow: z.int().openapi({ example: 100 }),
  requestWindow: z.string().openapi({ example: "60 m" }),
  remainingRequests: z.int().openapi({ example: 0 }),
}).openapi("RateLimited");

/** A caller without a place left. */
export class RateLimitedError extends TillerError {
  readonly limited: Omit<z.infer<typeof RateLimited>, keyof ErrorBody>;

  constructor(sentence: string, retryAfterSeconds: number, limited: RateLimitedError["limited"]) {
    super("rate_limited", sentence, { retryAfterSeconds });
    this.limited = limited;
  }
}

export const toErrorBody = (error: TillerError, requestId: string): ErrorBody => ({
  error: error.message,
  message: error.message,
  code: error.code,
  requestId,
});

/** Hono's onError. */
export function answerError(thrown: Error, c: Context<App>): Response {
  const error = toTillerError(thrown);
  logFault(error, c.get("requestId"));
  if (error.retryAfterSeconds !== undefined) c.header("retry-after", String(Math.max(1, Math.ceil(error.retryAfterSeconds))));
  const more = error instanceof RateLimitedError ? error.limited : {};
  return c.json({ ...more, ...toErrorBody(error, c.get("requestId")) }, error.status);
}

/** Writes one line for a failure on our side: the code, the request and the cause's own words, never a prompt or a key. */
export function logFault(error: TillerError, requestId: string): void {
  if (error.status < 500) return;
  console.error(JSON.stringify({ level: "error", requestId, code: error.code, cause: describe(error.cause) }));
}

function describe(cause: unknown): string | undefined {
  if (cause === undefined) return undefined;
  // Validation and JSON errors quote the text they failed on, which may be a caller's: only their kind is logged.
  if (cause instanceof z.ZodError) return `ZodError at ${cause.issues.map((issue) => issue.path.join(".")).join(", ")}`.slice(0, 300);
  if (cause instanceof SyntaxError) return "SyntaxError";
  if (cause instanceof TillerError) return cause.code;
  if (cause instanceof Error) return `${cause.name}: ${withoutParameters(cause.message)}`.slice(0, 300);
  return typeof cause === "string" ? cause.slice(0, 300) : typeof cause;
}

/** drizzle puts the bound values of a failed query (a prompt, a hash) behind "params:". */
const withoutParameters = (message: string): string => message.split(/\bparams:/i)[0] ?? "";

function toTillerError(thrown: unknown): TillerError {
  if (thrown instanceof HTTPException && thrown.status < 500) return new TillerError("invalid_request", undefined, { cause: thrown });
  return TillerError.from(thrown);
}

const jsonError = (description: string, schema: z.ZodType = ErrorBody) => ({ description, content: { "application/json": { schema } } });

/** Error answers for the OpenAPI document, by status. */
export const ERROR_RESPONSES = {
  400: jsonError("The request is not valid; the sentence names the field and what is allowed."),
  401: jsonError("An API key was sent and is not valid. (Send none to call anonymously.)"),
  403: jsonError("This key may not do that: it belongs to somebody else."),
  404: jsonError("No such model, source, feature or id; the sentence names what there is."),
  409: jsonError("This conflicts with what is there; the sentence says what to do first."),
  413: jsonError("The body is too large; the sentence says what the limit is."),
  422: jsonError("The edits changed nothing, so there is no steered text."),
  429: jsonError("The hourly limit is used up; Retry-After says when to try again.", RateLimited),
  500: jsonError("Something went wrong on our side."),
  502: jsonError("The engine failed; the quota was given back."),
  503: jsonError("The engine does not answer or is full; the quota was given back and Retry-After says when to try again."),
  504: jsonError("The engine took too long; the quota was given back."),
} as const;

/** Picks rows of ERROR_RESPONSES. */
export function errorResponses<Status extends keyof typeof ERROR_RESPONSES>(...statuses: Status[]): Pick<typeof ERROR_RESPONSES, Status> {
  return Object.fromEntries(statuses.map((status) => [status, ERROR_RESPONSES[status]])) as Pick<typeof ERROR_RESPONSES, Status>;
}
