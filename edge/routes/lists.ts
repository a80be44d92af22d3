// The calls about lists.
import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { TillerError } from "../../shared/errors.ts";
import type { App, Room } from "../app.ts";
import { describeFeatures } from "../features/describe.ts";
import { type FeatureAt, placeOf } from "../features/store.ts";
import {
  AddItemsBody,
  Comment,
  CommentBody,
  EditItemBody,
  ItemBody,
  List,
  ListIdBody,
  ListItem,
  NewCommentBody,
  NewListBody,
  NewListWithBody,
  OwnedList,
  UpdateListBody,
  WholeList,
} from "../lists/contract.ts";
import type { NewItem, SavedComment, SavedItem, SavedList } from "../lists/store.ts";
import { DONE, Done, mountPost, originOf } from "../route.ts";

const tag = "Lists";
const access = "user";
/** Texts of each feature of a list. */
const EXAMPLES = 3;

export function mountLists(room: Room): void {
  const { accounts, lists } = room;
  const nameOf = async (userId: string): Promise<{ name: string }> => ({ name: (await accounts.user(userId))?.name ?? "" });
  const urlOf = (c: Context<App>, list: SavedList): string => `${originOf(room, c)}/list/${list.id}`;
  const toNew = (items: z.output<typeof AddItemsBody>["featuresToAdd"]): NewItem[] =>
    items.map(({ modelId, layer, index, description, strength, method }) => ({
      ...{ model_id: modelId, source: layer, index, description: description ?? "" },
      ...{ strength: strength ?? null, method: method ?? null },
    }));
  /** @throws TillerError naming the first feature that is not there: nothing is left out in silence. */
  const requireFeatures = async (c: Context<App>, items: readonly NewItem[], userId: string): Promise<void> => {
    const at = items.map(({ model_id, source, index }) => ({ modelId: model_id, source, index }));
    const found = await describeFeatures(room, at, { userId, examples: 0, signal: c.req.raw.signal });
    const missing = at.findIndex((each) => !found.has(placeOf(each)));
    if (missing < 0) return;
    const { modelId, source, index } = at[missing] as FeatureAt;
    throw new TillerError("feature_not_found", `features[${missing}]: there is no feature ${index} in '${source}' of '${modelId}'.`);
  };
  const noItem = ({ modelId, layer, index }: z.output<typeof ItemBody>) =>
    new TillerError("not_found", `The list has no feature ${index} in '${layer}' of '${modelId}'.`);
  const create = async (c: Context<App>, userId: string, body: z.output<typeof NewListBody>, items: NewItem[]) => {
    await requireFeatures(c, items, userId);
    const { name, description, testText, visibility } = body;
    const list = await lists.create({ user_id: userId, name, description, default_test_text: testText ?? null, visibility }, items);
    return { ...toList(list, urlOf(c, list)), user: await nameOf(userId) };
  };

  mountPost(
    room,
    { path: "/api/list/new", tag, summary: "Make a list", access, body: NewListBody, answer: OwnedList },
    (body, { userId }, c) => create(c, userId, body, []),
  );
  mountPost(
    room,
    {
      ...{ path: "/api/list/new-with-features", tag, summary: "Make a list of features", access, body: NewListWithBody, answer: OwnedList },
      description: "A list whose features have strengths is a recipe: `listId` of a steer uses it.",
    },
    (body, { userId }, c) => create(c, userId, body, toNew(body.features)),
  );
  mountPost(
    room,
    { path: "/api/list/list", tag, summary: "Your lists, the oldest first", access, body: z.object({}), answer: z.array(List) },
    async (_, { userId }, c) => (await lists.owned(userId)).map((list) => toList(list, urlOf(c, list))),
  );
  mountPost(
    room,
    {
      ...{
        path: "/api/list/get",
        tag,
        summary: "A list with its features",
        access: "anyone",
        counted: true,
        body: ListIdBody,
        answer: WholeList,
      },
      description: "Of a feature that is not there any more, `neuron` is null.",
    },
    async ({ listId }, { userId }, c) => {
      const opened = await lists.open(listId, userId);
      if (opened === undefined) throw new TillerError("not_found", "List not found.");
      const { list, owner, items, comments } = opened;
      const at = items.map(({ model_id, source, index }) => ({ modelId: model_id, source, index }));
      const found = await describeFeatures(room, at, { userId, examples: EXAMPLES, signal: c.req.raw.signal });
      return {
        ...toList(list, urlOf(c, list)),
        user: { name: owner },
        neurons: items.map((item, i) => ({ ...toItem(item), neuron: found.get(placeOf(at[i] as FeatureAt)) ?? null })),
        activations: [],
        comments: comments.map(({ author, ...comment }) => ({ ...toComment(comment), user: { name: author } })),
      };
    },
  );
  mountPost(
    room,
    {
      ...{ path: "/api/list/add-features", tag, summary: "Add features to a list of yours", access, body: AddItemsBody },
      ...{ answer: z.array(ListItem), description: "Answers with those that were not in it." },
    },
    async ({ listId, featuresToAdd }, { userId }, c) => {
      const list = await lists.require(listId, userId);
      const items = toNew(featuresToAdd);
      await requireFeatures(c, items, userId);
      return (await lists.add(list, items)).map(toItem);
    },
  );
  mountPost(
    room,
    {
      ...{ path: "/api/list/edit-feature", tag, summary: "Change a feature's description, strength or method in a list", access },
      ...{ body: EditItemBody, answer: ListItem, description: "What is left out stays; null takes a strength or a method away." },
    },
    async ({ listId, description, strength, method, ...at }, { userId }) => {
      await lists.require(listId, userId);
      const changes = {
        ...(description === undefined ? {} : { description }),
        ...(strength === undefined ? {} : { strength }),
        ...(method === undefined ? {} : { method }),
      };
      const item = await lists.edit(listId, { modelId: at.modelId, source: at.layer, index: at.index }, changes);
      if (item === undefined) throw noItem({ listId, ...at });
      return toItem(item);
    },
  );
  mountPost(
    room,
    {
      path: "/api/list/remove",
      tag,
      summary: "Take a feature out of a list",
      access,
      body: ItemBody.openapi("ListRemoval"),
      answer: ListItem,
    },
    async (body, { userId }) => {
      await lists.require(body.listId, userId);
      const item = await lists.removeItem(body.listId, { modelId: body.modelId, source: body.layer, index: body.index });
      if (item === undefined) throw noItem(body);
      return toItem(item);
    },
  );
  mountPost(
    room,
    { path: "/api/list/update", tag, summary: "Change a list", access, body: UpdateListBody, answer: List },
    async ({ listId, name, description, defaultTestText, visibility }, { userId }, c) => {
      await lists.require(listId, userId);
      const list = await lists.update(listId, {
        ...(name === undefined ? {} : { name }),
        ...(description === undefined ? {} : { description }),
        ...(defaultTestText === undefined ? {} : { default_test_text: defaultTestText }),
        ...(visibility === undefined ? {} : { visibility }),
      });
      if (list === undefined) throw new TillerError("not_found", "List not found.");
      return toList(list, urlOf(c, list));
    },
  );
  mountPost(
    room,
    { path: "/api/list/delete", tag, summary: "Delete a list", access, body: ListIdBody, answer: z.literal(true) },
    async ({ listId }, { userId }) => {
      await lists.require(listId, userId);
      await lists.remove(listId);
      return true as const;
    },
  );
  mountPost(
    room,
    { path: "/api/list/comment/new", tag, summary: "Comment on a list", access, body: NewCommentBody, answer: Comment },
    async ({ listId, text }, { userId }) => {
      if ((await lists.open(listId, userId)) === undefined) throw new TillerError("not_found", "List not found.");
      return toComment(await lists.comment(listId, userId, text));
    },
  );
  mountPost(
    room,
    {
      path: "/api/list/comment/delete",
      tag,
      summary: "Delete a comment of yours, or on a list of yours",
      access,
      body: CommentBody,
      answer: Done,
    },
    async ({ commentId }, { userId }) => {
      if (!(await lists.removeComment(commentId, userId))) throw new TillerError("not_found", "Comment not found.");
      return DONE;
    },
  );
}

const toList = (row: SavedList, url: string): List => ({
  ...{ id: row.id, name: row.name, description: row.description, defaultTestText: row.default_test_text, userId: row.user_id },
  ...{ createdAt: new Date(row.created_at).toISOString(), updatedAt: new Date(row.updated_at).toISOString() },
  ...{ visibility: row.visibility, url },
});

const toItem = (row: SavedItem): ListItem => ({
  ...{ modelId: row.model_id, layer: row.source, index: String(row.index), listId: row.list_id, description: row.description },
  ...{ strength: row.strength, method: row.method, addedAt: new Date(row.added_at).toISOString(), userId: row.user_id },
});

const toComment = (row: SavedComment): z.infer<typeof Comment> => ({
  ...{ id: row.id, listId: row.list_id, userId: row.user_id, text: row.text, createdAt: new Date(row.created_at).toISOString() },
});
