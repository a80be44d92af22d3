import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { FIXTURES, fixtures } from "./fixture.ts";
import { tokenSpans } from "./offsets.ts";
import { loadTokenizer } from "./tokenizer.ts";

interface Text {
  text: string;
  ids: number[];
  /** Where the Rust library says that the tokens lie, in code units. */
  spans: [number, number][];
}
const MODELS = JSON.parse(readFileSync(path.join(fixtures, "chat", "cases.json"), "utf8")) as { model: string; texts: Text[] }[];

describe.each(MODELS)("the spans of a tokenizer in the shape of $model", ({ model, texts }) => {
  const tokenizer = loadTokenizer(path.join(fixtures, "chat", model));

  it.each(texts)("are those of the reference: $text", ({ text, ids, spans }) => {
    expect(tokenizer.encode(text)).toEqual(ids);
    expect(tokenizer.spans(text, ids).map(({ start, end }) => [start, end])).toEqual(spans);
  });
});

const TEXTS = [
  "The sun rose over the sea.",
  " two  spaces ",
  "naïve 日本語 🙂👩‍🚀 end",
  "e\u0301x \u1112\u1161\u11ab \uac00",
  "ﬁne\u00a0x\t\n\n",
  "\ud800 x \ufeff",
];

describe.each([...FIXTURES, "chat/llama3", "chat/qwen2.5"])("the spans of %s", (name) => {
  const tokenizer = loadTokenizer(path.join(fixtures, name));

  it.each(TEXTS)("follow each other and leave no character of %j out", (text) => {
    const spans = tokenizer.spans(text, tokenizer.encode(text));
    let end = 0;
    for (const span of spans) {
      expect(span.start).toBeLessThanOrEqual(end);
      expect(span.end).toBeGreaterThanOrEqual(span.start);
      end = Math.max(end, span.end);
    }
    // A space at the end is no token of its own in every vocabulary.
    expect(text.slice(end).trim()).toBe("");
  });
});

describe("the span of a token", () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  const spans = (text: string, ...tokens: (string | Uint8Array | "unknown")[]) =>
    tokenSpans(
      text,
      tokens.map((token) => (token === "unknown" || typeof token !== "string" ? token : bytes(token))),
    ).map(({ start, end }) => text.slice(start, end));

  it("is the whole character when the token has some of its bytes", () => {
    const emoji = bytes("🙂");
    expect(spans("a🙂b", "a", emoji.slice(0, 1), emoji.slice(1), "b")).toEqual(["a", "🙂", "🙂", "b"]);
    expect(spans("🙂b", emoji.slice(0, 2), Uint8Array.of(...emoji.slice(2), 0x62))).toEqual(["🙂", "🙂b"]);
  });

  it("is what lies between its neighbours when it stands for unknown characters", () => {
    expect(spans("日本 cat", "unknown", " cat")).toEqual(["日本", " cat"]);
    expect(spans("日本 cat", "unknown", "unknown", " cat")).toEqual(["日", "本", " cat"]);
    expect(spans("cat 日本", "cat", " ", "unknown")).toEqual(["cat", " ", "日本"]);
    expect(spans("cat", "cat", "unknown")).toEqual(["cat", ""]);
  });

  it("has all characters that a normalizer made one of", () => {
    expect(spans("e\u0301x", "\u00e9", "x")).toEqual(["e\u0301", "x"]);
    expect(spans("\u1112\u1161\u11ab!", "\ud55c", "!")).toEqual(["\u1112\u1161\u11ab", "!"]);
    expect(spans("ﬁne", "f", "in", "e")).toEqual(["ﬁ", "ﬁn", "e"]);
    expect(spans("\u00a0x\ty", " ", "x", " y")).toEqual(["\u00a0", "x", "\ty"]);
  });

  it("is empty when the tokenizer wrote it itself, and what it dropped belongs to no token", () => {
    expect(spans("cat", " ", "cat")).toEqual(["", "cat"]);
    expect(spans("a b", " a", " b")).toEqual(["a", " b"]);
    expect(spans("a\u200b\u200bb", "a", "b")).toEqual(["a", "b"]);
    expect(spans(`a${" ".repeat(500)}b`, "a", " ", "b")).toEqual(["a", " ", "b"]);
    expect(spans("ab", "a", "?", "b")).toEqual(["a", "", "b"]);
    expect(spans("\u00a0x", " ", "\u00a0", "x")).toEqual(["", "\u00a0", "x"]);
    expect(spans("", " ")).toEqual([""]);
  });
});
