// What there is to hang features on: the models and sources that engines serve, and those that users described.
import { and, count, desc, eq, inArray } from "drizzle-orm";
import { parseSource } from "../../shared/address.ts";
import { TillerError } from "../../shared/errors.ts";
import type { SourceInfo } from "../../shared/protocol.ts";
import type { Config } from "../config.ts";
import { LIMITS } from "../limits.ts";
import type { Models, ServedModel } from "../models.ts";
import { models, sourceSets } from "../schema.ts";
import { vectorPoint } from "../vectors/store.ts";

export type DescribedModel = typeof models.$inferSelect;
export type SourceSet = typeof sourceSets.$inferSelect;

/** Where features of one source come from. */
export type Source =
  | { readonly kind: "engine"; readonly served: ServedModel; readonly info: SourceInfo }
  | { readonly kind: "vectors" }
  | { readonly kind: "uploaded"; readonly set: SourceSet };

export interface Catalogue {
  /** A model that a user described; undefined when there is none of this id. */
  describedModel(id: string): Promise<DescribedModel | undefined>;
  describedBy(userId: string): Promise<DescribedModel[]>;
  /** @throws TillerError `conflict` when the id is taken or the user has too many. */
  newModel(model: Omit<DescribedModel, "created_at">): Promise<DescribedModel>;
  /** Sets that users made for these models. */
  setsOf(modelIds: readonly string[]): Promise<SourceSet[]>;
  set(modelId: string, name: string): Promise<SourceSet | undefined>;
  /** @throws TillerError `conflict` when the name is taken or the user has too many. */
  newSet(set: Omit<SourceSet, "created_at">): Promise<SourceSet>;
  /** undefined when there is no such source. */
  source(modelId: string, id: string): Promise<Source | undefined>;
}

/** A source id without its layer, and without the free text behind `__`. */
export const setNameOf = (source: string): string => (parseSource(source)?.name ?? source).split("__")[0] ?? source;

export function newCatalogue({ db }: Config, served: Models): Catalogue {
  const set = async (modelId: string, name: string): Promise<SourceSet | undefined> =>
    (
      await db
        .select()
        .from(sourceSets)
        .where(and(eq(sourceSets.model_id, modelId), eq(sourceSets.name, name)))
    )[0];

  return {
    describedModel: async (id) => (await db.select().from(models).where(eq(models.id, id)))[0],
    describedBy: (userId) => db.select().from(models).where(eq(models.user_id, userId)).orderBy(desc(models.created_at), models.id),
    async newModel(model) {
      if ((await served.find(model.id)) !== undefined)
        throw new TillerError("conflict", `Model already exists: '${model.id}' is served here.`);
      const [{ n } = { n: 0 }] = await db.select({ n: count() }).from(models).where(eq(models.user_id, model.user_id));
      if (n >= LIMITS.modelsPerUser) throw new TillerError("conflict", `You have described ${n} models, which is the limit.`);
      const row = { ...model, created_at: Date.now() };
      const [written] = await db.insert(models).values(row).onConflictDoNothing().returning();
      if (written === undefined) throw new TillerError("conflict", `Model already exists: choose another id than '${model.id}'.`);
      return written;
    },
    setsOf: async (modelIds) => {
      const found: SourceSet[] = [];
      // A query of D1 takes 100 values.
      for (let start = 0; start < modelIds.length; start += 90)
        found.push(
          ...(await db
            .select()
            .from(sourceSets)
            .where(inArray(sourceSets.model_id, modelIds.slice(start, start + 90)))),
        );
      return found.sort((a, b) => a.created_at - b.created_at || (a.name < b.name ? -1 : 1));
    },
    set,
    async newSet(given) {
      const [{ n } = { n: 0 }] = await db.select({ n: count() }).from(sourceSets).where(eq(sourceSets.user_id, given.user_id));
      if (n >= LIMITS.sourceSetsPerUser) throw new TillerError("conflict", `You have ${n} source sets, which is the limit.`);
      const row = { ...given, created_at: Date.now() };
      const [written] = await db.insert(sourceSets).values(row).onConflictDoNothing().returning();
      if (written === undefined) throw new TillerError("conflict", `Model '${given.model_id}' already has a source set '${given.name}'.`);
      return written;
    },
    async source(modelId, id) {
      if (vectorPoint(id) !== undefined) return { kind: "vectors" };
      const parsed = parseSource(id);
      if (parsed === undefined) return undefined;
      const model = await served.find(modelId);
      const info = model?.info.sources.find((source) => source.id === id);
      if (model !== undefined && info !== undefined) return { kind: "engine", served: model, info };
      const uploaded = await set(modelId, setNameOf(id));
      return uploaded === undefined || parsed.layer >= uploaded.layers ? undefined : { kind: "uploaded", set: uploaded };
    },
  };
}

/** @throws TillerError `feature_not_found` with the sources that a served model has. */
export async function requireSource(catalogue: Catalogue, served: Models, modelId: string, id: string): Promise<Source> {
  const source = await catalogue.source(modelId, id);
  if (source !== undefined) return source;
  const model = await served.find(modelId);
  const known = model?.info.sources.map((each) => each.id).join(", ") || "none";
  throw new TillerError(
    "feature_not_found",
    model === undefined
      ? `There is no source '${id}' of a model '${modelId}'. POST /api/model/list names the models there are.`
      : `Model '${modelId}' has no source '${id}'. Its sources are: ${known}.`,
  );
}
