// GET /api/models: what can be steered, and within which limits.
import { createRoute, z } from "@hono/zod-openapi";
import type { ModelInfo } from "../../shared/protocol.ts";
import { errorResponses } from "../answers.ts";
import type { Room } from "../app.ts";
import { LIMITS } from "../limits.ts";

const Source = z
  .object({
    id: z.string().openapi({ example: "3-tales-directions", description: "The `layer` of a feature." }),
    hookName: z.string().openapi({ example: "blocks.3.hook_resid_pre" }),
    width: z.int().openapi({ description: "Number of features: indexes are 0 to width - 1." }),
    architecture: z.string(),
    labelledFeatures: z.array(
      z.object({ index: z.int(), label: z.string(), strength: z.number().optional().openapi({ description: "A strength that shows." }) }),
    ),
  })
  .openapi("Source");

const Model = z
  .object({
    id: z.string(),
    family: z.string(),
    layers: z.int(),
    width: z.int().openapi({ description: "Values of a vector." }),
    context: z.int().openapi({ description: "Tokens of prompt and generation together." }),
    vocab: z.int(),
    dtype: z.string(),
    revision: z.string(),
    chatTemplate: z.boolean(),
    sources: z.array(Source),
  })
  .openapi("Model");

const ModelsAnswer = z
  .object({
    models: z.array(Model),
    limits: z.object({
      promptChars: z.int(),
      nTokens: z.int(),
      strengthMultiplier: z.number(),
      steersPerHour: z.object({ withKey: z.int(), anonymous: z.int() }),
    }),
  })
  .openapi("Models");

const route = createRoute({
  method: "get",
  path: "/api/models",
  tags: ["Models"],
  summary: "List models, their sources and the limits",
  responses: {
    200: { description: "Every model that an engine serves now.", content: { "application/json": { schema: ModelsAnswer } } },
    ...errorResponses(500, 502, 503, 504),
  },
});

export function mountModels({ app, models }: Room): void {
  app.openapi(route, async (c) => {
    const list = await models.list();
    return c.json(
      {
        models: list.map(toModel),
        limits: {
          promptChars: LIMITS.promptChars,
          nTokens: LIMITS.nTokens,
          strengthMultiplier: LIMITS.strengthMultiplier,
          steersPerHour: { withKey: LIMITS.steersPerHour, anonymous: LIMITS.anonymousSteersPerHour },
        },
      },
      200,
    );
  });
}

const toModel = ({ chat_template, sources, ...model }: ModelInfo): z.infer<typeof Model> => ({
  ...model,
  chatTemplate: chat_template,
  sources: sources.map(({ point, labelled_features, ...source }) => ({ ...source, hookName: point, labelledFeatures: labelled_features })),
});
