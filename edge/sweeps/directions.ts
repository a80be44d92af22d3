// The directions of a sweep, looked up and checked as a steer's are.
import { type Point, parsePoint } from "../../shared/address.ts";
import type { Edit, Target } from "../../shared/protocol.ts";
import type { Config } from "../config.ts";
import { read } from "../engine.ts";
import type { Models, ServedModel } from "../models.ts";
import { addressOf, type Directions, resolveFeature, resolveSaved, resolveVector } from "../steer/edits.ts";
import { keyOf, vectorPoint } from "../vectors/store.ts";
import type { SweepColumn, SweepDirection } from "./contract.ts";

export interface Resolved {
  readonly label: string;
  /** Its own place. */
  readonly point: Point;
  /** What the engine is told of it there. */
  readonly target: Target;
  /** A latent of an autoencoder. */
  readonly latent: boolean;
  /** Of a feature or a kept vector. */
  readonly feature?: NonNullable<SweepColumn["feature"]>;
}

/** @param whereOf names a direction in an error. @throws TillerError as a steer with these directions. */
export async function resolveDirections(
  given: readonly SweepDirection[],
  whereOf: (i: number) => string,
  { info }: ServedModel,
  { models, recipes }: Directions,
  userId: string,
): Promise<Resolved[]> {
  const features = given.map(({ modelId = info.id, layer = "", index = 0 }) => ({ modelId, layer, index, strength: 0 }));
  const kept = features.filter(({ layer }) => vectorPoint(layer) !== undefined).map(addressOf);
  const { saved } = await recipes.load(kept, undefined, userId);
  return Promise.all(
    given.map(async ({ vector, hookName = "", label }, i): Promise<Resolved> => {
      const where = whereOf(i);
      if (vector !== undefined) {
        const target = resolveVector({ vector, hookName, strength: 0 }, where, info);
        return { label: label ?? `vector ${i + 1}`, point: parsePoint(hookName), target, latent: false };
      }
      const feature = features[i] as (typeof features)[number];
      const { target, point, latent, stored } =
        vectorPoint(feature.layer) === undefined
          ? await resolveFeature(feature, where, info, models)
          : resolveSaved(feature, where, info, saved.get(keyOf(addressOf(feature))));
      const { modelId, layer, index } = feature;
      return { label: label ?? (stored.label || `${layer}/${index}`), point, target, latent, feature: { modelId, layer, index } };
    }),
  );
}

/** The numbers of a direction, so that it can act anywhere. */
export async function valuesOf(
  { target }: Resolved,
  models: Models,
  config: Config,
  signal: AbortSignal,
): Promise<Pick<Edit, "feature" | "vector">> {
  const { feature } = target;
  if (feature === undefined) return target;
  const { engine } = await models.get(feature.model, signal);
  const { rows } = await read(engine, config, "/rows", { model: feature.model, source: feature.source, indexes: [feature.index] }, signal);
  return { vector: rows[0] };
}
