// /vector new: a direction of one's own, its numbers pasted or attached as a file.
import {
  type APIApplicationCommandBasicOption,
  ComponentType,
  TextInputStyle,
  ApplicationCommandOptionType as Type,
} from "discord-api-types/v10";
import type { TillerUser } from "../../../shared/client.ts";
import type { Model } from "../../../shared/client-types.ts";
import type { Asked } from "../asked.ts";
import { type Options, type Pressed, written } from "../command.ts";
import { findModel, formatPlace } from "../directions.ts";
import { refusal } from "../failure.ts";
import { pressId } from "../render.ts";
import { cut, neutral } from "../text.ts";
import { listed } from "./models.ts";
import { description, hook, model, name, strength, visibility } from "./vector-options.ts";

/** Of what a modal's input takes. */
const PASTED_CHARS = 4000;
const MODAL_S = 3600;
const NUMBERS = "numbers";

export const NEW: readonly APIApplicationCommandBasicOption[] = [
  { ...name, required: true },
  {
    ...{ type: Type.Integer, name: "layer", description: "Where it acts: 0 is the first layer" },
    ...{ required: true, min_value: 0, max_value: 9999 },
  },
  hook,
  model,
  { type: Type.String, name: NUMBERS, description: "As many as the model is wide; left out with no file: a window to paste them into" },
  { type: Type.Attachment, name: "file", description: ".npy, .safetensors, .gguf, .pt, .json or text" },
  ...[strength, description, visibility],
];

/** What a new vector is, besides its numbers. */
interface Meta {
  readonly modelId: string;
  readonly layer: number;
  readonly hook: string;
  readonly name: string;
  readonly strength: number;
  readonly description: string;
  readonly visibility: string;
}

const noteOf = (id: string): string => `modal:${id}`;
const OPTIONS = ["name", "layer", "hook", "model", "strength", "description", "visibility"] as const;

export async function createVector(asked: Asked, options: Options): Promise<void> {
  const [numbers, file] = [options.text("numbers"), options.attachment("file")];
  const read = (name: string): unknown => options.text(name) ?? options.number(name);
  if (numbers === undefined && file === undefined) return open(asked, read);
  if (numbers !== undefined && file !== undefined) throw refusal("Give the numbers or a file, not both.");
  const meta = await metaOf(asked.tiller, read);
  if (file === undefined) return keep(asked, meta, numbers as string);
  const bytes = await asked.room.readAttachment(file.url);
  const { vectors } = await asked.tiller.vectors.upload({ name: file.filename, bytes }, fieldsOf(meta));
  const lines = vectors.map(
    ({ url, vector: kept }) => `**${neutral(kept.label)}** ${neutral(formatPlace({ layer: kept.source, index: kept.index }))} ${url}`,
  );
  await asked.edit(listed("Kept", lines, "The file has no vector."));
}

/** A window for the numbers; the rest is remembered until it comes back. */
async function open(asked: Asked, read: (name: string) => unknown): Promise<void> {
  const { id } = asked.interaction;
  await asked.modal({
    ...{ custom_id: pressId({ verb: "vector-numbers", about: id, ownerId: asked.person.id }), title: "Numbers of the vector" },
    components: [
      {
        type: ComponentType.Label,
        label: "As many as the model is wide",
        component: {
          type: ComponentType.TextInput,
          custom_id: NUMBERS,
          style: TextInputStyle.Paragraph,
          required: true,
          max_length: PASTED_CHARS,
          placeholder: "0.12, -0.5, …",
        },
      },
    ],
  });
  await asked.room.tiller.notes.put(noteOf(id), Object.fromEntries(OPTIONS.map((name) => [name, read(name)])), { ttlSeconds: MODAL_S });
}

async function metaOf(tiller: TillerUser, read: (name: string) => unknown): Promise<Meta> {
  const found: Model = await findModel(tiller, read("model") as string | undefined);
  return {
    ...{
      modelId: found.id,
      layer: read("layer") as number,
      hook: (read("hook") as string | undefined) ?? "hook_resid_pre",
      name: read("name") as string,
    },
    ...{ strength: (read("strength") as number | undefined) ?? 10, description: (read("description") as string | undefined) ?? "" },
    visibility: (read("visibility") as string | undefined) ?? "unlisted",
  };
}

async function keep(asked: Asked, meta: Meta, numbers: string): Promise<void> {
  const { url, vector: kept } = await asked.tiller.vectors.create({
    ...{ modelId: meta.modelId, layerNumber: meta.layer, hookType: meta.hook, vector: numbers, vectorLabel: meta.name },
    ...{ vectorDefaultSteerStrength: meta.strength, description: meta.description, visibility: meta.visibility },
  });
  const place = formatPlace({ layer: kept.source, index: kept.index });
  await asked.edit({
    content: `**${cut(neutral(meta.name), 400)}** is kept as \`${place}\` of ${neutral(meta.modelId)}: ${url}\nSteer with it: \`/steer vector: ${place}\``,
  });
}

/** As the form of an upload has them: all are texts. */
const fieldsOf = ({ modelId, layer, hook, name, strength: hard, description: text, visibility: who }: Meta) => ({
  ...{
    modelId,
    layerNumber: String(layer),
    hookType: hook,
    vectorLabel: name,
    vectorDefaultSteerStrength: String(hard),
    description: text,
    visibility: who,
  },
});

/** The window comes back. */
export const pasted: Pressed = {
  acknowledge: () => "ephemeral",
  async run(asked, { about }) {
    const options = await asked.room.tiller.notes.get<Record<string, unknown>>(noteOf(about));
    if (options === undefined) throw refusal("This window was open for more than an hour: use /vector new again.");
    await keep(asked, await metaOf(asked.tiller, (name) => options[name]), written(asked).get(NUMBERS) ?? "");
  },
};
