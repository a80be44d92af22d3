// A classifier of the user's own: gets texts as a signed webhook, and answers with a number for each.
import { z } from "zod";
import { TillerError } from "../../shared/errors.ts";
import type { Config } from "../config.ts";
import { sendSigned } from "../webhooks/deliver.ts";

/** Texts of one call. */
export const CLASSIFIED = 64;
const TIMEOUT_MS = 20_000;
const ANSWER_BYTES = 16_384;
/** Characters of an answer that an error repeats. */
const SHOWN_CHARS = 200;

const Answer = z.object({ scores: z.array(z.number().min(0).max(1)) });

export interface Classifier {
  readonly config: Pick<Config, "webhooks">;
  readonly fetch: typeof fetch;
  readonly url: string;
  readonly secret: string;
  /** Names the calls: the same texts of the same sweep come again under the same webhook-id. */
  readonly id: string;
}

/**
 * The probabilities that the classifier gives to texts, in their order.
 * @throws TillerError `scorer_failed` saying what it answered.
 */
export async function classify({ config, fetch, url, secret, id }: Classifier, texts: readonly string[]): Promise<number[]> {
  const scores: number[] = [];
  for (let from = 0; from < texts.length; from += CLASSIFIED) {
    const part = texts.slice(from, from + CLASSIFIED);
    const payload = JSON.stringify({ type: "sweep.score", texts: part });
    const sender = { config, fetch, timeoutMs: TIMEOUT_MS, keptBytes: ANSWER_BYTES };
    const { answer, error } = await sendSigned(sender, { id: `${id}_${from}`, url, payload }, [secret], Date.now());
    if (error !== null) throw failed(`did not score the texts. ${error}`, answer);
    scores.push(...readScores(answer, part.length));
  }
  return scores;
}

function readScores(answer: string, texts: number): number[] {
  let value: unknown;
  try {
    value = JSON.parse(answer);
  } catch {
    throw failed("must answer with JSON: {scores: [...]}.", answer);
  }
  const parsed = Answer.safeParse(value);
  if (!parsed.success) throw failed("must answer {scores: [...]} with numbers from 0 to 1.", answer);
  const { scores } = parsed.data;
  if (scores.length !== texts) throw failed(`must answer with one score for each text: ${texts}, not ${scores.length}.`, answer);
  return scores;
}

const failed = (what: string, answer: string): TillerError =>
  new TillerError("scorer_failed", `The scorer's webhook ${what}${answer === "" ? "" : ` It answered: ${answer.slice(0, SHOWN_CHARS)}`}`);
