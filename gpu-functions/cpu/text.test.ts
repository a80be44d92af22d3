import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { FIXTURES, fixtures } from "./fixture.ts";
import { uniform } from "./random.ts";
import { TextStream } from "./text.ts";
import { loadTokenizer } from "./tokenizer.ts";

const directory = path.join(fixtures, "tiny-gpt2");
const tokenizer = loadTokenizer(directory);

interface Case {
  text: string;
  /** Without special tokens that the text does not write out. */
  ids: number[];
  /** What the ids add to a prompt before them; absent where that is the text without special tokens. */
  continued?: string;
}
const casesOf = (name: string) => JSON.parse(readFileSync(path.join(fixtures, `${name}.tokens.json`), "utf8")) as Case[];

describe("the tokenizer", () => {
  describe.each(FIXTURES)("of %s", (name) => {
    const tokenizer = loadTokenizer(path.join(fixtures, name));
    // Qwen's texts have no BOS.
    const bos = name.includes("qwen") ? [] : [tokenizer.bosId as number];

    it.each(casesOf(name))("encodes $text as the reference does, with at most one BOS", ({ text, ids }) => {
      expect(tokenizer.encodePrompt(text)).toEqual(ids[0] === bos[0] ? ids : [...bos, ...ids]);
    });

    it.each(casesOf(name))(
      "streams $text as the reference decodes it after a prompt",
      ({ text, ids, continued = text.replace("<|endoftext|>", "") }) => {
        const stream = new TextStream(tokenizer, []);
        expect(ids.map((id) => stream.push(id)).join("") + stream.flush()).toBe(continued);
      },
    );
  });

  it("knows the token that begins and ends texts", () => {
    expect([tokenizer.bosId, [...tokenizer.eosIds], [...tokenizer.specialIds]]).toEqual([0, [0], [0]]);
    expect(tokenizer.tokenString(0)).toBe("<|endoftext|>");
    expect(tokenizer.tokenBytes(0)).toHaveLength(0);
  });

  function copy(change: (name: string, text: string) => string | undefined): string {
    const folder = mkdtempSync(path.join(tmpdir(), "tokenizer-"));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    for (const name of ["tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"]) {
      const text = change(name, readFileSync(path.join(directory, name), "utf8"));
      if (text !== undefined) writeFileSync(path.join(folder, name), text);
    }
    return folder;
  }

  it("knows every token that ends a text", () => {
    expect([...loadTokenizer(path.join(fixtures, "tiny-qwen2")).eosIds]).toEqual([1, 2]);
  });

  it("takes BOS from the tokenizer's files where the model's configuration names another", () => {
    const folder = copy((name, text) =>
      /^(generation_)?config\.json$/.test(name) ? JSON.stringify({ ...JSON.parse(text), bos_token_id: 5 }) : text,
    );
    expect(loadTokenizer(folder).encodePrompt("The sun")[0]).toBe(0);
  });

  it("adds no BOS when the model's configuration says so", () => {
    const folder = copy((name, text) =>
      name === "tokenizer_config.json" ? JSON.stringify({ ...JSON.parse(text), add_bos_token: false }) : text,
    );
    expect(loadTokenizer(folder).encodePrompt("The sun")[0]).not.toBe(0);
  });

  it("refuses a directory whose files are missing, damaged or of another kind, naming the file", () => {
    expect(() => loadTokenizer(copy((name, text) => (name === "tokenizer.json" ? undefined : text)))).toThrow(
      /tokenizer\.json cannot be read/,
    );
    expect(() => loadTokenizer(copy((name, text) => (name === "tokenizer.json" ? text.slice(0, 99) : text)))).toThrow(
      /tokenizer\.json is not JSON/,
    );
    for (const value of ["null", "[]"])
      expect(() => loadTokenizer(copy((name, text) => (name === "generation_config.json" ? value : text)))).toThrow(
        /generation_config\.json is not a JSON object/,
      );
    const changed = (change: object) =>
      copy((name, text) => (name === "tokenizer.json" ? JSON.stringify({ ...JSON.parse(text), ...change }) : text));
    const sequence = (...decoders: object[]) => changed({ decoder: { type: "Sequence", decoders } });
    const replace = { type: "Replace", pattern: { String: "_" }, content: " " };
    expect(() => loadTokenizer(changed({ decoder: { type: "WordPiece" } }))).toThrow(
      /tokenizer\.json.*decoder "WordPiece" is not supported/s,
    );
    expect(() => loadTokenizer(changed({ decoder: null }))).toThrow(/tokenizer\.json/);
    expect(() => loadTokenizer(sequence({ type: "Fuse" }, replace))).toThrow(/decoder Replace after Fuse is not supported/);
    expect(() => loadTokenizer(sequence({ ...replace, pattern: { Regex: "_" } }))).toThrow(/pattern/);
    expect(() => loadTokenizer(sequence({ type: "ByteLevel" }, replace))).toThrow(/ByteLevel is supported alone only/);
    expect(() => loadTokenizer(changed({ model: { type: "Unigram", vocab: [["a", 0]], byte_fallback: true } }))).toThrow(
      /tokenizer\.json: a Unigram model with byte_fallback is not supported/,
    );
  });
});

describe("a text stream", () => {
  const encode = (text: string) => tokenizer.encodePrompt(text).slice(1);
  const run = (ids: readonly number[], stops: readonly string[] = []) => {
    const stream = new TextStream(tokenizer, stops);
    const pieces = [];
    for (const id of ids) {
      if (stream.stopped) break;
      pieces.push(stream.push(id));
    }
    pieces.push(stream.flush());
    return { pieces, text: pieces.join(""), stopped: stream.stopped };
  };
  const broken = (piece: string) => /\uFFFD|[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/.test(piece);

  it("joins to the text, never showing part of a character", () => {
    const text = "naïve 日本語 🙂👩‍🚀 end";
    const ids = encode(text);
    expect(ids.length).toBeGreaterThan(text.length / 2);
    const { pieces, text: joined } = run(ids);
    expect(joined).toBe(text);
    expect(pieces.some(broken)).toBe(false);
  });

  it("gives the same text as decoding everything at once, for any tokens, cut at the first stop string", () => {
    for (let trial = 0; trial < 300; trial++) {
      const ids = Array.from({ length: 30 }, (_, i) => 1 + Math.floor(uniform(trial, i) * 319));
      const whole = new TextDecoder("utf-8", { ignoreBOM: true }).decode(
        Uint8Array.from(ids.flatMap((id) => [...tokenizer.tokenBytes(id)])),
      );
      expect(run(ids).text).toBe(whole);
      const at = Math.floor(uniform(trial, 100) * (whole.length - 3));
      const stop = whole.slice(at, at + 1 + (trial % 3));
      const cut = run(ids, [stop, "never there"]);
      expect(cut).toMatchObject({ text: whole.slice(0, whole.indexOf(stop)), stopped: true });
    }
  });

  it("holds back what may begin a stop string and gives it back when it does not", () => {
    const stream = new TextStream(tokenizer, ["STOP"]);
    const [s, t, x] = [encode("S")[0], encode("T")[0], encode("x")[0]] as [number, number, number];
    expect([stream.push(x), stream.push(s), stream.push(t), stream.push(s), stream.push(x)]).toEqual(["x", "", "", "ST", "Sx"]);
    expect([stream.push(s), stream.flush(), stream.stopped]).toEqual(["", "S", false]);
  });

  it("shows bytes that never become a character as U+FFFD, once, at the end", () => {
    const ids = encode("🙂").slice(0, -1);
    const { pieces } = run(ids);
    expect(pieces.slice(0, -1).join("")).toBe("");
    expect(pieces.at(-1)).toMatch(/^\uFFFD+$/);
  });
});
