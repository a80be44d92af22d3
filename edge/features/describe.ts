// Everything that is known of features, gathered from where it lies: the engine that serves the source, what users uploaded, labels.
import { formatPoint } from "../../shared/address.ts";
import { FEATURE_LIMITS, type FeatureRecord } from "../../shared/features.ts";
import type { Room } from "../app.ts";
import type { Source } from "../catalogue/store.ts";
import { setNameOf } from "../catalogue/store.ts";
import { read } from "../engine.ts";
import { keyOf, pointOf, type SavedVector } from "../vectors/store.ts";
import type { Explanation, Feature, FeatureActivation } from "./contract.ts";
import { BUILT_IN, builtInId, type SavedLabel } from "./labels.ts";
import { type FeatureAt, placeOf, type SavedActivation, type SavedFeature } from "./store.ts";
import type { UploadedExample } from "./stored.ts";

export interface Wanted {
  /** Who asks: a private vector is there for its owner alone. */
  readonly userId: string | undefined;
  /** Texts of each feature, at most. */
  readonly examples: number;
  readonly signal: AbortSignal;
}

/**
 * Features by `placeOf`; those that do not exist, or that the caller may not see, are not in it.
 * @throws TillerError when an engine that serves one of them does not answer.
 */
export async function describeFeatures(room: Room, at: readonly FeatureAt[], wanted: Wanted): Promise<ReadonlyMap<string, Feature>> {
  const groups = new Map<string, FeatureAt[]>();
  for (const each of at) {
    const key = `${each.modelId}\n${each.source}`;
    groups.set(key, [...(groups.get(key) ?? []), each]);
  }
  const [labels, found] = await Promise.all([
    room.labels.of(at),
    Promise.all(
      [...groups.values()].map(async (group) => {
        const first = group[0] as FeatureAt;
        const source = await room.catalogue.source(first.modelId, first.source);
        return source === undefined ? new Map<string, Found>() : findIn(room, source, group, wanted);
      }),
    ),
  ]);
  const features = new Map<string, Feature>();
  for (const group of found)
    for (const [place, each] of group) features.set(place, toFeature(each, labels.get(place) ?? [], wanted.examples));
  return features;
}

/** A feature as it was found. */
type Found = { readonly at: FeatureAt } & (
  | { readonly kind: "engine"; readonly record: FeatureRecord; readonly hookName: string }
  | { readonly kind: "vector"; readonly vector: SavedVector; readonly activations: readonly SavedActivation[] }
  | { readonly kind: "uploaded"; readonly saved: SavedFeature; readonly owner: string }
);

async function findIn(room: Room, source: Source, group: readonly FeatureAt[], wanted: Wanted): Promise<Map<string, Found>> {
  switch (source.kind) {
    case "engine":
      return findServed(room, source, group, wanted.signal);
    case "vectors": {
      const saved = await room.vectors.find(group, wanted.userId);
      const each = await Promise.all(
        group.map(async (at): Promise<[string, Found] | undefined> => {
          const vector = saved.get(keyOf(at));
          if (vector === undefined) return undefined;
          return [placeOf(at), { at, kind: "vector", vector, activations: await room.uploads.activations(at, wanted.examples) }];
        }),
      );
      return new Map(each.filter((entry) => entry !== undefined));
    }
    case "uploaded": {
      const saved = await room.uploads.features(group);
      const owner = source.set.user_id;
      return new Map(
        group.flatMap((at): [string, Found][] => {
          const feature = saved.get(placeOf(at));
          return feature === undefined ? [] : [[placeOf(at), { at, kind: "uploaded", saved: feature, owner }]];
        }),
      );
    }
  }
}

async function findServed(
  room: Room,
  { served, info }: Extract<Source, { kind: "engine" }>,
  group: readonly FeatureAt[],
  signal: AbortSignal,
): Promise<Map<string, Found>> {
  const found = new Map<string, Found>();
  const there = group.filter(({ index }) => index < info.width);
  for (let start = 0; start < there.length; start += FEATURE_LIMITS.indexes) {
    const part = there.slice(start, start + FEATURE_LIMITS.indexes);
    const request = { model: served.info.id, source: info.id, indexes: part.map(({ index }) => index) };
    const { features } = await read(served.engine, room.config, "/features", request, signal);
    for (const record of features) {
      const at = { modelId: served.info.id, source: info.id, index: record.index };
      found.set(placeOf(at), { at, kind: "engine", record, hookName: info.point });
    }
  }
  return found;
}

function toFeature(found: Found, labels: readonly SavedLabel[], examples: number): Feature {
  const { modelId, source, index } = found.at;
  const setName = setNameOf(source);
  const base: Feature = {
    ...{ modelId, layer: source, index: String(index), source: { id: source }, sourceSetName: setName, sourceSet: { name: setName } },
    ...{ model: { id: modelId }, creatorId: null, creator: { name: "" }, createdAt: null, maxActApprox: 0, frac_nonzero: null },
    ...{ hasVector: false, vector: [], vectorLabel: null, vectorDefaultSteerStrength: 10, hookName: null },
    ...{ topkCosSimIndices: [], topkCosSimValues: [], pos_str: [], pos_values: [], neg_str: [], neg_values: [] },
    ...{ freq_hist_data_bar_heights: [], freq_hist_data_bar_values: [], explanations: labels.map(toExplanation) },
    ...{ activations: [], lists: [], comments: [] },
  };
  switch (found.kind) {
    case "engine":
      return { ...base, ...ofRecord(found.record, found.at, labels, examples), hookName: found.hookName };
    case "vector": {
      const { vector } = found;
      return {
        ...base,
        ...{ hasVector: true, vector: Array.from(vector.values), vectorLabel: vector.label, creatorId: vector.user_id },
        ...{ vectorDefaultSteerStrength: vector.default_strength, hookName: formatPoint(pointOf(vector)) },
        createdAt: new Date(vector.created_at).toISOString(),
        activations: found.activations.map((row) =>
          toActivation(found.at, row.example, { id: row.id, creatorId: row.user_id, createdAt: new Date(row.created_at).toISOString() }),
        ),
      };
    }
    case "uploaded":
      return { ...base, ...ofUpload(found.saved, found.at, examples), creatorId: found.owner };
  }
}

function ofRecord(record: FeatureRecord, at: FeatureAt, labels: readonly SavedLabel[], examples: number): Partial<Feature> {
  const { stats } = record;
  // Until they are in the database, an engine's own labels come from the engine.
  const known = labels.some(({ user_id }) => user_id === null);
  const explanations = record.label === null || known ? {} : { explanations: [ofEngine(at, record.label), ...labels.map(toExplanation)] };
  const described = { maxActApprox: record.max_activation ?? 0, frac_nonzero: record.density, ...explanations };
  const strength = record.strength === null ? {} : { vectorDefaultSteerStrength: record.strength };
  if (stats === null) return { ...described, ...strength };
  const { histogram, top_logits, bottom_logits, nearest } = stats;
  return {
    ...described,
    ...strength,
    topkCosSimIndices: nearest.map((each) => each.index),
    topkCosSimValues: nearest.map((each) => each.cosine),
    ...{ pos_str: top_logits.map((each) => each.token), pos_values: top_logits.map((each) => each.value) },
    ...{ neg_str: bottom_logits.map((each) => each.token), neg_values: bottom_logits.map((each) => each.value) },
    freq_hist_data_bar_heights: histogram.counts,
    freq_hist_data_bar_values: histogram.counts.map((_, i) => i * histogram.width),
    activations: stats.examples
      .slice(0, examples)
      .map((example, i) => toActivation(at, example, { id: `${builtInId(at)}~${i}`, creatorId: "", createdAt: null })),
  };
}

function ofUpload(
  { found, density, max_activation, created_at, user_id }: SavedFeature,
  at: FeatureAt,
  examples: number,
): Partial<Feature> {
  const createdAt = new Date(created_at).toISOString();
  const { topLogits, bottomLogits } = found;
  return {
    ...{ createdAt, maxActApprox: max_activation, frac_nonzero: density },
    ...{ pos_str: topLogits.map(({ token }) => token), pos_values: topLogits.map(({ value }) => value) },
    ...{ neg_str: bottomLogits.map(({ token }) => token), neg_values: bottomLogits.map(({ value }) => value) },
    activations: found.examples
      .slice(0, examples)
      .map((example, i) => toActivation(at, example, { id: `${builtInId(at)}~${i}`, creatorId: user_id, createdAt })),
  };
}

/** A text with activations in Neuronpedia's shape. */
export function toActivation(
  { modelId, source, index }: FeatureAt,
  { tokens, values, quantileMin, quantileMax, quantileFraction }: UploadedExample,
  row: Pick<FeatureActivation, "id" | "creatorId" | "createdAt">,
): FeatureActivation {
  const maxValue = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  return {
    ...row,
    ...{ modelId, layer: source, source, index: String(index), tokens: [...tokens], values: [...values] },
    ...{ maxValue, maxValueTokenIndex: values.indexOf(maxValue), minValue: values.reduce((a, b) => Math.min(a, b), maxValue) },
    ...{ dataIndex: null, dataSource: "Tiller", dfaValues: [], dfaTargetIndex: null, dfaMaxValue: null, lossValues: [] },
    ...{ logitContributions: null, qualifyingTokenIndex: null },
    ...{ binMin: quantileMin ?? null, binMax: quantileMax ?? null, binContains: quantileFraction ?? null },
  };
}

export const toExplanation = (label: SavedLabel): Explanation => ({
  ...{ id: label.id, modelId: label.model_id, layer: label.source, source: label.source, index: String(label.index) },
  ...{ description: label.description, explanationModelName: label.explainer, typeName: label.method, scores: [], votes: label.votes },
  triggeredByUser: label.user_id === null ? null : { id: label.user_id, name: label.author ?? "" },
});

const ofEngine = (at: FeatureAt, description: string): Explanation => ({
  ...{ id: builtInId(at), modelId: at.modelId, layer: at.source, source: at.source, index: String(at.index), description },
  ...{ explanationModelName: null, typeName: BUILT_IN, scores: [], triggeredByUser: null, votes: 0 },
});
