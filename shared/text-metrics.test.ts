import { describe, expect, it } from "vitest";
import { distinct, mean, repetition, wordsOf } from "./text-metrics.ts";

describe("words", () => {
  it("are runs of letters and digits, whatever their case, with their apostrophes", () => {
    expect(wordsOf("Don't  stop, Été-2024!")).toEqual(["don't", "stop", "été", "2024"]);
    expect(wordsOf("?! ")).toEqual([]);
  });
});

describe("dist-n", () => {
  it("counts different n-grams of all texts against their words", () => {
    expect(distinct(["a b a b", "a b"], 1)).toBe(2 / 6);
    // a b, b a: none reaches from one text into the next.
    expect(distinct(["a b a b", "a b"], 2)).toBe(2 / 6);
    expect(distinct(["a b a b", "a b"], 3)).toBe(2 / 6);
    expect(distinct(["one"], 2)).toBe(0);
    expect(distinct(["", "…"], 1)).toBeUndefined();
  });
});

describe("repetition", () => {
  it("is the share of 4-grams that came before", () => {
    expect(repetition("the cat sat down and went away")).toBe(0);
    expect(repetition("a a a a a")).toBe(0.5);
    expect(repetition("too short a")).toBeUndefined();
  });
});

describe("a mean", () => {
  it("leaves out what is not known", () => {
    expect(mean([1, undefined, 3, null])).toBe(2);
    expect(mean([null])).toBeUndefined();
  });
});
