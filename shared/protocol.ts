// The engine protocol (design 5): what the edge sends to an engine and what comes back. snake_case JSON; server-sent events
// when the request's Accept header asks for text/event-stream. Both engines and the edge validate with these schemas.
import { z } from "zod";
import { ERRORS, isErrorCode, TillerError } from "./errors.ts";

export const METHODS = ["SIMPLE_ADDITIVE", "ORTHOGONAL_DECOMP", "PROJECTION_CAP", "PROJECTION_CLAMP", "ABLATE", "LATENT_CLAMP"] as const;
export type Method = (typeof METHODS)[number];

/** Numbers both sides enforce. */
export const LIMITS = {
  /** Rows of one request (a baseline and its steered variants); a model may run fewer at once. */
  rows: 64,
  /** Edits of one row. */
  edits: 32,
  /** Edits of one row at one boundary of the residual stream: the rank the graph is built for. */
  editsPerPoint: 8,
  /** Values of one vector. */
  vectorWidth: 24_576,
  /** Position ranges of one edit. */
  ranges: 64,
  stops: 8,
  stopChars: 64,
  topLogprobs: 10,
  deadlineMs: 86_400_000,
  scheduleTokens: 100_000,
  /** Texts of one call of /score, /latents or /activations. */
  texts: 64,
  /** Features and vectors of one /activations call. */
  targets: 64,
  /** Latents listed for a token: more than are active on one. */
  topLatents: 1024,
  /** Latents listed for a text. */
  rankedLatents: 1000,
  /** Characters (UTF-16 code units) of a prompt, or of all messages together, on the engine; the edge allows fewer. */
  promptChars: 262_144,
  /** Messages of one conversation. */
  messages: 512,
  /** Tokens of one row that an earlier run generated. */
  generatedTokens: 262_144,
} as const;

/** Half-open range [start, end) of absolute token positions: 0 is the first token of the prompt (BOS, when the model has one). */
const Range = z.tuple([z.int().min(0), z.int().min(1)]).refine(([start, end]) => start < end, "a range is [start, end) with start < end");

/** Where an edit acts. `all` = prompt and generated tokens (the default). Ranges are absolute and may reach into the generation. */
export const Positions = z.union([z.enum(["all", "prompt", "generated", "prompt_except_last"]), z.array(Range).min(1).max(LIMITS.ranges)]);
export type Positions = z.infer<typeof Positions>;

/**
 * How much of an edit's change is made at the generated tokens; the prompt gets all of it. `decay`: all at the first token, less by
 * 1 / tokens each, none from the token after `tokens` on. `ramp`: 1 / tokens at the first, all from token number `tokens` on.
 */
export const Schedule = z.union([
  z.literal("constant"),
  z.strictObject({ kind: z.enum(["decay", "ramp"]), tokens: z.int().min(1).max(LIMITS.scheduleTokens) }),
]);
export type Schedule = z.infer<typeof Schedule>;

/** The share of an edit at the generated token `index` (0 = the first). */
export function shareAt(schedule: Schedule, index: number): number {
  if (schedule === "constant") return 1;
  const { kind, tokens } = schedule;
  return kind === "ramp" ? Math.min(1, (index + 1) / tokens) : Math.max(0, 1 - index / tokens);
}

/** One SAE latent or named direction: row `index` of `source`, a source of `model`. */
export const FeatureRef = z.strictObject({ model: z.string().min(1).max(128), source: z.string().min(1).max(128), index: z.int().min(0) });
export type FeatureRef = z.infer<typeof FeatureRef>;

/**
 * One edit of the residual stream. `strength` is the final coefficient c of design 4 (strength x strength_multiplier).
 * Exactly one of `feature` (its point is the source's) and `vector` (base64 little-endian float32, with `point`). With
 * `layers: "all"` the point does not matter, and there is one receipt for every point.
 */
export const Edit = z
  .strictObject({
    feature: FeatureRef.optional(),
    vector: z
      .string()
      .max(LIMITS.vectorWidth * 6)
      .optional(),
    point: z.string().max(80).optional(),
    method: z.enum(METHODS),
    strength: z.number(),
    min: z.number().optional(),
    max: z.number().optional(),
    positions: Positions.default("all"),
    schedule: Schedule.default("constant"),
    /** `all`: the edit acts before every layer and after the last one (directional ablation, Arditi et al. 2024). ABLATE only. */
    layers: z.literal("all").optional(),
  })
  .refine((e) => (e.feature === undefined) !== (e.vector === undefined), "an edit has exactly one of feature and vector")
  .refine((e) => e.vector === undefined || e.point !== undefined || e.layers === "all", "an edit with a vector needs its point")
  .refine((e) => e.layers === undefined || e.method === "ABLATE", "layers: all belongs to ABLATE")
  .refine(
    (e) => e.method !== "LATENT_CLAMP" || e.feature !== undefined,
    "LATENT_CLAMP acts on a latent of a sparse autoencoder: give a feature, or use PROJECTION_CLAMP with a vector",
  )
  .refine((e) => e.layers === undefined || e.point === undefined, "an edit at all layers has no point of its own: leave point out")
  .refine((e) => e.method === "PROJECTION_CLAMP" || (e.min === undefined && e.max === undefined), "min and max belong to PROJECTION_CLAMP")
  .refine((e) => e.method !== "PROJECTION_CLAMP" || e.min !== undefined || e.max !== undefined, "PROJECTION_CLAMP needs min, max or both")
  .refine((e) => e.min === undefined || e.max === undefined || e.min <= e.max, "min must not be above max");
export type Edit = z.infer<typeof Edit>;

export const Sampling = z.strictObject({
  /** 0 takes the most likely token. */
  temperature: z.number().min(0).max(2),
  top_p: z.number().gt(0).max(1).default(1),
  /** 0 = no limit. */
  top_k: z.int().min(0).default(0),
  /** Subtracted from a token's logit once for each time it was generated (not for the prompt's tokens), as OpenAI documents it. */
  frequency_penalty: z.number().min(-2).max(2).default(0),
  /** Subtracted once from the logit of every token generated at least once. */
  presence_penalty: z.number().min(-2).max(2).default(0),
  seed: z.int(),
  stop: z.array(z.string().min(1).max(LIMITS.stopChars)).max(LIMITS.stops).default([]),
  /** How many alternatives `top` lists per token. */
  logprobs: z.int().min(0).max(LIMITS.topLogprobs).default(0),
});
export type Sampling = z.infer<typeof Sampling>;

export const ROLES = ["system", "user", "assistant"] as const;

/** One turn of a conversation. A role that the model's template has no place for is refused in the template's words. */
export const Message = z.strictObject({ role: z.enum(ROLES), content: z.string() });
export type Message = z.infer<typeof Message>;

/** A conversation, oldest message first; the model's chat template makes the prompt that asks for the assistant's next message. */
export const Messages = z
  .array(Message)
  .min(1)
  .max(LIMITS.messages)
  .refine(
    (messages) => messages.reduce((sum, { content }) => sum + content.length, 0) <= LIMITS.promptChars,
    `messages may have ${LIMITS.promptChars} characters together`,
  );

/** Whether exactly one of two fields is given. */
export const oneOf = (a: unknown, b: unknown) => (a === undefined) !== (b === undefined);

/** Exactly one of `feature` and `vector` with its `point`. */
export const Target = z
  .strictObject({ feature: FeatureRef.optional(), vector: Edit.shape.vector, point: Edit.shape.point })
  .refine(({ feature, vector }) => oneOf(feature, vector), "a target has exactly one of feature and vector")
  .refine(({ vector, point }) => (vector === undefined) === (point === undefined), "a vector needs its point, and a feature has its own");
export type Target = z.infer<typeof Target>;

/** What a caller calls a generation of its own. */
export const GenerationId = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, "an id has 1 to 64 of the characters A-Z a-z 0-9 _ -");

/**
 * Exactly one of `prompt` (continued as it stands) and `messages`, unless every row has messages of its own. Positions of edits count
 * the tokens of the rendered prompt.
 */
export const GenerateRequest = z
  .strictObject({
    /**
     * Names the generation while it runs or waits, for `/cancel`. A generation that runs under the same id is replaced: it ends with
     * the error `canceled`. The id is free again when its generation ends, however it ends.
     */
    id: GenerationId.optional(),
    model: z.string().min(1).max(128),
    prompt: z.string().min(1).max(LIMITS.promptChars).optional(),
    messages: Messages.optional(),
    rows: z
      .array(
        z.strictObject({
          name: z.string().min(1).max(64),
          edits: z.array(Edit).max(LIMITS.edits),
          /** A conversation of the row's own, instead of the request's. */
          messages: Messages.optional(),
          /**
           * Ids of the tokens that an earlier run of the same request generated for this row before it was interrupted: the row goes on
           * after them exactly as that run would have. They count as generated everywhere (positions, schedules, penalties, stop strings,
           * receipts, max_tokens, usage). Token events are sent for later tokens only; the text of the result is the whole one. Where
           * they end the row already, it has no event. Refused with invalid_request: an id outside the vocabulary, and tokens that go on
           * after the row's end.
           */
          generated: z.array(z.int().min(0)).max(LIMITS.generatedTokens).optional(),
        }),
      )
      .min(1)
      .max(LIMITS.rows)
      .refine((rows) => new Set(rows.map((row) => row.name)).size === rows.length, "rows need distinct names"),
    sampling: Sampling,
    /** Of one row, with those it has `generated` already. */
    max_tokens: z.int().min(1),
    /**
     * false leaves special tokens of the prompt unedited, a template's markers too: those that tokenizer.json flags as special, BOS
     * and EOS. Generated tokens are always edited.
     */
    steer_special_tokens: z.boolean().default(true),
    /** Milliseconds after which the request fails with engine_timeout, waiting for slots included; absent = never. */
    deadline_ms: z.int().min(1).max(LIMITS.deadlineMs).optional(),
    /**
     * An engine may answer 202 and go on without a connection: then it posts an EngineReport there, signed as a Standard Webhook with
     * its token as the secret, and answers GET /generations/<id> with one. It may as well answer at once, as the CPU engine does.
     */
    callback_url: z.string().max(2000).optional(),
    /** Name of the row that `kl` of the other rows' tokens is measured against; absent = no KL. */
    kl_baseline: z.string().optional(),
    /**
     * Reads every row's text once more without its edits when all have ended: `compared` says what /score with `compare` and these targets
     * would. It is cheaper than to ask afterwards, because the predictions with the edits are there already.
     */
    compare: z.strictObject({ targets: z.array(Target).max(LIMITS.targets).default([]) }).optional(),
  })
  .refine(
    ({ prompt, messages, rows }) =>
      rows.every((row) => row.messages !== undefined) ? prompt === undefined && messages === undefined : oneOf(prompt, messages),
    "give exactly one of prompt and messages",
  )
  .refine(
    ({ kl_baseline, rows }) => kl_baseline === undefined || rows.every((row) => row.messages === undefined),
    "kl_baseline compares rows that continue the same text: leave it out where rows have messages of their own",
  );
export type GenerateRequest = z.infer<typeof GenerateRequest>;

/** Body of `POST /cancel`: ends the generation that has the id, and frees what it uses within one step. */
export const CancelRequest = z.strictObject({ id: GenerationId });
export type CancelRequest = z.infer<typeof CancelRequest>;

/** Whether a generation with the id was running or waiting. Its own answer or stream ends with the error `canceled`. */
export const CancelResult = z.object({ canceled: z.boolean() });
export type CancelResult = z.infer<typeof CancelResult>;

export const TopLogprob = z.object({ id: z.int(), token: z.string(), logprob: z.number() });

/** One generated token of one row. */
export const TokenEvent = z.object({
  row: z.string(),
  /** 0 for the first generated token. */
  index: z.int(),
  id: z.int(),
  /** What this token adds to the row's text: whole characters only, so it may be empty and may hold an earlier token's bytes. */
  text: z.string(),
  /** The token's own string; bytes that are no whole character show as U+FFFD. */
  token: z.string(),
  /** ln p of the token under the (steered) model at temperature 1, before penalties and truncation. */
  logprob: z.number(),
  top: z.array(TopLogprob),
  /** KL(this row || baseline row) in nats between the two next-token distributions at this index; null once the baseline has ended. */
  kl: z.number().nullable().optional(),
});
export type TokenEvent = z.infer<typeof TokenEvent>;

/** Proof that an edit acted. */
export const Receipt = z.object({
  /** Index of the edit in the row's list. */
  edit: z.int(),
  point: z.string(),
  method: z.enum(METHODS),
  strength: z.number(),
  /** Positions the edit was asked to act on, and on how many of them its own change was not zero. */
  positions: z.int(),
  positions_changed: z.int(),
  /** Mean over `positions` of ||delta|| / ||h||, h being the residual before the point's edits. */
  mean_relative_delta: z.number(),
});
export type Receipt = z.infer<typeof Receipt>;

/** A text with edits beside what the model without them says of it. */
export const Compared = z.object({
  /** Sum of ln p of the text's tokens without the edits, exp(-mean), and the mean of KL(with edits || without) in nats. */
  plain: z.object({ logprob: z.number(), perplexity: z.number(), kl: z.number() }),
  /** Per target, per token of the text. */
  values: z.array(z.array(z.number())),
});
export type Compared = z.infer<typeof Compared>;

export const FINISH_REASONS = ["stop", "length"] as const;

export const RowResult = z.object({
  name: z.string(),
  text: z.string(),
  /** `stop`: an end-of-text token or a stop string (never part of the text). `length`: max_tokens reached. */
  finish_reason: z.enum(FINISH_REASONS),
  receipts: z.array(Receipt),
  /** Only in the JSON answer (a stream has sent them already), and only those that this run generated. */
  tokens: z.array(TokenEvent).optional(),
  /** Where `compare` was asked for; null of a row without a token. */
  compared: Compared.nullable().optional(),
});
export type RowResult = z.infer<typeof RowResult>;

export const GenerateResult = z.object({
  rows: z.array(RowResult),
  /** Tokens of the (longest) prompt, and of all rows' generations, those that an earlier run generated included. */
  usage: z.object({ prompt_tokens: z.int(), completion_tokens: z.int() }),
  /** Milliseconds: waiting for a slot, prefill of all rows, decode. */
  timing: z.object({ queue_ms: z.number(), prefill_ms: z.number(), decode_ms: z.number() }),
});
export type GenerateResult = z.infer<typeof GenerateResult>;

export const SourceInfo = z.object({
  id: z.string(),
  point: z.string(),
  /** Number of latents (rows of W_dec). */
  width: z.int(),
  /** `directions` = named directions without an encoder. */
  architecture: z.string(),
  labelled_features: z.array(z.object({ index: z.int(), label: z.string(), strength: z.number().optional() })),
  /** Changes whenever labels or what was found out on texts (features.ts) do; absent where there are neither. */
  features_revision: z.string().optional(),
  /** Whether densities are known, so that `max_density` can be asked for. */
  densities: z.boolean().optional(),
});

export type SourceInfo = z.infer<typeof SourceInfo>;

export const ModelInfo = z.object({
  id: z.string(),
  family: z.string(),
  layers: z.int(),
  /** Residual width, d_model. */
  width: z.int(),
  /** Positions: prompt (with BOS) plus generated tokens fit in this. */
  context: z.int(),
  vocab: z.int(),
  dtype: z.string(),
  revision: z.string(),
  /** Rows that one /generate may have. */
  rows: z.int(),
  /** Whether the model takes `messages`. */
  chat_template: z.boolean(),
  /** Texts that end a message of the model where no token does. */
  chat_stop: z.array(z.string()).optional(),
  sources: z.array(SourceInfo),
});
export type ModelInfo = z.infer<typeof ModelInfo>;
export const ModelList = z.object({ models: z.array(ModelInfo) });

/** What an engine answers when it fails, as JSON body or as the data of an `error` event. */
export const EngineErrorBody = z.object({
  error: z.object({ code: z.string(), message: z.string(), retry_after_s: z.number().optional() }),
});

export const toEngineError = (error: TillerError): z.infer<typeof EngineErrorBody> => ({
  error: {
    code: error.code,
    message: error.message,
    ...(error.retryAfterSeconds === undefined ? {} : { retry_after_s: error.retryAfterSeconds }),
  },
});

/** What an engine says of a generation that it works on without a connection: tokens (also those said before), and its end. */
export const EngineReport = z.object({
  tokens: z.array(TokenEvent).max(100_000),
  done: GenerateResult.optional(),
  error: EngineErrorBody.shape.error.optional(),
});
export type EngineReport = z.infer<typeof EngineReport>;

/** Reads an engine's error body; a code we do not know becomes `engine_failed`. */
export function fromEngineError(body: unknown): TillerError {
  const parsed = EngineErrorBody.safeParse(body);
  if (!parsed.success || !isErrorCode(parsed.data.error.code))
    return new TillerError("engine_failed", ERRORS.engine_failed.sentence, { cause: body });
  const { code, message, retry_after_s } = parsed.data.error;
  return new TillerError(code, message, retry_after_s === undefined ? {} : { retryAfterSeconds: retry_after_s });
}

/** The events of a `/generate` stream, by their `event:` name. */
export type GenerateEvent =
  | { readonly event: "token"; readonly data: TokenEvent }
  | { readonly event: "done"; readonly data: GenerateResult }
  | { readonly event: "error"; readonly data: z.infer<typeof EngineErrorBody> };
