// What users uploaded about features: whole features of their own source sets, and texts with activations for their vectors.
import { and, asc, count, desc, eq, gt, gte, sql } from "drizzle-orm";
import { TillerError } from "../../shared/errors.ts";
import { newId } from "../../shared/ids.ts";
import type { Config } from "../config.ts";
import { LIMITS } from "../limits.ts";
import { activations, features } from "../schema.ts";
import type { UploadedExample } from "./stored.ts";

/** Where a feature is. */
export interface FeatureAt {
  readonly modelId: string;
  readonly source: string;
  readonly index: number;
}

export const placeOf = ({ modelId, source, index }: FeatureAt): string => `${modelId}\n${source}\n${index}`;

export type SavedFeature = typeof features.$inferSelect;
export type SavedActivation = typeof activations.$inferSelect;

export interface Uploads {
  /** Those that were not there are written. @returns how many. @throws TillerError `conflict` when the user has too many. */
  addFeatures(rows: readonly SavedFeature[]): Promise<number>;
  /** By `placeOf`. */
  features(at: readonly FeatureAt[]): Promise<ReadonlyMap<string, SavedFeature>>;
  /** Features that were active, by index. */
  page(modelId: string, source: string, from: number, limit: number): Promise<SavedFeature[]>;
  /** @throws TillerError `conflict` when the vector has too many. */
  addActivations(at: FeatureAt, userId: string, examples: readonly UploadedExample[]): Promise<void>;
  /** The greatest first. */
  activations(at: FeatureAt, limit: number): Promise<SavedActivation[]>;
}

/** Rows of one statement's batch. */
const BATCH = 64;

/** Whether a row's address is one of those: a statement takes 100 values, a JSON text any number of addresses. */
export const isOneOf = (table: { model_id: unknown; source: unknown; index: unknown }, at: readonly FeatureAt[]) =>
  sql`(${table.model_id}, ${table.source}, ${table.index}) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(${JSON.stringify(at.map(({ modelId, source, index }) => [modelId, source, index]))}))`;

export function newUploads({ db }: Config): Uploads {
  const isAt = ({ modelId, source, index }: FeatureAt) =>
    and(eq(activations.model_id, modelId), eq(activations.source, source), eq(activations.index, index));

  return {
    async addFeatures(rows) {
      const owner = rows[0]?.user_id ?? "";
      const [{ n } = { n: 0 }] = await db.select({ n: count() }).from(features).where(eq(features.user_id, owner));
      if (n + rows.length > LIMITS.featuresPerUser)
        throw new TillerError("conflict", `You have uploaded ${n} features, and ${LIMITS.featuresPerUser} is the limit.`);
      let written = 0;
      for (let start = 0; start < rows.length; start += BATCH) {
        const [first, ...others] = rows
          .slice(start, start + BATCH)
          .map((row) => db.insert(features).values(row).onConflictDoNothing().returning({ index: features.index }));
        if (first !== undefined) written += (await db.batch([first, ...others])).reduce((sum, each) => sum + each.length, 0);
      }
      return written;
    },
    async features(at) {
      if (at.length === 0) return new Map();
      const rows = await db.select().from(features).where(isOneOf(features, at));
      return new Map(rows.map((row) => [placeOf({ modelId: row.model_id, source: row.source, index: row.index }), row]));
    },
    page: (modelId, source, from, limit) =>
      db
        .select()
        .from(features)
        .where(and(eq(features.model_id, modelId), eq(features.source, source), gte(features.index, from), gt(features.max_activation, 0)))
        .orderBy(asc(features.index))
        .limit(limit),
    async addActivations(at, userId, examples) {
      const [{ n } = { n: 0 }] = await db.select({ n: count() }).from(activations).where(isAt(at));
      if (n + examples.length > LIMITS.activationsPerVector) {
        throw new TillerError(
          "conflict",
          `The vector has ${n} texts with activations, and ${LIMITS.activationsPerVector} is the limit: ${examples.length} more are too many.`,
        );
      }
      const now = Date.now();
      const [first, ...others] = examples.map((example) =>
        db.insert(activations).values({
          ...{ id: newId(), model_id: at.modelId, source: at.source, index: at.index, user_id: userId, example },
          ...{ max_value: example.values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY), created_at: now },
        }),
      );
      if (first !== undefined) await db.batch([first, ...others]);
    },
    activations: (at, limit) =>
      db.select().from(activations).where(isAt(at)).orderBy(desc(activations.max_value), asc(activations.id)).limit(limit),
  };
}
