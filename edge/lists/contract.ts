// Bodies and answers of the calls about lists: Neuronpedia's, with the strength that makes a list a recipe to steer with.
import { z } from "@hono/zod-openapi";
import { METHODS } from "../../shared/protocol.ts";
import { Feature, FeatureActivation, index, modelId, source } from "../features/contract.ts";
import { LIMITS } from "../limits.ts";
import { VISIBILITIES } from "../schema.ts";
import { finite, oneOf, optional, text } from "../steer/fields.ts";

const name = text({ max: LIMITS.labelChars, example: "Cats" });
const description = text({ min: 0, max: LIMITS.descriptionChars });
const testText = text({ min: 0, max: LIMITS.testTextChars, description: "What its features are tested on." }).nullable();
const listId = text({ max: 64 });
const visibility = oneOf(VISIBILITIES, {
  description: "Who may read it and steer with it: only you, whoever has its id, or everybody. Not in Neuronpedia.",
});
const recipe = {
  description: description.optional(),
  strength: finite({ description: "How hard it steers; without one it is only noted. Not in Neuronpedia." }).nullish(),
  method: oneOf(METHODS, { description: "How it steers; default: steer_method of the steer. Not in Neuronpedia." }).nullish(),
};
const Item = z.object({ modelId, layer: source, index, ...recipe });

export const NewListBody = z
  .object({ name, description: optional(description, ""), testText: testText.optional(), visibility: optional(visibility, "unlisted") })
  .openapi("NewList");

const items = z
  .array(Item, "must be a list of features: modelId, layer and index")
  .max(LIMITS.listItemsPerCall, `Too many features to add. Max is ${LIMITS.listItemsPerCall} at a time`);

export const NewListWithBody = NewListBody.extend({ features: items }).openapi("NewListWithFeatures");
export const AddItemsBody = z.object({ listId, featuresToAdd: items.min(1, "must name at least one feature") }).openapi("ListAddition");
export const ListIdBody = z.object({ listId }).openapi("ListAddress");
export const ItemBody = z.object({ listId, modelId, layer: source, index });
export const EditItemBody = ItemBody.extend(recipe).openapi("ListEdit");
export const UpdateListBody = z
  .object({
    listId,
    name: name.optional(),
    description: description.optional(),
    defaultTestText: testText.optional(),
    visibility: visibility.optional(),
  })
  .openapi("ListUpdate", { description: "What is left out stays as it is." });
export const NewCommentBody = z.object({ listId, text: text({ min: 2, max: LIMITS.commentChars }) }).openapi("NewListComment");
export const CommentBody = z.object({ commentId: text({ max: 64 }) }).openapi("ListCommentAddress");

export const List = z
  .object({
    id: z.string(),
    name: z.string(),
    description: z.string(),
    defaultTestText: z.string().nullable(),
    userId: z.string(),
    createdAt: z.string(),
    updatedAt: z.string(),
    visibility: z.enum(VISIBILITIES),
    url: z.string(),
  })
  .openapi("List");
export type List = z.infer<typeof List>;

export const OwnedList = List.extend({ user: z.object({ name: z.string() }) }).openapi("OwnedList");

export const ListItem = z
  .object({
    modelId: z.string(),
    layer: z.string(),
    index: z.string(),
    listId: z.string(),
    description: z.string(),
    strength: z.number().nullable(),
    method: z.enum(METHODS).nullable(),
    addedAt: z.string(),
    userId: z.string(),
  })
  .openapi("ListItem");
export type ListItem = z.infer<typeof ListItem>;

export const Comment = z
  .object({ id: z.string(), listId: z.string(), userId: z.string(), text: z.string(), createdAt: z.string() })
  .openapi("ListComment");

export const WholeList = OwnedList.extend({
  neurons: z.array(ListItem.extend({ neuron: Feature.nullable() })),
  activations: z.array(FeatureActivation),
  comments: z.array(Comment.extend({ user: z.object({ name: z.string() }) })),
}).openapi("WholeList");
