// Lists of features in D1: named, shareable, in an order; an item with a strength steers.
import { and, asc, count, desc, eq, isNotNull, ne, or, sql } from "drizzle-orm";
import { TillerError } from "../../shared/errors.ts";
import { newId } from "../../shared/ids.ts";
import type { Config } from "../config.ts";
import type { FeatureAt } from "../features/store.ts";
import { LIMITS } from "../limits.ts";
import { listComments, listItems, lists, users } from "../schema.ts";

export type SavedList = typeof lists.$inferSelect;
export type SavedItem = typeof listItems.$inferSelect;
export type SavedComment = typeof listComments.$inferSelect;
export type NewItem = Pick<SavedItem, "model_id" | "source" | "index" | "description" | "strength" | "method">;

/** A list with what it has and who made it. */
export interface OpenedList {
  readonly list: SavedList;
  readonly owner: string;
  readonly items: readonly SavedItem[];
  readonly comments: readonly (SavedComment & { readonly author: string })[];
}

export interface Lists {
  /** @throws TillerError `conflict` when the user has too many lists. */
  create(list: Omit<SavedList, "id" | "created_at" | "updated_at">, items: readonly NewItem[]): Promise<SavedList>;
  /** The oldest first. */
  owned(userId: string): Promise<SavedList[]>;
  /** One that the caller may read; undefined when there is none. One query. */
  open(id: string, userId: string | undefined): Promise<OpenedList | undefined>;
  /** The user's own list. @throws TillerError `not_found` "List not found." or `forbidden`, as Neuronpedia answers. */
  require(id: string, userId: string): Promise<SavedList>;
  /** Items that are there already stay as they are. @returns those that were added. @throws TillerError `conflict` for too many. */
  add(list: SavedList, items: readonly NewItem[]): Promise<SavedItem[]>;
  /** undefined when the list has no such item. */
  edit(
    listId: string,
    at: FeatureAt,
    changes: Partial<Pick<SavedItem, "description" | "strength" | "method">>,
  ): Promise<SavedItem | undefined>;
  removeItem(listId: string, at: FeatureAt): Promise<SavedItem | undefined>;
  update(
    id: string,
    changes: Partial<Pick<SavedList, "name" | "description" | "default_test_text" | "visibility">>,
  ): Promise<SavedList | undefined>;
  remove(id: string): Promise<void>;
  comment(listId: string, userId: string, text: string): Promise<SavedComment>;
  /** By its author or by the list's owner. Whether there was such a comment. */
  removeComment(id: string, userId: string): Promise<boolean>;
  /** The user's lists with the items that steer, of those with one for the model; the newest first. */
  recipes(userId: string, modelId: string): Promise<{ readonly list: SavedList; readonly items: readonly SavedItem[] }[]>;
  /** Public lists and the caller's own that have the feature. */
  withFeature(at: FeatureAt, userId: string | undefined): Promise<{ id: string; name: string }[]>;
}

/** Items read to show a user's recipes. */
const RECIPE_ROWS = 1000;

export function newLists({ db }: Config): Lists {
  const isItem = (listId: string, { modelId, source, index }: FeatureAt) =>
    and(...[eq(listItems.list_id, listId), eq(listItems.model_id, modelId)], ...[eq(listItems.source, source), eq(listItems.index, index)]);
  const touch = (id: string) => db.update(lists).set({ updated_at: Date.now() }).where(eq(lists.id, id));

  return {
    async create(given, items) {
      const [{ n } = { n: 0 }] = await db.select({ n: count() }).from(lists).where(eq(lists.user_id, given.user_id));
      if (n >= LIMITS.listsPerUser) throw new TillerError("conflict", `You have ${n} lists, which is the limit: delete some first.`);
      const now = Date.now();
      const list: SavedList = { ...given, id: newId(), created_at: now, updated_at: now };
      await db.batch([db.insert(lists).values(list), ...items.map((item, i) => insertItem(list, item, i, now))]);
      return list;
    },
    owned: (userId) => db.select().from(lists).where(eq(lists.user_id, userId)).orderBy(asc(lists.created_at), asc(lists.id)),
    async open(id, userId) {
      const [[found], items, comments] = await db.batch([
        db
          // Named apart: a batch's rows have one value for each column name.
          .select({ list: lists, owner: sql<string>`${users.name}`.as("owner") })
          .from(lists)
          .innerJoin(users, eq(users.id, lists.user_id))
          .where(and(eq(lists.id, id), readable(userId))),
        db.select().from(listItems).where(eq(listItems.list_id, id)).orderBy(asc(listItems.place), asc(listItems.added_at)),
        db
          .select({ comment: listComments, author: sql<string>`${users.name}`.as("author") })
          .from(listComments)
          .innerJoin(users, eq(users.id, listComments.user_id))
          .where(eq(listComments.list_id, id))
          .orderBy(asc(listComments.created_at)),
      ]);
      if (found === undefined) return undefined;
      return { ...found, items, comments: comments.map(({ comment, author }) => ({ ...comment, author })) };
    },
    async require(id, userId) {
      const [list] = await db
        .select()
        .from(lists)
        .where(and(eq(lists.id, id), readable(userId)));
      if (list === undefined) throw new TillerError("not_found", "List not found.");
      if (list.user_id !== userId) throw new TillerError("forbidden", "You do not own this list.");
      return list;
    },
    async add(list, items) {
      const [{ n, last } = { n: 0, last: 0 }] = await db
        .select({ n: count(), last: sql<number>`coalesce(max(${listItems.place}), -1)` })
        .from(listItems)
        .where(eq(listItems.list_id, list.id));
      if (n + items.length > LIMITS.listItems)
        throw new TillerError(
          "conflict",
          `The list has ${n} features, and ${LIMITS.listItems} is the limit: ${items.length} more are too many.`,
        );
      const now = Date.now();
      const [first, ...others] = items.map((item, i) => insertItem(list, item, last + 1 + i, now));
      if (first === undefined) return [];
      const written = await db.batch([first, ...others, touch(list.id)]);
      return written.slice(0, items.length).flatMap((rows) => rows as SavedItem[]);
    },
    async edit(listId, at, changes) {
      // A change of nothing is none, and still says what the item is.
      const set = { ...changes, list_id: listId };
      const [[row]] = await db.batch([db.update(listItems).set(set).where(isItem(listId, at)).returning(), touch(listId)]);
      return row;
    },
    async removeItem(listId, at) {
      const [[row]] = await db.batch([db.delete(listItems).where(isItem(listId, at)).returning(), touch(listId)]);
      return row;
    },
    update: async (id, changes) =>
      (
        await db
          .update(lists)
          .set({ ...changes, updated_at: Date.now() })
          .where(eq(lists.id, id))
          .returning()
      )[0],
    async remove(id) {
      await db.batch([
        db.delete(listComments).where(eq(listComments.list_id, id)),
        db.delete(listItems).where(eq(listItems.list_id, id)),
        db.delete(lists).where(eq(lists.id, id)),
      ]);
    },
    async comment(listId, userId, text) {
      const [{ n } = { n: 0 }] = await db.select({ n: count() }).from(listComments).where(eq(listComments.list_id, listId));
      if (n >= LIMITS.commentsPerList) throw new TillerError("conflict", `The list has ${n} comments, which is the limit.`);
      const row = { id: newId(), list_id: listId, user_id: userId, text, created_at: Date.now() };
      await db.insert(listComments).values(row);
      return row;
    },
    async removeComment(id, userId) {
      const mine = or(
        eq(listComments.user_id, userId),
        sql`${listComments.list_id} IN (SELECT id FROM ${lists} WHERE user_id = ${userId})`,
      );
      const gone = await db
        .delete(listComments)
        .where(and(eq(listComments.id, id), mine))
        .returning({ id: listComments.id });
      return gone.length > 0;
    },
    async recipes(userId, modelId) {
      const rows = await db
        .select({ list: lists, item: listItems })
        .from(lists)
        .innerJoin(listItems, eq(listItems.list_id, lists.id))
        .where(and(eq(lists.user_id, userId), isNotNull(listItems.strength)))
        .orderBy(desc(lists.created_at), asc(lists.id), asc(listItems.place))
        .limit(RECIPE_ROWS);
      const found = new Map<string, { list: SavedList; items: SavedItem[] }>();
      for (const { list, item } of rows) {
        const known = found.get(list.id);
        if (known === undefined) found.set(list.id, { list, items: [item] });
        else known.items.push(item);
      }
      return [...found.values()].filter(({ items }) => items.some((item) => item.model_id === modelId));
    },
    withFeature: ({ modelId, source, index }, userId) =>
      db
        .select({ id: lists.id, name: lists.name })
        .from(listItems)
        .innerJoin(lists, eq(lists.id, listItems.list_id))
        .where(
          and(
            ...[eq(listItems.model_id, modelId), eq(listItems.source, source), eq(listItems.index, index)],
            or(eq(lists.visibility, "public"), eq(lists.user_id, userId ?? "")),
          ),
        )
        .orderBy(asc(lists.created_at))
        .limit(50),
  };

  function insertItem(list: SavedList, item: NewItem, place: number, now: number) {
    const row: SavedItem = { ...item, list_id: list.id, user_id: list.user_id, added_at: now, place };
    return db.insert(listItems).values(row).onConflictDoNothing().returning();
  }
}

/** Anybody with the id may read a list, but for private ones. */
export const readable = (userId: string | undefined) => or(ne(lists.visibility, "private"), eq(lists.user_id, userId ?? ""));
