// What POST /tokenize answers: the tokens that a prompt or a conversation becomes, and where in the text they lie.
import type { TokenizeRequest, TokenizeResult } from "../../shared/readings.ts";
import { renderMessages } from "./chat.ts";
import type { KnownModel } from "./model.ts";

/**
 * The tokens of a request's text, or of what the model's template makes of its messages.
 * @throws TillerError `invalid_request` when the model has no template or it refuses the messages.
 */
export function tokenize({ tokenizer, chat }: KnownModel, request: TokenizeRequest): TokenizeResult {
  const rendered = request.messages === undefined ? undefined : renderMessages(chat, request.messages);
  const text = rendered ?? request.text ?? "";
  const body = tokenizer.encode(text);
  const spans = tokenizer.spans(text, body);
  const ids = (request.add_special_tokens ?? rendered === undefined) ? tokenizer.withBos(body) : body;
  // An added BOS is no part of the text.
  if (ids.length > body.length) spans.unshift({ start: 0, end: 0 });
  return {
    ids,
    tokens: spans.map((span, i) => {
      const id = ids[i] as number;
      return { id, token: tokenizer.tokenString(id), ...span, special: tokenizer.specialIds.has(id) };
    }),
    ...(rendered === undefined ? {} : { text: rendered }),
  };
}
