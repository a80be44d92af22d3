import { beforeAll, describe, expect, it } from "vitest";
import type { z } from "zod";
import { LIMITS } from "../limits.ts";
import type { Activation, SearchResult, SourceAnswer, TokenizeAnswer, TopkResult } from "../read/contract.ts";
import { callWith, config, NO_ENGINE, newUser, post, type TestUser } from "../test/worker/client.ts";

const MODEL = "tiller-tales";
const SOURCE = "3-tales-res";
const TEXT = "The dog ran home and barked.";
const TOKENS = ["<|endoftext|>", "The", " dog", " ran", " home", " and", " barked", "."];

let user: TestUser;
beforeAll(async () => {
  user = await newUser();
});

async function ask<T>(path: string, body: object): Promise<T> {
  const response = await post(path, body, user.headers);
  const answer = (await response.json()) as T;
  expect(response.status, JSON.stringify(answer).slice(0, 300)).toBe(200);
  return answer;
}
async function refusal(path: string, body: unknown): Promise<[number, string]> {
  const response = await post(path, body, user.headers);
  const { error, message } = (await response.json()) as { error: string; message: string };
  expect(message).toBe(error);
  return [response.status, error];
}
/** What the engine says itself. */
async function engine<T>(path: string, body: object): Promise<T> {
  const [address] = config().engines.filter(({ models }) => models === "*");
  const headers = { authorization: `Bearer ${address?.token}`, "content-type": "application/json" };
  const response = await fetch(`${address?.url}${path}`, { method: "POST", headers, body: JSON.stringify({ model: MODEL, ...body }) });
  return response.json();
}
type ActivationAnswer = z.infer<typeof Activation>;
type Topk = z.infer<typeof TopkResult>;
type Search = z.infer<typeof SearchResult>;

describe("POST /api/tokenize", () => {
  it("gives ids and strings, with BOS and without", async () => {
    const answer = await ask<z.infer<typeof TokenizeAnswer>>("/api/tokenize", { prompt: TEXT, modelId: MODEL });
    expect(answer).toMatchObject({ tokenStrings: TOKENS, prependBos: true });
    expect(answer.tokens).toHaveLength(TOKENS.length);
    expect(answer.offsets.map(([start, end]) => TEXT.slice(start, end))).toEqual(["", ...TOKENS.slice(1)]);
    expect(answer.special).toEqual(TOKENS.map((_, i) => i === 0));
    const without = await ask<z.infer<typeof TokenizeAnswer>>("/api/tokenize/", { prompt: TEXT, modelId: MODEL, prependBos: false });
    expect(without.tokens).toEqual(answer.tokens.slice(1));
  });
});

describe("POST /api/activation/new", () => {
  const feature = (index: string | number, layer = SOURCE) => ({ modelId: MODEL, layer, index });

  it("gives a latent's activation on every token but BOS, as the engine has it", async () => {
    const { items } = await engine<{ items: { top: { index: number; activation: number }[][] }[] }>("/latents", {
      source: SOURCE,
      texts: [TEXT],
    });
    const index = items[0]?.top[2]?.[0]?.index as number;
    const wanted = items[0]?.top.slice(1).map((list) => list.find((latent) => latent.index === index)?.activation);
    const answer = await ask<ActivationAnswer>("/api/activation/new", { feature: feature(String(index)), customText: TEXT });
    expect(answer.tokens).toEqual(TOKENS.slice(1));
    for (const [i, value] of (wanted ?? []).entries()) if (value !== undefined) expect(answer.values[i]).toBeCloseTo(value, 3);
    expect(answer.maxValue).toBe(Math.max(...answer.values));
    expect(answer.minValue).toBe(Math.min(...answer.values));
    expect(answer.values[answer.maxValueTokenIndex]).toBe(answer.maxValue);
    expect(answer).toMatchObject({ modelId: MODEL, layer: SOURCE, index: String(index), dataIndex: null });
    // The older name, the other name of the layer, and an index as a number.
    const same = await ask<ActivationAnswer>("/api/activation/new", {
      neuron: { modelId: MODEL, source: SOURCE, index },
      customText: TEXT,
    });
    expect({ ...same, createdAt: "" }).toEqual({ ...answer, createdAt: "" });
  });

  it("answers a list with a list, each as it would be alone", async () => {
    const texts = [TEXT, "She was sad."];
    const list = await ask<ActivationAnswer[]>("/api/activation/new", { feature: feature(3), customText: texts });
    for (const [i, text] of texts.entries()) {
      const alone = await ask<ActivationAnswer>("/api/activation/new", { feature: feature(3), customText: text });
      expect({ ...list[i], createdAt: "" }).toEqual({ ...alone, createdAt: "" });
    }
  });

  it("gives projections on a named direction, with BOS unless it is to be left out", async () => {
    const mood = feature(0, "3-tales-directions");
    const withBos = await ask<ActivationAnswer>("/api/activation/new", { feature: mood, customText: "They were so happy and smiled." });
    const without = await ask<ActivationAnswer>("/api/activation/new", {
      feature: mood,
      customText: "They were so happy and smiled.",
      ignoreBos: true,
    });
    expect(withBos.tokens[0]).toBe("<|endoftext|>");
    expect([without.tokens, without.values]).toEqual([withBos.tokens.slice(1), withBos.values.slice(1)]);
    const sad = await ask<ActivationAnswer>("/api/activation/new", {
      feature: mood,
      customText: "They were so sad and cried.",
      ignoreBos: true,
    });
    const mean = (values: readonly number[]) => values.reduce((a, b) => a + b) / values.length;
    expect(mean(without.values)).toBeGreaterThan(mean(sad.values) + 1);
  });
});

describe("POST /api/activation/source", () => {
  it("gives every feature that is active, with its positions", async () => {
    const { results } = await ask<z.infer<typeof SourceAnswer>>("/api/activation/source", {
      modelId: MODEL,
      source: SOURCE,
      customText: [TEXT, "Hi."],
    });
    expect(results).toHaveLength(2);
    const [first] = results;
    expect(first?.tokens).toEqual(TOKENS);
    const active = Object.entries(first?.activeFeatures ?? {});
    expect(active.length).toBeGreaterThan(10);
    for (const [index, at] of active.slice(0, 3)) {
      const { values } = await ask<ActivationAnswer>("/api/activation/new", {
        feature: { modelId: MODEL, layer: SOURCE, index },
        customText: TEXT,
      });
      const expected = values.flatMap((value, i) => (value > 0 ? [[i + 1, Math.round(value * 1000) / 1000]] : []));
      expect(at.map(([position]) => position)).toEqual(expected.map(([position]) => position));
      for (const [i, [, value]] of at.entries()) expect(Math.abs(value - (expected[i]?.[1] as number))).toBeLessThan(0.0021);
    }
  });
});

describe("POST /api/search-topk-by-token", () => {
  it("lists the most active features of every token, the greatest first, with their labels", async () => {
    const answer = await ask<Topk>("/api/search-topk-by-token", { modelId: MODEL, source: SOURCE, text: TEXT, numResults: 4 });
    expect(answer.source).toBe(SOURCE);
    expect(answer.results.map(({ token }) => token)).toEqual(TOKENS);
    expect(answer.results[0]).toEqual({ position: 0, token: "<|endoftext|>", isSpecial: true, topFeatures: [] });
    const values = answer.results.map(({ topFeatures }) => topFeatures.map(({ activationValue }) => activationValue));
    expect(values.slice(1).every((list) => list.length === 4)).toBe(true);
    for (const list of values) expect(list).toEqual([...list].sort((a, b) => b - a));
    const labels = answer.results.flatMap(({ topFeatures }) => topFeatures.flatMap(({ feature }) => feature.explanations));
    expect(labels.length).toBeGreaterThan(0);
    const batch = await ask<{ results: Topk[] }>("/api/search-topk-by-token", {
      ...{ modelId: MODEL, source: SOURCE, text: [TEXT], numResults: 4 },
      ...{ ignoreBos: false, densityThreshold: 0 },
    });
    expect(batch.results[0]?.results.slice(1)).toEqual(answer.results.slice(1));
    expect(batch.results[0]?.results[0]?.topFeatures.length).toBeGreaterThan(0);
  });
});

describe("POST /api/search-all", () => {
  it("ranks the features of a source set by what they do on the text", async () => {
    const body = { modelId: MODEL, sourceSet: "tales-res", text: TEXT, numResults: 5 };
    const answer = await ask<Search>("/api/search-all", body);
    expect(answer.tokens).toEqual(TOKENS);
    expect(answer.result).toHaveLength(5);
    const maxima = answer.result.map(({ maxValue }) => maxValue);
    expect(maxima).toEqual([...maxima].sort((a, b) => b - a));
    for (const { values, maxValue, maxValueIndex, layer } of answer.result) {
      expect([layer, values.length, values[maxValueIndex], values[0]]).toEqual([SOURCE, TOKENS.length, maxValue, 0]);
    }
    const sorted = await ask<Search>("/api/search-all", { ...body, sortIndexes: [2], selectedLayers: [SOURCE] });
    const dog = sorted.result.map(({ values }) => values[2] as number);
    expect(dog).toEqual([...dog].sort((a, b) => b - a));
    expect(sorted.sortIndexes).toEqual([2]);
    const batch = await ask<{ results: Search[] }>("/api/search-all", { ...body, text: [TEXT, "Hi."] });
    expect(batch.results[0]).toEqual(answer);
  });
});

describe("readings that cannot be answered", () => {
  const tokenize = { prompt: TEXT, modelId: MODEL };
  const feature = { modelId: MODEL, layer: SOURCE, index: "1" };
  const topk = { modelId: MODEL, source: SOURCE, text: TEXT };
  const search = { modelId: MODEL, sourceSet: "tales-res", text: TEXT };
  it.each([
    ["/api/tokenize", "{", 400, /Invalid JSON body/],
    ["/api/tokenize", { modelId: MODEL }, 400, /^prompt is a required field/],
    ["/api/tokenize", { ...tokenize, modelId: "gpt5" }, 404, /There is no model 'gpt5'. The models are:/],
    ["/api/tokenize", { ...tokenize, prompt: "x".repeat(10_001) }, 400, /1 to 10000 characters/],
    ["/api/activation/new", { customText: TEXT }, 400, /^feature is a required field/],
    ["/api/activation/new", { feature: { ...feature, layer: undefined }, customText: TEXT }, 400, /^feature\.source is a required field/],
    ["/api/activation/new", { feature }, 400, /^customText is a required field/],
    ["/api/activation/new", { feature, customText: Array(5).fill("x") }, 400, /or a list of 1 to 4 of them/],
    ["/api/activation/new", { feature: { ...feature, index: 1024 }, customText: TEXT }, 404, /its features are 0 to 1023/],
    [
      "/api/activation/new",
      { feature: { ...feature, layer: "9-none" }, customText: TEXT },
      404,
      /Its sources are: 3-tales-directions, 3-tales-presets, 3-tales-res/,
    ],
    ["/api/activation/new", { feature: { ...feature, index: "1.5" }, customText: TEXT }, 400, /^feature\.index must be a whole number/],
    ["/api/activation/new", { feature, customText: "word ".repeat(400) }, 400, /tokens long; this model takes at most 256/],
    ["/api/activation/source", { modelId: MODEL, source: "3-tales-directions", customText: TEXT }, 400, /named directions and no encoder/],
    [
      "/api/search-topk-by-token",
      { ...topk, source: "3-tales-directions", densityThreshold: 0.01 },
      400,
      /not known for .3-tales-directions.. npm run features finds it out/,
    ],
    ["/api/search-topk-by-token", { ...topk, numResults: 21 }, 400, /^numResults must be a whole number from 1 to 20/],
    ["/api/search-all", { ...search, sourceSet: "none" }, 404, /has no source set 'none'. Its sets are: tales-res/],
    ["/api/search-all", { ...search, selectedLayers: ["4-tales-res"] }, 404, /has no source '4-tales-res'. Its sources are: 3-tales-res/],
    ["/api/search-all", { ...search, sortIndexes: [-1] }, 400, /^sortIndexes\[0\] must be a whole number/],
  ])("%s %j", async (path, body, status, sentence) => {
    const [actual, message] = await refusal(path, body);
    expect([actual, message]).toEqual([status, expect.stringMatching(sentence)]);
  });

  it("an engine that is not there, which costs nothing", async () => {
    const visitor = await newUser();
    const init = { method: "POST", headers: visitor.headers, body: JSON.stringify(tokenize) };
    const response = await callWith({ engines: NO_ENGINE }, "/api/tokenize", init);
    expect([response.status, response.headers.get("retry-after")]).toEqual([503, "5"]);
  });
});

describe("the quota of readings", () => {
  it("is its own: steers are not used up, and what is left is told", async () => {
    const reader = await newUser();
    const response = await post("/api/tokenize", { prompt: "Hi", modelId: MODEL }, reader.headers);
    expect(response.headers.get("x-limit-remaining")).toBe(String(LIMITS.readingsPerHour - 1));
    const steer = await post("/api/steer", {}, reader.headers);
    expect(steer.headers.get("x-limit-remaining")).toBe(String(LIMITS.steersPerHour));
    const anonymous = await post("/api/tokenize", { prompt: "Hi", modelId: MODEL }, { "cf-connecting-ip": "203.0.113.77" });
    expect(anonymous.headers.get("ratelimit-limit")).toBe(String(LIMITS.anonymousReadingsPerHour));
  });
});
