import { beforeAll, describe, expect, it } from "vitest";
import { encodeFloat32 } from "../../shared/base64.ts";
import { json, newUser, post, scripted, type TestUser } from "../test/worker/client.ts";

let user: TestUser;
beforeAll(async () => {
  user = await newUser({ hourlyLimit: 10_000 });
});

describe("a bad body is refused with the field and what is allowed", () => {
  const feature = { modelId: "scripted", layer: "2-scripted", index: 1, strength: 4 };
  const vector = { vector: [1, 0, 0, 0, 0, 0, 0, 0], hookName: "blocks.2.hook_resid_pre", strength: 1 };
  const cases: [string, object | string, number, string, RegExp][] = [
    ["no JSON", '{"prompt":', 400, "invalid_request", /Invalid JSON body/],
    ["an empty body", "", 400, "invalid_request", /Invalid JSON body/],
    ["a list", "[]", 400, "invalid_request", /one JSON object/],
    ["no prompt", { prompt: undefined }, 400, "invalid_request", /^prompt is a required field: .*1 to 2048 characters/],
    ["an empty prompt", { prompt: "" }, 400, "invalid_request", /^prompt must be a text of 1 to 2048 characters/],
    ["a long prompt", { prompt: "a".repeat(2049) }, 400, "invalid_request", /^prompt must be a text of 1 to 2048 characters/],
    ["no tokens", { n_tokens: 0 }, 400, "invalid_request", /^n_tokens must be a whole number from 1 to 256/],
    ["many tokens", { n_tokens: 257 }, 400, "invalid_request", /from 1 to 256/],
    ["half a token", { n_tokens: 1.5 }, 400, "invalid_request", /whole number from 1 to 256/],
    ["heat", { temperature: 2.1 }, 400, "invalid_request", /^temperature must be a number from 0 to 2/],
    ["an infinite temperature", { temperature: "Infinity" }, 400, "invalid_request", /from 0 to 2/],
    ["a text for a number", { temperature: "warm" }, 400, "invalid_request", /from 0 to 2/],
    ["a null", { seed: null }, 400, "invalid_request", /^seed must be a number/],
    ["a far seed", { seed: 100_000_001 }, 400, "invalid_request", /-100000000 to 100000000/],
    ["a penalty", { freq_penalty: 3 }, 400, "invalid_request", /^freq_penalty must be a number from -2 to 2/],
    ["a multiplier", { strength_multiplier: 11 }, 400, "invalid_request", /from 0 to 10/],
    ["a method", { steer_method: "MAGIC" }, 400, "invalid_request", /SIMPLE_ADDITIVE, ORTHOGONAL_DECOMP, PROJECTION_CAP/],
    ["positions", { positions: "middle" }, 400, "invalid_request", /prompt_except_last or a list/],
    ["an empty range", { positions: [[3, 3]] }, 400, "invalid_request", /start < end/],
    ["nothing to steer with", { features: [] }, 400, "invalid_request", /at least one feature or vector/],
    ["too much to steer with", { features: Array(33).fill(feature) }, 400, "invalid_request", /33, the limit is 32/],
    [
      "an infinite strength",
      { features: [{ ...feature, strength: "1e999" }] },
      400,
      "invalid_request",
      /^features\[0\]\.strength must be a finite/,
    ],
    ["a negative index", { features: [{ ...feature, index: -1 }] }, 400, "invalid_request", /^features\[0\]\.index must be/],
    ["min without clamp", { features: [{ ...feature, min: 1 }] }, 400, "invalid_request", /^features\[0\].*PROJECTION_CLAMP/],
    ["clamp without bounds", { steer_method: "PROJECTION_CLAMP" }, 400, "invalid_request", /needs min, max or both/],
    [
      "a vector as a latent",
      { features: [], vectors: [{ ...vector, method: "LATENT_CLAMP" }] },
      400,
      "invalid_request",
      /^vectors\[0\].*LATENT_CLAMP acts on a latent of a sparse autoencoder: give a feature/,
    ],
    [
      "a narrow vector",
      { vectors: [{ ...vector, vector: [1, 2] }] },
      400,
      "invalid_request",
      /^vectors\[0\]\.vector has 2 values; scripted needs exactly 8/,
    ],
    ["a zero vector", { vectors: [{ ...vector, vector: Array(8).fill(0) }] }, 400, "invalid_request", /is zero/],
    ["a vector beyond float32", { vectors: [{ ...vector, vector: Array(8).fill(1e39) }] }, 400, "invalid_request", /finite float32/],
    ["a vector that is no base64", { vectors: [{ ...vector, vector: "%%%" }] }, 400, "invalid_request", /base64/],
    [
      "a vector with a NaN",
      { vectors: [{ ...vector, vector: encodeFloat32([NaN, 0, 0, 0, 0, 0, 0, 0]) }] },
      400,
      "invalid_request",
      /finite/,
    ],
    [
      "a point",
      { vectors: [{ ...vector, hookName: "blocks.2.mlp" }] },
      400,
      "invalid_request",
      /hook_resid_pre or blocks\.L\.hook_resid_post/,
    ],
    [
      "a layer the model lacks",
      { vectors: [{ ...vector, hookName: "blocks.4.hook_resid_pre" }] },
      400,
      "invalid_request",
      /layers are 0 to 3/,
    ],
    ["a misspelt field of a vector", { vectors: [{ ...vector, strenght: 1 }] }, 400, "invalid_request", /strenght/],
    [
      "a vector without a place",
      { vectors: [{ ...vector, hookName: undefined }] },
      400,
      "invalid_request",
      /^vectors\[0\]\.hookName says where/,
    ],
    ["a vector at two places", { vectors: [{ ...vector, layers: "all", method: "ABLATE" }] }, 400, "invalid_request", /and not both/],
    ["all layers of an addition", { features: [{ ...feature, layers: "all" }] }, 400, "invalid_request", /layers: all belongs to ABLATE/],
    ["a layer that is not all", { features: [{ ...feature, layers: [1] }] }, 400, "invalid_request", /^features\[0\]\.layers must be all/],
    ["a schedule", { schedule: "slowly" }, 400, "invalid_request", /^schedule must be constant, or \{kind: decay or ramp, tokens/],
    ["a schedule of no tokens", { schedule: { kind: "ramp", tokens: 0 } }, 400, "invalid_request", /from 1 to 100000/],
    ["stops", { stop: Array(9).fill("x") }, 400, "invalid_request", /at most 8 texts/],
    ["a model", { modelId: "gpt-9" }, 404, "model_not_found", /no model 'gpt-9'.*scripted/],
    ["a feature's model", { features: [{ ...feature, modelId: "gpt-9" }] }, 404, "model_not_found", /gpt-9/],
    [
      "a feature of another width",
      { features: [{ ...feature, modelId: "scripted-narrow", layer: "1-narrow" }] },
      400,
      "invalid_request",
      /4 values.*needs 8/,
    ],
    ["a source", { features: [{ ...feature, layer: "9-none" }] }, 404, "feature_not_found", /no source '9-none'.*2-scripted/],
    ["an index", { features: [{ ...feature, index: 4 }] }, 404, "feature_not_found", /0 to 3/],
    ["a large body", { prompt: "x".repeat(1_100_000) }, 413, "too_large", /1000000 bytes/],
  ];
  it.each(cases)("%s", async (_, changes, status, code, words) => {
    const response = await post("/api/steer", typeof changes === "string" ? changes : { ...scripted(), ...changes }, user.headers);
    const answer = await json(response);
    expect([response.status, answer.code]).toEqual([status, code]);
    expect(answer.message).toMatch(words);
    expect(answer.error).toBe(answer.message);
    expect(answer.requestId).toBe(response.headers.get("x-request-id"));
  });

  it("and uses no quota", async () => {
    const fresh = await newUser({ hourlyLimit: 2 });
    const response = await post("/api/steer", scripted({ n_tokens: 0 }), fresh.headers);
    expect(response.status).toBe(400);
    expect(response.headers.get("x-limit-remaining")).toBe("2");
    expect(response.headers.get("ratelimit-policy")).toBe("2;w=3600");
  });
});
