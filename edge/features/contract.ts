// A feature in Neuronpedia's shape, and the bodies of the calls about features.
import { z } from "@hono/zod-openapi";
import { LIMITS } from "../limits.ts";
import { finite, integer, number, optional, text } from "../steer/fields.ts";

export const modelId = text({ max: 128, example: "tiller-tales" });
export const source = text({ max: 128, example: "3-tales-res", description: "Source id, {layer}-{name}." });
export const index = integer({ min: 0, max: 2_147_483_647, example: 7, description: "Also as digits in a text." });

/** A feature's address as most calls have it: `layer` is a source id. */
export const FeatureBody = z.object({ modelId, layer: source, index });

/** What Neuronpedia knows and nothing here makes. */
const empty = z.array(z.string()).max(0).openapi({ description: "Always empty here." });

const person = z.object({ id: z.string(), name: z.string() }).nullable();

export const Explanation = z
  .object({
    id: z.string(),
    modelId: z.string(),
    layer: z.string(),
    source: z.string().openapi({ description: "The same as layer." }),
    index: z.string(),
    description: z.string(),
    explanationModelName: z.string().nullable().openapi({ description: "The language model that wrote it." }),
    typeName: z.string().openapi({ description: "How the label was made." }),
    scores: empty,
    triggeredByUser: person.openapi({ description: "Its author; null = it came with the model." }),
    votes: z.int(),
  })
  .openapi("Explanation");
export type Explanation = z.infer<typeof Explanation>;

export const FeatureActivation = z
  .object({
    id: z.string(),
    modelId: z.string(),
    layer: z.string(),
    source: z.string().openapi({ description: "The same as layer." }),
    index: z.string(),
    tokens: z.array(z.string()),
    values: z.array(z.number()),
    maxValue: z.number(),
    maxValueTokenIndex: z.int(),
    minValue: z.number(),
    dataIndex: z.null(),
    dataSource: z.string(),
    dfaValues: empty,
    dfaTargetIndex: z.null(),
    dfaMaxValue: z.null(),
    lossValues: empty,
    logitContributions: z.null(),
    qualifyingTokenIndex: z.null(),
    binMin: z.number().nullable(),
    binMax: z.number().nullable(),
    binContains: z.number().nullable(),
    creatorId: z.string(),
    createdAt: z.string().nullable(),
  })
  .openapi("FeatureActivation");
export type FeatureActivation = z.infer<typeof FeatureActivation>;

const numbers = z.array(z.number());

export const Feature = z
  .object({
    modelId: z.string(),
    layer: z.string(),
    source: z.object({ id: z.string() }),
    index: z.string(),
    sourceSetName: z.string(),
    sourceSet: z.object({ name: z.string() }),
    model: z.object({ id: z.string() }),
    creatorId: z.string().nullable(),
    creator: z.object({ name: z.string() }),
    createdAt: z.string().nullable(),
    maxActApprox: z.number().openapi({ description: "Greatest activation that was seen; 0 when none was." }),
    frac_nonzero: z.number().nullable().openapi({ description: "Share of tokens it is active on; null = not known." }),
    hasVector: z.boolean(),
    vector: numbers.openapi({ description: "Values of a kept vector; empty for other features: /api/vector/get has their rows." }),
    vectorLabel: z.string().nullable(),
    vectorDefaultSteerStrength: z.number(),
    hookName: z.string().nullable(),
    topkCosSimIndices: z.array(z.int()).openapi({ description: "Features of the same source whose directions are nearest." }),
    topkCosSimValues: numbers,
    pos_str: z.array(z.string()).openapi({ description: "Tokens whose logits its direction raises most." }),
    pos_values: numbers,
    neg_str: z.array(z.string()),
    neg_values: numbers,
    freq_hist_data_bar_heights: numbers.openapi({ description: "How many activations fell into each bin." }),
    freq_hist_data_bar_values: numbers.openapi({ description: "Where each bin begins." }),
    explanations: z.array(Explanation),
    activations: z.array(FeatureActivation),
    lists: z.array(z.object({ id: z.string(), name: z.string() })),
    comments: empty,
  })
  .openapi("Feature");
export type Feature = z.infer<typeof Feature>;

export const FeaturesBody = z
  .array(
    FeatureBody.extend({ maxActsToReturn: integer({ min: 0, max: LIMITS.examplesPerFeature }).optional() }),
    "must be a list of features: modelId, layer and index",
  )
  .min(1, "must name at least one feature")
  .max(LIMITS.featuresPerRead, `must name at most ${LIMITS.featuresPerRead} features`)
  .openapi("FeatureAddresses");

export const FeaturesOffsetBody = z
  .object({ modelId, layer: source, offset: optional(integer({ min: 0, max: 2_147_483_647 }), 0) })
  .openapi("FeaturePage");

const token = z.string("must be a text").max(LIMITS.tokenChars, `must have at most ${LIMITS.tokenChars} characters`);
const logits = z.array(z.object({ token, value: finite() })).max(20, "must have at most 20 tokens");

/** Tokens of a text, and one value for each. */
export const example = {
  tokens: z
    .array(token, "must be a list of texts")
    .min(1, "must not be empty")
    .max(LIMITS.exampleTokens, `must have at most ${LIMITS.exampleTokens} tokens`),
  values: z.array(z.number("must be a finite number"), "must be a list of numbers").min(1, "must not be empty").max(LIMITS.exampleTokens),
};
const asLong = { path: ["values"], error: "must have as many numbers as there are tokens" };
const isAsLong = (given: { tokens: readonly string[]; values: readonly number[] }): boolean => given.tokens.length === given.values.length;

export const UploadFeaturesBody = z
  .object({
    modelId,
    source,
    features: z
      .array(
        z.object({
          index: integer({ min: 0, max: 10_000_000 }),
          density: number({ min: 0, max: 1 }).nullish(),
          topLogits: logits.nullish(),
          bottomLogits: logits.nullish(),
          explanations: z
            .array(
              z.object({
                text: text({ max: LIMITS.labelDescriptionChars }),
                methodName: text({ max: 64 }).nullish(),
                modelName: text({ max: 64 }).nullish(),
              }),
            )
            .max(10, "must have at most 10 labels")
            .nullish(),
          activations: z
            .array(
              z
                .object({
                  ...example,
                  ...{
                    quantileMin: finite().nullish(),
                    quantileMax: finite().nullish(),
                    quantileFraction: number({ min: 0, max: 1 }).nullish(),
                  },
                })
                .refine(isAsLong, asLong),
              "must be a list of texts with activations",
            )
            .min(1, "must have at least one text with activations")
            .max(LIMITS.examplesPerFeature, `must have at most ${LIMITS.examplesPerFeature} texts`),
        }),
        "must be a list of features",
      )
      .min(1, "must have at least one feature")
      .max(LIMITS.featuresPerUpload, `must have at most ${LIMITS.featuresPerUpload} features`)
      .refine((given) => new Set(given.map((each) => each.index)).size === given.length, "must not have an index twice"),
  })
  .openapi("FeatureUpload");
export type UploadFeaturesBody = z.output<typeof UploadFeaturesBody>;

export const AddressBody = z.object({ modelId, source, index }).openapi("FeatureAddress");

export const UploadActivationsBody = AddressBody.extend({
  activations: z
    .array(z.object(example).refine(isAsLong, asLong), "must be a list of texts with activations")
    .min(1, "must have at least one text")
    .max(LIMITS.activationsPerUpload, `must have at most ${LIMITS.activationsPerUpload} texts`),
}).openapi("ActivationUpload");

export const CosSimBody = z
  .object({
    modelId,
    source,
    index,
    targetModelId: modelId,
    targetSourceId: source,
    numResults: optional(integer({ min: 1, max: 128 }), 10),
  })
  .openapi("CosSimRequest");

const Place = z.object({ model: z.string(), source: z.string(), index: z.int() });

export const CosSim = z
  .object({
    feature: Place,
    topkDecoderCossimFeatures: z.array(z.object({ feature: Place, cosineSimilarity: z.number() })),
  })
  .openapi("CosSim");
