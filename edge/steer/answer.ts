// Builds Neuronpedia's SteerResult out of what the engine says, token by token or at once.
import { TillerError } from "../../shared/errors.ts";
import type { GenerateRequest, GenerateResult, RowResult, TokenEvent } from "../../shared/protocol.ts";
import type { SteerResult } from "./contract.ts";
import type { Side, StoredResult, TokenLogprob } from "./stored.ts";

export const SIDES = ["STEERED", "DEFAULT"] as const;
export type SideName = (typeof SIDES)[number];

export const toLogprob = (token: TokenEvent): TokenLogprob => ({
  token: token.token,
  logprob: token.logprob,
  topLogprobs: token.top.map((top) => ({ token: top.token, logprob: top.logprob })),
});

/** The side a token belongs to. */
export function sideOf(token: TokenEvent): SideName {
  const side = SIDES.find((name) => name === token.row);
  if (side === undefined) throw new TillerError("engine_failed", undefined, { cause: `a token of the unknown row ${token.row}` });
  return side;
}

/** What was generated so far. */
export class Transcript {
  private readonly texts: Record<SideName, string | null> = { STEERED: null, DEFAULT: null };
  private readonly tokens: Record<SideName, TokenEvent[]> = { STEERED: [], DEFAULT: [] };

  add(token: TokenEvent): void {
    const side = sideOf(token);
    if (token.index !== this.tokens[side].length) {
      throw new TillerError("engine_failed", undefined, {
        cause: `token ${token.index} of ${side} came after ${this.tokens[side].length} others`,
      });
    }
    this.tokens[side].push(token);
    this.texts[side] = (this.texts[side] ?? "") + token.text;
  }

  /**
   * A cumulative frame. Log probabilities are in the last frame only: repeated in each, they would make a stream of 256 tokens
   * tens of megabytes long. Neuronpedia's frames have null there too.
   */
  frame(limit: string): SteerResult {
    return { STEERED: this.texts.STEERED, DEFAULT: this.texts.DEFAULT, steeredLogProbs: null, defaultLogProbs: null, id: null, limit };
  }

  /** What a side has so far; null before its first token. */
  textOf(side: SideName): string | null {
    return this.texts[side];
  }

  tokensOf(side: SideName): readonly TokenEvent[] {
    return this.tokens[side];
  }
}

/**
 * The finished steer, checked: both rows are there, and every edit of the steered row has its receipt. A text without that proof
 * is never called steered.
 * @param streamed the tokens of a stream; undefined reads them from the result.
 */
export function finishSteer(request: GenerateRequest, result: GenerateResult, streamed?: Transcript): StoredResult {
  const side = (name: SideName): { row: RowResult; side: Side; tokens: readonly TokenEvent[] } => {
    const row = result.rows.find((candidate) => candidate.name === name);
    const tokens = streamed?.tokensOf(name) ?? row?.tokens;
    if (row === undefined || tokens === undefined) throw new TillerError("engine_failed", undefined, { cause: `the answer lacks ${name}` });
    return { row, tokens, side: { text: row.text, logprobs: tokens.map(toLogprob), finishReason: row.finish_reason } };
  };
  const steered = side("STEERED");
  const edits = request.rows.find((row) => row.name === "STEERED")?.edits ?? [];
  const proven = new Set(steered.row.receipts.map((receipt) => receipt.edit));
  if (proven.size !== edits.length || !edits.every((_, i) => proven.has(i))) {
    throw new TillerError("engine_failed", undefined, {
      cause: `${edits.length} edits, but receipts for ${[...proven].join(", ") || "none"}`,
    });
  }
  return {
    STEERED: steered.side,
    DEFAULT: side("DEFAULT").side,
    receipts: steered.row.receipts,
    ...(request.kl_baseline === undefined ? {} : { kl: steered.tokens.map((token) => token.kl ?? null) }),
  };
}

/** The answer of a finished and saved steer. */
export function toSteerResult(
  stored: StoredResult,
  engine: Pick<GenerateResult, "usage" | "timing">,
  saved: { readonly id: string; readonly shareUrl: string; readonly limit: string; readonly ignored: readonly string[] },
): SteerResult {
  return {
    STEERED: stored.STEERED.text,
    DEFAULT: stored.DEFAULT.text,
    steeredLogProbs: stored.STEERED.logprobs as SteerResult["steeredLogProbs"],
    defaultLogProbs: stored.DEFAULT.logprobs as SteerResult["defaultLogProbs"],
    id: saved.id,
    shareUrl: saved.shareUrl,
    limit: saved.limit,
    receipts: [...stored.receipts],
    finishReasons: { STEERED: stored.STEERED.finishReason, DEFAULT: stored.DEFAULT.finishReason },
    usage: { promptTokens: engine.usage.prompt_tokens, completionTokens: engine.usage.completion_tokens },
    timing: { queueMs: engine.timing.queue_ms, prefillMs: engine.timing.prefill_ms, decodeMs: engine.timing.decode_ms },
    ...(stored.kl === undefined ? {} : { kl: [...stored.kl] }),
    ...(saved.ignored.length === 0 ? {} : { ignored: [...saved.ignored] }),
  };
}
