// Vectors of users in D1: written once, found by address, deleted without breaking what used them.
import { and, count, desc, eq, inArray, isNull } from "drizzle-orm";
import type { Point } from "../../shared/address.ts";
import { parseSource } from "../../shared/address.ts";
import { TillerError } from "../../shared/errors.ts";
import type { Config } from "../config.ts";
import { LIMITS } from "../limits.ts";
import { vectors } from "../schema.ts";

export type SavedVector = typeof vectors.$inferSelect;

/** How Neuronpedia names a vector: the source its point has, and a number. */
export interface VectorAddress {
  readonly modelId: string;
  readonly source: string;
  readonly index: number;
}

const NAMES = { "neuronpedia-resid-pre": "resid_pre", "neuronpedia-resid-post": "resid_post" } as const;

/** The point of a vectors' source; undefined for every other source. */
export function vectorPoint(source: string): Point | undefined {
  const parsed = parseSource(source);
  if (parsed === undefined || !Object.hasOwn(NAMES, parsed.name)) return undefined;
  return { layer: parsed.layer, kind: NAMES[parsed.name as keyof typeof NAMES] };
}

export const vectorSource = ({ layer, kind }: Point): string => `${layer}-neuronpedia-${kind.replace("_", "-")}`;
export const pointOf = ({ layer, hook }: Pick<SavedVector, "layer" | "hook">): Point => ({ layer, kind: hook });

export interface Vectors {
  /** @throws TillerError `conflict` when the user has as many as a user may have. */
  create(vector: Omit<SavedVector, "index" | "created_at" | "deleted_at">): Promise<SavedVector>;
  /** Those of the addresses that exist and that the caller may see, by `keyOf`. One query. */
  find(addresses: readonly VectorAddress[], userId: string | undefined): Promise<ReadonlyMap<string, SavedVector>>;
  /** The newest first. */
  owned(userId: string, page: { readonly limit: number; readonly offset: number }): Promise<SavedVector[]>;
  /** Whether there was such a vector of the user's. */
  remove(address: VectorAddress, userId: string): Promise<boolean>;
}

export const keyOf = ({ modelId, source, index }: VectorAddress): string => `${modelId}\n${source}\n${index}`;
const addressOf = (row: SavedVector): VectorAddress => ({ modelId: row.model_id, source: vectorSource(pointOf(row)), index: row.index });

/** Where Neuronpedia's random indexes begin, and how many there are. */
const FIRST_INDEX = 90_000_000;
const INDEXES = 90_000_000;
/** A random index that is taken is drawn again. */
const DRAWS = 5;

function randomIndex(): number {
  const range = Math.floor(2 ** 32 / INDEXES) * INDEXES;
  for (;;) {
    const [drawn = 0] = crypto.getRandomValues(new Uint32Array(1));
    if (drawn < range) return FIRST_INDEX + (drawn % INDEXES);
  }
}

export function newVectors({ db }: Config): Vectors {
  return {
    async create(vector) {
      const mine = and(eq(vectors.user_id, vector.user_id), isNull(vectors.deleted_at));
      const [{ total } = { total: 0 }] = await db.select({ total: count() }).from(vectors).where(mine);
      if (total >= LIMITS.vectorsPerUser) {
        throw new TillerError("conflict", `You have ${total} vectors, and ${LIMITS.vectorsPerUser} is the limit: delete some first.`);
      }
      for (let draw = 0; draw < DRAWS; draw++) {
        const row: SavedVector = { ...vector, index: randomIndex(), created_at: Date.now(), deleted_at: null };
        const [written] = await db.insert(vectors).values(row).onConflictDoNothing().returning({ index: vectors.index });
        if (written !== undefined) return row;
      }
      throw new Error("no free index was found");
    },
    async find(addresses, userId) {
      if (addresses.length === 0) return new Map();
      const indexes = [...new Set(addresses.map(({ index }) => index))];
      const rows = await db
        .select()
        .from(vectors)
        .where(and(inArray(vectors.index, indexes), isNull(vectors.deleted_at)));
      // A private vector of somebody else's is as one that is not there.
      const visible = rows.filter((row) => row.visibility !== "private" || row.user_id === userId);
      return new Map(visible.map((row) => [keyOf(addressOf(row)), row]));
    },
    owned: (userId, { limit, offset }) =>
      db
        .select()
        .from(vectors)
        .where(and(eq(vectors.user_id, userId), isNull(vectors.deleted_at)))
        .orderBy(desc(vectors.created_at), desc(vectors.index))
        .limit(limit)
        .offset(offset),
    async remove({ modelId, source, index }, userId) {
      const point = vectorPoint(source);
      if (point === undefined) return false;
      const removed = await db
        .update(vectors)
        .set({ deleted_at: Date.now(), values: Float64Array.of(0) })
        .where(
          and(
            ...[eq(vectors.index, index), eq(vectors.user_id, userId), eq(vectors.model_id, modelId)],
            ...[eq(vectors.layer, point.layer), eq(vectors.hook, point.kind), isNull(vectors.deleted_at)],
          ),
        )
        .returning({ index: vectors.index });
      return removed.length > 0;
    },
  };
}
