// Log probabilities of given texts: every token of a text in one pass, under the model with or without edits, or with both to compare;
// and what features and vectors do on the texts.
import { boundaryOf, parsePoint } from "../../shared/address.ts";
import { TillerError } from "../../shared/errors.ts";
import type { ScoreRequest, ScoreResult } from "../../shared/readings.ts";
import { type Probe, planProbe, probeStream } from "./activations.ts";
import { renderMessages } from "./chat.ts";
import type { RowEdits } from "./edits.ts";
import type { Below } from "./job.ts";
import { type KnownModel, type Model, planEdits } from "./model.ts";
import { remaining } from "./read-text.ts";
import { partOf, plainEdits, Reading } from "./reading.ts";
import { notFinite } from "./sampler.ts";

type ScoredText = ScoreResult["items"][number];

/** Texts of one request that are read at once: they keep the model busy, and whoever comes meanwhile waits for no more of them. */
const AT_ONCE = 2;

/** A text to score: its tokens after those of its prompt. */
interface PlannedText {
  readonly prompt: readonly number[];
  readonly text: readonly number[];
  readonly edits: RowEdits;
  /** Log probabilities with the edits, [at least as many as tokens, V], where they are known: then it is read without edits only. */
  readonly steered?: Float32Array | undefined;
  /** Where it is read from without edits, when that is known; below every boundary of a probe. */
  readonly below?: Below | undefined;
}

export interface ScorePlan {
  readonly request: Pick<ScoreRequest, "compare" | "logprobs" | "deadline_ms">;
  readonly texts: readonly PlannedText[];
  readonly probes: readonly Probe[];
}

/** @throws TillerError naming the item or the target, and what is allowed. */
export function planScore(model: KnownModel, request: ScoreRequest, modelOf: (id: string) => KnownModel): ScorePlan {
  const texts = request.items.map((item, i) => {
    const { prompt, text } = idsOf(model, item, i);
    return { prompt, text, edits: planEdits(model, item.edits ?? request.edits, prompt, request.steer_special_tokens, modelOf) };
  });
  return { request, texts, probes: request.targets.map((target, i) => planProbe(model, target, i, modelOf)) };
}

function idsOf(
  { info, tokenizer, chat }: KnownModel,
  item: ScoreRequest["items"][number],
  i: number,
): { prompt: readonly number[]; text: readonly number[] } {
  const { messages } = item;
  const prompt = messages === undefined ? tokenizer.encodePrompt(item.prompt ?? "") : tokenizer.encode(renderMessages(chat, messages));
  const text = item.ids ?? tokenizer.encode(item.text ?? "");
  if (prompt.length === 0) {
    throw new TillerError("invalid_request", `items.${i}.prompt is empty, and this model has no token that begins a text: give one.`);
  }
  if (text.length === 0) throw new TillerError("invalid_request", `items.${i}.text has no tokens: give the model something to read.`);
  const wrong = text.find((id) => id >= info.vocab);
  if (wrong !== undefined) {
    throw new TillerError(
      "invalid_request",
      `items.${i}.ids has ${wrong}, which is no token of this model: they are 0 to ${info.vocab - 1}.`,
    );
  }
  const length = prompt.length + text.length;
  if (length > info.context) {
    throw new TillerError(
      "prompt_too_long",
      `items.${i} is ${length} tokens long with its prompt; this model takes at most ${info.context}. Shorten it.`,
    );
  }
  return { prompt, text };
}

/**
 * Scores every text; the first that fails ends the others.
 * @throws TillerError `steering_not_applied` when edits that should have changed something changed nothing, and what reading throws.
 */
export async function scoreTexts(model: Model, plan: ScorePlan, signal: AbortSignal): Promise<ScoreResult> {
  const began = performance.now();
  const failed = new AbortController();
  const items: ScoredText[] = [];
  const waiting = plan.texts.entries();
  const work = async (): Promise<void> => {
    for (const [i, text] of waiting) {
      const deadline = remaining(plan.request.deadline_ms, began);
      items[i] = await scoreText(model, text, plan, AbortSignal.any([signal, failed.signal]), deadline);
    }
  };
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  } catch (error) {
    failed.abort();
    throw error;
  }
  return { items };
}

async function scoreText(
  model: Model,
  { prompt, text, edits, steered, below }: PlannedText,
  { request, probes }: ScorePlan,
  signal: AbortSignal,
  deadlineMs: number | undefined,
): Promise<ScoredText> {
  const { tokenizer, shape } = model;
  const { compare } = request;
  const tokens: ScoredText["tokens"] = [];
  const points = [...new Set(probes.map(({ point }) => point))];
  const boundaries = points.map((point) => boundaryOf(parsePoint(point), shape.layers));
  const streams = points.map(() => new Float32Array(text.length * shape.width));
  const ids = [...prompt, ...text];
  const reading = new Reading({
    // The last token's own successor is not asked for; its residual may be.
    ids: points.length === 0 ? ids.slice(0, -1) : ids,
    edits: steered === undefined ? edits : plainEdits(prompt.length, shape),
    ...(steered === undefined ? {} : { steered, below }),
    targets: text,
    scoreFrom: prompt.length - 1,
    part: partOf(shape.vocab),
    top: request.logprobs,
    ...(compare && steered === undefined && edits.edits.length > 0 ? { plain: plainEdits(prompt.length, shape) } : {}),
    boundaries: [...new Set(boundaries)],
    scored(target, { logprob, top, plain }) {
      const { logprob: without, kl } = plain ?? { logprob, kl: 0 };
      if (!Number.isFinite(logprob + without + kl)) throw notFinite();
      const id = text[target] as number;
      tokens.push({
        ...{ id, token: tokenizer.tokenString(id), logprob },
        top: top.map((entry) => ({ ...entry, token: tokenizer.tokenString(entry.id) })),
        ...(compare ? { plain_logprob: without, kl } : {}),
      });
    },
    each(position, { residual }) {
      const at = (position - prompt.length) * shape.width;
      if (at >= 0) for (const [i, boundary] of boundaries.entries()) (streams[i] as Float32Array).set(residual(boundary), at);
    },
  });
  await model.scheduler.read(reading, signal, deadlineMs);
  // Whoever wrote it with these edits has looked at them.
  if (steered === undefined) edits.requireEffect("text");
  const values: number[][] = [];
  for (const probe of probes) values.push(await probeStream(model, probe, streams[points.indexOf(probe.point)] as Float32Array));
  return {
    tokens,
    ...summary(tokens.map(({ logprob }) => logprob)),
    receipts: edits.receipts(),
    ...(compare ? { plain: comparison(tokens) } : {}),
    ...(values.length > 0 ? { values } : {}),
  };
}

/** Sum, and exp(-mean). */
function summary(logprobs: readonly number[]): { logprob: number; perplexity: number } {
  const logprob = logprobs.reduce((sum, value) => sum + value, 0);
  return { logprob, perplexity: Math.exp(-logprob / logprobs.length) };
}

function comparison(tokens: ScoredText["tokens"]): NonNullable<ScoredText["plain"]> {
  const kl = tokens.reduce((sum, token) => sum + (token.kl ?? 0), 0) / tokens.length;
  return { ...summary(tokens.map(({ plain_logprob = 0 }) => plain_logprob)), kl };
}
