// /vector: directions of one's own, from numbers, from a file, or from texts.
import { type APIApplicationCommandBasicOption, ApplicationCommandOptionType, ApplicationCommandType } from "discord-api-types/v10";
import type { Command } from "../command.ts";
import { suggestAutoencoders, suggestModels } from "../directions.ts";
import { refusal } from "../failure.ts";
import { DERIVE, deriveVector } from "./vector-derive.ts";
import { createVector, NEW, pasted } from "./vector-new.ts";
import { which } from "./vector-options.ts";
import { askToDelete, deleted, EDIT, editVector, kept, LIST, listVectors, showVector, suggestOwn } from "./vector-own.ts";

const subcommand = (name: string, text: string, options: readonly APIApplicationCommandBasicOption[]) => ({
  ...{ type: ApplicationCommandOptionType.Subcommand as const, name, description: text, options: [...options] },
});

export const vector: Command = {
  data: {
    ...{ type: ApplicationCommandType.ChatInput, name: "vector", description: "Directions of your own to steer with" },
    options: [
      subcommand("new", "Keep a vector: paste its numbers, or attach a file", NEW),
      subcommand("derive", "Make a vector of texts: a file of those it should lead to, and one of those it should lead away from", DERIVE),
      subcommand("list", "The vectors you keep", LIST),
      subcommand("show", "A vector, with its numbers", [which]),
      subcommand("edit", "Change what you call it, or how hard it steers", EDIT),
      subcommand("delete", "Delete a vector", [which]),
    ],
  },
  acknowledge: (options) =>
    options.sub === "new" && options.text("numbers") === undefined && options.attachment("file") === undefined ? "modal" : "ephemeral",
  async run(asked, options, promises) {
    switch (options.sub) {
      case "new":
        return createVector(asked, options);
      case "derive":
        return deriveVector(asked, options, promises);
      case "list":
        return listVectors(asked, options);
      case "show":
        return showVector(asked, options);
      case "edit":
        return editVector(asked, options);
      case "delete":
        return askToDelete(asked, options);
      default:
        throw refusal("Say what to do: new, derive, list, show, edit or delete.");
    }
  },
  suggest({ tiller }, options) {
    const typed = options.text(options.focused ?? "") ?? "";
    if (options.focused === "model") return suggestModels(tiller, typed);
    if (options.focused === "source_set") return suggestAutoencoders(tiller, options.text("model"), typed);
    return suggestOwn(tiller, typed);
  },
  presses: { "vector-numbers": pasted, "vector-keep": kept, "vector-delete": deleted },
};
