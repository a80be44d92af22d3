// A text read for its residual stream: its tokens, and the residuals at some points.
import { boundaryOf, type Point } from "../../shared/address.ts";
import { TillerError } from "../../shared/errors.ts";
import type { LatentsResult } from "../../shared/readings.ts";
import type { KnownModel, Model } from "./model.ts";
import { wholeReading } from "./reading.ts";

export interface ReadText {
  readonly tokens: LatentsResult["items"][number]["tokens"];
  /** Whether the first token is BOS. */
  readonly bos: boolean;
  /** Per point [T, width]. */
  readonly residuals: readonly Float32Array[];
}

/** Tokens of every text. @throws TillerError naming the text that is empty or too long. */
export function planTexts({ tokenizer, info }: KnownModel, texts: readonly string[]): number[][] {
  return texts.map((text, i) => {
    const ids = tokenizer.encodePrompt(text);
    if (ids.length === 0) throw new TillerError("invalid_request", `texts.${i} has no tokens: give the model something to read.`);
    if (ids.length > info.context) {
      throw new TillerError(
        "prompt_too_long",
        `texts.${i} is ${ids.length} tokens long; this model takes at most ${info.context}. Shorten it.`,
      );
    }
    return ids;
  });
}

/** What is left of a deadline that began at `began` (performance.now()); at least a moment, so that it can be missed. */
export const remaining = (deadlineMs: number | undefined, began: number): number | undefined =>
  deadlineMs === undefined ? undefined : Math.max(1, deadlineMs - (performance.now() - began));

export async function readText(
  { tokenizer, shape, scheduler }: Model,
  ids: readonly number[],
  points: readonly Point[],
  signal: AbortSignal,
  deadlineMs: number | undefined,
): Promise<ReadText> {
  const boundaries = points.map((point) => boundaryOf(point, shape.layers));
  const { reading, residuals } = wholeReading(ids, boundaries, shape);
  await scheduler.read(reading, signal, deadlineMs);
  const tokens = ids.map((id) => ({ id, token: tokenizer.tokenString(id), special: tokenizer.specialIds.has(id) }));
  return { tokens, bos: tokenizer.bosId !== undefined && ids[0] === tokenizer.bosId, residuals };
}
