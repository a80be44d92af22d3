// A validated body -> the engine's request. Everything that can be refused without running the model is refused here.
import { boundaryOf, formatPoint, type Point, parsePoint } from "../../shared/address.ts";
import { decodeFloat32, encodeFloat32 } from "../../shared/base64.ts";
import { TillerError } from "../../shared/errors.ts";
import { Edit, type GenerateRequest, type ModelInfo, LIMITS as PROTOCOL } from "../../shared/protocol.ts";
import type { Models } from "../models.ts";
import { keyOf, pointOf, type SavedVector, type VectorAddress, vectorPoint } from "../vectors/store.ts";
import type { SteerRequest } from "./contract.ts";
import type { Recipes } from "./recipe.ts";
import type { StoredFeature, StoredRequest } from "./stored.ts";

/** Where directions are looked up. */
export interface Directions {
  readonly models: Models;
  readonly recipes: Recipes;
}

export interface Plan {
  readonly engineRequest: GenerateRequest;
  readonly stored: StoredRequest;
}

type Feature = SteerRequest["features"][number];
type Vector = SteerRequest["vectors"][number];

/** What the edits and the sampling of a body are read from: a steer of a prompt, or of a conversation. */
export type SteerBody = Omit<SteerRequest, "prompt" | "kl">;

/**
 * Resolves features and vectors against the model and composes the request for its engine: a row without edits (DEFAULT) and a
 * row with all of them, features first (STEERED).
 * @throws TillerError naming the field and what is allowed.
 */
export async function planSteer(body: SteerRequest, model: ModelInfo, directions: Directions, userId: string | undefined): Promise<Plan> {
  const { edits, ...kept } = await planEdits(body, model, directions, userId);
  return {
    engineRequest: {
      ...newEngineRequest(body, model),
      prompt: body.prompt,
      rows: [
        { name: "DEFAULT", edits: [] },
        { name: "STEERED", edits },
      ],
      ...(body.kl ? { kl_baseline: "DEFAULT" } : {}),
    },
    stored: { prompt: body.prompt, edits, ...kept },
  };
}

/** What every engine request of a body has, whatever is continued. */
export function newEngineRequest(body: SteerBody, model: ModelInfo): Omit<GenerateRequest, "rows" | "prompt"> {
  const { top_p, top_k, presence_penalty, stop } = body;
  return {
    model: model.id,
    sampling: {
      temperature: body.temperature,
      top_p,
      top_k,
      frequency_penalty: body.freq_penalty,
      presence_penalty,
      seed: body.seed,
      stop,
      logprobs: body.n_logprobs,
    },
    max_tokens: body.n_tokens,
    steer_special_tokens: body.steer_special_tokens,
  };
}

/** The edits of a body, and what is stored of it beside its prompt. @throws TillerError naming the field and what is allowed. */
export async function planEdits(
  body: SteerBody,
  model: ModelInfo,
  { models, recipes }: Directions,
  userId: string | undefined,
): Promise<Omit<StoredRequest, "prompt"> & { readonly edits: Edit[] }> {
  const kept = body.features.filter(({ layer }) => vectorPoint(layer) !== undefined).map(addressOf);
  const { listed, saved } = await recipes.load(kept, body.listId, userId);
  const features = [...listed, ...body.features];
  const whereOf = (i: number) => (i < listed.length ? `feature ${i} of the list` : `features[${i - listed.length}]`);
  const count = features.length + body.vectors.length;
  if (count === 0) throw new TillerError("invalid_request", "features is empty: give at least one feature or vector to steer with.");
  if (count > PROTOCOL.edits) {
    const what = listed.length === 0 ? "features and vectors" : "features, those of the list and vectors";
    throw new TillerError("invalid_request", `${what} together are ${count}, the limit is ${PROTOCOL.edits}.`);
  }
  const found = await Promise.all(
    features.map((feature, i) => {
      const where = whereOf(i);
      if (vectorPoint(feature.layer) !== undefined) return resolveSaved(feature, where, model, saved.get(keyOf(addressOf(feature))));
      return resolveFeature(feature, where, model, models);
    }),
  );
  const edits = [
    ...features.map((feature, i) => newEdit(body, feature, whereOf(i), (found[i] as Found).target)),
    ...body.vectors.map((vector, i) => newEdit(body, vector, `vectors[${i}]`, resolveVector(vector, `vectors[${i}]`, model))),
  ];
  const { top_p, top_k, presence_penalty, stop } = body;
  return {
    settings: {
      temperature: body.temperature,
      n_tokens: body.n_tokens,
      freq_penalty: body.freq_penalty,
      seed: body.seed,
      strength_multiplier: body.strength_multiplier,
      steer_special_tokens: body.steer_special_tokens,
      steer_method: body.steer_method,
    },
    features: found.map(({ stored }) => stored),
    edits,
    sampling: { top_p, top_k, presence_penalty, stop },
  };
}

type Target = Pick<Edit, "feature"> | Pick<Edit, "vector" | "point">;

function newEdit(body: SteerBody, given: Feature | Vector, where: string, target: Target): Edit {
  const edit = Edit.safeParse({
    ...target,
    method: given.method ?? body.steer_method,
    strength: given.strength * body.strength_multiplier,
    min: given.min,
    max: given.max,
    positions: given.positions ?? body.positions,
    schedule: given.schedule ?? body.schedule,
    layers: given.layers,
  });
  if (edit.success) return edit.data;
  throw new TillerError("invalid_request", `${where}: ${edit.error.issues[0]?.message}.`);
}

/** A feature as it is stored, and as the engine is told of it. */
export interface Found {
  readonly stored: StoredFeature;
  readonly target: Target;
  readonly point: Point;
  /** An autoencoder's latent, and no named direction or vector. */
  readonly latent: boolean;
}

export const addressOf = ({ modelId, layer, index }: Feature): VectorAddress => ({ modelId, source: layer, index });
const toStored = ({ modelId, layer, index, strength }: Feature, label: string | undefined): StoredFeature => ({
  ...{ modelId, layer, index, strength, label },
});

/** A user's vector. The engine gets its values, so that the steer stays readable when the vector is deleted. */
export function resolveSaved(feature: Feature, where: string, model: ModelInfo, saved: SavedVector | undefined): Found {
  if (saved === undefined) {
    throw new TillerError(
      "feature_not_found",
      `${where}: there is no vector ${feature.index} in '${feature.layer}' of '${feature.modelId}' that you may use.`,
    );
  }
  if (saved.values.length !== model.width) {
    throw new TillerError("invalid_request", `${where}: the vector has ${saved.values.length} values, ${model.id} needs ${model.width}.`);
  }
  const point = pointOf(saved);
  boundaryOf(point, model.layers);
  const target = { vector: encodeFloat32(saved.values), point: formatPoint(point) };
  return { stored: toStored(feature, saved.label), target, point, latent: false };
}

/** A feature of the model's own, or of another one's that is as wide. */
export async function resolveFeature(feature: Feature, where: string, model: ModelInfo, models: Models): Promise<Found> {
  const owner = feature.modelId === model.id ? model : (await models.get(feature.modelId)).info;
  if (owner.width !== model.width) {
    throw new TillerError(
      "invalid_request",
      `${where}.modelId: directions of ${owner.id} have ${owner.width} values, ${model.id} needs ${model.width}.`,
    );
  }
  const source = findSource(feature, where, owner);
  const point = parsePoint(source.point);
  boundaryOf(point, model.layers);
  if (feature.index >= source.width) {
    throw new TillerError(
      "feature_not_found",
      `${where}.index: ${source.id} of ${owner.id} has no feature ${feature.index}; its features are 0 to ${source.width - 1}.`,
    );
  }
  const label = source.labelled_features.find(({ index }) => index === feature.index)?.label;
  return {
    stored: toStored(feature, label),
    target: { feature: { model: feature.modelId, source: feature.layer, index: feature.index } },
    point,
    latent: source.architecture !== "directions",
  };
}

function findSource(feature: Feature, where: string, owner: ModelInfo): ModelInfo["sources"][number] {
  const source = owner.sources.find(({ id }) => id === feature.layer);
  if (source !== undefined) return source;
  const names = owner.sources.map(({ id }) => id).join(", ");
  throw new TillerError(
    "feature_not_found",
    `${where}.layer: ${owner.id} has no source '${feature.layer}'. Its sources are: ${names || "none"}.`,
  );
}

/** Numbers that came with the request. */
export function resolveVector(given: Vector, where: string, model: ModelInfo): Pick<Edit, "vector" | "point"> {
  if (given.hookName !== undefined) boundaryOf(parsePoint(given.hookName), model.layers);
  if ((given.hookName === undefined) !== (given.layers === "all")) {
    throw new TillerError(
      "invalid_request",
      `${where}.hookName says where the vector acts, such as blocks.0.hook_resid_pre: give it, or layers: all, and not both.`,
    );
  }
  const values = typeof given.vector === "string" ? decodeFloat32(given.vector) : given.vector;
  if (values === undefined) throw new TillerError("invalid_request", `${where}.vector is not base64 of little-endian float32 values.`);
  if (values.length !== model.width) {
    throw new TillerError("invalid_request", `${where}.vector has ${values.length} values; ${model.id} needs exactly ${model.width}.`);
  }
  // Rounded first: a value beyond float32 becomes infinite there, and tiny ones become zero.
  const rounded = Float32Array.from(values);
  if (!rounded.every(Number.isFinite)) throw new TillerError("invalid_request", `${where}.vector must hold finite float32 values only.`);
  if (rounded.every((value) => value === 0)) throw new TillerError("invalid_request", `${where}.vector is zero: it has no direction.`);
  return { vector: encodeFloat32(rounded), ...(given.hookName === undefined ? {} : { point: given.hookName }) };
}
