import { beforeAll, describe, expect, it } from "vitest";
import { encodeFloat32 } from "../../shared/base64.ts";
import { ID_PATTERN } from "../../shared/ids.ts";
import { NOBODY } from "../share/store.ts";
import { newSteers } from "../steer/save.ts";
import {
  call,
  callWith,
  config,
  type Direction,
  json,
  newUser,
  post,
  realDirection,
  scripted,
  seenBy,
  type TestUser,
} from "../test/worker/client.ts";

let user: TestUser;
let direction: Direction;
let body: Record<string, unknown>;

beforeAll(async () => {
  user = await newUser({ hourlyLimit: 10_000 });
  direction = await realDirection();
  body = {
    prompt: "One day a little girl went to the park.",
    modelId: direction.modelId,
    features: [direction.feature],
    temperature: 0.7,
    n_tokens: 12,
    freq_penalty: 1,
    seed: 16,
    strength_multiplier: 1,
  };
});

const steer = async (changes: object = {}) => {
  const response = await post("/api/steer", { ...body, ...changes }, user.headers);
  const answer = await json(response);
  expect(answer, JSON.stringify(answer).slice(0, 300)).not.toHaveProperty("code");
  return answer;
};

describe("a steer on the real engine", () => {
  it("answers the call of a plain Python client, which sends no key and no header but JSON's", async () => {
    const response = await call("/api/steer", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    expect(response.status).toBe(200);
    const answer = await json(response);
    expect(answer).toMatchObject({ STEERED: expect.any(String), DEFAULT: expect.any(String), id: expect.stringMatching(ID_PATTERN) });
    expect(answer.shareUrl).toBe(`http://edge.test/steer/${answer.id}`);
    expect(answer.limit).toBe(response.headers.get("x-limit-remaining"));
    expect(response.headers.get("ratelimit-limit")).toBe("20");
    expect(answer.DEFAULT).not.toContain(body.prompt);
  });

  it("fills the log probabilities of both texts", async () => {
    const answer = await steer({ n_logprobs: 3, freq_penalty: 0 });
    for (const [text, tokens] of [
      [answer.STEERED, answer.steeredLogProbs],
      [answer.DEFAULT, answer.defaultLogProbs],
    ] as const) {
      expect(tokens?.length).toBeGreaterThan(0);
      expect(tokens?.map(({ token }) => token).join("")).toContain(text?.trim());
      for (const { logprob, topLogprobs } of tokens ?? []) {
        expect(logprob).toBeLessThanOrEqual(0);
        expect(topLogprobs).toHaveLength(3);
        expect(topLogprobs.map((top) => top.logprob)).toEqual(topLogprobs.map((top) => top.logprob).sort((a, b) => b - a));
      }
    }
  });

  it("equals the default text bit for bit at zero strength", async () => {
    const answer = await steer({ features: [{ ...direction.feature, strength: 0 }] });
    expect(answer.STEERED).toBe(answer.DEFAULT);
    expect(answer.steeredLogProbs).toEqual(answer.defaultLogProbs);
  });

  it("changes the steered text only, differently for opposite strengths", async () => {
    const { strength } = direction.feature;
    const [plus, minus] = [await steer(), await steer({ features: [{ ...direction.feature, strength: -strength }] })];
    expect(plus.DEFAULT).toBe(minus.DEFAULT);
    expect(plus.steeredLogProbs).not.toEqual(plus.defaultLogProbs);
    expect(plus.steeredLogProbs).not.toEqual(minus.steeredLogProbs);
  });

  it("computes the same request again, with the same text and another id", async () => {
    const [first, second] = [await steer(), await steer()];
    expect(second.STEERED).toBe(first.STEERED);
    expect(second.DEFAULT).toBe(first.DEFAULT);
    expect(second.id).not.toBe(first.id);
  });

  it("really applies freq_penalty", async () => {
    const settings = { temperature: 0, n_tokens: 60, prompt: "the the the the the the" };
    const [free, punished] = [await steer({ ...settings, freq_penalty: -2 }), await steer({ ...settings, freq_penalty: 2 })];
    expect(free.DEFAULT).not.toBe(punished.DEFAULT);
  });

  it("reports what each edit did, why the texts ended, and the KL of each token", async () => {
    const answer = await steer({ kl: true, n_tokens: 5 });
    expect(answer.receipts).toHaveLength(1);
    expect(answer.receipts?.[0]?.positions_changed).toBeGreaterThan(0);
    expect(answer.finishReasons).toEqual({
      STEERED: expect.stringMatching(/^(stop|length)$/),
      DEFAULT: expect.stringMatching(/^(stop|length)$/),
    });
    expect(answer.kl).toHaveLength(answer.steeredLogProbs?.length ?? -1);
    expect(answer.kl?.[0]).toBeGreaterThan(0);
    expect(answer.usage?.completionTokens).toBe((answer.steeredLogProbs?.length ?? 0) + (answer.defaultLogProbs?.length ?? 0));
  });

  it("takes a vector of one's own as a list or as base64, alone", async () => {
    const values = Array.from({ length: direction.width }, (_, i) => Math.fround(Math.sin(i + 1)));
    const vector = { hookName: "blocks.1.hook_resid_post", strength: 3 };
    const asList = await steer({ features: [], vectors: [{ ...vector, vector: values }] });
    const asText = await steer({ features: [], vectors: [{ ...vector, vector: encodeFloat32(values) }] });
    expect(asList.receipts?.[0]?.point).toBe("blocks.1.hook_resid_post");
    expect(asText.STEERED).toBe(asList.STEERED);
    expect(asList.steeredLogProbs).not.toEqual(asList.defaultLogProbs);
  });

  it("edits only the positions that were asked for", async () => {
    const answer = await steer({ positions: "generated", n_tokens: 6 });
    const everywhere = await steer({ n_tokens: 6 });
    // The first token is drawn before any generated token was read.
    expect(answer.steeredLogProbs?.[0]).toEqual(answer.defaultLogProbs?.[0]);
    expect(answer.receipts?.[0]?.positions).toBeLessThan(everywhere.receipts?.[0]?.positions ?? 0);
  });

  it("takes a direction out at every layer, and fades a change out", async () => {
    const [everywhere, faded, plain] = [
      await steer({ features: [{ ...direction.feature, layers: "all", method: "ABLATE" }] }),
      await steer({ schedule: { kind: "decay", tokens: 3 } }),
      await steer(),
    ];
    expect(everywhere.receipts?.[0]?.point).toBe("blocks.0.hook_resid_pre");
    expect(everywhere.receipts?.at(-1)?.point).toMatch(/hook_resid_post$/);
    expect(faded.receipts?.[0]?.positions).toBe((plain.usage?.promptTokens as number) + 3);
    expect(faded.steeredLogProbs).not.toEqual(plain.steeredLogProbs);
  });

  it("applies ABLATE and PROJECTION_CLAMP", async () => {
    const clamp = { ...direction.feature, method: "PROJECTION_CLAMP", min: 5, max: 5 };
    expect((await steer({ steer_method: "ABLATE" })).receipts?.[0]).toMatchObject({ method: "ABLATE" });
    expect((await steer({ features: [clamp] })).receipts?.[0]).toMatchObject({ method: "PROJECTION_CLAMP" });
  });

  it("saves what it answered, for the caller", async () => {
    const answer = await steer();
    const row = await newSteers(config()).find(answer.id as string, NOBODY);
    expect(row?.user_id).toBe(user.id);
    expect(row?.result.STEERED.text).toBe(answer.STEERED);
  });
});

describe("what the engine is asked", () => {
  it("is the default row and the steered row, with the multiplier in the strength", async () => {
    const request = scripted({ strength_multiplier: 2.5, freq_penalty: 0.5, top_p: 0.9, top_k: 40, stop: ["\n"], n_logprobs: 0 });
    expect((await post("/api/steer/", request, user.headers)).status).toBe(200);
    const seen = (await seenBy(request.seed))?.request;
    expect(seen?.rows.map(({ name, edits }) => [name, edits.length])).toEqual([
      ["DEFAULT", 0],
      ["STEERED", 1],
    ]);
    expect(seen?.rows[1]?.edits[0]).toEqual({
      feature: { model: "scripted", source: "2-scripted", index: 1 },
      method: "SIMPLE_ADDITIVE",
      strength: 10,
      positions: "all",
      schedule: "constant",
    });
    expect(seen?.sampling).toEqual({
      temperature: 0.5,
      top_p: 0.9,
      top_k: 40,
      frequency_penalty: 0.5,
      presence_penalty: 0,
      seed: request.seed,
      stop: ["\n"],
      logprobs: 0,
    });
  });

  it("has features before vectors, each with its own method and positions", async () => {
    const request = scripted({
      positions: "prompt",
      steer_method: "ORTHOGONAL_DECOMP",
      vectors: [{ vector: [1, 0, 0, 0, 0, 0, 0, 0], hookName: "blocks.0.hook_resid_pre", strength: 2, positions: [[0, 2]] }],
    });
    request.features?.push({
      modelId: "scripted",
      layer: "2-scripted",
      index: "3",
      strength: "7",
      method: "PROJECTION_CLAMP",
      min: -1,
    } as never);
    expect((await post("/api/steer", request, user.headers)).status).toBe(200);
    const edits = (await seenBy(request.seed))?.request.rows[1]?.edits;
    expect(edits?.map(({ method, positions }) => [method, positions])).toEqual([
      ["ORTHOGONAL_DECOMP", "prompt"],
      ["PROJECTION_CLAMP", "prompt"],
      ["ORTHOGONAL_DECOMP", [[0, 2]]],
    ]);
    expect(edits?.[1]).toMatchObject({ feature: { index: 3 }, strength: 7, min: -1 });
    expect(edits?.[2]).toMatchObject({ point: "blocks.0.hook_resid_pre", vector: encodeFloat32([1, 0, 0, 0, 0, 0, 0, 0]) });
  });

  it("has numbers that came as texts, a whole seed and no penalty but the documented one", async () => {
    const request = { ...scripted(), temperature: "0.5", n_tokens: " 3 ", strength_multiplier: "2", freq_penalty: undefined };
    const seed = Number(request.seed);
    expect((await post("/api/steer", { ...request, seed: `${seed}.9` }, user.headers)).status).toBe(200);
    expect((await seenBy(seed))?.request.sampling).toMatchObject({ seed, frequency_penalty: 1 });
  });
});

it("names the fields that mean nothing here, and works", async () => {
  const request = { ...scripted(), colour: "red" };
  const features = [{ ...request.features?.[0], hasVector: true }];
  expect(await json(await post("/api/steer", { ...request, features }, user.headers))).toMatchObject({
    ignored: ["colour", "features[0].hasVector"],
    STEERED: expect.any(String),
  });
});

it("takes a body without a content type", async () => {
  const response = await call("/api/steer", { method: "POST", body: JSON.stringify(scripted()), headers: { ...user.headers } });
  expect(response.status).toBe(200);
});

it("points share links at PUBLIC_URL when it is set", async () => {
  const init = { method: "POST", body: JSON.stringify(scripted()), headers: { ...user.headers } };
  const answer = await json(await callWith({ publicUrl: "https://tiller.example" }, "/api/steer", init));
  expect(answer.shareUrl).toBe(`https://tiller.example/steer/${answer.id}`);
});

it("is not found where there is nothing, and says which method is right where there is something", async () => {
  const missing = await call("/api/steers");
  expect([missing.status, (await json(missing)).code]).toEqual([404, "not_found"]);
  const wrong = await call("/api/steer");
  expect([wrong.status, (await json(wrong)).code, wrong.headers.get("allow")]).toEqual([405, "method_not_allowed", "POST"]);
});

it("lets a page of another site call it and read the limits", async () => {
  const headers = {
    origin: "https://elsewhere.example",
    "access-control-request-method": "POST",
    "access-control-request-headers": "x-api-key",
  };
  const preflight = await call("/api/steer", { method: "OPTIONS", headers });
  expect(preflight.status).toBe(204);
  expect(preflight.headers.get("access-control-allow-origin")).toBe("*");
  expect(preflight.headers.get("access-control-allow-headers")).toMatch(/content-type.*x-api-key.*authorization/);
  const refused = await post("/api/steer", "{", { origin: "https://elsewhere.example" });
  expect(refused.headers.get("access-control-allow-origin")).toBe("*");
  expect(refused.headers.get("access-control-expose-headers")).toMatch(/x-limit-remaining/);
});
