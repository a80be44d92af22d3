// A classifier that counts words: markers with weights, each worth its weight, or the opposite behind a negation.
import { wordsOf } from "../../shared/text-metrics.ts";

/** 1: the positive side, -1: the negative one, 0: neither. */
export type Verdict = -1 | 0 | 1;

export interface Lexicon {
  /** Of each marker, whose words are joined by spaces. Above 0 speaks for the positive side. */
  readonly weights: ReadonlyMap<string, number>;
  /** Words of the longest marker. */
  readonly longest: number;
}

export interface Classifier {
  readonly lexicon: Lexicon;
  /** Whether a negation turns the markers behind it around. */
  readonly negation: boolean;
  /** What a text is in which the markers say nothing. */
  readonly silent: Verdict;
}

/** A sum nearer to 0 says nothing: VADER's bound (a compound of 0.05) for sums. */
const THRESHOLD = 0.2;
/** How many words before a marker may turn it around, as in VADER. */
const REACH = 3;
const NEGATIONS = new Set("not no never nor neither without cannot hardly rarely nobody nothing none".split(" "));

const isNegation = (word: string | undefined): boolean => word !== undefined && (NEGATIONS.has(word) || word.endsWith("n't"));

/** Words with one kind of apostrophe. */
const read = (text: string): string[] => wordsOf(text).map((word) => word.replaceAll("’", "'"));

/** @throws Error naming the file and the line that is no marker with its weight. */
export function parseLexicon(text: string, path: string): Lexicon {
  const weights = new Map<string, number>();
  let longest = 0;
  for (const [i, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === "" || line.startsWith("#")) continue;
    const [marker = "", weight = ""] = line.split("\t");
    const words = read(marker);
    const value = Number(weight);
    if (words.length === 0 || weight.trim() === "" || !Number.isFinite(value) || value === 0)
      throw new Error(
        `${path}: line ${i + 1} is no marker with its weight: words, a tab, and a number above 0 (positive) or below 0 (negative).`,
      );
    weights.set(words.join(" "), value);
    longest = Math.max(longest, words.length);
  }
  if (weights.size === 0) throw new Error(`${path} has no markers: one a line, words, a tab, and a number.`);
  return { weights, longest };
}

/** The sum of the weights of a text's markers; of markers that overlap the longest counts. */
export function scoreText(text: string, { lexicon, negation }: Omit<Classifier, "silent">): number {
  const words = read(text);
  let sum = 0;
  for (let at = 0; at < words.length; ) {
    const [length, weight] = markerAt(words, at, lexicon);
    const turned = negation && words.slice(Math.max(0, at - REACH), at).some(isNegation);
    sum += turned ? -weight : weight;
    at += length;
  }
  return sum;
}

function markerAt(words: readonly string[], at: number, { weights, longest }: Lexicon): [length: number, weight: number] {
  for (let length = Math.min(longest, words.length - at); length > 0; length--) {
    const weight = weights.get(words.slice(at, at + length).join(" "));
    if (weight !== undefined) return [length, weight];
  }
  return [1, 0];
}

export function verdictOf(score: number, { silent }: Pick<Classifier, "silent">): Verdict {
  if (Math.abs(score) < THRESHOLD) return silent;
  return score > 0 ? 1 : -1;
}

/** How a classifier does on texts whose side is known. */
export interface Accuracy {
  readonly texts: { readonly positive: number; readonly negative: number };
  /** Shares of each side's texts that it gives that side, and the mean of both. */
  readonly positive: number;
  readonly negative: number;
  readonly balanced: number;
  /** Share of all texts that it gives a side, and of those the share to which it gives the right one (null where there are none). */
  readonly decided: number;
  readonly right_of_decided: number | null;
}

/** @param positive at least one text; so `negative`. */
export function accuracyOf(positive: readonly string[], negative: readonly string[], classifier: Classifier): Accuracy {
  const verdicts = (texts: readonly string[]) => texts.map((text) => verdictOf(scoreText(text, classifier), classifier));
  const [ofPositive, ofNegative] = [verdicts(positive), verdicts(negative)];
  const count = (list: readonly Verdict[], wanted: Verdict) => list.filter((verdict) => verdict === wanted).length;
  const [right, wrong] = [count(ofPositive, 1) + count(ofNegative, -1), count(ofPositive, -1) + count(ofNegative, 1)];
  const shares = { positive: count(ofPositive, 1) / positive.length, negative: count(ofNegative, -1) / negative.length };
  return {
    texts: { positive: positive.length, negative: negative.length },
    ...shares,
    balanced: (shares.positive + shares.negative) / 2,
    decided: (right + wrong) / (positive.length + negative.length),
    right_of_decided: right + wrong === 0 ? null : right / (right + wrong),
  };
}
