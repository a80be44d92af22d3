// What a person reads when something failed: a sentence that says what to do, and the id to report it with.
import { ServiceError } from "../../shared/client-calls.ts";
import { ERRORS, TillerError } from "../../shared/errors.ts";
import type { Answer, BotRoom } from "./asked.ts";
import { cut, neutral } from "./text.ts";

/** A refusal of the bot's own: something about what was asked. */
export const refusal = (sentence: string): TillerError => new TillerError("invalid_request", sentence);

/** @param id of the interaction or message: what is reported when the service gave no request id. */
export function failureAnswer(error: unknown, id: string, now: number = Date.now()): Answer {
  if (!(error instanceof TillerError))
    return toAnswer("Something went wrong on our side. Try again; if it fails again, report the id below.", id);
  const request = error instanceof ServiceError ? error.requestId : undefined;
  // A refusal needs no id to be understood.
  if (error.code === "invalid_request" && request === undefined) return toAnswer(error.message, undefined);
  const wait = error.retryAfterSeconds;
  const again = wait === undefined ? "" : ` You can try again <t:${Math.ceil(now / 1000 + wait)}:R>.`;
  if (error.code === "rate_limited") {
    const few = /This request counts as \d+, and \d+ are left\./.exec(error.message)?.[0];
    const sentence = few === undefined ? "You have used up your steers of this hour." : `You have too few steers left in this hour. ${few}`;
    return toAnswer(sentence, request ?? id, again);
  }
  return toAnswer(error.message, request ?? id, again);
}

const toAnswer = (sentence: string, id: string | undefined, more = ""): Answer => ({
  content: `⚠️ ${shown(sentence)}${more}${id === undefined ? "" : `\n-# request ${neutral(id)}`}`,
});

/** Channels may be named: that pings nobody. */
const shown = (sentence: string): string => cut(neutral(sentence), 1600).replace(/\\<\\#(\d{5,20})\\>/g, "<#$1>");

/** Codes of Discord's API that say: somebody else has answered, it is too late, or the place to answer is gone. */
export const GONE = {
  alreadyAcknowledged: 40060,
  unknownInteraction: 10062,
  unknownMessage: 10008,
  unknownWebhook: 10015,
  invalidToken: 50027,
  unknownChannel: 10003,
} as const;

interface DiscordError extends Error {
  readonly code: number | string;
}

/** By its name: discord.js has the class in a build of its own. */
const isDiscordError = (error: unknown): error is DiscordError => error instanceof Error && error.name.startsWith("DiscordAPIError");

export const isDiscord = (error: unknown, ...codes: readonly number[]): boolean =>
  isDiscordError(error) && codes.includes(Number(error.code));

/** One line about a fault of ours or Discord's; what people write is not in it. */
export function logFailure(room: Pick<BotRoom, "log">, what: string, id: string, error: unknown): void {
  if (error instanceof TillerError && error.status < 500) return;
  const code = error instanceof TillerError ? error.code : isDiscordError(error) ? `discord ${error.code}` : (error as Error)?.name;
  const request = error instanceof ServiceError ? error.requestId : undefined;
  room.log({
    level: "error",
    what,
    id,
    code,
    ...(request === undefined ? {} : { requestId: request }),
    retry: error instanceof TillerError && ERRORS[error.code].retry,
  });
}
