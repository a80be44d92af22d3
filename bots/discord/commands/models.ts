// /models and /presets: what there is to steer, and to steer with.
import { ApplicationCommandOptionType, ApplicationCommandType } from "discord-api-types/v10";
import type { Answer } from "../asked.ts";
import type { Command } from "../command.ts";
import { readControls } from "../controls.ts";
import { findModel, suggestModels } from "../directions.ts";
import { cut, formatStrength, neutral, oneLine } from "../text.ts";

const SHOWN = 20;
const DESCRIPTION_CHARS = 3800;

export const models: Command = {
  data: { type: ApplicationCommandType.ChatInput, name: "models", description: "The models that can be steered" },
  acknowledge: () => "ephemeral",
  async run({ tiller, edit }) {
    const all = await tiller.models();
    const fields = all.slice(0, SHOWN).map(({ id, layers, width, context, chatTemplate, sources }) => {
      const known = sources.map((source) => `${neutral(source.id)}: ${source.width} features, ${source.labelledFeatures.length} labelled`);
      const what = `${layers} layers, ${width} wide, ${context} tokens${chatTemplate ? ", chats" : ""}`;
      return { name: oneLine(id, 256), value: cut([what, ...known].join("\n"), 1024) };
    });
    await edit(
      fields.length === 0
        ? { content: "No model is served at the moment." }
        : { embeds: [{ title: all.length > SHOWN ? `Models (${SHOWN} of ${all.length})` : "Models", fields }] },
    );
  },
};

export const presets: Command = {
  data: {
    ...{ type: ApplicationCommandType.ChatInput, name: "presets", description: "What is known to show when a model is steered with it" },
    options: [
      {
        type: ApplicationCommandOptionType.String,
        name: "model",
        description: "Which model; the first one when you leave it out",
        autocomplete: true,
      },
    ],
  },
  acknowledge: () => "ephemeral",
  async run({ tiller, room, place, edit }, options) {
    const model = await findModel(tiller, options.text("model"));
    const [found, { off, ageRestricted }] = await Promise.all([tiller.presets(model.id), readControls(room, place)]);
    const lines = found.map(({ name, features }) => {
      const strengths = features.map(({ strength }) => formatStrength(strength)).join(", ");
      const mark = off.includes(name.toLowerCase())
        ? " (switched off here)"
        : ageRestricted.includes(name.toLowerCase())
          ? " (age-restricted channels)"
          : "";
      return `**${neutral(name)}** at ${strengths}${mark}`;
    });
    await edit(listed(`Presets of ${model.id}`, lines, `${model.id} has no presets: choose a feature in /steer.`));
  },
  suggest: ({ tiller }, options) => suggestModels(tiller, options.text("model") ?? ""),
};

/** Lines under a title, as many as fit. */
export function listed(title: string, lines: readonly string[], none: string): Answer {
  if (lines.length === 0) return { content: none };
  let text = "";
  let shown = 0;
  while (shown < lines.length && text.length + (lines[shown] as string).length < DESCRIPTION_CHARS) text += `${lines[shown++]}\n`;
  const more = lines.length - shown;
  return { embeds: [{ title: oneLine(title, 256), description: more > 0 ? `${text}and ${more} more` : text }] };
}
