// One interaction, while it is answered: what is asked, by whom, and the ways to answer. The same for both transports.
import type { RawFile, REST } from "@discordjs/rest";
import type { APIApplicationCommandOptionChoice, APIInteraction } from "discord-api-types/v10";
import {
  type APIAllowedMentions,
  type APIInteractionResponse,
  type APIMessage,
  type APIModalInteractionResponseCallbackData,
  ChannelType,
  InteractionResponseType,
  MessageFlags,
  type RESTPostAPIWebhookWithTokenJSONBody,
  Routes,
} from "discord-api-types/v10";
import type { Tiller, TillerUser } from "../../shared/client.ts";
import type { Person } from "../../shared/client-types.ts";
import type { ReadAttachment } from "./attachments.ts";
import { GONE, isDiscord } from "./failure.ts";

/** What a bot works with. */
export interface BotRoom {
  readonly tiller: Tiller;
  /** With the bot's token, where there is one. */
  readonly rest: REST;
  readonly applicationId: string;
  /** Work that a transport began is taken up by the same one after a restart. */
  readonly transport: "gateway" | "http";
  /** Whether the bot can write where no interaction allows it: it has a token. */
  readonly hasToken: boolean;
  /** So long a job is watched by whoever started it, in milliseconds; then it is left to `resume`. */
  readonly patienceMs: number;
  /** Reads an attachment. @throws TillerError `invalid_request` when it is too large or not at Discord. */
  readonly readAttachment: ReadAttachment;
  readonly log: (line: Readonly<Record<string, unknown>>) => void;
}

/** A text, or bytes of a type. */
export type AnswerFile =
  | { readonly name: string; readonly text: string }
  | { readonly name: string; readonly bytes: Uint8Array; readonly type: string };

/** A message as the bot writes it. */
export interface Answer {
  readonly content?: string;
  readonly embeds?: RESTPostAPIWebhookWithTokenJSONBody["embeds"];
  readonly components?: RESTPostAPIWebhookWithTokenJSONBody["components"];
  readonly files?: readonly AnswerFile[];
}

/** Where it is asked. */
export interface Place {
  readonly guildId: string | undefined;
  readonly channelId: string;
  /** Of a thread, the channel it belongs to. */
  readonly parentId: string | undefined;
  readonly ageRestricted: boolean;
  readonly inThread: boolean;
}

/** An interaction that is no ping. */
export type Interaction = Exclude<APIInteraction, { type: 1 }>;
/** Gives Discord the one answer that acknowledges an interaction. */
export type Respond = (response: APIInteractionResponse) => Promise<void>;
export type Acknowledge = "public" | "ephemeral" | "update";

export interface Asked {
  readonly room: BotRoom;
  readonly interaction: Interaction;
  readonly person: Person;
  /** The service, for this person. */
  readonly tiller: TillerUser;
  readonly place: Place;
  /** How it was acknowledged; undefined = not yet. */
  readonly acknowledged: () => Acknowledge | "modal" | "choices" | undefined;
  defer(how: Acknowledge): Promise<void>;
  modal(modal: APIModalInteractionResponseCallbackData): Promise<void>;
  choices(choices: APIApplicationCommandOptionChoice[]): Promise<void>;
  /** Writes the answer, or over the message that a component belongs to. */
  edit(answer: Answer): Promise<APIMessage>;
  /** A message that only the person sees. */
  whisper(answer: Answer): Promise<void>;
  /** Takes away the answer, or the message that a component belongs to. */
  remove(): Promise<void>;
}

/** Nobody is ever pinged, whatever a text says. */
export const NOBODY: APIAllowedMentions = { parse: [] };

/** A message's JSON and files, with everything that an edit leaves out taken away from what was there. */
export function toMessage({ content = "", embeds = [], components = [], files = [] }: Answer): {
  readonly body: { content: string; embeds: NonNullable<Answer["embeds"]>; components: NonNullable<Answer["components"]> };
  readonly files: RawFile[];
} {
  const body = {
    content,
    embeds,
    components,
    attachments: files.map(({ name }, id) => ({ id: String(id), filename: name })),
    allowed_mentions: NOBODY,
  };
  return {
    body,
    files: files.map((file) =>
      "text" in file
        ? { name: file.name, data: new TextEncoder().encode(file.text) as never, contentType: "text/plain; charset=utf-8" }
        : { name: file.name, data: file.bytes as never, contentType: file.type },
    ),
  };
}

export function newAsked(room: BotRoom, interaction: Interaction, respond: Respond): Asked {
  const { rest, tiller } = room;
  const user = interaction.member?.user ?? interaction.user;
  if (user === undefined) throw new Error("an interaction of nobody");
  const person = { id: user.id, name: (user.global_name ?? user.username).slice(0, 100) };
  const original = Routes.webhookMessage(room.applicationId, interaction.token, "@original");
  let acknowledged: ReturnType<Asked["acknowledged"]>;
  const acknowledge = (how: typeof acknowledged, response: APIInteractionResponse): Promise<void> => {
    acknowledged = how;
    return respond(response);
  };
  return {
    ...{ room, interaction, person, tiller: tiller.as(person), place: placeOf(interaction), acknowledged: () => acknowledged },
    defer: (how) =>
      acknowledge(
        how,
        how === "update"
          ? { type: InteractionResponseType.DeferredMessageUpdate }
          : {
              type: InteractionResponseType.DeferredChannelMessageWithSource,
              ...(how === "ephemeral" ? { data: { flags: MessageFlags.Ephemeral } } : {}),
            },
      ),
    modal: (data) => acknowledge("modal", { type: InteractionResponseType.Modal, data }),
    choices: (choices) => acknowledge("choices", { type: InteractionResponseType.ApplicationCommandAutocompleteResult, data: { choices } }),
    edit: (answer) => overwrite(room, interaction.token, answer),
    async whisper(answer) {
      const { body, files } = toMessage(answer);
      const route = Routes.webhook(room.applicationId, interaction.token);
      await rest.post(route, { body: { ...body, flags: MessageFlags.Ephemeral }, files, auth: false });
    },
    async remove() {
      await rest.delete(original, { auth: false });
    },
  };
}

/** Over HTTP an interaction is acknowledged by our answer, which may reach Discord after this: so often, and so long apart, it is tried. */
const EARLY = { tries: 8, waitMs: 250 } as const;

/** Writes over the answer of an interaction, or over the message that its component belongs to. */
export async function overwrite({ rest, applicationId, transport }: BotRoom, token: string, answer: Answer): Promise<APIMessage> {
  const route = Routes.webhookMessage(applicationId, token, "@original");
  for (let tries = 1; ; tries++) {
    try {
      return (await rest.patch(route, { ...toMessage(answer), auth: false })) as APIMessage;
    } catch (error) {
      if (transport !== "http" || tries >= EARLY.tries || !isDiscord(error, GONE.unknownWebhook)) throw error;
      await new Promise((resolve) => setTimeout(resolve, EARLY.waitMs));
    }
  }
}

const THREADS: ReadonlySet<ChannelType> = new Set([ChannelType.PublicThread, ChannelType.PrivateThread, ChannelType.AnnouncementThread]);

function placeOf({ guild_id, channel }: Interaction): Place {
  const inThread = channel !== undefined && THREADS.has(channel.type);
  const more = (channel ?? {}) as { nsfw?: boolean; parent_id?: string | null };
  return {
    ...{ guildId: guild_id, channelId: channel?.id ?? "", parentId: inThread ? (more.parent_id ?? undefined) : undefined, inThread },
    ageRestricted: more.nsfw === true,
  };
}
