import { beforeAll, describe, expect, it, vi } from "vitest";
import { newId } from "../../shared/ids.ts";
import { call, callWith, json, NO_ENGINE, newUser, post, scripted, type TestUser } from "../test/worker/client.ts";

let user: TestUser;
let saved: Awaited<ReturnType<typeof json>>;
const PROMPT = `<script>alert("x")</script> & Söhne`;
beforeAll(async () => {
  user = await newUser({ hourlyLimit: 1000 });
  const vectors = [{ vector: [0, 0, 1, 0, 0, 0, 0, 0], hookName: "blocks.1.hook_resid_pre", strength: 2 }];
  saved = await json(
    await post(
      "/api/steer",
      scripted({
        prompt: PROMPT,
        vectors,
        strength_multiplier: 3,
        features: [{ modelId: "scripted", layer: "2-scripted", index: 0, strength: 4 }],
      }),
      user.headers,
    ),
  );
});

describe("a share page", () => {
  it("shows the prompt, both texts, edits and settings, escaped and without a script", async () => {
    const response = await call(`/steer/${saved.id}`);
    expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/html; charset=UTF-8"]);
    const page = await response.text();
    expect(page).toContain("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; Söhne");
    expect(page).not.toContain("<script");
    for (const text of [
      saved.STEERED,
      saved.DEFAULT,
      "first (2-scripted / 0)",
      "own vector",
      "blocks.1.hook_resid_pre",
      "SIMPLE_ADDITIVE",
    ]) {
      expect(page).toContain(text);
    }
    expect(response.headers.get("content-security-policy")).toMatch(/^default-src 'none'; style-src 'self'/);
    expect(response.headers.get("content-security-policy")).not.toContain("script-src");
  });

  it("asks no other host for anything", async () => {
    const page = await (await call(`/steer/${saved.id}`)).text();
    for (const [, address] of page.matchAll(/(?:href|src)="([^"]+)"/g)) expect(address).toMatch(/^(\/|http:\/\/edge\.test\/)/);
  });

  it("is not found for another id", async () => {
    for (const id of [newId(), "x", "%3Cscript%3E"]) expect((await call(`/steer/${id}`)).status).toBe(404);
  });
});

describe("steer-load", () => {
  it("answers with the texts, the settings and the edits of a saved steer", async () => {
    const response = await post("/api/steer-load/", { steerOutputId: saved.id });
    expect(response.status).toBe(200);
    expect(await json(response)).toMatchObject({
      STEERED: { raw: saved.STEERED, chatTemplate: null, logprobs: saved.steeredLogProbs },
      DEFAULT: { raw: saved.DEFAULT, chatTemplate: null, logprobs: saved.defaultLogProbs },
      inputText: PROMPT,
      outputTextIncludesPrompt: false,
      id: saved.id,
      shareUrl: saved.shareUrl,
      limit: "0",
      settings: {
        temperature: 0.5,
        n_tokens: 3,
        freq_penalty: 1,
        strength_multiplier: 3,
        steer_special_tokens: true,
        steer_method: "SIMPLE_ADDITIVE",
      },
      features: [
        {
          modelId: "scripted",
          layer: "2-scripted",
          index: "0",
          strength: 4,
          steerOutputId: saved.id,
          neuron: { explanations: [{ description: "first" }], vector: [], vectorLabel: null },
        },
      ],
      vectors: [{ hookName: "blocks.1.hook_resid_pre", strength: 6 }],
    });
  });

  it("refuses an id that is missing or unknown", async () => {
    const missing = await post("/api/steer-load", {});
    expect([missing.status, (await json(missing)).message]).toEqual([400, expect.stringMatching(/^steerOutputId is a required field/)]);
    const unknown = await post("/api/steer-load", { steerOutputId: newId() });
    expect([unknown.status, (await json(unknown)).code]).toEqual([404, "not_found"]);
  });
});

describe("the start page", () => {
  it("lists the models and links the documentation", async () => {
    const page = await (await call("/")).text();
    expect(page).toMatch(/href="\/docs"/);
    expect(page).toContain("2-scripted");
  });

  it("shows without an engine", async () => {
    vi.spyOn(console, "error").mockReturnValue(undefined);
    const response = await callWith({ engines: NO_ENGINE }, "/");
    expect(response.status).toBe(200);
    expect(await response.text()).toContain("No engine answers");
  });
});
