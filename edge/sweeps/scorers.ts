// What counts as success of a text, for scorers that need nobody else: words, patterns, projections. classifier.ts asks somebody else.
import { RE2JS, RE2JSException } from "re2js";
import { TillerError } from "../../shared/errors.ts";
import { wordsOf } from "../../shared/text-metrics.ts";
import { LIMITS } from "../limits.ts";
import type { Scorer, SweepRow } from "./contract.ts";

/** What a scorer says of a text. */
export type Verdict = Pick<SweepRow, "score" | "success">;

/** From this on a classifier's probability is success. */
const PROBABLE = 0.5;

type Of<Kind extends Scorer["kind"]> = Extract<Scorer, { readonly kind: Kind }>;

/** @throws TillerError `invalid_request` for a pattern that RE2 does not know, or that takes too long, and for words without a letter. */
export function checkScorer(scorer: Scorer): void {
  if (scorer.kind === "regex") compile(scorer);
  if (scorer.kind !== "words") return;
  for (const name of ["words", "against"] as const) {
    const empty = (scorer[name] ?? []).findIndex((word) => wordsOf(word).length === 0);
    if (empty >= 0) throw new TillerError("invalid_request", `scorer.${name}[${empty}] has no letter and no digit, so no word can be it.`);
  }
}

/** Success is more of `words` than of `against`; the score is the difference. */
export function newWordCounter({ words, against = [] }: Of<"words">): (text: string) => Verdict {
  const [good, bad] = [newPhraseCounter(words), newPhraseCounter(against)];
  return (text) => {
    const spoken = spokenIn(text);
    const score = good(spoken) - bad(spoken);
    return { score, success: score > 0 };
  };
}

/** Success, and a score of 1, is a match anywhere. */
export function newMatcher(scorer: Of<"regex">): (text: string) => Verdict {
  const pattern = compile(scorer);
  return (text) => {
    const success = pattern.test(text);
    return { score: success ? 1 : 0, success };
  };
}

/**
 * @param activation mean over the text's tokens; null for a text without any, which is no success.
 * @param above null where there is nothing to be above: then nothing is.
 */
export const judgeActivation = (activation: number | null, above: number | null): Verdict => ({
  score: activation,
  success: activation !== null && above !== null && activation > above,
});

/** @param score a probability, from 0 to 1. */
export const judgeProbability = (score: number): Verdict => ({ score, success: score >= PROBABLE });

/** Apostrophes of both kinds are one. */
const spokenIn = (text: string): string[] => wordsOf(text.replaceAll("’", "'"));

/** How often any of some phrases stands in a list of words; a phrase that is given twice counts once. */
function newPhraseCounter(phrases: readonly string[]): (words: readonly string[]) => number {
  const byLength = new Map<number, Set<string>>();
  for (const phrase of phrases) {
    const words = spokenIn(phrase);
    const known = byLength.get(words.length) ?? new Set();
    byLength.set(words.length, known.add(words.join(" ")));
  }
  return (words) => {
    let found = 0;
    for (const [length, known] of byLength)
      for (let i = 0; i + length <= words.length; i++) if (known.has(words.slice(i, i + length).join(" "))) found++;
    return found;
  };
}

/** RE2's matching takes time in proportion to text and program, whatever the pattern: no pattern can hang the Worker. */
function compile({ pattern, ignoreCase }: Of<"regex">): RE2JS {
  let compiled: RE2JS;
  try {
    compiled = RE2JS.compile(pattern, ignoreCase ? RE2JS.CASE_INSENSITIVE : 0);
  } catch (error) {
    if (!(error instanceof RE2JSException)) throw error;
    throw new TillerError("invalid_request", `scorer.pattern is no regular expression of RE2: ${error.message}.`, { cause: error });
  }
  const size = compiled.programSize();
  if (size <= LIMITS.scorerProgram) return compiled;
  throw new TillerError(
    "invalid_request",
    `scorer.pattern is too large: it takes ${size} steps, and may take ${LIMITS.scorerProgram}. Repeat less in it.`,
  );
}
