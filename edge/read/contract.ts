// Bodies and answers of the calls that read texts, as Neuronpedia documents them, with what we add.
import { z } from "@hono/zod-openapi";
import { Feature } from "../features/contract.ts";
import { LIMITS } from "../limits.ts";
import { flag, integer, number, optional, text } from "../steer/fields.ts";

const modelId = text({ max: 128, example: "tiller-tales" });
const source = text({ max: 128, example: "3-tales-res", description: "Source id, {layer}-{name}." });

/** One text, or a list of a few: a list gets a list. */
const texts = (description: string) =>
  z
    .union([z.string().min(1).max(LIMITS.readChars), z.array(z.string().min(1).max(LIMITS.readChars)).min(1).max(LIMITS.readTexts)], {
      error: (issue) =>
        `${issue.input === undefined ? "is a required field: it " : ""}must be a text of 1 to ${LIMITS.readChars} characters, or a list of 1 to ${LIMITS.readTexts} of them`,
    })
    .openapi({ description, example: "The dog ran home." });

const density = optional(
  number({ min: -1, max: 1, description: "Leaves out features that are active on a larger share of tokens; 0 and -1 leave out none." }),
  0,
);

export const TokenizeBody = z
  .object({
    prompt: text({ max: LIMITS.readChars, example: "The dog ran home." }),
    modelId,
    prependBos: optional(flag({ description: "Puts BOS before the text, where the model has one." }), true),
  })
  .openapi("TokenizeRequest");

export const TokenizeAnswer = z
  .object({
    tokens: z.array(z.int()).openapi({ description: "Ids." }),
    tokenStrings: z.array(z.string()),
    prependBos: z.boolean(),
    offsets: z
      .array(z.tuple([z.int(), z.int()]))
      .openapi({ description: "Where each token lies in the text, [start, end) in UTF-16 code units. Not in Neuronpedia." }),
    special: z
      .array(z.boolean())
      .openapi({ description: "Whether steer_special_tokens: false leaves the token alone. Not in Neuronpedia." }),
  })
  .openapi("TokenizeAnswer");

const FeatureAddress = z
  .object({
    modelId,
    layer: source.optional(),
    source: source.optional(),
    index: integer({ min: 0, max: 2_147_483_647, example: 7, description: "Also as digits in a text." }),
  })
  .refine((given) => given.layer !== undefined || given.source !== undefined, { path: ["source"], error: "is a required field" });

export const ActivationBody = z
  .object({
    feature: FeatureAddress.optional(),
    neuron: FeatureAddress.optional().openapi({ description: "Older name of feature." }),
    customText: texts("What the feature is tested on."),
    ignoreBos: optional(flag({ description: "Leaves BOS out. Latents of autoencoders never have a value on it." }), false),
    share: optional(flag({ description: "Keeps the answer under a link, as steers are kept. Not in Neuronpedia." }), false),
  })
  .refine((given) => given.feature !== undefined || given.neuron !== undefined, { path: ["feature"], error: "is a required field" })
  .openapi("ActivationRequest");

export const Activation = z
  .object({
    tokens: z.array(z.string()),
    values: z.array(z.number()),
    maxValue: z.number(),
    minValue: z.number(),
    maxValueTokenIndex: z.int(),
    modelId: z.string(),
    layer: z.string(),
    index: z.string(),
    creatorId: z.string(),
    dataIndex: z.null(),
    dataSource: z.string(),
    createdAt: z.string(),
    id: z.string().optional().openapi({ description: "With share: true." }),
    shareUrl: z.string().optional().openapi({ description: "With share: true." }),
  })
  .openapi("Activation");

export const SourceBody = z.object({ modelId, source, customText: texts("What is read.") }).openapi("SourceActivationRequest");

export const SourceAnswer = z
  .object({
    results: z.array(
      z.object({
        tokens: z.array(z.string()),
        activeFeatures: z
          .record(z.string(), z.array(z.tuple([z.int(), z.number()])))
          .openapi({ description: "By feature: [position, activation], of every token but BOS." }),
      }),
    ),
  })
  .openapi("SourceActivations");

export const TopkBody = z
  .object({
    modelId,
    source,
    text: texts("What is read."),
    numResults: optional(integer({ min: 1, max: 20, description: "Features for each token." }), 10),
    ignoreBos: optional(flag({ description: "Lists nothing for BOS." }), true),
    densityThreshold: density,
  })
  .openapi("TopkByTokenRequest");

/** What is known of a feature beside its address. */
const FeatureInfo = z.object({
  modelId: z.string(),
  layer: z.string(),
  index: z.string(),
  explanations: z.array(z.object({ description: z.string() })),
});

export const TopkResult = z
  .object({
    source: z.string(),
    results: z.array(
      z.object({
        position: z.int(),
        token: z.string(),
        isSpecial: z.boolean(),
        topFeatures: z.array(z.object({ activationValue: z.number(), featureIndex: z.int(), feature: FeatureInfo })),
      }),
    ),
  })
  .openapi("TopkByToken");

export const SearchBody = z
  .object({
    modelId,
    sourceSet: text({ max: 128, example: "tales-res", description: "A source id without its layer." }),
    text: texts("What is read."),
    selectedLayers: z
      .array(source)
      .max(128)
      .default([])
      .openapi({ description: "Source ids of the set; empty = all of them.", example: ["3-tales-res"] }),
    sortIndexes: z
      .array(integer({ min: 0, max: 1_000_000 }))
      .max(64)
      .default([])
      .openapi({ description: "Tokens whose activations are summed to rank by; empty = by the greatest activation." }),
    ignoreBos: optional(flag({ description: "BOS counts as 0." }), true),
    densityThreshold: optional(
      number({ min: -1, max: 1, description: "Leaves out features that are active on a larger share of tokens; 0 and -1 leave out none." }),
      -1,
    ),
    numResults: optional(integer({ min: 1, max: 100, description: "Features for each text." }), 50),
  })
  .openapi("SearchAllRequest");

export const SearchResult = z
  .object({
    tokens: z.array(z.string()),
    result: z.array(
      z.object({
        modelId: z.string(),
        layer: z.string(),
        index: z.string(),
        maxValue: z.number(),
        maxValueIndex: z.int(),
        values: z.array(z.number()),
        neuron: Feature.optional().openapi({ description: "What is known of the feature, without its texts." }),
      }),
    ),
    sortIndexes: z.array(z.int()),
  })
  .openapi("SearchAll");
