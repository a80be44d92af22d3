// Settings and texts of a derivation -> the engine's request. What can be refused without reading the texts is refused here.
import { formatPoint, parseSource } from "../../shared/address.ts";
import { DirectionsRequest } from "../../shared/directions.ts";
import { TillerError } from "../../shared/errors.ts";
import type { ModelInfo } from "../../shared/protocol.ts";
import { LIMITS } from "../limits.ts";
import type { DeriveSettings, DeriveTexts } from "./contract.ts";

/** As the contract says of topK. */
const TOP_K = 100;

/** @throws TillerError naming the field and what is allowed. */
export function planDerivation(settings: DeriveSettings, texts: DeriveTexts, model: ModelInfo): DirectionsRequest {
  checkKept(settings);
  const layers = layersOf(settings, model);
  checkTexts(settings, texts);
  const sae = saeOf(settings, layers, model);
  if (settings.chat && !model.chat_template) throw refuse(`chat must be false: ${model.id} has no chat template.`);
  const request = DirectionsRequest.safeParse({
    ...{ model: model.id, ...texts, layers, hook: hookOf(settings), sae },
    ...{ method: settings.method, tokens: settings.tokens, chat: settings.chat, held_out: settings.heldOut, unit: settings.unit },
  });
  if (request.success) return request.data;
  const [issue] = request.error.issues;
  throw refuse(`${issue?.path.join(".") || "The request"}: ${issue?.message}.`);
}

export const hookOf = ({ hookType }: Pick<DeriveSettings, "hookType">) => (hookType === "hook_resid_pre" ? "resid_pre" : "resid_post");

/** How many texts are read, and their characters. */
export function sizeOf({ positive = [], negative = [], pairs = [] }: DeriveTexts): { readonly texts: number; readonly chars: number } {
  const all = [...positive, ...negative, ...pairs.flatMap((pair) => [pair.prompt + pair.positive, pair.prompt + pair.negative])];
  return { texts: all.length, chars: all.reduce((sum, text) => sum + text.length, 0) };
}

/** How many vectors will be kept. */
export const countKept = ({ keep }: Pick<DeriveSettings, "keep">, layers: number): number =>
  keep === "all" ? layers : keep === "best" ? 1 : 0;

function checkKept({ keep, vectorLabel, description, vectorDefaultSteerStrength }: DeriveSettings): void {
  if (keep !== "none") {
    if (vectorLabel === undefined) throw refuse("vectorLabel is a required field, unless keep is none: it says what the vector is called.");
    return;
  }
  const said = Object.entries({ vectorLabel, description, vectorDefaultSteerStrength }).find(([, value]) => value !== undefined);
  if (said !== undefined) throw refuse(`${said[0]} is of a vector that is kept: leave it out where keep is none.`);
}

function layersOf({ layer, layers }: DeriveSettings, model: ModelInfo): number[] {
  if ((layer === undefined) === (layers === undefined)) {
    const which = layer === undefined ? "layer, or layers to compare several, is a required field" : "layer and layers exclude each other";
    throw refuse(`${which}: give one of them, with layers of ${model.id} from 0 to ${model.layers - 1}.`);
  }
  const all = layers ?? [layer as number];
  for (const [i, each] of all.entries()) {
    const field = layers === undefined ? "layer" : `layers[${i}]`;
    if (each >= model.layers) throw refuse(`${field} must be a layer of ${model.id}: 0 to ${model.layers - 1}.`);
    if (all.indexOf(each) !== i) throw refuse(`${field} is ${each} once more: name each layer once.`);
  }
  return all;
}

function checkTexts({ tokens, method }: DeriveSettings, { positive, negative, pairs }: DeriveTexts): void {
  if (pairs !== undefined && (positive !== undefined || negative !== undefined))
    throw refuse("pairs and the sides exclude each other: give pairs, or positive and negative.");
  if (pairs === undefined && (positive === undefined || negative === undefined)) {
    const missing =
      positive === undefined ? (negative === undefined ? "positive and negative, or pairs, are" : "positive is") : "negative is";
    throw refuse(`${missing} required: a direction leads from some texts to others.`);
  }
  if (tokens === "answer" && pairs === undefined) throw refuse("tokens must not be answer without pairs: only they have answers.");
  const sides =
    pairs === undefined
      ? [positive ?? [], negative ?? []]
      : [
          pairs.map((pair) => JSON.stringify([pair.prompt, pair.positive])),
          pairs.map((pair) => JSON.stringify([pair.prompt, pair.negative])),
        ];
  const [first = [], second = []] = sides.map((side) => [...side].sort());
  if (first.length === second.length && first.every((text, i) => text === second[i]))
    throw refuse("positive and negative have the same texts: there is no direction between them.");
  if (method === "pca" && first.length !== second.length) {
    const counts = `positive has ${first.length}, negative ${second.length}`;
    throw refuse(`The method pca pairs the i-th positive text with the i-th negative one: give as many of both; ${counts}.`);
  }
}

function saeOf(settings: DeriveSettings, layers: readonly number[], model: ModelInfo): DirectionsRequest["sae"] {
  const { method, sourceSet, topK, latentValues } = settings;
  if (method !== "sae") {
    const said = Object.entries({ sourceSet, topK, latentValues }).find(([, value]) => value !== undefined);
    if (said !== undefined) throw refuse(`${said[0]} belongs to the method sae: leave it out, or set method to sae.`);
    return undefined;
  }
  const autoencoders = model.sources.flatMap(({ id, point, architecture }) => {
    const source = parseSource(id);
    return source === undefined || architecture === "directions" ? [] : [{ ...source, point }];
  });
  const sets = [...new Set(autoencoders.map(({ name }) => name))].join(", ") || "none";
  if (sourceSet === undefined) throw refuse(`sourceSet is a required field of the method sae. The sets of ${model.id} are: ${sets}.`);
  const set = autoencoders.filter(({ name }) => name === sourceSet);
  if (set.length === 0)
    throw new TillerError("feature_not_found", `sourceSet: ${model.id} has no autoencoders '${sourceSet}'. Its sets are: ${sets}.`);
  for (const layer of layers) {
    const source = set.find((each) => each.layer === layer);
    if (source === undefined) {
      const there = set.map((each) => each.layer).sort((a, b) => a - b);
      throw new TillerError(
        "feature_not_found",
        `sourceSet: '${sourceSet}' of ${model.id} has no autoencoder at layer ${layer}, but at ${there.join(", ")}.`,
      );
    }
    const point = formatPoint({ layer, kind: hookOf(settings) });
    if (source.point !== point)
      throw refuse(`hookType: the autoencoder '${layer}-${sourceSet}' reads ${source.point}, not ${point}. Give the other hookType.`);
  }
  const most = Math.floor(LIMITS.derivedLatents / layers.length);
  if ((topK ?? TOP_K) > most) throw refuse(`topK must be at most ${most} for ${layers.length} layers: the report lists every latent.`);
  return { set: sourceSet, top_k: topK ?? TOP_K, values: latentValues ?? "dif_mean" };
}

const refuse = (sentence: string): TillerError => new TillerError("invalid_request", sentence);
