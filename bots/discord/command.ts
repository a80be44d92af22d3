// A command is data and a function, in one file; dispatch and deployment read the same list.
import type {
  APIApplicationCommandInteractionDataOption,
  APIApplicationCommandOptionChoice,
  APIAttachment,
  APIMessageComponentInteraction,
  APIModalSubmitInteraction,
  RESTPostAPIChatInputApplicationCommandsJSONBody,
} from "discord-api-types/v10";
import { ApplicationCommandOptionType } from "discord-api-types/v10";
import type { Asked, Interaction } from "./asked.ts";
import type { Promises } from "./follow.ts";
import type { Press } from "./render.ts";

/** How an interaction is acknowledged before any work; `modal` = the function opens one itself, at once and without asking the service. */
export type Acknowledged = "public" | "ephemeral" | "update" | "modal";

export interface Command {
  readonly data: RESTPostAPIChatInputApplicationCommandsJSONBody;
  /** "ephemeral" = only the person sees the answer. */
  readonly acknowledge: (options: Options) => Acknowledged;
  run(asked: Asked, options: Options, promises: Promises): Promise<void>;
  /** At most 25 choices for what was typed so far. */
  suggest?(asked: Asked, options: Options): Promise<APIApplicationCommandOptionChoice<string>[]>;
  /** Buttons, selects and modals, by their verb. */
  readonly presses?: Readonly<Record<string, Pressed>>;
}

export interface Pressed {
  readonly acknowledge: (press: Press, asked: Asked) => Acknowledged;
  run(asked: Asked, press: Press, promises: Promises): Promise<void>;
}

/** The options of a command, by name; those of a subcommand when there is one. */
export interface Options {
  /** "new" of `/vector new`. */
  readonly sub: string | undefined;
  text(name: string): string | undefined;
  number(name: string): number | undefined;
  flag(name: string): boolean | undefined;
  /** Id of a channel, role or user. */
  id(name: string): string | undefined;
  attachment(name: string): APIAttachment | undefined;
  /** Name of the option that is being typed. */
  readonly focused: string | undefined;
}

export function optionsOf(interaction: Interaction): Options {
  const data = (interaction.data ?? {}) as {
    options?: APIApplicationCommandInteractionDataOption[];
    resolved?: { attachments?: Record<string, APIAttachment> };
  };
  const [first] = data.options ?? [];
  const nested = first?.type === ApplicationCommandOptionType.Subcommand ? first : undefined;
  const all = (nested === undefined ? data.options : nested.options) ?? [];
  const values = new Map(all.map((option) => [option.name, (option as { value?: unknown }).value]));
  const typed =
    <T>(type: string) =>
    (name: string): T | undefined =>
      typeof values.get(name) === type ? (values.get(name) as T) : undefined;
  const text = typed<string>("string");
  return {
    ...{ sub: nested?.name, text, id: text, number: typed<number>("number"), flag: typed<boolean>("boolean") },
    attachment: (name) => data.resolved?.attachments?.[text(name) ?? ""],
    focused: (all.find((option) => "focused" in option && option.focused === true) as { name: string } | undefined)?.name,
  };
}

/** What was chosen on a select. */
export const selected = ({ interaction }: Asked): readonly string[] =>
  (interaction as APIMessageComponentInteraction).data && "values" in interaction.data
    ? (interaction as { data: { values: string[] } }).data.values
    : [];

/** What was written into a modal, by the ids of its inputs. */
export function written({ interaction }: Asked): ReadonlyMap<string, string> {
  const { components } = (interaction as APIModalSubmitInteraction).data;
  const inputs = components.flatMap((part) => ("components" in part ? part.components : "component" in part ? [part.component] : []));
  return new Map(inputs.flatMap((input) => ("value" in input && typeof input.value === "string" ? [[input.custom_id, input.value]] : [])));
}
