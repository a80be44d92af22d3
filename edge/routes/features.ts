// The calls about features: one, many, a page, upload; their texts with activations; which lie near a direction.
import { z } from "@hono/zod-openapi";
import { encodeFloat32 } from "../../shared/base64.ts";
import { TillerError } from "../../shared/errors.ts";
import type { Room } from "../app.ts";
import { requireSource } from "../catalogue/store.ts";
import { read } from "../engine.ts";
import {
  AddressBody,
  CosSim,
  CosSimBody,
  Feature,
  FeatureActivation,
  FeaturesBody,
  FeaturesOffsetBody,
  index,
  UploadActivationsBody,
  UploadFeaturesBody,
} from "../features/contract.ts";
import { describeFeatures } from "../features/describe.ts";
import { type FeatureAt, placeOf, type SavedFeature } from "../features/store.ts";
import { LIMITS } from "../limits.ts";
import { readingQuotaOf, withQuota } from "../quota.ts";
import { findSource } from "../read/answers.ts";
import { mountGet, mountPost } from "../route.ts";
import { keyOf, vectorPoint } from "../vectors/store.ts";
import { missing } from "./vectors.ts";

const tag = "Features";
const ALL = LIMITS.activationsPerVector;

export function mountFeatures(room: Room): void {
  mountReads(room);
  mountUploads(room);
  mountCosSim(room);
}

export const noFeature = ({ modelId, source, index }: FeatureAt): TillerError =>
  new TillerError(
    "feature_not_found",
    `There is no feature ${index} in '${source}' of '${modelId}'. /api/model/list names models and sources.`,
  );

function mountReads(room: Room): void {
  const find = (at: readonly FeatureAt[], userId: string | undefined, signal: AbortSignal, examples: number = ALL) =>
    describeFeatures(room, at, { userId, signal, examples });

  mountGet(
    room,
    {
      ...{ path: "/api/feature/:modelId/:layer/:index", tag, summary: "A feature", access: "anyone", counted: true, answer: Feature },
      description:
        "Label, density, histogram of activations, tokens it promotes and suppresses, nearest features and the texts it is most active on, as far as they are known. Also a kept vector.",
      params: z.object({ modelId: z.string(), layer: z.string(), index: z.string() }),
    },
    async ({ userId }, c) => {
      const number = index.safeParse(c.req.param("index"));
      if (!number.success) throw new TillerError("invalid_request", "The index of a feature must be a whole number from 0 on.");
      const at = { modelId: c.req.param("modelId") ?? "", source: c.req.param("layer") ?? "", index: number.data };
      const [features, lists] = await Promise.all([find([at], userId, c.req.raw.signal), room.lists.withFeature(at, userId)]);
      const feature = features.get(placeOf(at));
      if (feature === undefined) throw noFeature(at);
      return { ...feature, lists };
    },
  );

  mountPost(
    room,
    {
      ...{
        path: "/api/features",
        tag,
        summary: "Several features",
        access: "anyone",
        counted: true,
        body: FeaturesBody,
        answer: z.array(Feature),
      },
      description: "In the order asked for; those that do not exist are left out. maxActsToReturn says how many texts each has.",
    },
    async (body, { userId }, c) => {
      const at = body.map(({ modelId, layer, index }) => ({ modelId, source: layer, index }));
      const found = await find(at, userId, c.req.raw.signal);
      return body.flatMap(({ maxActsToReturn = ALL }, i) => {
        const feature = found.get(placeOf(at[i] as FeatureAt));
        return feature === undefined ? [] : [{ ...feature, activations: feature.activations.slice(0, maxActsToReturn) }];
      });
    },
  );

  mountPost(
    room,
    {
      ...{
        path: "/api/features-offset",
        tag,
        summary: "A page of a source's features",
        access: "anyone",
        counted: true,
        body: FeaturesOffsetBody,
      },
      answer: z.array(Feature),
      description: `The ${LIMITS.featuresPerPage} features from index \`offset\` on that were active on some text, by index.`,
    },
    async ({ modelId, layer, offset }, { userId }, c) => {
      const { signal } = c.req.raw;
      const source = await requireSource(room.catalogue, room.models, modelId, layer);
      if (source.kind === "vectors")
        throw new TillerError("invalid_request", `'${layer}' holds vectors of many users: /api/vector/list-owned lists yours.`);
      const indexes =
        source.kind === "uploaded"
          ? (await room.uploads.page(modelId, layer, offset, LIMITS.featuresPerPage)).map((row) => row.index)
          : (
              await read(
                source.served.engine,
                room.config,
                "/features",
                { model: modelId, source: layer, from: offset, limit: LIMITS.featuresPerPage },
                signal,
              )
            ).features.map((record) => record.index);
      const at = indexes.map((index) => ({ modelId, source: layer, index }));
      const found = await find(at, userId, signal);
      return at.flatMap((each) => found.get(placeOf(each)) ?? []);
    },
  );

  mountPost(
    room,
    {
      ...{
        path: "/api/activation/get",
        tag,
        summary: "Texts that a feature is active on",
        access: "anyone",
        counted: true,
        body: AddressBody,
      },
      answer: z.array(FeatureActivation),
      description: "With the activation on each token, the most active text first.",
    },
    async (at, { userId }, c) => {
      const feature = (await find([at], userId, c.req.raw.signal)).get(placeOf(at));
      if (feature === undefined) throw noFeature(at);
      return feature.activations;
    },
  );
}

function mountUploads(room: Room): void {
  const { catalogue, labels, models, uploads, vectors } = room;
  const Message = z.object({ message: z.string() });

  mountPost(
    room,
    {
      ...{ path: "/api/feature/upload-batch", tag, summary: "Upload features into a source set of yours", access: "user" },
      ...{ body: UploadFeaturesBody, answer: Message },
      description: "Features that are there already stay as they are. Make the set with /api/source-set/new.",
    },
    async ({ features, ...body }, { userId, admin }) => {
      const [modelId, name] = [body.modelId.toLowerCase(), body.source.toLowerCase()];
      const source = await requireSource(catalogue, models, modelId, name);
      if (source.kind !== "uploaded") {
        const sentence = `'${name}' of '${modelId}' came with the model. Upload into a source set of your own: POST /api/source-set/new.`;
        throw new TillerError("forbidden", sentence);
      }
      if (source.set.user_id !== userId && !admin)
        throw new TillerError("forbidden", `'${name}' of '${modelId}' belongs to somebody else.`);
      const created = await uploads.addFeatures(features.map((feature) => toSaved(modelId, name, userId, feature)));
      const named = features.flatMap((feature) =>
        (feature.explanations ?? []).map(({ text, methodName, modelName }) => ({
          ...{ model_id: modelId, source: name, index: feature.index, description: text, user_id: userId },
          ...{ method: methodName ?? "uploaded", explainer: modelName ?? null, unlisted: true },
        })),
      );
      // Labels of features that were there already would be added at every repetition.
      const known = await labels.of(named.map(({ index }) => ({ modelId, source: name, index })));
      const fresh = named.filter(
        ({ index, description }) =>
          !known
            .get(placeOf({ modelId, source: name, index }))
            ?.some((label) => label.description === description && label.user_id === userId),
      );
      if (fresh.length > 0) await labels.add(fresh);
      return { message: `${created} features created.` };
    },
  );

  mountPost(
    room,
    {
      ...{ path: "/api/activation/upload-batch", tag, summary: "Add texts with activations to a vector of yours", access: "user" },
      ...{ body: UploadActivationsBody, answer: Message },
    },
    async ({ activations, ...at }, { userId }) => {
      if (vectorPoint(at.source) === undefined) {
        throw new TillerError(
          "invalid_request",
          "source must be one of vectors, such as 3-neuronpedia-resid-pre: texts of features come with /api/feature/upload-batch.",
        );
      }
      const vector = (await vectors.find([at], userId)).get(keyOf(at));
      if (vector === undefined) throw missing(at);
      if (vector.user_id !== userId)
        throw new TillerError("forbidden", "This vector belongs to somebody else, who alone adds texts to it.");
      await uploads.addActivations(at, userId, activations);
      return { message: `${activations.length} activations created.` };
    },
  );
}

function toSaved(modelId: string, source: string, userId: string, feature: UploadFeaturesBody["features"][number]): SavedFeature {
  const peak = (values: readonly number[]) => values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const examples = feature.activations
    .map(({ tokens, values, quantileMin, quantileMax, quantileFraction }) => ({
      ...{ tokens, values, quantileMin: quantileMin ?? undefined },
      ...{ quantileMax: quantileMax ?? undefined, quantileFraction: quantileFraction ?? undefined },
    }))
    .sort((a, b) => peak(b.values) - peak(a.values));
  return {
    ...{ model_id: modelId, source, index: feature.index, user_id: userId, density: feature.density ?? null },
    max_activation: Math.max(0, peak(examples[0]?.values ?? [])),
    found: { topLogits: feature.topLogits ?? [], bottomLogits: feature.bottomLogits ?? [], examples },
    created_at: Date.now(),
  };
}

function mountCosSim(room: Room): void {
  const { models, vectors, config } = room;
  mountPost(
    room,
    {
      ...{ path: "/api/cossim", tag, summary: "Features whose directions are nearest to a vector or a feature", access: "anyone" },
      ...{ body: CosSimBody, answer: CosSim },
      description: "By the cosine with the decoder rows of targetSourceId, the greatest first.",
    },
    async ({ modelId, source, index, targetModelId, targetSourceId, numResults }, caller, c) => {
      const { signal } = c.req.raw;
      const target = await models.get(targetModelId);
      findSource(target.info, targetSourceId);
      const at = { modelId, source, index };
      return withQuota(readingQuotaOf(room.limiter, caller), c, "/api/cossim", async () => {
        const { items } = await read(
          target.engine,
          config,
          "/similar",
          { model: targetModelId, source: targetSourceId, vector: await directionOf(at, caller.userId, signal), top_k: numResults },
          signal,
        );
        return {
          feature: { model: modelId, source, index },
          topkDecoderCossimFeatures: items.map((item) => ({
            feature: { model: targetModelId, source: targetSourceId, index: item.index },
            cosineSimilarity: item.cosine,
          })),
        };
      });
    },
  );

  async function directionOf(at: FeatureAt, userId: string | undefined, signal: AbortSignal): Promise<string> {
    if (vectorPoint(at.source) !== undefined) {
      const vector = (await vectors.find([at], userId)).get(keyOf(at));
      if (vector === undefined) throw missing(at);
      return encodeFloat32(vector.values);
    }
    const { info, engine } = await models.get(at.modelId);
    findSource(info, at.source);
    const { rows } = await read(engine, config, "/rows", { model: at.modelId, source: at.source, indexes: [at.index] }, signal);
    return rows[0] ?? "";
  }
}
