// The calls of the engine protocol (design 5) that read texts and write none: tokens, log probabilities, activations.
import { z } from "zod";
import { Compared, Edit, LIMITS, Messages, oneOf, Receipt, Target, TopLogprob } from "./protocol.ts";

/** Exactly one of `text` and `messages`; the answer has the tokens that `/generate` would see. */
export const TokenizeRequest = z
  .strictObject({
    model: z.string().min(1).max(128),
    text: z.string().max(LIMITS.promptChars).optional(),
    messages: Messages.optional(),
    /**
     * Whether BOS is put before the tokens, where the model has one and they do not begin with it. Absent: for `text` yes, for
     * `messages` no, because a template writes its own. Special tokens written out in the text are read as such either way.
     */
    add_special_tokens: z.boolean().optional(),
  })
  .refine(({ text, messages }) => oneOf(text, messages), "give exactly one of text and messages");
export type TokenizeRequest = z.infer<typeof TokenizeRequest>;

/** One token of a text. */
export const TokenInfo = z.object({
  id: z.int(),
  /** The token's own string; bytes that are no whole character show as U+FFFD. */
  token: z.string(),
  /**
   * Half-open range of the text, in UTF-16 code units (what JavaScript's `slice` takes; a character outside the Basic Multilingual
   * Plane is two). Tokens that share a character's bytes each have the whole character; a token that is no part of the text, as an
   * added BOS, has start = end.
   */
  start: z.int(),
  end: z.int(),
  /** Flagged as special in tokenizer.json, or the model's BOS or EOS: what `steer_special_tokens: false` leaves alone. */
  special: z.boolean(),
});
export type TokenInfo = z.infer<typeof TokenInfo>;

export const TokenizeResult = z.object({
  ids: z.array(z.int()),
  /** One per id. */
  tokens: z.array(TokenInfo),
  /** What the template made of `messages`: the text that start and end refer to. */
  text: z.string().optional(),
});
export type TokenizeResult = z.infer<typeof TokenizeResult>;

/**
 * A continuation and what it continues. `ids` are tokens as a generation gave them; a `text` is tokenized by itself, as generated tokens
 * are. `edits` instead of the request's.
 */
const ScoreItem = z
  .strictObject({
    prompt: z.string().max(LIMITS.promptChars).optional(),
    messages: Messages.optional(),
    text: z.string().min(1).max(LIMITS.promptChars).optional(),
    ids: z.array(z.int().min(0)).min(1).max(LIMITS.generatedTokens).optional(),
    edits: z.array(Edit).max(LIMITS.edits).optional(),
  })
  .refine(({ text, ids }) => oneOf(text, ids), "an item has exactly one of text and ids")
  .refine(({ prompt, messages }) => prompt === undefined || messages === undefined, "an item has at most one of prompt and messages");

/**
 * Log probabilities of given texts, under the model or under the model with edits. Positions of edits count from the first token of the
 * prompt, and the continuation counts as generated.
 */
export const ScoreRequest = z
  .strictObject({
    model: z.string().min(1).max(128),
    items: z.array(ScoreItem).min(1).max(LIMITS.texts),
    edits: z.array(Edit).max(LIMITS.edits).default([]),
    steer_special_tokens: z.boolean().default(true),
    /** How many alternatives `top` lists per token. */
    logprobs: z.int().min(0).max(LIMITS.topLogprobs).default(0),
    /** Reads every text without its edits too: `plain_logprob` and `kl` of every token. */
    compare: z.boolean().default(false),
    /** What features and vectors do on the tokens of the texts themselves (not of their prompts), read without edits: needs `compare`. */
    targets: z.array(Target).max(LIMITS.targets).default([]),
    deadline_ms: z.int().min(1).max(LIMITS.deadlineMs).optional(),
  })
  .refine(({ compare, targets }) => compare || targets.length === 0, "targets are read without edits: ask for compare too");
export type ScoreRequest = z.infer<typeof ScoreRequest>;

export const ScoredText = z.object({
  /** Tokens of `text`; logprob is ln p given everything before. */
  tokens: z.array(
    z.object({
      id: z.int(),
      token: z.string(),
      logprob: z.number(),
      top: z.array(TopLogprob),
      /** With `compare`: ln p without the edits, and KL(with edits || without) in nats between the two predictions of this token. */
      plain_logprob: z.number().optional(),
      kl: z.number().optional(),
    }),
  ),
  /** Sum of the tokens' logprobs, and exp(-mean). */
  logprob: z.number(),
  perplexity: z.number(),
  receipts: z.array(Receipt),
  /** With `compare`: the same of the tokens' plain_logprobs, and the mean of their kl. */
  plain: Compared.shape.plain.optional(),
  /** Per target, per token of the text. */
  values: z.array(z.array(z.number())).optional(),
});
export const ScoreResult = z.object({ items: z.array(ScoredText) });
export type ScoreResult = z.infer<typeof ScoreResult>;

const Texts = z.array(z.string().max(LIMITS.promptChars)).min(1).max(LIMITS.texts);

/** A token of a text that was read. */
const ReadToken = z.object({ id: z.int(), token: z.string(), special: z.boolean() });

/**
 * What an SAE's latents do on texts. Tokens are those of a prompt, BOS included where the model has one. Activations are multiplied
 * by the length of the latent's decoder row (except for TopK SAEs that do not look at it), as Neuronpedia shows them.
 */
export const LatentsRequest = z.strictObject({
  model: z.string().min(1).max(128),
  source: z.string().min(1).max(128),
  texts: Texts,
  /** How many latents are listed for every token, the most active first; those that are not active are never listed. */
  top_k: z.int().min(0).max(LIMITS.topLatents).default(10),
  /** How many latents are listed for the whole text, with their activations on all of its tokens. */
  rank: z.int().min(0).max(LIMITS.rankedLatents).default(0),
  /** Positions whose activations are summed to rank by; absent: latents are ranked by their greatest activation. */
  rank_by: z.array(z.int().min(0)).min(1).max(LIMITS.texts).optional(),
  /** Leaves BOS out, on which most SAEs were not trained: nothing is listed for it and its activations count as 0. */
  ignore_bos: z.boolean().default(true),
  /** Leaves out latents that are active on a larger share of tokens. Needs a source whose `densities` are known. */
  max_density: z.number().gt(0).max(1).optional(),
  deadline_ms: z.int().min(1).max(LIMITS.deadlineMs).optional(),
});
export type LatentsRequest = z.infer<typeof LatentsRequest>;

const ActiveLatent = z.object({ index: z.int(), activation: z.number() });

export const LatentsResult = z.object({
  items: z.array(
    z.object({
      tokens: z.array(ReadToken),
      /** Per token. */
      top: z.array(z.array(ActiveLatent)),
      /** `max` at the first token that has it. */
      ranking: z.array(z.object({ index: z.int(), max: z.number(), max_position: z.int(), values: z.array(z.number()) })),
    }),
  ),
});
export type LatentsResult = z.infer<typeof LatentsResult>;

/**
 * What features and vectors do on texts. A latent of an SAE gives its activation, a named direction or a vector v the projection
 * h . v, not divided by the length of v.
 */
export const ActivationsRequest = z.strictObject({
  model: z.string().min(1).max(128),
  texts: Texts,
  targets: z.array(Target).min(1).max(LIMITS.targets),
  deadline_ms: z.int().min(1).max(LIMITS.deadlineMs).optional(),
});
export type ActivationsRequest = z.infer<typeof ActivationsRequest>;

export const ActivationsResult = z.object({
  items: z.array(
    z.object({
      tokens: z.array(ReadToken),
      /** Per target, per token. */
      values: z.array(z.array(z.number())),
    }),
  ),
});
export type ActivationsResult = z.infer<typeof ActivationsResult>;
