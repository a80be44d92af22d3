// Labels of features: found by their words, added, voted on, deleted.
import { z } from "@hono/zod-openapi";
import { TillerError } from "../../shared/errors.ts";
import type { Room } from "../app.ts";
import { requireSource } from "../catalogue/store.ts";
import { Explanation, Feature, FeatureBody, modelId, source } from "../features/contract.ts";
import { describeFeatures, toExplanation } from "../features/describe.ts";
import type { Cursor, LabelSearch, SavedLabel } from "../features/labels.ts";
import { placeOf } from "../features/store.ts";
import { LIMITS } from "../limits.ts";
import { DONE, Done, mountGet, mountPost } from "../route.ts";
import { integer, optional, text } from "../steer/fields.ts";
import { noFeature } from "./features.ts";

const tag = "Labels";
/** Texts of each feature that was found. */
const EXAMPLES = 3;

const page = {
  query: text({
    min: 3,
    max: 200,
    example: "happy",
    description: "Every word must be there, the last perhaps only begun; endings do not matter.",
  }),
  offset: optional(integer({ min: 0, max: 100_000 }), 0),
  cursor: text({
    max: 200,
    description: "nextCursor of the page before: stays right when labels come and go. Not in Neuronpedia.",
  }).optional(),
};

const Found = z
  .object({
    request: z.record(z.string(), z.unknown()),
    results: z.array(
      z.object({
        modelId: z.string(),
        layer: z.string(),
        index: z.string(),
        description: z.string(),
        explanationModelName: z.string().nullable(),
        typeName: z.string(),
        explanationId: z.string(),
        score: z
          .number()
          .openapi({ description: "How well the words fit, the greater the better; only good for comparing. Not in Neuronpedia." }),
        cosine_similarity: z.null().openapi({ description: "Words are searched here, and no embeddings." }),
        neuron: Feature.nullable(),
      }),
    ),
    resultsCount: z.int(),
    hasMore: z.boolean(),
    nextOffset: z.int().optional(),
    nextCursor: z.string().optional(),
  })
  .openapi("LabelSearch");

export function mountExplanations(room: Room): void {
  mountSearches(room);
  mountLabels(room);
}

function mountSearches(room: Room): void {
  type Page = { query: string; offset: number; cursor?: string | undefined };

  async function search(
    body: Page,
    where: Partial<LabelSearch>,
    userId: string | undefined,
    signal: AbortSignal,
  ): Promise<z.input<typeof Found>> {
    const after = body.cursor === undefined ? undefined : readCursor(body.cursor);
    await room.labels.sync();
    const rows = await room.labels.search({ ...where, query: body.query, offset: after === undefined ? body.offset : 0, after, userId });
    const shown = rows.slice(0, LIMITS.labelsPerPage);
    const at = shown.map((row) => ({ modelId: row.model_id, source: row.source, index: row.index }));
    const features = await describeFeatures(room, at, { userId, examples: EXAMPLES, signal });
    const last = shown.at(-1);
    const more = rows.length > shown.length && last !== undefined;
    return {
      request: { ...body },
      results: shown.map((row, i) => ({
        ...{ modelId: row.model_id, layer: row.source, index: String(row.index), description: row.description },
        ...{ explanationModelName: row.explainer, typeName: row.method, explanationId: row.id, score: -row.score, cosine_similarity: null },
        neuron: features.get(placeOf(at[i] as (typeof at)[number])) ?? null,
      })),
      resultsCount: shown.length,
      hasMore: more,
      ...(more ? { nextOffset: body.offset + shown.length, nextCursor: writeCursor(last) } : {}),
    };
  }

  const calls = [
    {
      ...{ path: "/api/explanation/search", summary: "Labels of some sources by their words" },
      body: z.object({
        ...page,
        modelId,
        layers: z.array(source, "must be a list of source ids").min(1, "must name at least one source").max(128),
      }),
      where: (body: { modelId: string; layers: string[] }) => ({ modelId: body.modelId, sources: body.layers }),
    },
    {
      ...{ path: "/api/explanation/search-model", summary: "Labels of a model by their words" },
      body: z.object({ ...page, modelId }),
      where: (body: { modelId: string }) => ({ modelId: body.modelId }),
    },
    {
      ...{ path: "/api/explanation/search-release", summary: "Labels of a source set, of every model that has it, by their words" },
      body: z.object({ ...page, releaseName: text({ max: 128, example: "tales-res", description: "Name of a source set." }) }),
      where: (body: { releaseName: string }) => ({ setName: body.releaseName }),
    },
    {
      ...{ path: "/api/explanation/search-all", summary: "All labels by their words" },
      body: z.object(page),
      where: () => ({}),
    },
  ] as const;
  for (const { path, summary, body, where } of calls) {
    mountPost(
      room,
      {
        ...{ path, tag, summary, access: "anyone", counted: true, body: body as z.ZodType<Page>, answer: Found },
        description: `Ranked, ${LIMITS.labelsPerPage} on a page. Which features are active on a text: /api/search-all.`,
      },
      (given, { userId }, c) => search(given, (where as (body: Page) => Partial<LabelSearch>)(given), userId, c.req.raw.signal),
    );
  }
}

function mountLabels(room: Room): void {
  const { labels } = room;
  const IdBody = z.object({ explanationId: text({ max: 400 }) });
  const find = async (id: string): Promise<SavedLabel> => {
    await labels.sync();
    const label = await labels.find(id);
    if (label === undefined) throw new TillerError("not_found", `There is no label '${id.slice(0, 100)}'.`);
    return label;
  };
  /** Its author, or an administrator. */
  const mayChange = (label: SavedLabel, caller: { userId: string; admin: boolean }): void => {
    if (caller.admin || label.user_id === caller.userId) return;
    throw new TillerError("forbidden", "Only its author or an administrator may do that with a label. Add a label of your own instead.");
  };

  mountGet(
    room,
    {
      ...{ path: "/api/explanation/:id", tag, summary: "A label", access: "anyone", answer: Explanation },
      params: z.object({ id: z.string() }),
    },
    async (_, c) => toExplanation(await find(c.req.param("id") ?? "")),
  );

  mountPost(
    room,
    {
      ...{ path: "/api/explanation/new", tag, summary: "Add a label to a feature", access: "user", answer: Explanation },
      body: FeatureBody.extend({ description: text({ max: LIMITS.labelDescriptionChars, example: "words about the sea" }) }).openapi(
        "NewLabel",
      ),
      description: "Everybody can read and find it. A kept vector has a label of its own: /api/vector/update.",
    },
    async ({ modelId, layer, index, description }, { userId }, c) => {
      const found = await requireSource(room.catalogue, room.models, modelId, layer);
      if (found.kind === "vectors") throw new TillerError("invalid_request", "A vector's label is changed with /api/vector/update.");
      const at = { modelId, source: layer, index };
      const features = await describeFeatures(room, [at], { userId, examples: 0, signal: c.req.raw.signal });
      const feature = features.get(placeOf(at));
      if (feature === undefined) throw noFeature(at);
      if (feature.explanations.some((each) => each.description === description && each.triggeredByUser?.id === userId))
        throw new TillerError("conflict", "You gave this feature that label already.");
      const [id = ""] = await labels.add([
        {
          ...{ model_id: modelId, source: layer, index, description, user_id: userId, method: "tiller_user", explainer: null },
          unlisted: found.kind === "uploaded",
        },
      ]);
      return toExplanation(await find(id));
    },
  );

  mountPost(
    room,
    {
      ...{ path: "/api/explanation/vote", tag, summary: "Vote on a label", access: "user", answer: z.object({ votes: z.int() }) },
      body: IdBody.extend({ vote: integer({ min: -1, max: 1, description: "1, -1, or 0 to take it back." }) }).openapi("LabelVote"),
      description: "Its author or an administrator may. Labels with more votes come first.",
    },
    async ({ explanationId, vote }, caller) => {
      mayChange(await find(explanationId), caller);
      return { votes: await labels.vote(explanationId, caller.userId, vote as -1 | 0 | 1) };
    },
  );

  mountPost(
    room,
    {
      ...{
        path: "/api/explanation/delete",
        tag,
        summary: "Delete a label",
        access: "user",
        body: IdBody.openapi("LabelAddress"),
        answer: Done,
      },
      description: "Its author or an administrator may. Labels that came with a model stay.",
    },
    async ({ explanationId }, caller) => {
      const label = await find(explanationId);
      mayChange(label, caller);
      if (label.user_id === null) throw new TillerError("forbidden", "This label came with the model, and comes again with it.");
      await labels.remove(explanationId);
      return DONE;
    },
  );
}

const writeCursor = ({ score, row }: Cursor): string => btoa(JSON.stringify([score, row]));

function readCursor(cursor: string): Cursor {
  try {
    const value: unknown = JSON.parse(atob(cursor));
    const parsed = z.tuple([z.number(), z.int()]).parse(value);
    return { score: parsed[0], row: parsed[1] };
  } catch {
    throw new TillerError("invalid_request", "cursor must be the nextCursor of an earlier answer.");
  }
}
