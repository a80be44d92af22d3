import { expect, it } from "vitest";
import type { Scorer } from "./contract.ts";
import { describeScorer } from "./success.ts";

it.each<[Scorer, string]>([
  [{ kind: "words", words: ["joy", "fun"] }, "it has one of joy, fun"],
  [{ kind: "words", words: ["joy"], against: ["fear", "woe"] }, "it has more of joy than of fear, woe"],
  [
    { kind: "words", words: Array.from({ length: 14 }, (_, i) => `w${i}`) },
    "it has one of w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11 and 2 more",
  ],
  [{ kind: "regex", pattern: "jo+y", ignoreCase: true }, "it matches /jo+y/i"],
  [{ kind: "projection" }, "the sweep's first direction is active above the baseline's mean in it"],
  [{ kind: "projection", direction: { layer: "3-a", index: 1 }, above: 2.5 }, "a direction is active above 2.5 in it"],
  [{ kind: "webhook", url: "https://user:secret@judge.example/score?token=secret" }, "judge.example gives it 0.5 or more"],
])("a scorer %j in words", (scorer, words) => {
  expect(describeScorer(scorer)).toBe(words);
});
