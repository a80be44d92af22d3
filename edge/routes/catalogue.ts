// The calls about models and source sets: list, get, new.
import { z } from "@hono/zod-openapi";
import { TillerError } from "../../shared/errors.ts";
import type { Room } from "../app.ts";
import {
  Model,
  ModelBody,
  NewModelBody,
  NewSetBody,
  SourceSet,
  servedSets,
  toDescribedModel,
  toServedModel,
  toUploadedSet,
} from "../catalogue/contract.ts";
import { mountGet, mountPost } from "../route.ts";

export function mountCatalogue(room: Room): void {
  const { catalogue, models } = room;
  const tag = "Models";

  mountPost(
    room,
    {
      ...{
        path: "/api/model/list",
        tag,
        summary: "Models with their source sets",
        access: "anyone",
        body: z.object({}),
        answer: z.array(Model),
      },
      description: "Those that can be steered here, and those that you described.",
    },
    async (_, { userId }) => {
      const [served, described] = await Promise.all([models.list(), userId === undefined ? [] : catalogue.describedBy(userId)]);
      const sets = await catalogue.setsOf([...served, ...described].map(({ id }) => id));
      // What others added to a model is found by its name, and in no list.
      const addedTo = (id: string) => sets.filter((set) => set.model_id === id && set.user_id === userId);
      return [
        ...served.map((info) => toServedModel(info, addedTo(info.id))),
        ...described.map((row) => toDescribedModel(row, addedTo(row.id))),
      ];
    },
  );

  mountPost(
    room,
    {
      ...{ path: "/api/model/get", tag, summary: "A model", access: "anyone", body: ModelBody, answer: Model.nullable() },
      description: "null when there is none, as Neuronpedia answers.",
    },
    async ({ id }, { userId }) => {
      const [served, sets] = await Promise.all([models.find(id), catalogue.setsOf([id])]);
      if (served !== undefined)
        return toServedModel(
          served.info,
          sets.filter((set) => set.user_id === userId),
        );
      const described = await catalogue.describedModel(id);
      return described === undefined ? null : toDescribedModel(described, sets);
    },
  );

  mountPost(
    room,
    {
      ...{
        path: "/api/model/new",
        tag,
        summary: "Describe a model, to upload features of it",
        access: "user",
        body: NewModelBody,
        answer: Model,
      },
      description: "It does not run here. Whoever knows its id can read it; no list but yours has it.",
    },
    async ({ id, layers, displayName, url }, { userId }) => {
      const row = await catalogue.newModel({ id, layers, user_id: userId, display_name: displayName ?? id, website: url ?? null });
      return toDescribedModel(row, []);
    },
  );

  mountPost(
    room,
    {
      ...{ path: "/api/source-set/new", tag, summary: "Make a source set, to upload features into", access: "user", body: NewSetBody },
      ...{ answer: SourceSet, description: "One source for each layer of the model: {layer}-{name}." },
    },
    async ({ name, modelId, description, url }, { userId, admin }) => {
      const served = await models.find(modelId);
      if (served !== undefined && servedSets(served.info).some((set) => set.name === name))
        throw new TillerError("conflict", `Model '${modelId}' already has a source set '${name}'.`);
      const described = served === undefined ? await catalogue.describedModel(modelId) : undefined;
      if (served === undefined && described === undefined)
        throw new TillerError("model_not_found", `There is no model '${modelId}'. Describe it first: POST /api/model/new.`);
      if (described !== undefined && described.user_id !== userId && !admin)
        throw new TillerError("forbidden", `Model '${modelId}' was described by somebody else, who alone adds source sets to it.`);
      const layers = served?.info.layers ?? described?.layers ?? 1;
      return toUploadedSet(
        await catalogue.newSet({ model_id: modelId, name, user_id: userId, description: description ?? "", url: url ?? null, layers }),
      );
    },
  );

  mountGet(
    room,
    {
      ...{ path: "/api/source-set/:modelId/:name", tag, summary: "A source set", access: "anyone", answer: SourceSet.nullable() },
      ...{ description: "null when there is none, as Neuronpedia answers.", params: z.object({ modelId: z.string(), name: z.string() }) },
    },
    async (_, c) => {
      const [modelId, name] = [c.req.param("modelId") ?? "", c.req.param("name") ?? ""];
      const served = await models.find(modelId);
      const own = served === undefined ? undefined : servedSets(served.info).find((set) => set.name === name);
      if (own !== undefined) return own;
      const set = await catalogue.set(modelId, name);
      return set === undefined ? null : toUploadedSet(set);
    },
  );
}
