// What the HTTP API answers, as far as a front end needs it. The contracts are in edge/; only what is used is written here.
import type { DirectionMethod } from "./directions.ts";
import type { Method } from "./protocol.ts";

/** Somebody of Discord, for whom a bot acts. */
export interface Person {
  /** A snowflake. */
  readonly id: string;
  readonly name: string;
}

export interface Model {
  readonly id: string;
  readonly layers: number;
  readonly width: number;
  /** Tokens of prompt and generation together. */
  readonly context: number;
  readonly chatTemplate: boolean;
  readonly sources: readonly {
    readonly id: string;
    readonly hookName: string;
    readonly width: number;
    /** "directions" is no autoencoder. */
    readonly architecture: string;
    readonly labelledFeatures: readonly { readonly index: number; readonly label: string; readonly strength?: number }[];
  }[];
}

/** A feature or kept vector to steer with. */
export interface Feature {
  readonly modelId: string;
  readonly layer: string;
  readonly index: number;
  readonly strength: number;
  readonly method?: string;
}

export interface Preset {
  readonly name: string;
  readonly features: readonly (Feature & { readonly explanation: string })[];
  readonly isUserVector?: boolean;
  readonly listId?: string;
}

export interface Label {
  readonly modelId: string;
  readonly layer: string;
  readonly index: string;
  readonly description: string;
}

export interface Vector {
  readonly modelId: string;
  readonly layer: string;
  readonly index: string;
  readonly vectorLabel: string;
  readonly description: string;
  readonly vectorDefaultSteerStrength: number;
  readonly hookName: string;
  readonly visibility: string;
  readonly version: number;
  /** Empty in lists. */
  readonly vector: readonly number[];
}

export interface SteerBody {
  readonly modelId: string;
  readonly features: readonly Feature[];
  readonly temperature: number;
  readonly n_tokens: number;
  readonly freq_penalty: number;
  readonly seed: number;
  readonly strength_multiplier: number;
  readonly steer_method?: Method;
  readonly n_logprobs?: number;
  readonly steer_special_tokens?: boolean;
  /** Of a steer. */
  readonly prompt?: string;
  /** Of a conversation. */
  readonly defaultChatMessages?: readonly ChatMessage[];
  readonly steeredChatMessages?: readonly ChatMessage[];
}

export interface ChatMessage {
  readonly role: "user" | "assistant" | "system";
  readonly content: string;
}

export interface Sides {
  readonly STEERED: string;
  readonly DEFAULT: string;
}

/** A direction of a sweep: a feature or kept vector by its address. */
export interface SweepDirection {
  readonly modelId: string;
  readonly layer: string;
  readonly index: number;
  readonly label: string;
}

export interface SweepBody {
  readonly modelId: string;
  readonly prompts: readonly string[];
  readonly directions: readonly SweepDirection[];
  /** The direction at each of these layers instead of its own. */
  readonly layers?: readonly number[];
  readonly strengths: readonly number[];
  readonly methods: readonly Method[];
  readonly seeds: readonly number[];
  readonly temperature: number;
  readonly freq_penalty: number;
  readonly n_tokens: number;
  readonly scorer?: { readonly kind: "words"; readonly words: readonly string[] };
}

/** Means over the texts of a cell; null where nothing can be said. */
export interface CellMetrics {
  readonly success: number | null;
  readonly perplexity: number | null;
  readonly perplexityRatio: number | null;
  readonly kl: number | null;
  readonly dist2: number | null;
  readonly activation: number | null;
}

interface SweepRow {
  readonly text: string;
}

export interface SweepCell {
  /** Place in `columns`. */
  readonly column: number;
  readonly method: Method;
  readonly strength: number;
  readonly metrics: CellMetrics | null;
  readonly rows: readonly SweepRow[];
  readonly error: string | null;
}

export interface SweepResult {
  readonly id: string;
  readonly url: string;
  readonly columns: readonly { readonly label: string; readonly layer: number; readonly hookName: string }[];
  readonly maxPerplexityRatio: number;
  readonly baseline: { readonly metrics: CellMetrics; readonly rows: readonly SweepRow[] };
  readonly cells: readonly SweepCell[];
  /** `cell` is a place in `cells`. */
  readonly suggested: { readonly cell: number; readonly sentence: string } | null;
}

/** One layer of a derivation. */
export interface DerivedLayer {
  readonly layer: number;
  readonly hookName: string;
  readonly norm: number;
  readonly meanNorm: number;
  readonly aucHeldOut: number | null;
  readonly aucTrain: number;
  readonly effect: number | null;
  readonly suggestedStrength: number;
  readonly latents?: readonly { readonly index: number; readonly label: string | null; readonly value: number }[];
}

interface Counted {
  readonly texts: number;
  readonly heldOut: number;
  readonly tokens: number;
}

/** What texts became. */
export interface Derived {
  /** Those that were kept, the best first. */
  readonly vectors: readonly {
    readonly url: string;
    readonly modelId: string;
    readonly source: string;
    readonly index: string;
    readonly label: string;
    readonly defaultSteerStrength: number;
    readonly visibility: string;
  }[];
  readonly report: {
    readonly method: DirectionMethod;
    readonly bestLayer: number;
    readonly layers: readonly DerivedLayer[];
    readonly counts: { readonly positive: Counted; readonly negative: Counted };
  };
}

interface Receipt {
  readonly positions: number;
  readonly positions_changed: number;
}

interface Steered<Text> {
  readonly id: string;
  readonly shareUrl: string;
  readonly STEERED: Text;
  readonly DEFAULT: Text;
  readonly receipts: readonly Receipt[];
  readonly usage: { readonly completionTokens: number };
}

/** By kind, how a job ends. */
interface Results {
  readonly steer: Steered<string>;
  /** All of the conversation, in messages. */
  readonly "steer-chat": Steered<{ readonly chatTemplate: readonly ChatMessage[] }>;
  readonly derive: Derived;
  readonly sweep: SweepResult;
}
export type JobKind = keyof Results;

export interface Job {
  readonly id: string;
  readonly kind: JobKind;
  readonly modelId: string;
  readonly state: "queued" | "running" | "succeeded" | "failed" | "canceled";
  /** Tokens of a steer; texts of a derivation or a sweep. */
  readonly progress: { readonly tokens?: number; readonly texts?: number; readonly of: number };
  readonly error: { readonly code: string; readonly message: string } | null;
}

/** A job of one of these kinds. */
export type WholeJob<Kind extends JobKind = JobKind> = {
  [Each in Kind]: Job & {
    readonly kind: Each;
    /** Of a steer: what was generated; null once there is a result. */
    readonly partial: Sides | null;
    readonly result: Results[Each] | null;
  };
}[Kind];

export type JobEvent =
  | { readonly event: "state"; readonly data: Pick<Job, "state" | "progress"> }
  | { readonly event: "tokens"; readonly data: { readonly tokens: readonly { readonly side: keyof Sides; readonly text: string }[] } }
  | { readonly event: "cells"; readonly data: { readonly cells: readonly { readonly rows: readonly SweepRow[] }[] } }
  | { readonly event: "done"; readonly data: WholeJob };

/** A saved steer, as it was asked for. */
export interface SavedSteer {
  readonly id: string;
  readonly shareUrl: string;
  readonly modelId: string;
  readonly inputText: string;
  readonly STEERED: { readonly raw: string; readonly chatTemplate: readonly ChatMessage[] | null };
  readonly settings: Required<Pick<SteerBody, "temperature" | "n_tokens" | "freq_penalty" | "seed" | "strength_multiplier">> & {
    readonly steer_method: Method;
  };
  readonly features: readonly {
    readonly modelId: string;
    readonly layer: string;
    readonly index: string;
    readonly strength: number;
    readonly neuron: { readonly explanations: readonly { readonly description: string }[] };
  }[];
}

export interface Window {
  readonly limit: number;
  readonly used: number;
  readonly remaining: number;
  readonly resetSeconds: number;
}

export interface Usage {
  readonly steers: Window;
  readonly readings: Window;
  readonly lookups: Window;
  readonly kept: { readonly vectors: number; readonly steers: number } | null;
}

export interface VectorAt {
  readonly modelId: string;
  readonly source: string;
  readonly index: string;
}

export interface Uploaded {
  readonly vectors: readonly {
    readonly url: string;
    readonly vector: { readonly source: string; readonly index: string; readonly label: string };
  }[];
}
