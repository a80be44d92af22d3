// POST /api/steer/presets: what to steer a model with, to begin with.
import { z } from "@hono/zod-openapi";
import { TillerError } from "../../shared/errors.ts";
import type { ModelInfo } from "../../shared/protocol.ts";
import type { Room } from "../app.ts";
import { Model, toServedModel } from "../catalogue/contract.ts";
import { LIMITS } from "../limits.ts";
import { mountPost } from "../route.ts";
import { text } from "../steer/fields.ts";
import { knownPresets } from "../steer/presets.ts";
import { slidersOf } from "../steer/sliders.ts";
import { pointOf, vectorSource } from "../vectors/store.ts";

const PresetFeature = z.object({
  modelId: z.string(),
  layer: z.string(),
  index: z.int(),
  explanation: z.string(),
  strength: z.number(),
  method: z.string().optional().openapi({ description: "Where it is not steer_method. Not in Neuronpedia." }),
  hasVector: z.boolean().optional(),
  slider: z
    .object({ min: z.number(), max: z.number(), step: z.number() })
    .optional()
    .openapi({ description: "How far a slider of a named direction goes; several are freely combined. Not in Neuronpedia." }),
});

const Preset = z.object({
  name: z.string(),
  features: z.array(PresetFeature),
  isUserVector: z.boolean().optional(),
  listId: z.string().optional().openapi({ description: "A list of yours. Not in Neuronpedia." }),
});
type Preset = z.infer<typeof Preset>;

const Presets = z.object({ model: Model, defaultPrompt: z.string(), featurePresets: z.array(Preset) }).openapi("Presets");

export function mountPresets(room: Room): void {
  const { models, vectors, lists } = room;
  mountPost(
    room,
    {
      ...{ path: "/api/steer/presets", tag: "Steering", summary: "Features to begin with", access: "anyone", answer: Presets },
      body: z.object({ modelId: text({ max: 128, example: "tiller-tales" }) }).openapi("PresetsRequest"),
      description: "Your vectors and your lists that have strengths, then the directions that came with the model.",
    },
    async ({ modelId }, { userId }) => {
      const served = await models.find(modelId);
      if (served === undefined) throw new TillerError("model_not_found", "Model Not Found");
      const { info } = served;
      const own = userId === undefined ? [] : await Promise.all([ofVectors(userId, modelId), ofLists(userId, modelId)]);
      const known = await Promise.all(knownPresets(modelId).map(async (preset) => ((await isServed(preset)) ? [preset as Preset] : [])));
      return { model: toServedModel(info, []), defaultPrompt: "", featurePresets: [...own.flat(), ...ofModel(info), ...known.flat()] };
    },
  );

  async function ofVectors(userId: string, modelId: string): Promise<Preset[]> {
    const { rows } = await vectors.owned(userId, { modelId, limit: LIMITS.vectorsPerPage, offset: 0 });
    return rows.map((row) => ({
      name: row.label,
      features: [
        {
          ...{ modelId, layer: vectorSource(pointOf(row)), index: row.index, explanation: row.label },
          ...{ strength: row.default_strength, hasVector: true },
        },
      ],
      isUserVector: true,
    }));
  }

  async function ofLists(userId: string, modelId: string): Promise<Preset[]> {
    const opened = await lists.recipes(userId, modelId);
    return opened.map(({ list, items }) => ({
      name: list.name,
      features: items.map((item) => ({
        ...{ modelId: item.model_id, layer: item.source, index: item.index, explanation: item.description || list.name },
        strength: item.strength ?? 0,
        ...(item.method === null ? {} : { method: item.method }),
      })),
      listId: list.id,
    }));
  }

  async function isServed({ features }: Pick<Preset, "features">): Promise<boolean> {
    const found = await Promise.all(
      features.map(async (feature) => (await models.find(feature.modelId))?.info.sources.some(({ id }) => id === feature.layer) === true),
    );
    return found.every((each) => each);
  }
}

/** Named directions that came with the model, each with the strength that shows. */
const ofModel = (info: ModelInfo): Preset[] =>
  slidersOf(info).map(({ source, index, label, strength, min, max, step }) => ({
    name: label,
    features: [{ modelId: info.id, layer: source, index, explanation: label, strength, slider: { min, max, step } }],
  }));
