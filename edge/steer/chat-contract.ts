// Body and answer of POST /api/steer-chat, as Neuronpedia documents them, with what we add.
import { z } from "@hono/zod-openapi";
import { LIMITS } from "../limits.ts";
import { SteerRequest, SteerResult, TokenLogprob } from "./contract.ts";
import { flag, oneOf } from "./fields.ts";

const ROLES = ["user", "assistant", "system", "model", "developer"] as const;

const ChatMessage = z
  .object({
    role: oneOf(ROLES, { description: "model is assistant, and developer is system." }),
    content: z.string({ error: "must be a text" }).min(1, { error: "must not be empty" }).openapi({ example: "Can we go to the park?" }),
  })
  .openapi("ChatMessage");

const history = (description: string) =>
  z
    .array(ChatMessage, { error: "is a required field: it must be a list of messages" })
    .min(1, { error: "must have at least one message" })
    .max(LIMITS.chatMessages, { error: `must have at most ${LIMITS.chatMessages} messages` })
    .refine((messages) => messages.reduce((sum, { content }) => sum + content.length, 0) <= LIMITS.chatChars, {
      error: `must have at most ${LIMITS.chatChars} characters in all messages together`,
    })
    .openapi({ description });

export const SteerChatRequest = SteerRequest.omit({ prompt: true, kl: true, steer_special_tokens: true })
  .extend({
    defaultChatMessages: history("The conversation so far of the plain side, oldest message first."),
    steeredChatMessages: history("That of the steered side: the two differ from the second turn on."),
    steer_special_tokens: flag({ description: "false leaves the special tokens of the rendered conversation unedited." }),
  })
  .openapi("SteerChatRequest");
export type SteerChatRequest = z.output<typeof SteerChatRequest>;

const Side = z.object({
  raw: z.string().openapi({ description: "What the model read, as its template writes the conversation, and its answer." }),
  chatTemplate: z
    .array(z.object({ content: z.string(), role: z.enum(ROLES) }))
    .openapi({ description: "The messages of the request, and the answer." }),
  logprobs: z.array(TokenLogprob).nullable(),
});

export const SteerChatResult = SteerResult.omit({ STEERED: true, DEFAULT: true, steeredLogProbs: true, defaultLogProbs: true, kl: true })
  .extend({
    STEERED: Side.nullable(),
    DEFAULT: Side.nullable(),
    settings: z
      .object({
        temperature: z.number(),
        n_tokens: z.int(),
        freq_penalty: z.number(),
        seed: z.number(),
        strength_multiplier: z.number(),
        steer_special_tokens: z.boolean(),
        steer_method: z.string(),
      })
      .optional(),
  })
  .openapi("SteerChatResult");
export type SteerChatResult = z.infer<typeof SteerChatResult>;
