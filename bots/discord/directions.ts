// What to steer with: a feature, a kept vector or a preset, as people choose them from a list or write them.
import type { APIApplicationCommandOptionChoice } from "discord-api-types/v10";
import type { TillerUser } from "../../shared/client.ts";
import type { Feature, Model } from "../../shared/client-types.ts";
import { refusal } from "./failure.ts";
import type { Named } from "./render.ts";
import { formatStrength, oneLine } from "./text.ts";

const CHOICES = 25;
const VALUE_CHARS = 100;
/** Letters and digits from which on labels are searched. */
const SEARCHED = 3;
type Choices = APIApplicationCommandOptionChoice<string>[];

/** How a person chose; exactly one of the three is asked for. */
export interface Chosen {
  readonly feature: string | undefined;
  readonly vector: string | undefined;
  readonly preset: string | undefined;
  /** undefined = the one that shows best, where there is one. */
  readonly strength: number | undefined;
}

/** The model of this name; without a name the first that has something to steer with. @throws TillerError `invalid_request`. */
export async function findModel(tiller: TillerUser, id: string | undefined): Promise<Model> {
  const models = await tiller.models();
  const model = id === undefined ? (models.find(({ sources }) => sources.length > 0) ?? models[0]) : models.find((each) => each.id === id);
  if (model !== undefined) return model;
  throw refusal(
    models.length === 0
      ? "No model is served at the moment."
      : `There is no model ${id} here. These are served: ${models.map((each) => each.id).join(", ")}.`,
  );
}

/**
 * @param unknown what a person reads who has to say how hard, because nothing tells a strength that shows.
 * @throws TillerError `invalid_request` that says how to choose.
 */
export async function findDirections(
  tiller: TillerUser,
  model: Model,
  chosen: Chosen,
  unknown = "Give a strength: nothing says which one shows for this feature. Try 10, and then Stronger or Weaker.",
): Promise<readonly Named[]> {
  const { feature, vector, preset, strength } = chosen;
  if ([feature, vector, preset].filter((each) => each !== undefined).length !== 1)
    throw refusal("Choose one direction: a feature, a vector or a preset. Each shows what there is as you type.");
  if (preset !== undefined) return ofPreset(tiller, model, preset, strength);
  const at = parsePlace((feature ?? vector) as string);
  if (at === undefined) {
    const example = model.sources[0] === undefined ? "6-res-jb/204" : `${model.sources[0].id}/0`;
    throw refusal(
      `Choose the ${feature === undefined ? "vector" : "feature"} from the list as you type, or write its source and index, such as ${example}.`,
    );
  }
  const known = feature === undefined ? await ofVector(tiller, model, at) : ofFeature(model, at);
  const hard = strength ?? known?.strength;
  if (hard === undefined) throw refusal(unknown);
  const label = known?.label ?? (await tiller.labelOf(model.id, at.layer, at.index)) ?? `${at.layer}/${at.index}`;
  return [{ modelId: model.id, ...at, strength: hard, label }];
}

interface At {
  readonly layer: string;
  readonly index: number;
}

/** "6-res-jb/204" */
export const formatPlace = ({ layer, index }: { readonly layer: string; readonly index: number | string }): string => `${layer}/${index}`;

export function parsePlace(text: string): At | undefined {
  const [, layer, index] = /^\s*(\d{1,4}-[A-Za-z0-9][A-Za-z0-9._-]{0,80})[\s/:]+(\d{1,10})\s*$/.exec(text) ?? [];
  return layer === undefined ? undefined : { layer, index: Number(index) };
}

function ofFeature(model: Model, { layer, index }: At): { label: string; strength: number | undefined } | undefined {
  const found = model.sources.find(({ id }) => id === layer)?.labelledFeatures.find((each) => each.index === index);
  return found === undefined ? undefined : { label: found.label, strength: found.strength };
}

async function ofVector(tiller: TillerUser, model: Model, { layer, index }: At): Promise<{ label: string; strength: number | undefined }> {
  const vector = await tiller.vectors.get({ modelId: model.id, source: layer, index: String(index) });
  return { label: vector.vectorLabel, strength: vector.vectorDefaultSteerStrength };
}

async function ofPreset(tiller: TillerUser, model: Model, name: string, strength: number | undefined): Promise<readonly Named[]> {
  const presets = await tiller.presets(model.id);
  const preset = presets.find((each) => presetKey(each.name) === presetKey(name));
  if (preset === undefined) {
    const names = presets.slice(0, 20).map((each) => each.name);
    throw refusal(
      names.length === 0
        ? `${model.id} has no presets: choose a feature.`
        : `${model.id} has no preset ${name}. It has ${names.join(", ")}.`,
    );
  }
  // One number for several features says how hard the first is; the others keep their proportion to it. In a list, some have none.
  const first = preset.features.find((feature) => feature.strength !== 0);
  if (strength !== undefined && first === undefined)
    throw refusal(`The features of ${preset.name} have no strength of their own: leave the strength out, or choose one of them.`);
  const times = strength === undefined || first === undefined ? 1 : strength / first.strength;
  return preset.features.map(
    ({ explanation, ...feature }): Named => ({ ...pick(feature), strength: feature.strength * times, label: explanation }),
  );
}

const pick = ({ modelId, layer, index, strength, method }: Feature): Feature => ({
  ...{ modelId, layer, index: Number(index), strength },
  ...(method === undefined ? {} : { method }),
});

/** Layers as people write them: "3", "2, 3, 4", "2-5" or "all". @throws TillerError `invalid_request`. */
export function parseLayers(text: string, { id, layers }: Pick<Model, "id" | "layers">): readonly number[] {
  const all = Array.from({ length: layers }, (_, layer) => layer);
  if (text.trim().toLowerCase() === "all") return all;
  const ranges = text
    .trim()
    .split(/[\s,;]+/)
    .map((part) => /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part))
    .map((found) => (found === null ? undefined : { from: Number(found[1]), to: Number(found[2] ?? found[1]) }));
  const isFit = ranges.every((range) => range !== undefined && range.from <= range.to && range.to < layers);
  if (isFit) return all.filter((layer) => ranges.some((range) => range !== undefined && range.from <= layer && layer <= range.to));
  throw refusal(`Write layers as 3, as 2,3,4, as 2-4, or as all: ${id} has the layers 0 to ${layers - 1}.`);
}

/** What fits to what was typed so far. */
export async function suggestModels(tiller: TillerUser, typed: string): Promise<Choices> {
  return (await tiller.models())
    .filter(({ id }) => fits(id, typed))
    .slice(0, CHOICES)
    .map(({ id }) => ({ name: oneLine(id), value: id.slice(0, VALUE_CHARS) }));
}

export async function suggestFeatures(tiller: TillerUser, modelId: string | undefined, typed: string): Promise<Choices> {
  const model = await findModel(tiller, modelId);
  const own = model.sources.flatMap(({ id, labelledFeatures }) =>
    labelledFeatures.filter(({ label }) => fits(label, typed)).map(({ index, label, strength }) => ({ layer: id, index, label, strength })),
  );
  const found =
    typed.replace(/[^\p{L}\p{N}]/gu, "").length < SEARCHED || own.length >= CHOICES
      ? []
      : (await tiller.searchLabels(model.id, typed.trim())).map(({ layer, index, description }) => ({
          ...{ layer, index: Number(index), label: description, strength: undefined },
        }));
  // What came with the model knows its strength: it stays where a search finds it too.
  const all = new Map([...own, ...found, ...own].map((each) => [formatPlace(each), each] as const));
  return [...all].slice(0, CHOICES).map(([value, { label, strength, layer }]) => ({
    name: oneLine(`${label} · ${layer}${strength === undefined ? "" : ` · ${formatStrength(strength)}`}`),
    value,
  }));
}

/** The autoencoders of a model, by what is the same in the names of all layers: tales-res of 3-tales-res. */
export const autoencodersOf = ({ sources }: Pick<Model, "sources">): readonly string[] => [
  ...new Set(sources.filter(({ architecture }) => architecture !== "directions").map(({ id }) => id.replace(/^\d+-/, ""))),
];

export async function suggestAutoencoders(tiller: TillerUser, modelId: string | undefined, typed: string): Promise<Choices> {
  return autoencodersOf(await findModel(tiller, modelId))
    .filter((set) => fits(set, typed))
    .slice(0, CHOICES)
    .map((set) => ({ name: oneLine(set), value: set.slice(0, VALUE_CHARS) }));
}

export async function suggestVectors(tiller: TillerUser, modelId: string | undefined, typed: string): Promise<Choices> {
  const query = typed.trim();
  const vectors = await tiller.vectors.list({ ...(modelId === undefined ? {} : { modelId }), ...(query === "" ? {} : { query }) });
  return vectors.slice(0, CHOICES).map((vector) => ({
    name: oneLine(`${vector.vectorLabel} · ${vector.modelId} ${vector.layer} · ${formatStrength(vector.vectorDefaultSteerStrength)}`),
    value: formatPlace(vector),
  }));
}

export async function suggestPresets(
  tiller: TillerUser,
  modelId: string | undefined,
  typed: string,
  hidden: readonly string[],
): Promise<Choices> {
  const presets = await tiller.presets((await findModel(tiller, modelId)).id);
  return presets
    .filter(({ name }) => fits(name, typed) && presetKey(name) !== "" && !hidden.some((each) => presetKey(each) === presetKey(name)))
    .slice(0, CHOICES)
    .map(({ name }) => ({ name: oneLine(name), value: name.trim().slice(0, VALUE_CHARS) }));
}

/** Presets are told apart by this, however they are written: a choice carries no more of a name. */
export const presetKey = (name: string): string => name.trim().slice(0, VALUE_CHARS).trim().toLowerCase();

const fits = (text: string, typed: string): boolean => text.toLowerCase().includes(typed.trim().toLowerCase());
