// Labels of data sets as sides: words for them, and the scales on which they are given as numbers.
import type { Verdict } from "./lexicon.ts";

const WORDS: ReadonlyMap<string, Verdict> = new Map([
  ...words(1, "positive, pos, very positive, polite, supporting, support, supports, for, pro, favor, favour, agree, non-toxic, nontoxic"),
  ...words(-1, "negative, neg, very negative, impolite, rude, opposing, oppose, opposes, against, anti, con, contra, disagree, toxic"),
  ...words(0, "neutral, none, mixed, both, other, unrelated"),
]);

function words(side: Verdict, list: string): [string, Verdict][] {
  return list.split(", ").map((word) => [word, side]);
}

/** What numbers of a column mean: at most `low` is the negative side, above `high` the positive one. */
interface Scale {
  readonly says: string;
  readonly low: number;
  readonly high: number;
}

/** Scales of whole numbers, the first that holds all of a column's. */
const WHOLE: readonly (Scale & { readonly from: number; readonly to: number })[] = [
  { says: "0 and 1", from: 0, to: 1, low: 0, high: 0 },
  { says: "-1 to 1", from: -1, to: 1, low: -1, high: 0 },
  { says: "0 to 4, 2 left out", from: 0, to: 4, low: 1, high: 2 },
  { says: "1 to 5, 3 left out", from: 1, to: 5, low: 2, high: 3 },
];
/** The bounds of the Stanford Sentiment Treebank. */
const SHARES: Scale = { says: "0 to 1, 0.4 to 0.6 left out", low: 0.4, high: 0.6 };
/** The name of the column in the Stanford politeness corpus. */
const NORMALIZED = "normalized score";

export interface Sided {
  /** How the labels were understood. */
  readonly says: string;
  readonly sides: readonly Verdict[];
}

/**
 * The side of each label of a column.
 * @param highIsNegative whether great numbers are of the negative side; words say themselves which they are of.
 * @throws Error naming the file, the column and the label that is not understood.
 */
export function sidesOf(labels: readonly string[], column: string, path: string, highIsNegative: boolean): Sided {
  const trimmed = labels.map((label) => label.trim().toLowerCase());
  const numbers = trimmed.map((label) => (label === "" ? Number.NaN : Number(label)));
  if (trimmed.length > 0 && numbers.every(Number.isFinite)) {
    const scale = scaleOf(numbers, column);
    const [above, below]: [Verdict, Verdict] = highIsNegative ? [-1, 1] : [1, -1];
    return { says: scale.says, sides: numbers.map((value) => (value > scale.high ? above : value <= scale.low ? below : 0)) };
  }
  const sides = trimmed.map((label, i) => {
    const side = WORDS.get(label);
    if (side !== undefined) return side;
    throw new Error(
      `${path}: '${labels[i]}' in the column '${column}' is no label that is known. They are all numbers, or of these words: ${[...WORDS.keys()].join(", ")}. Otherwise give each side as a file: --positive FILE --negative FILE.`,
    );
  });
  return { says: "words", sides };
}

function scaleOf(values: readonly number[], column: string): Scale {
  const sorted = [...values].sort((a, b) => a - b);
  const [least, most] = [sorted[0] as number, sorted.at(-1) as number];
  if (column !== NORMALIZED) {
    const whole = WHOLE.find(({ from, to }) => from <= least && most <= to);
    if (values.every(Number.isInteger) && whole !== undefined) return whole;
    if (least >= 0 && most <= 1) return SHARES;
  }
  const quarter = Math.max(1, Math.floor(sorted.length / 4));
  return {
    says: "the lowest and the highest quarter",
    low: sorted[quarter - 1] as number,
    high: sorted[Math.max(0, sorted.length - quarter - 1)] as number,
  };
}
