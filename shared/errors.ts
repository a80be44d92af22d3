// The one table of failures. A code decides the HTTP status, whether trying again can help, and the sentence used when the
// thrower has nothing more exact to say. Nothing else in the product maps codes to statuses.

/** status: HTTP status. retry: may the same request succeed later. sentence: shown when no better message was given. */
interface ErrorRow {
  readonly status: 400 | 401 | 403 | 404 | 405 | 409 | 413 | 422 | 429 | 500 | 502 | 503 | 504;
  readonly retry: boolean;
  readonly sentence: string;
}

export const ERRORS = {
  invalid_request: { status: 400, retry: false, sentence: "The request is not valid." },
  prompt_too_long: { status: 400, retry: false, sentence: "The prompt does not fit the model's context." },
  unauthorized: { status: 401, retry: false, sentence: "This call needs a valid API key in x-api-key or as a Bearer token." },
  forbidden: { status: 403, retry: false, sentence: "This key may not do that." },
  not_found: { status: 404, retry: false, sentence: "There is nothing at this address." },
  model_not_found: { status: 404, retry: false, sentence: "There is no such model." },
  feature_not_found: { status: 404, retry: false, sentence: "There is no such feature." },
  method_not_allowed: { status: 405, retry: false, sentence: "This address does not take that method." },
  conflict: { status: 409, retry: false, sentence: "This conflicts with what is already there." },
  canceled: { status: 409, retry: false, sentence: "The work was canceled." },
  too_large: { status: 413, retry: false, sentence: "The request body is too large." },
  rate_limited: { status: 429, retry: true, sentence: "The hourly limit is used up." },
  internal: { status: 500, retry: true, sentence: "Something went wrong on our side. Quote the request id when you report it." },
  steering_not_applied: { status: 422, retry: false, sentence: "The edits changed nothing, so no steered text was made." },
  engine_failed: { status: 502, retry: true, sentence: "The engine that runs this model failed. Try again." },
  engine_unavailable: { status: 503, retry: true, sentence: "The engine that runs this model does not answer. Try again in a moment." },
  engine_busy: { status: 503, retry: true, sentence: "The engine that runs this model is full. Try again in a moment." },
  scorer_failed: { status: 502, retry: true, sentence: "The webhook that scores texts did not answer as it should." },
  engine_timeout: { status: 504, retry: true, sentence: "The engine took too long. Try again, or ask for fewer tokens." },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof ERRORS;

/** Narrows a string from the wire to a code of the table. */
export const isErrorCode = (code: unknown): code is ErrorCode => typeof code === "string" && Object.hasOwn(ERRORS, code);

export interface TillerErrorOptions {
  /** The foreign error behind this one: for the log, never for the wire. */
  readonly cause?: unknown;
  /** Seconds after which a retry makes sense; becomes the Retry-After header. */
  readonly retryAfterSeconds?: number;
}

/** Every failure that a caller may read. Anything else that is thrown becomes `internal` with a fixed sentence. */
export class TillerError extends Error {
  override readonly name = "TillerError";
  readonly code: ErrorCode;
  readonly retryAfterSeconds: number | undefined;

  constructor(code: ErrorCode, message: string = ERRORS[code].sentence, options: TillerErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }

  get status(): ErrorRow["status"] {
    return ERRORS[this.code].status;
  }

  /** Anything thrown, as an error that may be shown: foreign errors lose their words here and keep them in `cause`. */
  static from(thrown: unknown): TillerError {
    return thrown instanceof TillerError ? thrown : new TillerError("internal", undefined, { cause: thrown });
  }
}
