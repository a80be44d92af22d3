// Conversations with a steered model, each in a thread: what was said is notes of the bot's, one for every turn.
import { ButtonStyle, type GatewayMessageCreateDispatchData, MessageType, Routes } from "discord-api-types/v10";
import type { TillerUser } from "../../shared/client.ts";
import type { ChatMessage, Job, Person, SteerBody, WholeJob } from "../../shared/client-types.ts";
import { TillerError } from "../../shared/errors.ts";
import { type Answer, type BotRoom, type Place, toMessage } from "./asked.ts";
import { requireAllowed } from "./controls.ts";
import { failureAnswer, logFailure, refusal } from "./failure.ts";
import type { Promises } from "./follow.ts";
import type { Keeper, Promised, Target } from "./promised.ts";
import { button, type Named, pressId, row, stopRow } from "./render.ts";
import { cut, neutral } from "./text.ts";

/** A thread, as a note. */
export interface Chat {
  readonly threadId: string;
  readonly ownerId: string;
  readonly features: readonly Named[];
  /** Without messages. */
  readonly body: SteerBody;
  readonly place: Pick<Place, "guildId" | "parentId" | "ageRestricted">;
}

interface Turn {
  readonly name: string;
  readonly question: string;
  /** null until it is answered. */
  readonly answer: string | null;
}

const KEPT_S = 30 * 24 * 3600;
/** What the service takes of one conversation. */
const MOST = { turns: 60, chars: 8192 } as const;
const CONTENT_CHARS = 1800;
const QUESTION_CHARS = 2000;

const chatKey = (threadId: string): string => `chat:${threadId}`;
const turnKey = (threadId: string, id = ""): string => `turn:${threadId}:${id}`;

export const findChat = ({ tiller }: BotRoom, threadId: string) => tiller.notes.get<Chat>(chatKey(threadId));

/** Threads that are conversations, as far as this process knows: messages elsewhere cost nothing. */
const threads = new Set<string>();

export async function keepChat({ tiller }: BotRoom, chat: Chat): Promise<void> {
  await tiller.notes.put(chatKey(chat.threadId), chat, { ttlSeconds: KEPT_S });
  threads.add(chat.threadId);
}

/** Ends a conversation. @returns whether it was there. */
export async function endChat({ tiller }: BotRoom, threadId: string): Promise<boolean> {
  const chat = await tiller.notes.take(chatKey(threadId));
  for (const { key } of await tiller.notes.list(turnKey(threadId))) await tiller.notes.take(key);
  return chat !== undefined;
}

/** The last turn that was answered. */
export async function lastTurn({ tiller }: BotRoom, threadId: string): Promise<(Turn & { readonly id: string }) | undefined> {
  const turns = await tiller.notes.list<Turn>(turnKey(threadId));
  const last = turns.filter(({ value }) => value.answer !== null).at(-1);
  return last === undefined ? undefined : { ...last.value, id: last.key.slice(turnKey(threadId).length) };
}

interface Asking {
  readonly chat: Chat;
  readonly person: Person;
  /** Of the interaction or message that asks. */
  readonly id: string;
  readonly question: string;
  readonly target: Target;
  /** The turn that is answered anew; undefined = a new one. */
  readonly turnId?: string;
  readonly seed?: number;
}

/** Answers a question of a conversation, for whoever asked it. @throws TillerError when it is not allowed here. */
export async function takeTurn(room: BotRoom, promises: Promises, asking: Asking): Promise<void> {
  const { chat, person, id, question, target, turnId = id, seed } = asking;
  const { threadId, body, features } = chat;
  if (question.length > QUESTION_CHARS) throw refusal(`At most ${QUESTION_CHARS} characters can be answered at once.`);
  const place: Place = { ...chat.place, channelId: threadId, inThread: true };
  await requireAllowed({ room, place, tiller: room.tiller.as(person) }, { tokens: body.n_tokens, modelId: body.modelId, features });
  const turns = await room.tiller.notes.list<Turn>(turnKey(threadId));
  const before = turns.filter(({ key, value }) => key < turnKey(threadId, turnId) && value.answer !== null);
  for (const { key } of turns.slice(0, -MOST.turns)) await room.tiller.notes.take(key);
  const messages = toMessages(
    before.slice(-MOST.turns).map(({ value }) => value),
    question,
  );
  const turn = { threadId, id: turnId, name: person.name, question };
  if (turnId === id)
    await room.tiller.notes.put(turnKey(threadId, turnId), { name: person.name, question, answer: null } satisfies Turn, {
      ttlSeconds: KEPT_S,
    });
  await promises.keep({
    ...{ id, transport: room.transport, person, kind: "steer-chat", target, turn },
    body: {
      ...body,
      ...(seed === undefined ? {} : { seed }),
      defaultChatMessages: messages,
      steeredChatMessages: messages,
      steer_special_tokens: true,
    },
    view: { prompt: question, modelId: body.modelId, features, ownerId: person.id },
  });
}

/** The newest of what was said, as much as the service takes, and the question. */
function toMessages(turns: readonly Turn[], question: string): ChatMessage[] {
  const kept: ChatMessage[] = [];
  let chars = question.length;
  for (const turn of turns.toReversed()) {
    chars += turn.question.length + (turn.answer?.length ?? 0);
    if (chars > MOST.chars) break;
    kept.unshift({ role: "user", content: turn.question }, { role: "assistant", content: turn.answer || "…" });
  }
  return [...kept, { role: "user", content: question }];
}

type PromisedTurn = Promised<"steer-chat">;

/** A conversation that has become too long for the model goes on without its oldest messages. */
async function start(promised: PromisedTurn, user: TillerUser): Promise<{ readonly job: Job; readonly promised: PromisedTurn }> {
  const { kind, id, turn } = promised;
  for (let left = 0, { body } = promised; ; left += 2) {
    try {
      // The same request gets the same key, also after a restart.
      const job = await user.startSteer(kind, body, left === 0 ? id : `${id}-${left}`);
      return { job, promised: { ...promised, body, ...(turn === undefined ? {} : { turn: { ...turn, left } }) } };
    } catch (error) {
      const shorter = error instanceof TillerError && error.code === "prompt_too_long" ? withoutOldest(body) : undefined;
      if (shorter === undefined) throw error;
      body = shorter;
    }
  }
}

/** Without the first question and its answer; undefined when only one question is left. */
function withoutOldest(body: SteerBody): SteerBody | undefined {
  const { defaultChatMessages: messages = [] } = body;
  if (messages.length < 3) return undefined;
  return { ...body, defaultChatMessages: messages.slice(2), steeredChatMessages: messages.slice(2) };
}

/** How turns look, and what becomes of them. */
export function newTurns(room: BotRoom): Keeper<"steer-chat"> {
  const show = (promised: PromisedTurn, text: string, footer: string): Answer => {
    const said =
      promised.target.token === undefined
        ? ""
        : `> **${cut(neutral(promised.turn?.name ?? ""), 100)}** ${cut(neutral(promised.turn?.question ?? ""), 300).replaceAll("\n", " ")}\n`;
    const shown = neutral(text).trim();
    const isLong = said.length + shown.length > CONTENT_CHARS;
    return {
      content: `${said}${cut(shown === "" ? "*nothing*" : shown, CONTENT_CHARS - said.length)}\n-# ${footer}`,
      files: isLong ? [{ name: "answer.txt", text }] : [],
    };
  };
  return {
    start,
    growing: (promised, { texts, jobId }) => ({
      ...show(promised, `${texts.STEERED} ▌`, "is being written"),
      components: [stopRow(jobId, promised.person.id)],
    }),
    async done(promised, job) {
      const text = answerOf(job);
      const { turn } = promised;
      if (turn !== undefined) {
        const { threadId, id, name, question } = turn;
        await room.tiller.notes.put(turnKey(threadId, id), { name, question, answer: text } satisfies Turn, { ttlSeconds: KEPT_S });
      }
      const left = turn?.left ?? 0;
      const more = left === 0 ? "" : ` · the first ${left} messages no longer fit into the model's context`;
      const components = turn === undefined ? [] : [controls(turn.threadId, promised.view.ownerId)];
      return { ...show(promised, text, `${job.progress.tokens ?? 0} tokens${more}`), components };
    },
  };
}

/** The steered side's last message; of a job that was stopped, what it has. */
const answerOf = ({ result, partial }: WholeJob<"steer-chat">): string =>
  (result === null ? partial?.STEERED : result.STEERED.chatTemplate.at(-1)?.content) ?? "";

/** Buttons below an answer, and below the message that a conversation begins with. */
export function controls(threadId: string, ownerId: string, begins = false) {
  const id = (verb: string) => pressId({ verb, about: threadId, ownerId });
  const again = begins ? [] : [button("Again", id("chat-again"))];
  return row(button("Reply", id("reply"), ButtonStyle.Primary), ...again, button("Stop chat", id("chat-stop"), ButtonStyle.Danger));
}

/** One after another in each thread: an answer is part of what the next one goes on from. */
const queues = new Map<string, Promise<void>>();
export async function inTurn(threadId: string, work: () => Promise<void>): Promise<void> {
  const before = queues.get(threadId) ?? Promise.resolve();
  const mine = before.then(work);
  const settled = mine.catch(() => undefined);
  queues.set(threadId, settled);
  await mine.finally(() => {
    if (queues.get(threadId) === settled) queues.delete(threadId);
  });
}

export interface Chats {
  /** Reads which threads are conversations. */
  load(): Promise<void>;
  /** Answers a message, if it is one of a conversation's. */
  answer(message: GatewayMessageCreateDispatchData): Promise<void>;
}

const SEEN = 1000;
const WRITTEN: ReadonlySet<MessageType> = new Set([MessageType.Default, MessageType.Reply]);

export function newChats(room: BotRoom, promises: Promises): Chats {
  const seen = new Set<string>();

  return {
    async load() {
      for (const { value } of await room.tiller.notes.list<Chat>(chatKey(""))) threads.add(value.threadId);
    },
    async answer({ id, channel_id: threadId, author, content, type }) {
      if (author.bot === true || !WRITTEN.has(type) || content === "" || !threads.has(threadId) || seen.has(id)) return;
      seen.add(id);
      if (seen.size > SEEN) seen.delete(seen.values().next().value as string);
      const person = { id: author.id, name: (author.global_name ?? author.username).slice(0, 100) };
      await inTurn(threadId, async () => {
        const chat = await findChat(room, threadId);
        if (chat === undefined) return void threads.delete(threadId);
        try {
          await takeTurn(room, promises, { chat, person, id, question: content, target: { channelId: threadId, replyTo: id } });
        } catch (error) {
          logFailure(room, "chat", id, error);
          await refuse(room, threadId, id, error);
        }
      });
    },
  };
}

async function refuse(room: BotRoom, channelId: string, replyTo: string, error: unknown): Promise<void> {
  const { body } = toMessage(failureAnswer(error, replyTo));
  const reference = { message_reference: { message_id: replyTo, fail_if_not_exists: false } };
  await room.rest.post(Routes.channelMessages(channelId), { body: { ...body, ...reference } });
}
