// Body and answer of POST /api/vector/derive and POST /api/vector/combine: vectors made of texts, and of other vectors.
import { z } from "@hono/zod-openapi";
import { ChosenLatent, CountedTokens, DIRECTION_LIMITS, DIRECTION_METHODS, LATENT_VALUES } from "../../shared/directions.ts";
import { LIMITS } from "../limits.ts";
import { VISIBILITIES } from "../schema.ts";
import { flag, integer, number, oneOf, optional, text } from "../steer/fields.ts";
import { CreatedVector, VectorAddressBody } from "../vectors/contract.ts";

const sideRule = `must be a list of 1 to ${DIRECTION_LIMITS.texts} texts, none of them empty`;
const side = z.array(z.string(sideRule).min(1, sideRule), sideRule).min(1, sideRule).max(DIRECTION_LIMITS.texts, sideRule);
const pairsRule = `must be a list of 1 to ${DIRECTION_LIMITS.texts} objects with prompt, positive and negative, none of them empty`;
const pair = z.object(
  {
    prompt: z.string(pairsRule).min(1, pairsRule),
    positive: z.string(pairsRule).min(1, pairsRule),
    negative: z.string(pairsRule).min(1, pairsRule),
  },
  pairsRule,
);
const tokensRule = `must be all, last, answer (with pairs), or a whole number from -${DIRECTION_LIMITS.fromEnd} to -1`;
const layersRule = `must be a list of 1 to ${DIRECTION_LIMITS.layers} different layers`;

/** What a derived or combined vector is called, and who may see it. */
export const Described = {
  vectorLabel: text({ max: LIMITS.labelChars, example: "cheerful" }),
  description: text({ min: 0, max: LIMITS.descriptionChars }).optional().openapi({ description: "How it was made, when it is left out." }),
  vectorDefaultSteerStrength: number({ min: -LIMITS.vectorStrength, max: LIMITS.vectorStrength })
    .optional()
    .openapi({ description: "The suggested strength, when it is left out." }),
  visibility: optional(oneOf(VISIBILITIES), "unlisted"),
};

export const KEEP = ["best", "all", "none"] as const;

/** The settings of a derivation: everything but its texts. */
export const DeriveSettings = z.object({
  modelId: text({ max: 128, example: "tiller-tales" }),
  layer: integer({ min: 0, max: 9999, example: 3 }).optional().openapi({ description: "Or `layers`." }),
  layers: z
    .array(integer({ min: 0, max: 9999 }), layersRule)
    .min(1, layersRule)
    .max(DIRECTION_LIMITS.layers, layersRule)
    .optional()
    .openapi({ description: "Several layers are compared; `keep` says which of their vectors are kept." }),
  hookType: optional(oneOf(["hook_resid_pre", "hook_resid_post"]), "hook_resid_pre"),
  method: optional(
    oneOf(DIRECTION_METHODS, {
      description:
        "mean_difference; pca: first principal component of paired differences; probe: logistic regression; sae: NeuroSteer's, through an autoencoder's latents.",
    }),
    "mean_difference",
  ),
  tokens: z
    .preprocess(
      (value) => (typeof value === "string" && /^-\d{1,3}$/.test(value) ? Number(value) : value),
      z.custom<CountedTokens>((value) => CountedTokens.safeParse(value).success, tokensRule),
    )
    .default("all")
    .openapi({
      ...{ type: "string", default: "all" },
      description:
        "Which tokens count: all but special ones, the last of them, those of the answers (with pairs), or one by its place from the end (-1 is the last).",
    }),
  chat: optional(flag({ description: "Texts are a user's messages, read as the model's chat template writes them." }), false),
  sourceSet: text({ max: 120, example: "tales-res" })
    .optional()
    .openapi({ description: "Of the method sae: the autoencoders, without the layer: tales-res of 3-tales-res." }),
  topK: integer({ min: 1, max: DIRECTION_LIMITS.latents })
    .optional()
    .openapi({ description: "Of the method sae: latents that are added up (100)." }),
  latentValues: oneOf(LATENT_VALUES).optional().openapi({
    description:
      "Of the method sae: what each latent counts. dif_mean: the difference of its mean activations; tar_mean: the positive one.",
  }),
  heldOut: optional(number({ min: 0, max: 0.5, description: "Share of the texts that the vector is judged on and not made from." }), 0.2),
  unit: optional(flag({ description: "Brings the vector to length one." }), false),
  keep: optional(
    oneOf(KEEP, { description: "Which layers' vectors are kept: the one that separates best, all, or none (the report alone)." }),
    "best",
  ),
  ...Described,
  vectorLabel: Described.vectorLabel.optional().openapi({ description: "Required, unless `keep` is none." }),
});
export type DeriveSettings = z.output<typeof DeriveSettings>;

/** The texts of a derivation: two sides, or pairs of answers. */
export const DeriveTexts = z.object({
  positive: side.optional(),
  negative: side.optional(),
  pairs: z.array(pair, pairsRule).min(1, pairsRule).max(DIRECTION_LIMITS.texts, pairsRule).optional(),
});
export type DeriveTexts = z.output<typeof DeriveTexts>;

const webhook = z
  .object({ url: z.string("must be a text") }, "must be an object with a url")
  .optional()
  .openapi({ description: "Makes it a job, and sends its end there." });

export const DeriveBody = DeriveSettings.extend(DeriveTexts.shape).extend({ webhook }).strict().openapi("VectorDerivation", {
  description:
    "Or the same fields as multipart/form-data, texts as files: `positive` and `negative`, or one `file` with both. Text files have a text on every line; CSV has columns text and label, or positive and negative, or prompt, positive and negative; JSON and JSONL have such objects.",
});
export type DeriveBody = z.output<typeof DeriveBody>;

const Layer = z.object({
  layer: z.int(),
  hookName: z.string(),
  norm: z.number().openapi({ description: "Length of the vector." }),
  meanNorm: z.number().openapi({ description: "Mean length of the residual stream at the tokens that counted." }),
  aucHeldOut: z
    .number()
    .nullable()
    .openapi({ description: "Chance that a positive text lies above a negative one along the vector, on held-out texts." }),
  aucTrain: z.number(),
  effect: z.number().nullable().openapi({ description: "Difference of the sides' means along the vector, in standard deviations." }),
  suggestedStrength: z.number(),
  explained: z.number().optional(),
  latents: z.array(ChosenLatent).optional(),
});

const Counted = z.object({ texts: z.int(), heldOut: z.int(), tokens: z.int() });

export const Derived = z
  .object({
    message: z.literal("Success"),
    vectors: z
      .array(CreatedVector.shape.vector.omit({ values: true }).extend({ url: z.string() }))
      .openapi({ description: "Those that were kept, the best first. /api/vector/get and /api/vector/export have their numbers." }),
    report: z.object({
      method: z.enum(DIRECTION_METHODS),
      bestLayer: z.int(),
      layers: z.array(Layer),
      counts: z.object({ positive: Counted, negative: Counted }),
      timing: z.object({ tokens: z.int(), readMs: z.number(), totalMs: z.number() }),
    }),
  })
  .openapi("DerivedVectors");
export type Derived = z.infer<typeof Derived>;

/** What a job of kind `derive` keeps of its request. The engine's, which has the texts, is its input (`job_inputs`), as JSON. */
export interface StoredDerivation {
  readonly settings: DeriveSettings;
}

const termsRule = `must be a list of 1 to ${LIMITS.combinedVectors} objects with modelId, source, index and weight`;
const othersRule = `must be a list of up to ${LIMITS.combinedVectors} objects with modelId, source and index`;
const address = z.strictObject(VectorAddressBody.shape, othersRule);

export const CombineBody = z
  .strictObject({
    terms: z
      .array(address.extend({ weight: optional(number({ min: -1000, max: 1000 }), 1) }), termsRule)
      .min(1, termsRule)
      .max(LIMITS.combinedVectors, termsRule)
      .openapi({
        description: "Kept vectors that you may use, and features of sources, all of one model: each times its weight, added up.",
      }),
    orthogonalTo: z
      .array(address, othersRule)
      .max(LIMITS.combinedVectors, othersRule)
      .default([])
      .openapi({ default: [], description: "What the sum has of any of these is taken out of it." }),
    length: number({ min: 0.000001, max: 1_000_000 }).optional().openapi({ description: "What the result is brought to, at the end." }),
    layerNumber: integer({ min: 0, max: 9999 }).optional().openapi({ description: "The terms' own, when it is left out." }),
    hookType: oneOf(["hook_resid_pre", "hook_resid_post"]).optional(),
    ...Described,
    vectorDefaultSteerStrength: Described.vectorDefaultSteerStrength.openapi({
      description: "When it is left out: one that pushes as far as the terms do at theirs, on average.",
    }),
  })
  .openapi("VectorCombination");
export type CombineBody = z.output<typeof CombineBody>;

export const CombinedVector = CreatedVector.extend({
  cosines: z.array(z.number().nullable()).openapi({ description: "Of the result with each term; null with one that is zero." }),
}).openapi("CombinedVector");
