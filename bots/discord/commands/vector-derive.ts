// /vector derive: a vector made of two files of texts.
import { type APIApplicationCommandBasicOption, type APIAttachment, ApplicationCommandOptionType as Type } from "discord-api-types/v10";
import type { Model } from "../../../shared/client-types.ts";
import { DIRECTION_LIMITS, DIRECTION_METHODS } from "../../../shared/directions.ts";
import type { Asked } from "../asked.ts";
import type { Options } from "../command.ts";
import { requireAllowed } from "../controls.ts";
import { autoencodersOf, findModel, parseLayers } from "../directions.ts";
import { refusal } from "../failure.ts";
import type { Promises } from "../follow.ts";
import type { AttachedFile } from "../promised.ts";
import { description, hook, model, name, strength, visibility } from "./vector-options.ts";

const FILES = /\.(txt|csv|jsonl|json)$/i;

const METHODS: Readonly<Record<(typeof DIRECTION_METHODS)[number], string>> = {
  mean_difference: "mean_difference: from the mean of one side to that of the other",
  pca: "pca: along which pairs of texts differ most",
  sae: "sae: latents of an autoencoder that fire more on the positive side",
  probe: "probe: what a classifier of the two sides goes by",
};

export const DERIVE: readonly APIApplicationCommandBasicOption[] = [
  { ...name, required: true },
  {
    type: Type.Attachment,
    name: "positive",
    description: "Texts it should lead to: .txt (one a line), .csv, .jsonl or .json",
    required: true,
  },
  { type: Type.Attachment, name: "negative", description: "Texts it should lead away from, in a file of the same kinds", required: true },
  model,
  {
    type: Type.String,
    name: "layer",
    description: "3, or several: 2,3,4 or 2-4. Left out: all, and the best one is kept",
    max_length: 200,
  },
  {
    ...{ type: Type.String, name: "method", description: "How it is found (mean_difference)" },
    choices: DIRECTION_METHODS.map((value) => ({ name: METHODS[value], value })),
  },
  {
    type: Type.String,
    name: "tokens",
    description: "Which tokens count: all, last, or a place from the end such as -1 (all)",
    max_length: 10,
  },
  { type: Type.String, name: "source_set", description: "Of the method sae: which autoencoders", autocomplete: true },
  {
    ...{ type: Type.Integer, name: "top_k", description: "Of the method sae: how many latents are added up (100)" },
    ...{ min_value: 1, max_value: DIRECTION_LIMITS.latents },
  },
  hook,
  ...[strength, description, visibility],
];

export async function deriveVector(asked: Asked, options: Options, promises: Promises): Promise<void> {
  const { room, interaction, person, place } = asked;
  const files = { positive: fileOf(options, "positive"), negative: fileOf(options, "negative") };
  const found = await findModel(asked.tiller, options.text("model"));
  await requireAllowed(asked, { tokens: 0, modelId: found.id, features: [] });
  const fields = deriveFields(found, options);
  await promises.keep({
    ...{ id: interaction.id, transport: room.transport, person, kind: "derive", body: { fields, files } },
    view: { name: options.text("name") ?? "", modelId: found.id, ownerId: person.id },
    target: { token: interaction.token, channelId: place.channelId, ephemeral: true },
  });
}

function fileOf(options: Options, side: string): AttachedFile {
  const { filename, url, size } = options.attachment(side) as APIAttachment;
  if (!FILES.test(filename)) throw refusal(`The ${side} file must be .txt (a text on every line), .csv, .jsonl or .json.`);
  if (size > DIRECTION_LIMITS.bytes)
    throw refusal(`The ${side} file has more than ${DIRECTION_LIMITS.bytes / 1e6} MB: attach a smaller one.`);
  return { name: filename, url };
}

/** As the form of a derivation has them: all are texts. @throws TillerError `invalid_request`. */
export function deriveFields(model: Model, options: Pick<Options, "text" | "number">): Record<string, string> {
  const method = options.text("method") ?? "mean_difference";
  const sae = method === "sae" ? saeOf(model, options) : undefined;
  if (sae === undefined && (options.text("source_set") ?? options.number("top_k")) !== undefined)
    throw refusal("source_set and top_k belong to the method sae: choose it, or leave them out.");
  const layers = options.text("layer") === undefined && sae !== undefined ? sae.layers : parseLayers(options.text("layer") ?? "all", model);
  const given = {
    ...{ vectorLabel: options.text("name"), hookType: options.text("hook"), tokens: options.text("tokens")?.trim() },
    ...{ sourceSet: sae?.set, topK: options.number("top_k"), vectorDefaultSteerStrength: options.number("strength") },
    ...{ description: options.text("description"), visibility: options.text("visibility") },
  };
  const fields = Object.entries(given).flatMap(([field, value]) => (value === undefined ? [] : [[field, String(value)] as const]));
  return { modelId: model.id, method, layers: layers.join(), ...Object.fromEntries(fields) };
}

/** The autoencoders of the method sae, and the layers that have one there. */
function saeOf(model: Model, options: Pick<Options, "text">): { readonly set: string; readonly layers: readonly number[] } {
  const sets = autoencodersOf(model);
  const set = options.text("source_set") ?? sets[0];
  if (set === undefined) throw refusal(`${model.id} has no autoencoder, which the method sae needs: choose another method.`);
  if (!sets.includes(set)) throw refusal(`${model.id} has no autoencoders ${set}. It has ${sets.join(", ")}.`);
  const hookType = options.text("hook") ?? "hook_resid_pre";
  const layers = model.sources
    .filter(({ id, hookName }) => id.replace(/^\d+-/, "") === set && hookName.endsWith(hookType))
    .map(({ id }) => Number.parseInt(id, 10));
  if (layers.length === 0) throw refusal(`The autoencoders ${set} of ${model.id} are not at ${hookType}: choose the other hook.`);
  return { set, layers };
}
