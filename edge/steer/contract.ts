// The body and the answer of POST /api/steer: Neuronpedia's fields, and ours behind optional ones.
import { z } from "@hono/zod-openapi";
import { FINISH_REASONS, METHODS, Positions, LIMITS as PROTOCOL, Receipt, Schedule } from "../../shared/protocol.ts";
import { LIMITS } from "../limits.ts";
import { finite, flag, integer, number, oneOf, optional, text } from "./fields.ts";

const positions = z
  .union([z.enum(["all", "prompt", "generated", "prompt_except_last"]), z.array(z.tuple([z.int(), z.int()]))], {
    error: `must be all, prompt, generated, prompt_except_last or a list of up to ${PROTOCOL.ranges} [start, end] token ranges with 0 <= start < end`,
  })
  .refine((value) => Positions.safeParse(value).success, {
    error: `must be all, prompt, generated, prompt_except_last or a list of up to ${PROTOCOL.ranges} [start, end] token ranges with 0 <= start < end`,
  })
  .openapi({
    description:
      "Which token positions are edited: a word, or half-open ranges [start, end) counted from the first token of the prompt. Not in Neuronpedia.",
    example: "all",
  });

const schedule = z
  .union([z.literal("constant"), z.object({ kind: z.enum(["decay", "ramp"]), tokens: z.int() })], { error: scheduleRule() })
  .refine((value) => Schedule.safeParse(value).success, { error: scheduleRule() })
  .openapi({
    description:
      "How much of the change is made at the generated tokens; the prompt gets all of it. decay: all at the first token, none after `tokens` of them. ramp: from 1/tokens at the first to all at token number `tokens`. Not in Neuronpedia.",
    example: "constant",
  });

function scheduleRule(): string {
  return `must be constant, or {kind: decay or ramp, tokens: a whole number from 1 to ${PROTOCOL.scheduleTokens}}`;
}

const more = {
  schedule: schedule.optional(),
  layers: z
    .literal("all", { error: "must be all, or be left out" })
    .optional()
    .openapi({ description: "ABLATE only: all takes the direction out before every layer and after the last. Not in Neuronpedia." }),
};

const method = (description: string) => oneOf(METHODS, { description });

const clamp = {
  min: finite({ description: "PROJECTION_CLAMP: the lowest projection that is left. Not in Neuronpedia." }).optional(),
  max: finite({ description: "PROJECTION_CLAMP: the highest projection that is left. Not in Neuronpedia." }).optional(),
};

export const SteerFeature = z
  .object({
    modelId: text({ max: 128, example: "tiller-tales", description: "Model the source belongs to; usually the modelId of the request." }),
    layer: text({ max: 128, example: "3-tales-directions", description: "Source id, {layer}-{name}." }),
    index: integer({ min: 0, max: 2_147_483_647, example: 0, description: "Feature of the source." }),
    strength: finite({ example: 12, description: "How hard, before strength_multiplier." }),
    method: method("How this feature acts; default: steer_method. Not in Neuronpedia.").optional(),
    ...clamp,
    ...more,
    positions: positions.optional(),
  })
  .openapi("SteerFeature");
export type SteerFeature = z.output<typeof SteerFeature>;

const vectorRule = `must be a list of up to ${PROTOCOL.vectorWidth} finite numbers, or a base64 text of little-endian float32`;
export const SteerVector = z
  .strictObject({
    vector: z.union([z.array(z.number()).min(1).max(PROTOCOL.vectorWidth), z.string().min(1)], { error: vectorRule }).openapi({
      description: "The direction: as many finite numbers as the model is wide, as a list or as base64 of little-endian float32.",
      example: [0.1, -0.2, 0.3],
    }),
    hookName: text({
      max: 80,
      example: "blocks.3.hook_resid_pre",
      description: "Where it acts: blocks.L.hook_resid_pre or blocks.L.hook_resid_post. Left out with layers: all.",
    }).optional(),
    strength: finite({ example: 4, description: "How hard, before strength_multiplier." }),
    method: method("How this vector acts; default: steer_method.").optional(),
    ...clamp,
    ...more,
    positions: positions.optional(),
  })
  .openapi("SteerVector");

/** n_tokens of a job. */
export const jobTokens = integer({ min: 1, max: 1_000_000 });

export const STREAM_MODES = ["cumulative", "delta"] as const;

export const SteerRequest = z
  .object({
    prompt: text({ max: LIMITS.promptChars, example: "The children walked home and" }),
    modelId: text({ max: 128, example: "tiller-tales" }),
    features: z.array(SteerFeature, { error: "is a required field: it must be a list of features (empty when vectors are given)" }),
    listId: text({
      max: 64,
      description: "A list that you may read: its features that have strengths steer before `features`. Not in Neuronpedia.",
    }).optional(),
    vectors: z
      .array(SteerVector, { error: "must be a list of vectors" })
      .default([])
      .openapi({ description: "Directions of your own, applied after the features. Not in Neuronpedia." }),
    temperature: number({ min: 0, max: 2, example: 0.7, description: "0 takes the most likely token." }),
    n_tokens: integer({ min: 1, max: LIMITS.nTokens, example: 32 }),
    freq_penalty: optional(
      number({ min: -2, max: 2, example: 1, description: "Subtracted from a token's logit for each time it was generated." }),
      1,
    ),
    seed: number({ min: -LIMITS.seed, max: LIMITS.seed, example: 16, description: "Truncated to a whole number." }).transform(Math.trunc),
    strength_multiplier: number({ min: 0, max: LIMITS.strengthMultiplier, example: 1 }),
    stream: optional(flag({ description: "Server-sent events instead of one JSON answer." }), false),
    steer_method: method(
      "How edits act unless they say otherwise. LATENT_CLAMP sets the activation of an SAE's latent to the strength and keeps what the SAE does not explain. It, PROJECTION_CLAMP and ABLATE are not in Neuronpedia.",
    ).default("SIMPLE_ADDITIVE"),
    steer_special_tokens: optional(
      flag({ description: "false leaves the special tokens of the prompt unedited. Not in Neuronpedia's /api/steer." }),
      true,
    ),
    positions: positions.default("all"),
    schedule: schedule.default("constant"),
    top_p: optional(number({ min: 0.000001, max: 1, description: "Nucleus sampling. Not in Neuronpedia." }), 1),
    top_k: optional(integer({ min: 0, max: 1_000_000, description: "Only the k most likely tokens; 0 = all. Not in Neuronpedia." }), 0),
    presence_penalty: optional(
      number({ min: -2, max: 2, description: "Subtracted once from the logit of each token generated so far. Not in Neuronpedia." }),
      0,
    ),
    stop: z
      .array(text({ max: PROTOCOL.stopChars }))
      .max(PROTOCOL.stops, { error: `must be a list of at most ${PROTOCOL.stops} texts of 1 to ${PROTOCOL.stopChars} characters` })
      .default([])
      .openapi({ description: "Texts that end the generation; never part of the answer. Not in Neuronpedia." }),
    n_logprobs: optional(
      integer({ min: 0, max: PROTOCOL.topLogprobs, description: "Alternatives listed per token. Not in Neuronpedia." }),
      5,
    ),
    kl: optional(flag({ description: "Also return, per steered token, KL(STEERED || DEFAULT) in nats. Not in Neuronpedia." }), false),
    webhook: z
      .object({ url: z.string() })
      .optional()
      .openapi({ description: "Makes it a job, and sends its end there. Not in Neuronpedia." }),
    stream_mode: oneOf(STREAM_MODES, {
      description:
        "cumulative: every frame is the whole answer so far, as Neuronpedia sends it. delta: one event per token. Not in Neuronpedia.",
    }).default("cumulative"),
  })
  .openapi("SteerRequest");
export type SteerRequest = z.output<typeof SteerRequest>;

export const TokenLogprob = z
  .object({
    token: z.string().openapi({ example: " happy" }),
    logprob: z.number().openapi({ example: -0.42 }),
    topLogprobs: z.array(z.object({ token: z.string(), logprob: z.number() })),
  })
  .openapi("TokenLogprob");

const side = z.string().nullable().openapi({ example: " who loved to play in the garden." });
const finish = z.enum(FINISH_REASONS).nullable();

export const SteerResult = z
  .object({
    STEERED: side,
    DEFAULT: side,
    steeredLogProbs: z.array(TokenLogprob).nullable(),
    defaultLogProbs: z.array(TokenLogprob).nullable(),
    id: z.string().nullable().openapi({ example: "cmf3k2x9p0001abcd7z1q8w2e" }),
    shareUrl: z.string().optional().openapi({ example: "http://127.0.0.1:8787/steer/cmf3k2x9p0001abcd7z1q8w2e" }),
    limit: z.string().openapi({ example: "99", description: "Steers left in this hour." }),
    receipts: z.array(Receipt).optional().openapi({ description: "What each edit of the steered text did." }),
    finishReasons: z.object({ STEERED: finish, DEFAULT: finish }).optional(),
    usage: z.object({ promptTokens: z.int(), completionTokens: z.int() }).optional(),
    timing: z.object({ queueMs: z.number(), prefillMs: z.number(), decodeMs: z.number() }).optional(),
    kl: z.array(z.number().nullable()).optional().openapi({ description: "Per steered token; null once the default text has ended." }),
    ignored: z
      .array(z.string())
      .optional()
      .openapi({ description: "Fields of the request that mean nothing here; absent when there were none." }),
  })
  .openapi("SteerResult");
export type SteerResult = z.infer<typeof SteerResult>;

/** Names of the body's fields that mean nothing here. Neuronpedia ignores them in silence; we ignore them and say so. */
export function ignoredFields(raw: unknown, shape: object): readonly string[] {
  const unknownKeys = (value: unknown, known: object, prefix: string): string[] =>
    typeof value === "object" && value !== null
      ? Object.keys(value)
          .filter((key) => !Object.hasOwn(known, key))
          .map((key) => prefix + key.slice(0, 64))
      : [];
  const features = (raw as { features?: unknown }).features;
  const ofFeatures = Array.isArray(features)
    ? features.flatMap((feature, i) => unknownKeys(feature, SteerFeature.shape, `features[${i}].`))
    : [];
  return [...unknownKeys(raw, shape, ""), ...ofFeatures].slice(0, 32);
}
