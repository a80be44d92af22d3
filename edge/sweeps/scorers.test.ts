import { describe, expect, it } from "vitest";
import { config } from "../test/worker/client.ts";
import { classify } from "./classifier.ts";
import { Scorer } from "./contract.ts";
import { checkScorer, judgeActivation, judgeProbability, newMatcher, newWordCounter } from "./scorers.ts";

const words = (given: string[], against?: string[]) =>
  newWordCounter({ kind: "words", words: given, ...(against === undefined ? {} : { against }) });
const regex = (pattern: string, ignoreCase = true) => newMatcher({ kind: "regex", pattern, ignoreCase });

describe("words", () => {
  it.each([
    ["whole words, whatever their case", ["happy"], undefined, "Happy, HAPPY! unhappy happyness", 2],
    ["phrases, whatever stands between their words", ["so happy"], undefined, "So\nhappy. so, happy; so very happy", 2],
    ["phrases that overlap", ["ha ha"], undefined, "ha ha ha", 2],
    ["a word that is given twice once", ["joy", "Joy", "joy!"], undefined, "joy", 1],
    ["apostrophes of both kinds", ["don't"], undefined, "Don’t. don't", 2],
    ["letters of every alphabet", ["glücklich", "счастье"], undefined, "Glücklich СЧАСТЬЕ", 2],
    ["what speaks against it", ["happy"], ["sad", "very sad"], "happy, very sad", -1],
    ["nothing in nothing", ["happy"], ["sad"], "", 0],
  ])("count %s", (_, given, against, text, score) => {
    expect(words(given, against)(text)).toEqual({ score, success: score > 0 });
  });

  it("without a letter or a digit are refused", () => {
    expect(() => checkScorer({ kind: "words", words: ["good", "!!"] })).toThrow(/^scorer\.words\[1\] has no letter/);
    expect(() => checkScorer({ kind: "words", words: ["good"], against: ["…"] })).toThrow(/^scorer\.against\[0\]/);
  });
});

describe("a pattern", () => {
  it("succeeds anywhere in the text, in capitals or not", () => {
    expect([regex("happ(y|ily)")("so HAPPILY"), regex("happy", false)("HAPPY"), regex("^happy")("so happy")].map((v) => v.success)).toEqual(
      [...[true, false, false]],
    );
    expect(regex("\\bjoy\\b")("joy")).toEqual({ score: 1, success: true });
  });

  it("that would take a backtracking engine for ever is done at once", () => {
    const start = performance.now();
    expect(regex("(a+)+$")(`${"a".repeat(5000)}b`).success).toBe(false);
    expect(regex("(.*a){12}x")("a".repeat(5000)).success).toBe(false);
    expect(performance.now() - start).toBeLessThan(5000);
  });

  it.each([
    ["is no regular expression", "(happy", /^scorer\.pattern is no regular expression of RE2: .*missing/],
    ["needs backtracking", "(a)\\1", /no regular expression of RE2/],
    ["looks ahead", "a(?=b)", /no regular expression of RE2/],
    ["repeats too much", "(\\w{0,500} ){1,9}", /^scorer\.pattern (is too large|is no regular expression)/],
    ["is too large", "a{900}b{900}", /^scorer\.pattern is too large: it takes \d+ steps, and may take 1000/],
  ])("that %s is refused", (_, pattern, sentence) => {
    expect(() => checkScorer({ kind: "regex", pattern, ignoreCase: true })).toThrow(sentence);
  });
});

describe("an activation and a probability", () => {
  it("succeed above what is asked for, and from one half on", () => {
    expect(
      [judgeActivation(2, 1), judgeActivation(1, 1), judgeActivation(null, 1), judgeActivation(2, null)].map((v) => v.success),
    ).toEqual([...[true, false, false, false]]);
    expect([judgeProbability(0.5), judgeProbability(0.49)].map((v) => v.success)).toEqual([true, false]);
  });
});

describe("a scorer's body", () => {
  it.each([
    ["an unknown kind", { kind: "magic" }],
    ["a field that it does not know", { kind: "words", words: ["a"], ignoreCase: true }],
    ["no words", { kind: "words", words: [] }],
  ])("with %s is refused", (_, body) => {
    expect(Scorer.safeParse(body).success).toBe(false);
  });
});

describe("a classifier", () => {
  const ask = (answers: (texts: string[], call: number) => Response) => {
    const calls: { body: { type: string; texts: string[] }; init: RequestInit; id: string | null }[] = [];
    const fetch = async (_: unknown, init: RequestInit = {}) => {
      const body = JSON.parse(String(init.body)) as { type: string; texts: string[] };
      calls.push({ body, init, id: new Headers(init.headers).get("webhook-id") });
      return answers(body.texts, calls.length);
    };
    const url = "https://93.184.216.34/score";
    const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const classifier = { config: config(), fetch: fetch as typeof globalThis.fetch, url, secret, id: "cm1" };
    return { calls, scores: (texts: string[]) => classify(classifier, texts) };
  };
  const texts = Array.from({ length: 150 }, (_, i) => `text ${i}`);

  it("is asked in parts, each with a name of its own that comes again, and follows no redirect", async () => {
    const { calls, scores } = ask((some) => Response.json({ scores: some.map((text) => Number(text.slice(5)) / 1000) }));
    expect(await scores(texts)).toEqual(texts.map((_, i) => i / 1000));
    expect(calls.map(({ body }) => [body.type, body.texts.length])).toEqual([64, 64, 22].map((n) => ["sweep.score", n]));
    expect(calls.map(({ id }) => id)).toEqual(["cm1_0", "cm1_64", "cm1_128"]);
    expect(calls.every(({ init }) => init.redirect === "manual")).toBe(true);
    await scores(texts);
    expect(calls.slice(3).map(({ id }) => id)).toEqual(["cm1_0", "cm1_64", "cm1_128"]);
  });

  it.each([
    ["a failure", () => new Response("out of memory", { status: 500 }), /answered 500.* It answered: out of memory$/],
    [
      "a redirect",
      () => new Response(null, { status: 302, headers: { location: "https://93.184.216.34/" } }),
      /redirects are not followed/,
    ],
    ["no JSON", () => new Response("<html>"), /must answer with JSON: \{scores: \[\.\.\.\]\}\. It answered: <html>$/],
    ["another shape", () => Response.json([1, 2]), /must answer \{scores: \[\.\.\.\]\} with numbers from 0 to 1/],
    ["a number above one", () => Response.json({ scores: [1, 1.5] }), /from 0 to 1\. It answered: \{"scores":\[1,1\.5\]\}/],
    ["too few scores", () => Response.json({ scores: [1] }), /one score for each text: 2, not 1/],
    ["an answer without an end", () => Response.json({ scores: Array(100_000).fill(0.5) }), /must answer with JSON/],
  ])("that answers %s fails, in its words", async (_, answer, sentence) => {
    const failed = ask(answer).scores(["a", "b"]);
    await expect(failed).rejects.toMatchObject({ code: "scorer_failed", message: expect.stringMatching(sentence) });
  });
});
