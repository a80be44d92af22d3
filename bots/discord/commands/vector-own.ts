// /vector list, show, edit and delete: the vectors that one keeps.
import { type APIApplicationCommandBasicOption, ButtonStyle, ApplicationCommandOptionType as Type } from "discord-api-types/v10";
import type { TillerUser } from "../../../shared/client.ts";
import type { Vector, VectorAt } from "../../../shared/client-types.ts";
import type { Asked } from "../asked.ts";
import type { Options, Pressed } from "../command.ts";
import { formatPlace, parsePlace } from "../directions.ts";
import { refusal } from "../failure.ts";
import { button, pressId, row } from "../render.ts";
import { cut, formatStrength, neutral, oneLine } from "../text.ts";
import { listed } from "./models.ts";
import { description, model, name, strength, visibility, which } from "./vector-options.ts";

const CHOICES = 25;

export const LIST: readonly APIApplicationCommandBasicOption[] = [
  model,
  { type: Type.String, name: "query", description: "Only those with this text in their name", max_length: 200 },
];
export const EDIT: readonly APIApplicationCommandBasicOption[] = [which, name, strength, description, visibility];

export async function listVectors({ tiller, edit: answer }: Asked, options: Options): Promise<void> {
  const [modelId, query] = [options.text("model"), options.text("query")];
  const found = await tiller.vectors.list({ ...(modelId === undefined ? {} : { modelId }), ...(query === undefined ? {} : { query }) });
  const lines = found.map(
    (each) =>
      `**${cut(neutral(each.vectorLabel), 200)}** \`${formatPlace(each)}\` of ${neutral(each.modelId)}, strength ${formatStrength(each.vectorDefaultSteerStrength)}`,
  );
  await answer(listed("Your vectors", lines, "You keep no such vector: /vector new makes one."));
}

export async function showVector({ tiller, edit: answer }: Asked, options: Options): Promise<void> {
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

export async function editVector({ tiller, edit: answer }: Asked, options: Options): Promise<void> {
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

export async function askToDelete({ tiller, edit: answer, person }: Asked, options: Options): Promise<void> {
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

export async function suggestOwn(tiller: TillerUser, typed: string) {
  const query = typed.trim();
  const found = await tiller.vectors.list(query === "" ? {} : { query });
  return found
    .slice(0, CHOICES)
    .map((each) => ({ name: oneLine(`${each.vectorLabel} · ${each.modelId} ${each.layer}`), value: formatPlace(each) }));
}

export const kept: Pressed = { acknowledge: () => "update", run: async (asked) => void (await asked.edit({ content: "It stays." })) };

export const deleted: Pressed = {
  acknowledge: () => "update",
  async run(asked, { about }) {
    const found = await findOwn(asked.tiller, about.replace("~", "/"));
    await asked.tiller.vectors.remove(addressOf(found));
    await asked.edit({ content: `${neutral(found.vectorLabel)} is deleted.` });
  },
};
