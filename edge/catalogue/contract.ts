// Bodies and answers of the calls about models and source sets, in Neuronpedia's shapes.
import { z } from "@hono/zod-openapi";
import { parseSource } from "../../shared/address.ts";
import type { ModelInfo } from "../../shared/protocol.ts";
import { LIMITS } from "../limits.ts";
import { integer, text } from "../steer/fields.ts";
import { type DescribedModel, type SourceSet as SavedSet, setNameOf } from "./store.ts";

const modelRule = "must be 2 to 32 characters: small letters, digits, single dots and dashes, a letter first, no dot or dash last";
const setRule = "must be 2 to 64 characters: small letters, digits and single dashes, a letter first, no dash last, and not neurons";
const url = z.url({ protocol: /^https?$/, error: "must be an http(s) address" }).max(500, "must be at most 500 characters long");

export const NewModelBody = z
  .object({
    id: z
      .string(modelRule)
      .regex(/^(?!.*(?:--|\.\.))[a-z][a-z0-9.-]{0,30}[a-z0-9]$/, modelRule)
      .openapi({ example: "my-model" }),
    layers: integer({ min: 1, max: LIMITS.layers, example: 12 }),
    displayName: text({ max: 64 }).nullish(),
    url: url.nullish(),
  })
  .openapi("NewModel");

export const NewSetBody = z
  .object({
    name: z
      .string(setRule)
      .regex(/^(?!neurons$|neuronpedia-resid-(?:pre|post)$)(?!.*--)[a-z][a-z0-9-]{0,62}[a-z0-9]$/, setRule)
      .openapi({ example: "res-mine" }),
    modelId: text({ max: 128 }),
    description: text({ min: 0, max: 128 }).nullish(),
    url: url.nullish(),
  })
  .openapi("NewSourceSet");

export const ModelBody = z.object({ id: text({ max: 128, example: "tiller-tales" }) }).openapi("ModelAddress");

const CatalogueSource = z
  .object({
    id: z.string(),
    modelId: z.string(),
    setName: z.string(),
    visibility: z.enum(["PUBLIC", "UNLISTED"]),
    inferenceEnabled: z.boolean(),
    hasDashboards: z.boolean(),
    hookName: z.string().nullable(),
    width: z.int().nullable().openapi({ description: "Number of features. Not in Neuronpedia." }),
    architecture: z.string().nullable().openapi({ description: "Not in Neuronpedia." }),
    creatorId: z.string().nullable(),
  })
  .openapi("CatalogueSource");

export const SourceSet = z
  .object({
    modelId: z.string(),
    name: z.string(),
    description: z.string(),
    urls: z.array(z.string()),
    visibility: z.enum(["PUBLIC", "UNLISTED"]),
    creatorId: z.string().nullable().openapi({ description: "null = came with the model." }),
    createdAt: z.string().nullable(),
    sources: z.array(CatalogueSource),
    releases: z.null(),
  })
  .openapi("SourceSet");

export const Model = z
  .object({
    id: z.string(),
    displayName: z.string(),
    displayNameShort: z.string(),
    creatorId: z.string().nullable(),
    tlensId: z.null(),
    openRouterId: z.null(),
    dimension: z.int().nullable(),
    thinking: z.boolean(),
    instruct: z.boolean().openapi({ description: "Whether it takes conversations." }),
    inferenceEnabled: z.boolean().openapi({ description: "Whether it can be steered here." }),
    visibility: z.enum(["PUBLIC", "UNLISTED"]),
    layers: z.int(),
    neuronsPerLayer: z.int(),
    owner: z.string(),
    website: z.string().nullable(),
    defaultSourceSetName: z.string().nullable(),
    defaultSourceId: z.string().nullable(),
    defaultGraphSourceSetName: z.null(),
    createdAt: z.string().nullable(),
    updatedAt: z.string().nullable(),
    sourceSets: z.array(SourceSet),
  })
  .openapi("CatalogueModel");

export type SourceSet = z.infer<typeof SourceSet>;
export type Model = z.infer<typeof Model>;

/** A model that an engine serves. */
export function toServedModel(info: ModelInfo, added: readonly SavedSet[]): Model {
  const own = servedSets(info);
  const first = own[0];
  return {
    ...{ id: info.id, displayName: info.id, displayNameShort: info.id, creatorId: null, tlensId: null, openRouterId: null },
    ...{ dimension: info.width, thinking: false, instruct: info.chat_template, inferenceEnabled: true, visibility: "PUBLIC" },
    ...{ layers: info.layers, neuronsPerLayer: 0, owner: "", website: null, createdAt: null, updatedAt: null },
    ...{ defaultSourceSetName: first?.name ?? null, defaultSourceId: first?.sources[0]?.id ?? null, defaultGraphSourceSetName: null },
    sourceSets: [...own, ...added.map(toUploadedSet)],
  };
}

/** A model that a user described: nothing runs it here. */
export function toDescribedModel(row: DescribedModel, added: readonly SavedSet[]): Model {
  const sets = added.map(toUploadedSet);
  const created = new Date(row.created_at).toISOString();
  return {
    ...{ id: row.id, displayName: row.display_name, displayNameShort: row.display_name, creatorId: row.user_id, tlensId: null },
    ...{ openRouterId: null, dimension: null, thinking: false, instruct: false, inferenceEnabled: false, visibility: "UNLISTED" },
    ...{ layers: row.layers, neuronsPerLayer: 0, owner: "", website: row.website, createdAt: created, updatedAt: created },
    ...{ defaultSourceSetName: sets[0]?.name ?? null, defaultSourceId: sets[0]?.sources[0]?.id ?? null, defaultGraphSourceSetName: null },
    sourceSets: sets,
  };
}

/** The sets of a served model's own sources, in the order of their first layer. */
export function servedSets(info: ModelInfo): SourceSet[] {
  const ordered = [...info.sources].sort((a, b) => (parseSource(a.id)?.layer ?? 0) - (parseSource(b.id)?.layer ?? 0));
  const names = [...new Set(ordered.map(({ id }) => setNameOf(id)))];
  return names.map((name) => ({
    ...{ modelId: info.id, name, description: "", urls: [], visibility: "PUBLIC", creatorId: null, createdAt: null, releases: null },
    sources: ordered
      .filter(({ id }) => setNameOf(id) === name)
      .map(({ id, point, width, architecture, densities }) => ({
        ...{ id, modelId: info.id, setName: name, visibility: "PUBLIC", inferenceEnabled: true, creatorId: null },
        ...{ hasDashboards: densities === true, hookName: point, width, architecture },
      })),
  }));
}

export const toUploadedSet = (row: SavedSet): SourceSet => ({
  ...{ modelId: row.model_id, name: row.name, description: row.description, urls: row.url === null ? [] : [row.url] },
  ...{ visibility: "UNLISTED", creatorId: row.user_id, createdAt: new Date(row.created_at).toISOString(), releases: null },
  sources: Array.from({ length: row.layers }, (_, layer) => ({
    ...{ id: `${layer}-${row.name}`, modelId: row.model_id, setName: row.name, visibility: "UNLISTED", inferenceEnabled: false },
    ...{ hasDashboards: true, hookName: null, width: null, architecture: null, creatorId: row.user_id },
  })),
});
