// What success of a sweep's texts is, in words: the scorer itself is not kept.
import type { Scorer } from "./contract.ts";

/** Words and characters that are shown. */
const [WORDS, CHARS] = [12, 200];

/** For whoever reads the result; of a classifier's address only the host, as the rest may be a secret. */
export function describeScorer(scorer: Scorer): string {
  switch (scorer.kind) {
    case "words":
      return scorer.against === undefined
        ? `it has one of ${listed(scorer.words)}`
        : `it has more of ${listed(scorer.words)} than of ${listed(scorer.against)}`;
    case "regex":
      return `it matches /${scorer.pattern.slice(0, CHARS)}/${scorer.ignoreCase ? "i" : ""}`;
    case "projection":
      return `${scorer.direction === undefined ? "the sweep's first direction" : "a direction"} is active above ${scorer.above ?? "the baseline's mean"} in it`;
    case "webhook":
      return `${new URL(scorer.url).host} gives it 0.5 or more`;
  }
}

function listed(words: readonly string[]): string {
  const shown = words.slice(0, WORDS).join(", ");
  return words.length > WORDS ? `${shown} and ${words.length - WORDS} more` : shown;
}
