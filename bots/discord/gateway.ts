// The bot as a process that stays connected: discord.js keeps the connection, resumes it, and minds Discord's rate limits.
import { Client, DiscordjsError, Events, GatewayIntentBits } from "discord.js";
import {
  type APIInteractionResponse,
  GatewayDispatchEvents,
  type GatewayDispatchPayload,
  InteractionType,
  Routes,
} from "discord-api-types/v10";
import type { Tiller } from "../../shared/client.ts";
import type { BotRoom, Interaction } from "./asked.ts";
import { newAttachmentReader } from "./attachments.ts";
import { newBot } from "./bot.ts";
import { newChats } from "./chats.ts";

export interface GatewayOptions {
  readonly tiller: Tiller;
  readonly token: string;
  /** "https://discord.com/api" unless it is tested. */
  readonly api: string;
  /** Whether what people write in a thread of /chat is answered: a privileged intent, switched on in Discord's developer portal. */
  readonly messages: boolean;
  readonly log: BotRoom["log"];
}

const RESUME_MS = 60_000;

export interface Gateway {
  readonly name: string;
  readonly applicationId: string;
  close(): Promise<void>;
}

/** Connects. @throws Error with a sentence for whoever starts the bot. */
export async function startGateway({ tiller, token, api, messages, log }: GatewayOptions): Promise<Gateway> {
  const intents = [GatewayIntentBits.Guilds, ...(messages ? [GatewayIntentBits.GuildMessages, GatewayIntentBits.MessageContent] : [])];
  const client = new Client({ intents, rest: { api }, allowedMentions: { parse: [] } });
  client.on(Events.Error, (error) => log({ level: "error", what: "gateway", code: error.name }));
  const ready = new Promise<Client<true>>((resolve) => client.once(Events.ClientReady, resolve));
  try {
    await client.login(token);
  } catch (error) {
    await client.destroy();
    throw inWords(error);
  }
  const { application, user } = await ready;
  const room: BotRoom = {
    ...{
      tiller,
      rest: client.rest,
      applicationId: application.id,
      transport: "gateway",
      hasToken: true,
      patienceMs: Number.POSITIVE_INFINITY,
      log,
    },
    readAttachment: newAttachmentReader(api),
  };
  const bot = newBot(room);
  const chats = newChats(room, bot.promises);
  const working = new Set<Promise<void>>();
  const track = (work: Promise<void>) => {
    working.add(work);
    void work.catch((error: Error) => log({ level: "error", what: "gateway", code: error.name })).finally(() => working.delete(work));
  };
  client.on(Events.Raw, (packet: GatewayDispatchPayload) => {
    if (packet.t === GatewayDispatchEvents.InteractionCreate && packet.d.type !== (InteractionType.Ping as number)) {
      const interaction = packet.d as Interaction;
      const respond = async (body: APIInteractionResponse) => {
        await client.rest.post(Routes.interactionCallback(interaction.id, interaction.token), { body, auth: false });
      };
      track(bot.handle(interaction, respond));
    }
    if (packet.t === GatewayDispatchEvents.MessageCreate) track(chats.answer(packet.d));
  });
  await chats.load();
  // At once for what a process before this one began, and now and then for what could not be posted.
  const resume = () => track(bot.promises.resume());
  const timer = setInterval(resume, RESUME_MS);
  resume();
  return {
    name: user.username,
    applicationId: application.id,
    // What is under way is a promise, and kept at the next start.
    async close() {
      clearInterval(timer);
      await client.destroy();
    },
  };
}

function inWords(error: unknown): Error {
  const text = (error as Error).message;
  if (error instanceof DiscordjsError && error.code === "TokenInvalid")
    return new Error("Discord does not take DISCORD_TOKEN: copy it anew from the Bot page of your application.");
  if (/disallowed intents/i.test(text))
    return new Error(
      "Discord refuses to tell the bot what people write: switch on the Message Content Intent on the Bot page of your application, or start with --no-messages (then /chat is answered by its Reply button only).",
    );
  return new Error(`The bot could not log in to Discord: ${text}`);
}
