// A conversation to steer: its two histories, what the model's template makes of them, and the answer in Neuronpedia's shape.
import { TillerError } from "../../shared/errors.ts";
import { type GenerateResult, type Message, type ModelInfo, LIMITS as PROTOCOL } from "../../shared/protocol.ts";
import type { Config } from "../config.ts";
import { read } from "../engine.ts";
import type { ServedModel } from "../models.ts";
import { SIDES, type SideName, type Transcript, toSteerResult } from "./answer.ts";
import type { SteerChatRequest, SteerChatResult } from "./chat-contract.ts";
import { type Directions, newEngineRequest, type Plan, planEdits } from "./edits.ts";
import type { Saved } from "./run.ts";
import type { Conversation, StoredRequest, StoredResult } from "./stored.ts";

/** Neuronpedia's other names of the roles. */
const ROLES: Readonly<Record<SteerChatRequest["defaultChatMessages"][number]["role"], Message["role"]>> = {
  user: "user",
  assistant: "assistant",
  model: "assistant",
  system: "system",
  developer: "system",
};

/**
 * @throws TillerError when the model takes no conversations or its template refuses them, and as `planSteer`.
 */
export async function planChat(
  body: SteerChatRequest,
  { info, engine }: ServedModel,
  directions: Directions,
  userId: string | undefined,
  config: Config,
  signal: AbortSignal,
): Promise<Plan> {
  if (!info.chat_template) {
    throw new TillerError(
      "invalid_request",
      `${info.id} has no chat template, so it takes no conversations: send its text as the prompt of /api/steer.`,
    );
  }
  const histories: Record<SideName, readonly Message[]> = {
    STEERED: body.steeredChatMessages.map(toMessage),
    DEFAULT: body.defaultChatMessages.map(toMessage),
  };
  const stop = chatStops(info, body.stop);
  const { edits, ...kept } = await planEdits(body, info, directions, userId);
  const converse = async (side: SideName): Promise<Conversation> => {
    const messages = histories[side];
    const { text, ids } = await read(engine, config, "/tokenize", { model: info.id, messages }, signal);
    const room = info.context - ids.length;
    if (body.n_tokens > room) {
      throw new TillerError(
        "prompt_too_long",
        `The ${side === "STEERED" ? "steered" : "default"} conversation is ${ids.length} tokens long and ${body.n_tokens} more are asked for; ${info.id} has room for ${info.context} together. ${room > 0 ? `Ask for at most ${room}, or shorten it.` : "Shorten it."}`,
      );
    }
    return { messages, raw: text ?? "" };
  };
  const [steered, plain] = await Promise.all([converse("STEERED"), converse("DEFAULT")]);
  const request = newEngineRequest(body, info);
  return {
    engineRequest: {
      ...request,
      sampling: { ...request.sampling, stop },
      rows: [
        { name: "DEFAULT", edits: [], messages: [...plain.messages] },
        { name: "STEERED", edits, messages: [...steered.messages] },
      ],
    },
    stored: { prompt: plain.raw, chat: { STEERED: steered, DEFAULT: plain }, edits, ...kept },
  };
}

/** The caller's stop texts with those that end a message of the model. @throws TillerError when they are too many together. */
export function chatStops(info: ModelInfo, stop: readonly string[]): string[] {
  const own = info.chat_stop ?? [];
  const all = [...new Set([...stop, ...own])];
  if (all.length <= PROTOCOL.stops) return all;
  throw new TillerError(
    "invalid_request",
    `stop must be a list of at most ${PROTOCOL.stops - own.length} texts here: messages of ${info.id} end with ${own.length} of its own.`,
  );
}

const toMessage = ({ role, content }: SteerChatRequest["defaultChatMessages"][number]): Message => ({ role: ROLES[role], content });

/** One side with what was generated so far. */
export function toChatSide({ messages, raw }: Conversation, text: string) {
  return {
    raw: raw + text,
    chatTemplate: [...messages.map(({ role, content }) => ({ content, role })), { content: text, role: "assistant" as const }],
  };
}

const conversationOf = (stored: StoredRequest, side: SideName): Conversation => stored.chat?.[side] ?? { messages: [], raw: stored.prompt };

export function chatFrame(stored: StoredRequest, transcript: Transcript, limit: string): SteerChatResult {
  const [STEERED, DEFAULT] = SIDES.map((side) => {
    const text = transcript.textOf(side);
    return text === null ? null : { ...toChatSide(conversationOf(stored, side), text), logprobs: null };
  });
  return { STEERED: STEERED ?? null, DEFAULT: DEFAULT ?? null, id: null, limit };
}

export function toChatResult(request: StoredRequest, result: StoredResult, done: GenerateResult, saved: Saved): SteerChatResult {
  const { STEERED, DEFAULT, steeredLogProbs, defaultLogProbs, ...rest } = toSteerResult(result, done, saved);
  return {
    ...rest,
    STEERED: { ...toChatSide(conversationOf(request, "STEERED"), STEERED ?? ""), logprobs: steeredLogProbs },
    DEFAULT: { ...toChatSide(conversationOf(request, "DEFAULT"), DEFAULT ?? ""), logprobs: defaultLogProbs },
    settings: { ...request.settings },
  };
}
