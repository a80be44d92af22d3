// The call of the engine protocol that derives a direction from texts: POST /directions. JSON, or server-sent events when the Accept
// header asks for them: `progress` ({texts, of}) while texts are read, then `done` (DirectionsResult) or `error`.
import { z } from "zod";
import { LIMITS } from "./protocol.ts";

/** Numbers both sides enforce. */
export const DIRECTION_LIMITS = {
  /** Texts of one side, or pairs. */
  texts: 5000,
  /** UTF-8 bytes of all texts together. */
  bytes: 4_000_000,
  layers: 128,
  /** Latents that the method `sae` may add up. */
  latents: 1000,
  /** Positions from the end that `tokens` can name. */
  fromEnd: 64,
} as const;

/**
 * How the direction is found, from the means over the counted tokens of each text:
 *   mean_difference  mean over the positive tokens minus mean over the negative ones (of pairs: mean of the pairs' differences)
 *   pca              first principal component of the differences of pairs (the i-th positive and the i-th negative), centred; its sign
 *                    is the one of the mean difference
 *   probe            weights of a logistic regression between the sides
 *   sae              NeuroSteer: of the latents that fire more often on the positive side, the `top_k` with the greatest difference in
 *                    frequency, decoded with their differences in activation
 */
export const DIRECTION_METHODS = ["mean_difference", "pca", "sae", "probe"] as const;
export type DirectionMethod = (typeof DIRECTION_METHODS)[number];

/** dif_mean: relu of the difference of the means over tokens on which the latent fires; tar_mean: the positive side's mean. */
export const LATENT_VALUES = ["dif_mean", "tar_mean"] as const;

/**
 * Which tokens of a text count. `all`: every one that is not special. `last`: the last one that is not special. `answer`: of pairs, those of
 * the answer. A negative number: that token from the end (-1 is the last), special or not.
 */
export const CountedTokens = z.union([z.enum(["all", "last", "answer"]), z.int().min(-DIRECTION_LIMITS.fromEnd).max(-1)]);
export type CountedTokens = z.infer<typeof CountedTokens>;

const Text = z.string().min(1).max(LIMITS.promptChars);
const Side = z.array(Text).min(1).max(DIRECTION_LIMITS.texts);

/** One question with two answers, as in contrastive activation addition (Rimsky et al. 2024). */
export const AnswerPair = z.strictObject({ prompt: Text, positive: Text, negative: Text });
export type AnswerPair = z.infer<typeof AnswerPair>;

export const DirectionsRequest = z
  .strictObject({
    model: z.string().min(1).max(128),
    /** Either both sides, or `pairs`. */
    positive: Side.optional(),
    negative: Side.optional(),
    pairs: z.array(AnswerPair).min(1).max(DIRECTION_LIMITS.texts).optional(),
    /** Texts (of pairs: prompts) are messages of a user, read as the model's chat template writes them, ready for the answer. */
    chat: z.boolean().default(false),
    layers: z.array(z.int().min(0)).min(1).max(DIRECTION_LIMITS.layers),
    hook: z.enum(["resid_pre", "resid_post"]).default("resid_pre"),
    method: z.enum(DIRECTION_METHODS),
    tokens: CountedTokens.default("all"),
    /** Of the method `sae`, and only there: the sources are `{layer}-{set}`, whose points must be those of `hook`. */
    sae: z
      .strictObject({
        set: z.string().min(1).max(120),
        top_k: z.int().min(1).max(DIRECTION_LIMITS.latents).default(100),
        values: z.enum(LATENT_VALUES).default("dif_mean"),
      })
      .optional(),
    /** Share of the texts of each side, spread evenly, that the direction is not made from but judged on. */
    held_out: z.number().min(0).max(0.5).default(0.2),
    /** Brings the vector to length one. */
    unit: z.boolean().default(false),
    deadline_ms: z.int().min(1).max(LIMITS.deadlineMs).optional(),
  })
  .refine(
    ({ positive, negative, pairs }) => (pairs === undefined ? positive !== undefined && negative !== undefined : !positive && !negative),
    "give positive and negative, or pairs",
  )
  .refine(({ method, sae }) => (method === "sae") === (sae !== undefined), "sae belongs to the method sae, which needs it")
  .refine(({ tokens, pairs }) => tokens !== "answer" || pairs !== undefined, "tokens: answer belongs to pairs")
  .refine(({ layers }) => new Set(layers).size === layers.length, "layers must be distinct");
export type DirectionsRequest = z.infer<typeof DirectionsRequest>;

/** A latent that the method `sae` chose. Frequencies are shares of the counted tokens; means are over those on which it fires. */
export const ChosenLatent = z.object({
  index: z.int(),
  label: z.string().nullable(),
  /** What its decoder row is multiplied by. */
  value: z.number(),
  frequency: z.object({ positive: z.number(), negative: z.number() }),
  mean: z.object({ positive: z.number(), negative: z.number() }),
});
export type ChosenLatent = z.infer<typeof ChosenLatent>;

/** What was found at one layer. A text's score is the mean over its counted tokens of h . v / ||v||. */
export const LayerDirection = z.object({
  layer: z.int(),
  point: z.string(),
  /** base64 of little-endian float32 [width]. */
  vector: z.string(),
  /** Its length; and the mean length of the residual stream at the counted tokens it was made from. */
  norm: z.number(),
  mean_norm: z.number(),
  /** Chance that a positive text scores above a negative one (ties count half), on texts it was not made from; null where there are none. */
  auc_held_out: z.number().nullable(),
  auc_train: z.number(),
  /** Difference of the mean scores in units of their pooled standard deviation, on held-out texts where there are at least 2 a side. */
  effect: z.number().nullable(),
  /** A strength to begin with: it makes the change a quarter of the stream's mean length. */
  strength: z.number(),
  /** Of `pca`: share of the differences' variance along it. */
  explained: z.number().optional(),
  latents: z.array(ChosenLatent).optional(),
});
export type LayerDirection = z.infer<typeof LayerDirection>;

const SideCount = z.object({
  /** Texts it was made from, texts it was judged on, counted tokens of the former. */
  texts: z.int(),
  held_out: z.int(),
  tokens: z.int(),
});

export const DirectionsResult = z.object({
  /** In the order of the request. */
  layers: z.array(LayerDirection),
  /** The layer that separates best: greatest AUC (held-out where there is one), then greatest effect. */
  best: z.int(),
  counts: z.object({ positive: SideCount, negative: SideCount }),
  /** `tokens`: all that were read, not only those that counted. */
  timing: z.object({ tokens: z.int(), read_ms: z.number(), total_ms: z.number() }),
});
export type DirectionsResult = z.infer<typeof DirectionsResult>;

/** Texts read so far, of all. */
export const DirectionsProgress = z.object({ texts: z.int(), of: z.int() });
export type DirectionsProgress = z.infer<typeof DirectionsProgress>;
