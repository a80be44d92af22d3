// Log probabilities of given texts: every token of a text in one pass, under the model with or without edits.
import { TillerError } from "../../shared/errors.ts";
import type { ScoreRequest, ScoreResult } from "../../shared/readings.ts";
import type { RowEdits } from "./edits.ts";
import { type KnownModel, type Model, planEdits } from "./model.ts";
import { Reading } from "./reading.ts";

/** A text to score: its tokens after those of its prompt. */
export interface PlannedText {
  readonly prompt: readonly number[];
  readonly text: readonly number[];
  readonly edits: RowEdits;
}

/** @throws TillerError naming the item and what is allowed. */
export function planScore(model: KnownModel, request: ScoreRequest, modelOf: (id: string) => KnownModel): readonly PlannedText[] {
  const { context } = model.info;
  const texts: PlannedText[] = [];
  for (const [i, item] of request.items.entries()) {
    const prompt = model.tokenizer.encodePrompt(item.prompt);
    const text = model.tokenizer.encode(item.text);
    if (prompt.length === 0) {
      throw new TillerError("invalid_request", `items.${i}.prompt is empty, and this model has no token that begins a text: give one.`);
    }
    if (prompt.length + text.length > context) {
      throw new TillerError(
        "prompt_too_long",
        `items.${i} is ${prompt.length + text.length} tokens long with its prompt; this model takes at most ${context}. Shorten it.`,
      );
    }
    texts.push({ prompt, text, edits: planEdits(model, request.edits, prompt, request.steer_special_tokens, modelOf) });
  }
  return texts;
}

/** @throws TillerError `steering_not_applied` when edits that should have changed something changed nothing. */
export async function scoreText(
  model: Model,
  { prompt, text, edits }: PlannedText,
  request: Pick<ScoreRequest, "logprobs" | "deadline_ms">,
  signal: AbortSignal,
): Promise<ScoreResult["items"][number]> {
  const tokens: ScoreResult["items"][number]["tokens"] = [];
  // The last token's own successor is not asked for.
  const ids = [...prompt, ...text].slice(0, -1);
  const reading = new Reading({
    ids,
    edits,
    targets: text,
    scoreFrom: prompt.length - 1,
    top: request.logprobs,
    each(position, { scored }) {
      if (scored === undefined) return;
      const id = text[position + 1 - prompt.length] as number;
      const { logprob, top } = scored;
      const { tokenizer } = model;
      tokens.push({
        id,
        token: tokenizer.tokenString(id),
        logprob,
        top: top.map((entry) => ({ ...entry, token: tokenizer.tokenString(entry.id) })),
      });
    },
  });
  await model.scheduler.read(reading, signal, request.deadline_ms);
  edits.requireEffect("text");
  const logprob = tokens.reduce((sum, token) => sum + token.logprob, 0);
  return { tokens, logprob, perplexity: Math.exp(-logprob / tokens.length), receipts: edits.receipts() };
}
