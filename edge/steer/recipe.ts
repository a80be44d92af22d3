// What a steer needs of the database, in one round trip: the kept vectors it names, and the list it follows with that list's vectors.
import { and, asc, eq, inArray, isNotNull, isNull, or, sql } from "drizzle-orm";
import { TillerError } from "../../shared/errors.ts";
import type { Config } from "../config.ts";
import { readable } from "../lists/store.ts";
import { listItems, lists, vectors } from "../schema.ts";
import { type SavedVector, type VectorAddress, visibleTo } from "../vectors/store.ts";
import type { SteerFeature } from "./contract.ts";

export interface Recipe {
  /** The list's features that steer, in its order. */
  readonly listed: readonly SteerFeature[];
  /** Vectors that the caller may use, by `keyOf`. */
  readonly saved: ReadonlyMap<string, SavedVector>;
}

export interface Recipes {
  /** @throws TillerError for a list that is not there, that the caller may not read, or that has nothing to steer with. */
  load(kept: readonly VectorAddress[], listId: string | undefined, userId: string | undefined): Promise<Recipe>;
}

export function newRecipes({ db }: Config): Recipes {
  return {
    async load(kept, listId, userId) {
      if (kept.length === 0 && listId === undefined) return { listed: [], saved: new Map() };
      const indexes = [...new Set(kept.map(({ index }) => index))];
      const ofList = sql`${vectors.index} IN (SELECT "index" FROM list_items WHERE list_id = ${listId ?? ""})`;
      const [rows, items, readableLists] = await db.batch([
        db
          .select()
          .from(vectors)
          .where(and(isNull(vectors.deleted_at), or(inArray(vectors.index, indexes), listId === undefined ? undefined : ofList))),
        db
          .select()
          .from(listItems)
          .where(and(eq(listItems.list_id, listId ?? ""), isNotNull(listItems.strength)))
          .orderBy(asc(listItems.place), asc(listItems.added_at)),
        db
          .select({ id: lists.id })
          .from(lists)
          .where(and(eq(lists.id, listId ?? ""), readable(userId))),
      ]);
      if (listId !== undefined && readableLists.length === 0) throw new TillerError("not_found", "listId: List not found.");
      if (listId !== undefined && items.length === 0)
        throw new TillerError("invalid_request", "listId: no feature of this list has a strength, so there is nothing to steer with.");
      const listed = items.map(({ model_id, source, index, strength, method }) => ({
        ...{ modelId: model_id, layer: source, index, strength: strength ?? 0 },
        ...(method === null ? {} : { method }),
      }));
      return { listed, saved: visibleTo(userId, rows) };
    },
  };
}
