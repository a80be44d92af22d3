import { describe, expect, it } from "vitest";
import { cut, formatStrength, neutral, oneLine } from "./text.ts";

/** A text as Discord shows it when nothing but escapes is in it. */
const shown = (text: string): string => text.replace(/\\(.)/gs, "$1");
/** Stands for an escaped character: nothing that Discord reads as markup. */
const ESCAPED = "\ue000";

/** What Discord reads as something else than plain text; an escaped character never is. */
const MARKUP: Readonly<Record<string, RegExp>> = {
  "a mention or a timestamp": /<(@|#|t:|id:|\/|a?:)/,
  everybody: /@(everyone|here)/,
  "bold, italics, strike, spoiler or code": /[*_~`|]/,
  "a heading": /^[^\S\n]*#/m,
  "small text": /^[^\S\n]*-#/m,
  "a list": /^[^\S\n]*([-*+]|\d+\.)/m,
  "a quote": /^[^\S\n]*>/m,
  "a masked link": /\]\(/,
  "a link": /\w:\/\/|<\w+:|\bwww\./i,
  "an emoji": /:[\w~]+:/,
};
function markupOf(text: string): string[] {
  const plain = text.replace(/\\[^0-9A-Za-z\s]/g, ESCAPED);
  return Object.entries(MARKUP).flatMap(([name, pattern]) => (pattern.test(plain) ? [name] : []));
}

/** The same numbers from 0 to 1 for the same seed. */
function newRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const NASTY = [
  ..."\\*_~`|<>@#:[]()+.-\n 19aW!/&",
  ...["@everyone", "@here", "<@1>", "<#1>", "||", "```", "-# ", "1. ", "https://", "www.", ":a:", "](", "<t:1:R>", "😀", "👩‍👧", "é"],
];
function nastyText(random: () => number, parts: number): string {
  return Array.from({ length: Math.floor(random() * parts) }, () => NASTY[Math.floor(random() * NASTY.length)]).join("");
}

describe("a neutral text", () => {
  it.each([
    ...["<@1>", "<@!1>", "<@&1>", "<#1>", "@everyone", "@here", "</steer:1>", "<id:guide>"],
    ...["**bold**", "*italics*", "_italics_", "__under__", "***both***", "~~strike~~", "||spoiler||"],
    ...["`code`", "``code``", "```js\ncode\n```", "~~~\ncode\n~~~"],
    ...["# heading", "## heading", "### heading", "-# small", "  # heading", "a\n# heading", "a\n-# small"],
    ...["- list", "* list", "+ list", "1. list", "12. list", "  - list", " 1. list", "a\n- list", "a\n  2. list", "-", "1."],
    ...["> quote", ">>> quote", "a\n> quote", "> - list in a quote"],
    ...["[words](https://x.org)", "[words](<https://x.org>)", "[a](b)"],
    ...["https://x.org", "http://x.org/a_b_c", "<https://x.org>", "see https://x.org.", "HTTPS://X.ORG", "www.x.org", "see WWW.x.org"],
    ...["discord://-/users/1", "<a:1@x.org>"],
    ...["<:a:1>", "<a:a:1>", ":smile:", ":a::b:", ":+1:", "<t:1:R>", "<t:1>"],
    ...["\\*a*", "\\\\*a\\\\*", "\\", "a\\\n# b", "¯\\_(ツ)_/¯"],
  ])("shows %j as it was written", (text) => {
    expect(markupOf(neutral(text))).toEqual([]);
    expect(shown(neutral(text))).toBe(text);
  });

  it("is as it was written, whatever was written", () => {
    const random = newRandom(1);
    for (let i = 0; i < 4000; i++) {
      const text = nastyText(random, 40);
      expect(shown(neutral(text)), JSON.stringify(text)).toBe(text);
      expect(markupOf(neutral(text)), JSON.stringify(text)).toEqual([]);
    }
  });

  it("stays readable where nothing needs an escape", () => {
    for (const text of ["One day, Tim's dog ran (fast) - 3.5 miles: far!", "a well-known 1+1", "Say: yes", ""])
      expect(neutral(text)).toBe(text);
  });

  it.each([
    ["what turns the reading direction around", "a\u202eb\u2066c\u2069\u200f", "a b c  "],
    ["what is not seen", "@\u200beveryone\ufeff\u00ad\u2060", "\\@ everyone   "],
    ["control characters", "a\u0000b\u001b[31m\tc\u007f\u0085", "a b \\[31m c  "],
    ["the ends of lines of other systems", "a\r\nb\rc\n", "a\nb\nc\n"],
    ["markup behind them", "\u200b# a\n\u200e- b\n\t1. c", " \\# a\n \\- b\n 1\\. c"],
  ])("has no %s", (_, text, clean) => {
    expect(neutral(text)).toBe(clean);
  });

  it("keeps emoji, also those of several characters", () => {
    for (const emoji of ["👩‍👩‍👧", "❤️", "👍🏽", "🇫🇷", "1️⃣", "🏳️‍🌈"]) expect(neutral(emoji)).toBe(emoji);
  });

  it("takes no time for a long one", () => {
    for (const part of ["-", ".", "1", "1.", "\\", "www.", " .", ":", "*\n"]) {
      const begin = performance.now();
      const text = neutral(part.repeat(10_000));
      cut(text, 1000);
      cut(`${text}a`, 1000, true);
      expect(performance.now() - begin, part).toBeLessThan(1000);
    }
  });
});

describe("a cut text", () => {
  const isWhole = (text: string) => text.isWellFormed() && (/\\*$/.exec(text)?.[0].length ?? 0) % 2 === 0;

  it("is never too long, and never cut within an escape or a character", () => {
    const random = newRandom(2);
    for (let i = 0; i < 400; i++) {
      const text = nastyText(random, 30);
      const whole = neutral(text);
      for (let max = 5; max <= 40; max++) {
        for (const end of [false, true]) {
          const short = cut(whole, max, end);
          const what = JSON.stringify({ text, max, end, short });
          expect(short.length, what).toBeLessThanOrEqual(max);
          if (whole.length <= max) {
            expect(short, what).toBe(whole);
            continue;
          }
          const kept = end ? short.replace(/^… /, "") : short.replace(/ …$/, "");
          expect(kept, what).not.toBe(short);
          expect(isWhole(kept), what).toBe(true);
          expect(end ? text.endsWith(shown(kept)) : text.startsWith(shown(kept)), what).toBe(true);
          expect(markupOf(short), what).toEqual([]);
          // An escape or a pair of surrogates costs one more at most.
          expect(short.length, what).toBeGreaterThanOrEqual(max - 1);
        }
      }
    }
  });

  it("keeps its first or its last part", () => {
    expect(cut("one two three", 9)).toBe("one two …");
    expect(cut("one two three", 9, true)).toBe("… o three");
    expect(cut("one two three", 13)).toBe("one two three");
  });
});

describe("the name of a choice", () => {
  it("is one line of at most 100 characters, or as many as asked for", () => {
    expect(oneLine("  a\n\n b\t\tc\r\n")).toBe("a b c");
    expect(oneLine("a".repeat(100))).toBe("a".repeat(100));
    expect(oneLine("a".repeat(101))).toBe(`${"a".repeat(99)}…`);
    expect(oneLine("a".repeat(300), 256)).toHaveLength(256);
    expect(oneLine("**a** <@1>")).toBe("**a** <@1>");
  });

  it("splits no character", () => {
    for (let before = 95; before < 101; before++) {
      const name = oneLine(`${"a".repeat(before)}😀😀😀`);
      expect(name.isWellFormed()).toBe(true);
      expect(name.length).toBeLessThanOrEqual(100);
    }
  });

  it("neither turns around nor is empty", () => {
    expect(oneLine("a\u202eb\u200bc\u0000")).toBe("a b c");
    for (const nothing of ["", " \n", "\u200b\u2060"]) expect(oneLine(nothing)).toBe("…");
  });
});

it("strengths have no more digits than people want", () => {
  expect([12, -4, 0.1 + 0.2, 1 / 3, 123.456, -0].map(formatStrength)).toEqual(["12", "-4", "0.3", "0.3333", "123.5", "0"]);
});
