// /settings: what is allowed in a server, for those who manage it.
import {
  ApplicationCommandOptionType,
  ApplicationCommandType,
  ChannelType,
  InteractionContextType,
  PermissionFlagsBits,
} from "discord-api-types/v10";
import type { Asked } from "../asked.ts";
import type { Command, Options } from "../command.ts";
import { type Controls, readControls, TOKENS, writeControls } from "../controls.ts";
import { suggestPresets } from "../directions.ts";
import { refusal } from "../failure.ts";
import { neutral } from "../text.ts";

const Type = ApplicationCommandOptionType;
const choices = (...values: string[]) => values.map((value) => ({ name: value, value }));

export const settings: Command = {
  data: {
    ...{ type: ApplicationCommandType.ChatInput, name: "settings", description: "What is allowed in this server" },
    default_member_permissions: String(PermissionFlagsBits.ManageGuild),
    contexts: [InteractionContextType.Guild],
    options: [
      { type: Type.Subcommand, name: "show", description: "The settings as they are" },
      {
        ...{ type: Type.Subcommand, name: "channels", description: "Where steering is allowed" },
        options: [
          {
            type: Type.String,
            name: "action",
            description: "all forgets the list",
            required: true,
            choices: choices("allow", "remove", "all"),
          },
          {
            ...{ type: Type.Channel, name: "channel", description: "Which channel; its threads count too" },
            channel_types: [ChannelType.GuildText, ChannelType.GuildAnnouncement, ChannelType.GuildForum],
          },
        ],
      },
      {
        ...{ type: Type.Subcommand, name: "tokens", description: "How long an answer may be" },
        options: [
          {
            type: Type.Integer,
            name: "max",
            description: `In tokens (${TOKENS.usual})`,
            required: true,
            min_value: 1,
            max_value: TOKENS.most,
          },
        ],
      },
      {
        ...{ type: Type.Subcommand, name: "preset", description: "Whether a preset may be used" },
        options: [
          { type: Type.String, name: "name", description: "Which preset", required: true, autocomplete: true },
          {
            type: Type.String,
            name: "state",
            description: "age-restricted: only in such channels",
            required: true,
            choices: choices("on", "off", "age-restricted"),
          },
          { type: Type.String, name: "model", description: "Whose presets the list shows", autocomplete: false },
        ],
      },
    ],
  },
  acknowledge: () => "ephemeral",
  async run(asked, options) {
    const { room, place, edit, interaction } = asked;
    if (place.guildId === undefined) throw refusal("Settings are those of a server: use this command in one.");
    // Whoever runs a server can open a command to others; these settings stay with those who manage it.
    if ((BigInt(interaction.member?.permissions ?? "0") & PermissionFlagsBits.ManageGuild) === 0n)
      throw refusal("Only members who may manage the server can see or change its settings.");
    const before = await readControls(room, place);
    const after = change(before, options);
    if (after !== before) await writeControls(room, place.guildId, after);
    await edit({ content: shown(after) });
  },
  suggest: ({ tiller }: Asked, options) => suggestPresets(tiller, options.text("model"), options.text("name") ?? "", []),
};

/** The same object when nothing is to change. */
function change(before: Controls, options: Options): Controls {
  switch (options.sub) {
    case "channels": {
      const [action, channel] = [options.text("action"), options.id("channel")];
      if (action === "all") {
        if (channel !== undefined) throw refusal("all forgets the whole list: leave the channel out.");
        return { ...before, channels: [] };
      }
      if (channel === undefined) throw refusal(`Say which channel to ${action}.`);
      const others = before.channels.filter((id) => id !== channel);
      if (action === "remove" && others.length === before.channels.length) throw refusal(`<#${channel}> is not on the list.`);
      if (action === "remove" && others.length === 0)
        throw refusal("This is the last channel of the list, and an empty list allows all: use the action all for that.");
      return { ...before, channels: action === "allow" ? [...others, channel] : others };
    }
    case "tokens":
      return { ...before, maxTokens: options.number("max") ?? TOKENS.usual };
    case "preset": {
      const [name, state] = [(options.text("name") ?? "").trim().toLowerCase(), options.text("state")];
      const off = before.off.filter((each) => each !== name);
      const ageRestricted = before.ageRestricted.filter((each) => each !== name);
      return {
        ...before,
        off: state === "off" ? [...off, name] : off,
        ageRestricted: state === "age-restricted" ? [...ageRestricted, name] : ageRestricted,
      };
    }
    default:
      return before;
  }
}

function shown({ channels, maxTokens, off, ageRestricted }: Controls): string {
  const names = (list: readonly string[]) => (list.length === 0 ? "none" : list.map(neutral).join(", "));
  return [
    `**Channels** ${channels.length === 0 ? "all" : channels.map((id) => `<#${id}>`).join(", ")}`,
    `**Tokens of an answer** at most ${maxTokens}`,
    `**Presets switched off** ${names(off)}`,
    `**Presets for age-restricted channels only** ${names(ageRestricted)}`,
  ]
    .join("\n")
    .slice(0, 2000);
}
