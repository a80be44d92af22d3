// Body and result of POST /api/sweeps: a grid of directions, layers, methods and strengths, and what each of its cells did.
import { z } from "@hono/zod-openapi";
import { METHODS } from "../../shared/protocol.ts";
import { LIMITS } from "../limits.ts";
import { SteerRequest, SteerVector } from "../steer/contract.ts";
import { finite, flag, integer, number, oneOf, optional, text } from "../steer/fields.ts";

/** PROJECTION_CLAMP has no single strength to vary. ABLATE has none at all: it is swept by itself, with one strength. */
export const SWEPT_METHODS = METHODS.filter((method) => method !== "PROJECTION_CLAMP");

/** A direction: a feature or kept vector by its address, or numbers with their place. */
export const SweepDirection = z
  .strictObject({
    modelId: text({ max: 128, example: "tiller-tales" }).optional().openapi({ description: "The sweep's own, when it is left out." }),
    layer: text({ max: 128, example: "3-tales-directions" }).optional(),
    index: integer({ min: 0, max: 2_147_483_647, example: 0 }).optional(),
    vector: SteerVector.shape.vector.optional(),
    hookName: text({ max: 80 }).optional(),
    label: text({ max: LIMITS.labelChars }).optional(),
  })
  .refine(
    ({ modelId, layer, index, vector, hookName }) =>
      vector === undefined
        ? layer !== undefined && index !== undefined && hookName === undefined
        : hookName !== undefined && layer === undefined && index === undefined && modelId === undefined,
    {
      path: ["layer"],
      error: "and index name a feature or a kept vector; otherwise give vector and hookName, and neither of them",
    },
  )
  .openapi("SweepDirection");
export type SweepDirection = z.output<typeof SweepDirection>;

const words = z
  .array(text({ max: 100 }), "must be a list of words")
  .min(1, "must have at least one word")
  .max(LIMITS.scorerWords, `must have at most ${LIMITS.scorerWords} words`);

/** What counts as success of a text. */
export const Scorer = z
  .discriminatedUnion(
    "kind",
    [
      z.strictObject({
        kind: z.literal("words"),
        words,
        against: words
          .optional()
          .openapi({ description: "Words and phrases, whole and whatever their case. More of `words` than of these is success." }),
      }),
      z.strictObject({
        kind: z.literal("regex"),
        pattern: text({ max: 500, description: "In RE2's syntax: matching takes linear time. Anywhere in the text is success." }),
        ignoreCase: optional(flag({ description: "Whether capitals do not matter." }), true),
      }),
      z.strictObject({
        kind: z.literal("projection"),
        direction: SweepDirection.optional().openapi({ description: "The sweep's first direction, when it is left out." }),
        above: finite().optional().openapi({
          description: "A mean activation over the text's tokens above this is success; above the baseline's mean, when it is left out.",
        }),
      }),
      z.strictObject({
        kind: z.literal("webhook"),
        url: z.string("must be a text").openapi({
          description:
            "Gets {type: sweep.score, texts: [...]}, up to 64 at once, signed as webhooks are, and answers {scores: [...]}: one number from 0 to 1 each. 0.5 and more is success.",
        }),
      }),
    ],
    { error: "must be an object whose kind is words, regex, projection or webhook" },
  )
  .openapi("SweepScorer");
export type Scorer = z.output<typeof Scorer>;

const list = <Field extends z.ZodType>(field: Field, most: number, what: string) =>
  z
    .array(field, `must be a list of 1 to ${most} ${what}`)
    .min(1, `must be a list of 1 to ${most} ${what}`)
    .max(most, `must be a list of 1 to ${most} ${what}`);

const steer = SteerRequest.shape;

export const SweepBody = z
  .strictObject({
    modelId: steer.modelId,
    prompts: list(text({ max: LIMITS.promptChars, example: "The children walked home and" }), LIMITS.sweepPrompts, "prompts"),
    chat: optional(flag({ description: "Prompts are a user's messages, for models with a chat template." }), false),
    directions: list(SweepDirection, LIMITS.sweepDirections, "directions"),
    layers: list(integer({ min: 0, max: 9999 }), LIMITS.sweepLayers, "layers")
      .optional()
      .openapi({ description: "Each direction at each of these layers instead of its own; an autoencoder's latents cannot be moved." }),
    strengths: list(finite({ example: 8 }), LIMITS.sweepStrengths, "strengths").openapi({
      description: "In the result in rising order. 0 of SIMPLE_ADDITIVE, and 1 of ORTHOGONAL_DECOMP, are the baseline's texts.",
    }),
    methods: list(oneOf(SWEPT_METHODS), SWEPT_METHODS.length, "methods")
      .default(["SIMPLE_ADDITIVE"])
      .openapi({ default: ["SIMPLE_ADDITIVE"] }),
    seeds: list(integer({ min: 0, max: LIMITS.seed }), LIMITS.sweepSeeds, "seeds")
      .default([16])
      .openapi({ default: [16] }),
    positions: steer.positions,
    schedule: steer.schedule,
    steer_special_tokens: steer.steer_special_tokens,
    temperature: optional(number({ min: 0, max: 2 }), 0.7),
    top_p: steer.top_p,
    top_k: steer.top_k,
    freq_penalty: optional(number({ min: -2, max: 2 }), 0),
    presence_penalty: steer.presence_penalty,
    stop: steer.stop,
    n_tokens: optional(integer({ min: 1, max: LIMITS.sweepTokens }), 48),
    scorer: Scorer.optional().openapi({ description: "What success is; without one there is none, and nothing is suggested." }),
    maxPerplexityRatio: optional(
      number({ min: 1, max: 1000, description: "The suggested cell's perplexity is at most so many times the baseline's." }),
      1.5,
    ),
    webhook: z
      .object({ url: z.string("must be a text") }, "must be an object with a url")
      .optional()
      .openapi({ description: "Is told of the end, with the result." }),
  })
  .openapi("Sweep");
export type SweepBody = z.output<typeof SweepBody>;

/** Means over the texts of a cell; null where nothing can be said (no scorer, no text that is long enough). */
export const CellMetrics = z.object({
  success: z.number().nullable().openapi({ description: "Share of the texts that the scorer calls a success." }),
  perplexity: z
    .number()
    .nullable()
    .openapi({ description: "Of the texts under the model without edits: exp of the mean over all their tokens." }),
  perplexityRatio: z.number().nullable().openapi({ description: "To the baseline's." }),
  kl: z.number().nullable().openapi({ description: "KL(steered || unsteered) of the next token, in nats, mean over all tokens." }),
  dist1: z.number().nullable().openapi({ description: "Distinct words / words of the texts of a prompt together, mean over prompts." }),
  dist2: z.number().nullable().openapi({ description: "Distinct pairs of neighbouring words / words." }),
  dist3: z.number().nullable(),
  repetition: z.number().nullable().openapi({ description: "Share of a text's 4-grams of words that stood in it before." }),
  activation: z.number().nullable().openapi({
    description:
      "Mean of the column's direction's activation on the texts' tokens, read without edits. Of a baseline with several columns: null.",
  }),
  change: z.number().openapi({ description: "Mean size of the edits against the residual stream, from their receipts." }),
  tokens: z.int(),
});
export type CellMetrics = z.infer<typeof CellMetrics>;

/** One text of a cell. */
export const SweepRow = z.object({
  prompt: z.int().openapi({ description: "Place in `prompts`." }),
  seed: z.int(),
  text: z.string().openapi({ description: "Cut, and ended with …, where all texts together would be too large to keep." }),
  tokens: z.int(),
  perplexity: z.number().nullable(),
  kl: z.number().nullable(),
  activation: z.number().nullable(),
  score: z.number().nullable().openapi({ description: "What the scorer gave: a count, an activation, a probability." }),
  success: z.boolean().nullable(),
});
export type SweepRow = z.infer<typeof SweepRow>;

export const SweepCell = z.object({
  column: z.int().openapi({ description: "Place in `columns`." }),
  method: z.enum(METHODS),
  strength: z.number(),
  metrics: CellMetrics.nullable().openapi({ description: "null with an error." }),
  rows: z.array(SweepRow),
  error: z.string().nullable().openapi({ description: "Why this cell has no texts: the others are not touched by it." }),
});
export type SweepCell = z.infer<typeof SweepCell>;

export const SweepColumn = z.object({
  label: z.string(),
  layer: z.int(),
  hookName: z.string(),
  direction: z.int().openapi({ description: "Place in `directions`." }),
  feature: z
    .object({ modelId: z.string(), layer: z.string(), index: z.int() })
    .optional()
    .openapi({ description: "What steers with it in /api/steer; absent for numbers of your own, and for a direction that was moved." }),
});
export type SweepColumn = z.infer<typeof SweepColumn>;

export const SweepResult = z
  .object({
    id: z.string(),
    url: z.string().openapi({ description: "The page with the plots." }),
    csvUrl: z.string(),
    modelId: z.string(),
    prompts: z.array(z.string()),
    columns: z.array(SweepColumn),
    strengths: z.array(z.number()),
    methods: z.array(z.enum(METHODS)),
    seeds: z.array(z.int()),
    maxPerplexityRatio: z.number(),
    baseline: z.object({ metrics: CellMetrics, rows: z.array(SweepRow) }),
    cells: z.array(SweepCell).openapi({ description: "By column, method, strength." }),
    suggested: z
      .object({ cell: z.int().openapi({ description: "Place in `cells`." }), sentence: z.string() })
      .nullable()
      .openapi({
        description:
          "Of the cells with more success than the baseline and a perplexity within the bound, the one with the most success; null without a scorer, or where there is none.",
      }),
    timing: z.object({ totalMs: z.number() }),
  })
  .openapi("SweepResult");
export type SweepResult = z.infer<typeof SweepResult>;
