// What an engine says of texts, in Neuronpedia's shapes.
import type { z } from "@hono/zod-openapi";
import { parseSource } from "../../shared/address.ts";
import { TillerError } from "../../shared/errors.ts";
import type { ModelInfo } from "../../shared/protocol.ts";
import type { ActivationsResult, LatentsResult } from "../../shared/readings.ts";
import type { SavedLabel } from "../features/labels.ts";
import { type FeatureAt, placeOf } from "../features/store.ts";
import type { Activation, SearchResult, SourceAnswer, TopkResult } from "./contract.ts";

type LatentsItem = LatentsResult["items"][number];

/** @throws TillerError `feature_not_found` naming the sources there are. */
export function findSource(info: ModelInfo, id: string): ModelInfo["sources"][number] {
  const source = info.sources.find((known) => known.id === id);
  if (source !== undefined) return source;
  const known = info.sources.map((each) => each.id).join(", ");
  throw new TillerError("feature_not_found", `Model '${info.id}' has no source '${id}'. Its sources are: ${known || "none"}.`);
}

/**
 * Source ids of a set, in the order of their layers.
 * @throws TillerError naming the sets, or the layers of the set, that there are.
 */
export function sourcesOfSet(info: ModelInfo, set: string, selected: readonly string[]): string[] {
  const named = info.sources.filter(({ architecture }) => architecture !== "directions").map(({ id }) => ({ id, ...parseSource(id) }));
  const all = named.filter(({ name }) => name === set).sort((a, b) => (a.layer ?? 0) - (b.layer ?? 0));
  if (all.length === 0) {
    const sets = [...new Set(named.map(({ name }) => name))].join(", ");
    throw new TillerError("feature_not_found", `Model '${info.id}' has no source set '${set}'. Its sets are: ${sets || "none"}.`);
  }
  const ids = all.map(({ id }) => id);
  const unknown = selected.find((id) => !ids.includes(id));
  if (unknown !== undefined)
    throw new TillerError("feature_not_found", `Source set '${set}' has no source '${unknown}'. Its sources are: ${ids.join(", ")}.`);
  return selected.length === 0 ? ids : ids.filter((id) => selected.includes(id));
}

/**
 * The engine's density filter of a request.
 * @throws TillerError where nobody has counted how often features are active: a filter that does nothing would be a lie.
 */
export function densityFilter(info: ModelInfo, sources: readonly string[], threshold: number): { readonly max_density?: number } {
  if (threshold <= 0) return {};
  const unknown = sources.find((id) => info.sources.find((source) => source.id === id)?.densities !== true);
  if (unknown === undefined) return { max_density: threshold };
  throw new TillerError(
    "invalid_request",
    `densityThreshold must be 0 or -1 here: how often features are active is not known for '${unknown}'. npm run features finds it out.`,
  );
}

const rounded = (value: number): number => Math.round(value * 1000) / 1000;

/** @param skip tokens at the beginning that are left out. */
export function toActivation(
  { tokens, values }: ActivationsResult["items"][number],
  feature: FeatureAt,
  skip: number,
): z.infer<typeof Activation> {
  const shown = (values[0] ?? []).slice(skip);
  const maxValue = shown.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  return {
    tokens: tokens.slice(skip).map(({ token }) => token),
    values: shown,
    maxValue: shown.length === 0 ? 0 : maxValue,
    minValue: shown.length === 0 ? 0 : shown.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY),
    maxValueTokenIndex: Math.max(0, shown.indexOf(maxValue)),
    modelId: feature.modelId,
    layer: feature.source,
    index: String(feature.index),
    creatorId: "",
    dataIndex: null,
    dataSource: "Tiller",
    createdAt: new Date().toISOString(),
  };
}

export function toSourceResult({ tokens, top }: LatentsItem): z.infer<typeof SourceAnswer>["results"][number] {
  const active = new Map<number, [number, number][]>();
  for (const [position, list] of top.entries()) {
    for (const { index, activation } of list) {
      const at = active.get(index);
      if (at === undefined) active.set(index, [[position, rounded(activation)]]);
      else at.push([position, rounded(activation)]);
    }
  }
  return {
    tokens: tokens.map(({ token }) => token),
    activeFeatures: Object.fromEntries([...active].sort(([a], [b]) => a - b).map(([index, at]) => [String(index), at])),
  };
}

/** What is known of features that were found, by `placeOf`. */
export type Known<T> = ReadonlyMap<string, T>;

const placeIn = (info: ModelInfo, source: string, index: number): string => placeOf({ modelId: info.id, source, index });

export const toTopk = (
  info: ModelInfo,
  source: string,
  { tokens, top }: LatentsItem,
  labels: Known<readonly SavedLabel[]>,
): z.infer<typeof TopkResult> => ({
  source,
  results: tokens.map(({ token, special }, position) => ({
    position,
    token,
    isSpecial: special,
    topFeatures: (top[position] ?? []).map(({ index, activation }) => ({
      activationValue: activation,
      featureIndex: index,
      feature: {
        ...{ modelId: info.id, layer: source, index: String(index) },
        explanations: (labels.get(placeIn(info, source, index)) ?? []).map(({ description }) => ({ description })),
      },
    })),
  })),
});

/** A text with the features found on it, which are not described yet. */
export type Found = Omit<z.infer<typeof SearchResult>, "result"> & {
  readonly result: readonly Omit<z.infer<typeof SearchResult>["result"][number], "neuron">[];
};

/** @param items what every source of the set says of one text, by its id. */
export function toSearch(
  info: ModelInfo,
  items: readonly (readonly [source: string, item: LatentsItem])[],
  sortIndexes: readonly number[],
  count: number,
): Found {
  const score = (values: readonly number[], max: number) =>
    sortIndexes.length === 0 ? max : [...new Set(sortIndexes)].reduce((sum, at) => sum + (values[at] ?? 0), 0);
  const found = items.flatMap(([source, { ranking }]) =>
    ranking.map(({ index, max, max_position, values }) => ({
      score: score(values, max),
      row: {
        ...{ modelId: info.id, layer: source, index: String(index), maxValue: max, maxValueIndex: max_position, values },
      },
    })),
  );
  return {
    tokens: (items[0]?.[1].tokens ?? []).map(({ token }) => token),
    result: found
      .sort((a, b) => b.score - a.score)
      .slice(0, count)
      .map(({ row }) => row),
    sortIndexes: [...sortIndexes],
  };
}
