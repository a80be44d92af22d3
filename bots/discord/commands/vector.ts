// /vector: directions of one's own, pasted as numbers or attached as a file.
import {
  type APIApplicationCommandBasicOption,
  ApplicationCommandOptionType,
  ApplicationCommandType,
  ButtonStyle,
  ComponentType,
  TextInputStyle,
} from "discord-api-types/v10";
import type { Model, TillerUser, Vector, VectorAt } from "../../../shared/client.ts";
import type { Asked } from "../asked.ts";
import { type Command, type Options, written } from "../command.ts";
import { findModel, formatPlace, parsePlace, suggestModels } from "../directions.ts";
import { refusal } from "../failure.ts";
import { button, pressId, row } from "../render.ts";
import { cut, formatStrength, neutral, oneLine } from "../text.ts";
import { listed } from "./models.ts";

const Type = ApplicationCommandOptionType;
const CHOICES = 25;
/** Of what a modal's input takes. */
const PASTED_CHARS = 4000;
const MODAL_S = 3600;
const NUMBERS = "numbers";

const model = {
  type: Type.String,
  name: "model",
  description: "Which model; the first one when you leave it out",
  autocomplete: true,
} as const;
const strength = {
  type: Type.Number,
  name: "strength",
  description: "A strength that shows (10)",
  min_value: -300,
  max_value: 300,
} as const;
const description = {
  type: Type.String,
  name: "description",
  description: "What it is and where it comes from",
  max_length: 2000,
} as const;
const visibility: APIApplicationCommandBasicOption = {
  type: Type.String,
  name: "visibility",
  description: "Who may steer with it (unlisted: whoever has its address)",
  choices: ["private", "unlisted", "public"].map((value) => ({ name: value, value })),
};
const which = { type: Type.String, name: "vector", description: "Which of yours", required: true, autocomplete: true } as const;
const subcommand = (name: string, text: string, options: readonly APIApplicationCommandBasicOption[]) => ({
  ...{ type: ApplicationCommandOptionType.Subcommand as const, name, description: text, options: [...options] },
});

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

export const vector: Command = {
  data: {
    ...{ type: ApplicationCommandType.ChatInput, name: "vector", description: "Directions of your own to steer with" },
    options: [
      subcommand("new", "Keep a vector: paste its numbers, or attach a file", [
        { type: Type.String, name: "name", description: "What you call it", required: true, max_length: 200 },
        {
          type: Type.Integer,
          name: "layer",
          description: "Where it acts: 0 is the first layer",
          required: true,
          min_value: 0,
          max_value: 9999,
        },
        {
          type: Type.String,
          name: "hook",
          description: "Before the layer (hook_resid_pre), or after it",
          choices: ["hook_resid_pre", "hook_resid_post"].map((value) => ({ name: value, value })),
        },
        model,
        {
          type: Type.String,
          name: "numbers",
          description: "As many as the model is wide; left out with no file: a window to paste them into",
        },
        { type: Type.Attachment, name: "file", description: ".npy, .safetensors, .gguf, .pt, .json or text" },
        ...[strength, description, visibility],
      ]),
      subcommand("list", "The vectors you keep", [
        model,
        { type: Type.String, name: "query", description: "Only those with this text in their name", max_length: 200 },
      ]),
      subcommand("show", "A vector, with its numbers", [which]),
      subcommand("edit", "Change what you call it, or how hard it steers", [
        which,
        { type: Type.String, name: "name", description: "What you call it", max_length: 200 },
        strength,
        description,
        visibility,
      ]),
      subcommand("delete", "Delete a vector", [which]),
    ],
  },
  acknowledge: (options) =>
    options.sub === "new" && options.text("numbers") === undefined && options.attachment("file") === undefined ? "modal" : "ephemeral",
  async run(asked, options) {
    switch (options.sub) {
      case "new":
        return create(asked, options);
      case "list":
        return list(asked, options);
      case "show":
        return show(asked, options);
      case "edit":
        return edit(asked, options);
      case "delete":
        return askToDelete(asked, options);
      default:
        throw refusal("Say what to do: new, list, show, edit or delete.");
    }
  },
  suggest: ({ tiller }, options) =>
    options.focused === "model" ? suggestModels(tiller, options.text("model") ?? "") : suggestOwn(tiller, options.text("vector") ?? ""),
  presses: {
    "vector-numbers": {
      acknowledge: () => "ephemeral",
      async run(asked, { about }) {
        const options = await asked.room.tiller.notes.get<Record<string, unknown>>(noteOf(about));
        if (options === undefined) throw refusal("This window was open for more than an hour: use /vector new again.");
        await keep(asked, await metaOf(asked.tiller, (name) => options[name]), written(asked).get(NUMBERS) ?? "");
      },
    },
    "vector-keep": { acknowledge: () => "update", run: async (asked) => void (await asked.edit({ content: "It stays." })) },
    "vector-delete": {
      acknowledge: () => "update",
      async run(asked, { about }) {
        const found = await findOwn(asked.tiller, about.replace("~", "/"));
        await asked.tiller.vectors.remove(addressOf(found));
        await asked.edit({ content: `${neutral(found.vectorLabel)} is deleted.` });
      },
    },
  },
};

const noteOf = (id: string): string => `modal:${id}`;
const OPTIONS = ["name", "layer", "hook", "model", "strength", "description", "visibility"] as const;

async function create(asked: Asked, options: Options): Promise<void> {
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

async function list({ tiller, edit: answer }: Asked, options: Options): Promise<void> {
  const [modelId, query] = [options.text("model"), options.text("query")];
  const found = await tiller.vectors.list({ ...(modelId === undefined ? {} : { modelId }), ...(query === undefined ? {} : { query }) });
  const lines = found.map(
    (each) =>
      `**${cut(neutral(each.vectorLabel), 200)}** \`${formatPlace(each)}\` of ${neutral(each.modelId)}, strength ${formatStrength(each.vectorDefaultSteerStrength)}`,
  );
  await answer(listed("Your vectors", lines, "You keep no such vector: /vector new makes one."));
}

async function show({ tiller, edit: answer }: Asked, options: Options): Promise<void> {
  const found = await tiller.vectors.get(addressOf(await findOwn(tiller, options.text("vector") ?? "")));
  const norm = Math.hypot(...found.vector);
  const first = found.vector.slice(0, 8).map((value) => value.toPrecision(3));
  await answer({
    embeds: [
      {
        title: oneLine(found.vectorLabel, 256),
        description: cut(neutral(found.description), 3000),
        fields: [
          { name: "Place", value: `\`${formatPlace(found)}\` of ${neutral(found.modelId)}, ${neutral(found.hookName)}` },
          { name: "Strength", value: formatStrength(found.vectorDefaultSteerStrength), inline: true },
          { name: "Norm", value: formatStrength(norm), inline: true },
          { name: "Visibility", value: `${found.visibility}, version ${found.version}`, inline: true },
          { name: `${found.vector.length} numbers`, value: `${first.join(", ")}, …` },
        ],
      },
    ],
    files: [{ name: `vector-${found.index}.json`, text: JSON.stringify(found.vector) }],
  });
}

async function edit({ tiller, edit: answer }: Asked, options: Options): Promise<void> {
  const changes = {
    ...(options.text("name") === undefined ? {} : { vectorLabel: options.text("name") }),
    ...(options.number("strength") === undefined ? {} : { vectorDefaultSteerStrength: options.number("strength") }),
    ...(options.text("description") === undefined ? {} : { description: options.text("description") }),
    ...(options.text("visibility") === undefined ? {} : { visibility: options.text("visibility") }),
  };
  if (Object.keys(changes).length === 0) throw refusal("Say what to change: its name, strength, description or visibility.");
  const found = await findOwn(tiller, options.text("vector") ?? "");
  const {
    vectorLabel,
    vectorDefaultSteerStrength,
    version,
    visibility: who,
  } = await tiller.vectors.update(addressOf(found), { ...changes, version: found.version });
  await answer({
    content: `**${cut(neutral(vectorLabel), 400)}**: strength ${formatStrength(vectorDefaultSteerStrength)}, ${who}, version ${version}.`,
  });
}

async function askToDelete({ tiller, edit: answer, person }: Asked, options: Options): Promise<void> {
  const found = await findOwn(tiller, options.text("vector") ?? "");
  const id = (verb: string) => pressId({ verb, about: formatPlace(found).replace("/", "~"), ownerId: person.id });
  await answer({
    content: `Delete **${cut(neutral(found.vectorLabel), 400)}** for good? What was steered with it stays.`,
    components: [row(button("Delete it", id("vector-delete"), ButtonStyle.Danger), button("Keep it", id("vector-keep")))],
  });
}

const addressOf = ({ modelId, layer, index }: Vector): VectorAt => ({ modelId, source: layer, index });

/** A vector of the person's, by its place or by its name. */
async function findOwn(tiller: TillerUser, text: string): Promise<Vector> {
  const at = parsePlace(text);
  for (let offset = 0; ; ) {
    const page = await tiller.vectors.list({ offset });
    const found = page.find(({ layer, index, vectorLabel }) =>
      at === undefined ? vectorLabel === text : layer === at.layer && Number(index) === at.index,
    );
    if (found !== undefined) return found;
    if (page.length === 0) throw refusal("You keep no such vector: choose one from the list as you type. /vector list shows them all.");
    offset += page.length;
  }
}

async function suggestOwn(tiller: TillerUser, typed: string) {
  const query = typed.trim();
  const found = await tiller.vectors.list(query === "" ? {} : { query });
  return found
    .slice(0, CHOICES)
    .map((each) => ({ name: oneLine(`${each.vectorLabel} · ${each.modelId} ${each.layer}`), value: formatPlace(each) }));
}
