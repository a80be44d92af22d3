// /chat: a conversation with a steered model in a thread, by messages or by the Reply button.
import {
  type APIThreadChannel,
  ApplicationCommandOptionType,
  ApplicationCommandType,
  ComponentType,
  InteractionContextType,
  PermissionFlagsBits,
  Routes,
  TextInputStyle,
  ThreadAutoArchiveDuration,
} from "discord-api-types/v10";
import type { Asked } from "../asked.ts";
import { type Chat, controls, endChat, findChat, inTurn, keepChat, lastTurn, takeTurn } from "../chats.ts";
import { type Command, type Options, written } from "../command.ts";
import { findModel } from "../directions.ts";
import { refusal } from "../failure.ts";
import type { Promises } from "../follow.ts";
import { namesOf, type Press, pressId } from "../render.ts";
import { cut, neutral, oneLine } from "../text.ts";
import { newSeed, readSteering, STEERING, suggestSteering } from "./steer.ts";

const Type = ApplicationCommandOptionType;
const MESSAGE_CHARS = 2000;
const SAID = "said";
const ENDED = "This conversation is over: /chat start begins another.";

export const chat: Command = {
  data: {
    ...{ type: ApplicationCommandType.ChatInput, name: "chat", description: "A conversation with a steered model, in a thread" },
    contexts: [InteractionContextType.Guild],
    options: [
      {
        ...{ type: Type.Subcommand, name: "start", description: "Open a thread: every message in it is answered" },
        options: [...STEERING, { type: Type.String, name: "message", description: "What you say first", max_length: MESSAGE_CHARS }],
      },
      { type: Type.Subcommand, name: "stop", description: "End the conversation of this thread" },
    ],
  },
  acknowledge: () => "public",
  run: (asked, options, promises) => (options.sub === "stop" ? stop(asked, asked.place.channelId) : start(asked, options, promises)),
  suggest: suggestSteering,
  presses: {
    reply: {
      acknowledge: () => "modal",
      run: ({ modal }, { about, ownerId }) =>
        modal({
          ...{ custom_id: pressId({ verb: SAID, about, ownerId }), title: "Reply" },
          components: [
            {
              ...{ type: ComponentType.Label, label: "What you say" },
              component: {
                type: ComponentType.TextInput,
                custom_id: SAID,
                style: TextInputStyle.Paragraph,
                required: true,
                max_length: MESSAGE_CHARS,
              },
            },
          ],
        }),
    },
    said: {
      acknowledge: () => "public",
      run: (asked, press, promises) => answer(asked, press, promises, { question: written(asked).get(SAID) ?? "" }),
    },
    "chat-again": {
      acknowledge: () => "public",
      async run(asked, press, promises) {
        const last = await lastTurn(asked.room, press.about);
        if (last === undefined) throw refusal("There is no answer yet that could be given anew.");
        await answer(asked, press, promises, { question: last.question, turnId: last.id, seed: newSeed() });
      },
    },
    "chat-stop": { acknowledge: () => "public", run: (asked, { about }) => stop(asked, about) },
  },
};

async function start(asked: Asked, options: Options, promises: Promises): Promise<void> {
  const { room, place, person, edit } = asked;
  if (place.inThread) throw refusal("A conversation opens a thread of its own: use /chat start in a channel.");
  if (!room.hasToken) throw refusal("This bot runs without a token, so it cannot open threads: use /steer.");
  const model = await findModel(asked.tiller, options.text("model"));
  if (!model.chatTemplate)
    throw refusal(`${model.id} has no chat template, so it only writes on: use /steer, or choose a model that chats (/models tells).`);
  const { body, features } = await readSteering(asked, options);
  const what = namesOf(features);
  const message = await edit({
    content: `A conversation with **${neutral(model.id)}**, steered with **${cut(neutral(what), 500)}**. Everybody may talk in the thread; /chat stop ends it.`,
  });
  const name = oneLine(`Steered: ${what}`);
  const settings = { name, auto_archive_duration: ThreadAutoArchiveDuration.OneHour };
  const thread = (await room.rest.post(Routes.threads(place.channelId, message.id), { body: settings })) as APIThreadChannel;
  const { guildId, ageRestricted } = place;
  const begun: Chat = {
    threadId: thread.id,
    ownerId: person.id,
    features,
    body,
    place: { guildId, ageRestricted, parentId: place.channelId },
  };
  await keepChat(room, begun);
  await edit({ content: message.content, components: [controls(thread.id, person.id, true)] });
  const question = options.text("message");
  if (question === undefined) return;
  const { id } = asked.interaction;
  await inTurn(thread.id, () => takeTurn(room, promises, { chat: begun, person, id, question, target: { channelId: thread.id } }));
}

async function answer(
  { room, interaction, person, place }: Asked,
  { about }: Press,
  promises: Promises,
  turn: { question: string; turnId?: string; seed?: number },
) {
  const found = await findChat(room, about);
  if (found === undefined) throw refusal(ENDED);
  const target = { token: interaction.token, channelId: place.channelId };
  await inTurn(about, () => takeTurn(room, promises, { chat: found, person, id: interaction.id, target, ...turn }));
}

async function stop(asked: Asked, threadId: string): Promise<void> {
  const { room, person, interaction, edit } = asked;
  const found = await findChat(room, threadId);
  if (found === undefined) throw refusal("There is no conversation to stop here: use /chat stop in the thread of one.");
  const may = PermissionFlagsBits.ManageThreads | PermissionFlagsBits.ManageMessages;
  if (person.id !== found.ownerId && (BigInt(interaction.member?.permissions ?? "0") & may) === 0n)
    throw refusal("Only who began this conversation, or a member who manages threads, can stop it.");
  await endChat(room, threadId);
  await edit({ content: "This conversation is over. What was said stays here." });
  // Where it may not, the thread is archived in an hour on its own.
  await room.rest.patch(Routes.channel(threadId), { body: { archived: true } }).catch(() => undefined);
}
