// What the engine found -> vectors to keep, best first, and the answer that reports it.
import { formatPoint, parsePoint } from "../../shared/address.ts";
import { decodeFloat32 } from "../../shared/base64.ts";
import type { DirectionMethod, DirectionsResult, LayerDirection } from "../../shared/directions.ts";
import { TillerError } from "../../shared/errors.ts";
import { LIMITS } from "../limits.ts";
import { toCreated } from "../vectors/contract.ts";
import type { NewVector, SavedVector } from "../vectors/store.ts";
import type { Derived, DeriveSettings } from "./contract.ts";

const METHOD_NAMES: Readonly<Record<DirectionMethod, string>> = {
  ...{ mean_difference: "Mean difference", pca: "First principal component of the differences", probe: "Logistic regression" },
  sae: "Latents of an autoencoder",
};

/**
 * The vectors that the settings ask to keep.
 * @param found the settings were checked when it was asked for: a vector that is kept has a label.
 * @throws TillerError `engine_failed` when the engine's vectors are not what the protocol says.
 */
export function vectorsOf(found: DirectionsResult, settings: DeriveSettings, userId: string): NewVector[] {
  const { keep, modelId, vectorLabel: label = "", visibility } = settings;
  const kept = keep === "none" ? [] : keep === "all" ? [...found.layers].sort(better(found.best)) : [layerOf(found, found.best)];
  return kept.map((layer) => {
    const point = parsePoint(layer.point);
    const values = decodeFloat32(layer.vector);
    if (values === undefined || !values.every(Number.isFinite))
      throw unusable(`the vector of ${layer.point} is no base64 of finite float32`);
    const suggested = Number(layer.strength.toPrecision(3));
    return {
      ...{ user_id: userId, model_id: modelId, layer: point.layer, hook: point.kind, values: Float64Array.from(values), label, visibility },
      description: settings.description ?? describe(layer, suggested, found, settings),
      default_strength: settings.vectorDefaultSteerStrength ?? clampStrength(suggested),
    };
  });
}

/** @param rows what was kept of it. */
export function toDerived(found: DirectionsResult, settings: DeriveSettings, rows: readonly SavedVector[], origin: string): Derived {
  const count = ({ texts, held_out, tokens }: DirectionsResult["counts"]["positive"]) => ({ texts, heldOut: held_out, tokens });
  return {
    message: "Success",
    vectors: rows.map((row) => {
      const { url, vector } = toCreated(row, origin);
      const { values: _, ...described } = vector;
      return { ...described, url };
    }),
    report: {
      method: settings.method,
      bestLayer: found.best,
      layers: found.layers.map((layer) => ({
        ...{ layer: layer.layer, hookName: layer.point, norm: layer.norm, meanNorm: layer.mean_norm },
        ...{ aucHeldOut: layer.auc_held_out, aucTrain: layer.auc_train, effect: layer.effect, suggestedStrength: layer.strength },
        ...(layer.explained === undefined ? {} : { explained: layer.explained }),
        ...(layer.latents === undefined ? {} : { latents: layer.latents }),
      })),
      counts: { positive: count(found.counts.positive), negative: count(found.counts.negative) },
      timing: { tokens: found.timing.tokens, readMs: found.timing.read_ms, totalMs: found.timing.total_ms },
    },
  };
}

/** A strength that a vector may have by default. */
export const clampStrength = (strength: number): number => Math.min(LIMITS.vectorStrength, Math.max(-LIMITS.vectorStrength, strength));

function layerOf({ layers }: DirectionsResult, number: number): LayerDirection {
  const layer = layers.find((each) => each.layer === number);
  if (layer === undefined) throw unusable(`the best layer is ${number}, which was not asked for`);
  return layer;
}

/** The best layer first, the others as they separate: held-out texts count where there are some, then the effect. */
const better =
  (best: number) =>
  (a: LayerDirection, b: LayerDirection): number =>
    Number(b.layer === best) - Number(a.layer === best) ||
    (b.auc_held_out ?? b.auc_train) - (a.auc_held_out ?? a.auc_train) ||
    (b.effect ?? 0) - (a.effect ?? 0) ||
    a.layer - b.layer;

function describe(layer: LayerDirection, suggested: number, { counts }: DirectionsResult, { method, sourceSet }: DeriveSettings): string {
  const through = sourceSet === undefined ? "" : ` ${layer.layer}-${sourceSet}`;
  const made = `${METHOD_NAMES[method]}${through} of ${counts.positive.texts} positive and ${counts.negative.texts} negative texts`;
  const auc =
    layer.auc_held_out === null
      ? `AUC ${layer.auc_train.toFixed(2)} on the texts it was made from`
      : `AUC ${layer.auc_held_out.toFixed(2)} on ${counts.positive.held_out + counts.negative.held_out} others`;
  const beyond =
    clampStrength(suggested) === suggested
      ? ""
      : ` The strength it suggests, ${suggested}, is more than can be kept: it is weaker than that by default.`;
  return `${made} at ${formatPoint(parsePoint(layer.point))}, ${auc}.${beyond}`;
}

const unusable = (cause: string): TillerError => new TillerError("engine_failed", undefined, { cause });
