// What POST /features answers: what is known of features, from labels.json and from a run on texts (feature-file.ts).
import { TillerError } from "../../shared/errors.ts";
import { type FeatureRecord, FeatureStats, type FeaturesRequest, type FeaturesResult } from "../../shared/features.ts";
import type { FeatureLine } from "./feature-file.ts";
import type { KnownModel } from "./model.ts";
import { checkIndex, type SourceStore } from "./sources.ts";

type KnownSource = ReturnType<SourceStore["features"]>;

/** @throws TillerError `feature_not_found` naming what there is, `engine_failed` when the run's file is damaged. */
export async function readFeatures({ sources }: KnownModel, request: FeaturesRequest): Promise<FeaturesResult> {
  const source = sources.features(request.source);
  if (request.indexes === undefined) return readPage(source, request.from ?? 0, request.limit);
  for (const index of request.indexes) checkIndex(source.info, index);
  const lines = await source.file.read(request.indexes);
  const features = request.indexes.map((index, i) => {
    const line = lines?.[i];
    return recordOf(source, index, line, line === undefined ? null : FeatureStats.parse(line));
  });
  return { features, next: null };
}

async function readPage(source: KnownSource, from: number, limit: number): Promise<FeaturesResult> {
  const { labels, info, file } = source;
  const known = await file.index();
  const labelled = labels.current();
  const features: FeatureRecord[] = [];
  for (let index = from; index < info.width; index++) {
    const density = known?.densities[index] ?? 0;
    if (density === 0 && !labelled.has(index)) continue;
    if (features.length === limit) return { features, next: index };
    const brief = known && { label: known.labels[index] ?? null, density, max_activation: known.maxima[index] ?? 0 };
    features.push(recordOf(source, index, brief, null));
  }
  return { features, next: null };
}

function recordOf(
  { labels }: KnownSource,
  index: number,
  brief: Pick<FeatureLine, "label" | "density" | "max_activation"> | undefined,
  stats: FeatureStats | null,
): FeatureRecord {
  const labelled = labels.current().get(index);
  return {
    index,
    label: labelled?.label ?? brief?.label ?? null,
    strength: labelled?.strength ?? null,
    stats,
    density: brief?.density ?? null,
    max_activation: brief?.max_activation ?? null,
  };
}

/** Densities of all latents. @throws TillerError `invalid_request` saying how to find them out where they are not known. */
export async function readDensities({ sources, info }: KnownModel, source: string): Promise<Float64Array> {
  const known = await sources.features(source).file.index();
  if (known !== undefined) return known.densities;
  throw new TillerError(
    "invalid_request",
    `max_density needs the densities of source '${source}', which are not known: npm run features -- ${info.id} ${source} <text files> finds them out. Leave max_density out until then.`,
  );
}
