// What a saved steer keeps, as JSON in the `steers` table.
import type { Edit, Message, RowResult } from "../../shared/protocol.ts";

export interface TokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly topLogprobs: readonly { readonly token: string; readonly logprob: number }[];
}

export interface Settings {
  readonly temperature: number;
  readonly n_tokens: number;
  readonly freq_penalty: number;
  readonly seed: number;
  readonly strength_multiplier: number;
  readonly steer_special_tokens: boolean;
  readonly steer_method: Edit["method"];
}

export interface StoredFeature {
  readonly modelId: string;
  readonly layer: string;
  readonly index: number;
  /** As the caller gave it, before strength_multiplier. */
  readonly strength: number;
  readonly label: string | undefined;
}

/** A side's conversation before the answer: as messages, and as the model's template wrote them. */
export interface Conversation {
  readonly messages: readonly Message[];
  readonly raw: string;
}

export interface StoredRequest {
  /** Of a conversation: what the template made of the DEFAULT side's. */
  readonly prompt: string;
  /** Present when conversations were continued. */
  readonly chat?: { readonly STEERED: Conversation; readonly DEFAULT: Conversation } | undefined;
  readonly settings: Settings;
  readonly features: readonly StoredFeature[];
  /** The edits as the engine got them: vectors as base64 float32, strength with the multiplier in. */
  readonly edits: readonly Edit[];
  /** Sampling settings that Neuronpedia does not have. */
  readonly sampling: {
    readonly top_p: number;
    readonly top_k: number;
    readonly presence_penalty: number;
    readonly stop: readonly string[];
  };
}

/** One side of a steer. */
export interface Side {
  readonly text: string;
  readonly logprobs: readonly TokenLogprob[];
  readonly finishReason: RowResult["finish_reason"];
}

export interface StoredResult {
  readonly STEERED: Side;
  readonly DEFAULT: Side;
  readonly receipts: RowResult["receipts"];
  readonly kl?: readonly (number | null)[] | undefined;
}
