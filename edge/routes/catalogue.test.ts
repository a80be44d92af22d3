import { beforeAll, describe, expect, it } from "vitest";
import type { z } from "zod";
import type { Model, SourceSet } from "../catalogue/contract.ts";
import { call, json, newUser, post, type TestUser } from "../test/worker/client.ts";

let user: TestUser;
let other: TestUser;
beforeAll(async () => {
  [user, other] = [await newUser(), await newUser()];
});
let made = 0;
const newModel = async (owner = user) => {
  const id = `model-${Date.now()}-${made++}`.slice(0, 32);
  const response = await post("/api/model/new", { id, layers: 3, displayName: "Mine", url: "https://example.org" }, owner.headers);
  expect(response.status).toBe(200);
  return (await response.json()) as z.infer<typeof Model>;
};
const list = async (headers: Record<string, string> = {}) =>
  (await (await post("/api/model/list", "", headers)).json()) as z.infer<typeof Model>[];
const set = async (model: string, name: string) =>
  (await (await call(`/api/source-set/${model}/${name}`)).json()) as z.infer<typeof SourceSet> | null;

describe("models", () => {
  it("are listed with their source sets, as the engine serves them", async () => {
    const tales = (await list()).find(({ id }) => id === "tiller-tales");
    expect(tales).toMatchObject({ dimension: 256, instruct: true, inferenceEnabled: true, visibility: "PUBLIC" });
    expect(tales?.sourceSets.map(({ name }) => name).sort()).toEqual(["tales-directions", "tales-presets", "tales-res"]);
    expect(tales?.sourceSets.flatMap(({ sources }) => sources.map(({ id }) => id)).sort()).toEqual([
      "3-tales-directions",
      "3-tales-presets",
      "3-tales-res",
    ]);
    expect(await json(await post("/api/model/get/", { id: "tiller-tales" }))).toEqual(tales);
    expect(await (await post("/api/model/get", { id: "none" })).json()).toBeNull();
  });

  it("that a user describes are found by their id, and listed for the user alone", async () => {
    const model = await newModel();
    expect(model).toMatchObject({
      layers: 3,
      displayName: "Mine",
      website: "https://example.org",
      dimension: null,
      inferenceEnabled: false,
    });
    expect((await json(await post("/api/model/get", { id: model.id }))).id).toBe(model.id);
    expect((await list(user.headers)).map(({ id }) => id)).toContain(model.id);
    expect((await list(other.headers)).map(({ id }) => id)).not.toContain(model.id);
  });

  it.each([
    ["an id that is taken", { id: "tiller-tales", layers: 2 }, 409, /already exists/],
    ["capital letters", { id: "Model", layers: 2 }, 400, /^id must be 2 to 32 characters/],
    ["two dots", { id: "a..b", layers: 2 }, 400, /^id must be/],
    ["no layers", { id: "abc" }, 400, /^layers is a required field/],
    ["too many layers", { id: "abc", layers: 128 }, 400, /from 1 to 127/],
    ["an address that runs", { id: "abc", layers: 1, url: "javascript:alert(1)" }, 400, /^url must be an http/],
  ])("with %s are refused", async (_, body, status, words) => {
    const response = await post("/api/model/new", body, user.headers);
    expect([response.status, (await json(response)).error]).toEqual([status, expect.stringMatching(words)]);
    expect((await post("/api/model/new", body)).status).toBe(401);
  });
});

describe("source sets", () => {
  it("of a served model are its sources' names", async () => {
    expect(await set("tiller-tales", "tales-res")).toMatchObject({
      ...{ modelId: "tiller-tales", name: "tales-res", urls: [] },
      sources: [{ id: "3-tales-res", modelId: "tiller-tales", setName: "tales-res", hookName: "blocks.3.hook_resid_pre" }],
    });
    expect(await set("tiller-tales", "none")).toBeNull();
  });

  it("that a user makes have a source for each layer", async () => {
    const { id } = await newModel();
    const body = { name: "res-mine", modelId: id, description: "d", url: "https://example.org/x" };
    const created = await json(await post("/api/source-set/new", body, user.headers));
    expect(created).toMatchObject({ name: "res-mine", modelId: id, description: "d", urls: ["https://example.org/x"] });
    expect((await set(id, "res-mine"))?.sources.map((source) => source.id)).toEqual(["0-res-mine", "1-res-mine", "2-res-mine"]);
    expect((await post("/api/source-set/new", body, user.headers)).status).toBe(409);
  });

  it.each([
    ["of a model that is not there", { name: "res-x", modelId: "none" }, 404, /Describe it first/],
    ["named as one that came with the model", { name: "tales-res", modelId: "tiller-tales" }, 409, /already has/],
    ["named as those of vectors", { name: "neuronpedia-resid-pre", modelId: "tiller-tales" }, 400, /^name must be/],
    ["with two dashes", { name: "a--b", modelId: "tiller-tales" }, 400, /^name must be/],
  ])("%s are refused", async (_, body, status, words) => {
    const response = await post("/api/source-set/new", body, user.headers);
    expect([response.status, (await json(response)).error]).toEqual([status, expect.stringMatching(words)]);
  });

  it("are not added to a model that somebody else described", async () => {
    const { id } = await newModel(other);
    expect((await post("/api/source-set/new", { name: "res-x", modelId: id }, user.headers)).status).toBe(403);
  });
});

describe("presets", () => {
  const presets = async (headers: Record<string, string> = {}) =>
    (await (await post("/api/steer/presets", { modelId: "tiller-tales" }, headers)).json()) as {
      model: { id: string };
      featurePresets: { name: string; isUserVector?: boolean; features: { strength: number; layer: string; index: number }[] }[];
    };

  it("are the model's named directions, each of which steers", async () => {
    const { model, featurePresets } = await presets();
    expect(model.id).toBe("tiller-tales");
    expect(featurePresets.length).toBeGreaterThan(0);
    const [first] = featurePresets;
    const body = {
      prompt: "One day",
      modelId: "tiller-tales",
      features: first?.features,
      temperature: 0,
      n_tokens: 4,
      seed: 1,
      strength_multiplier: 1,
    };
    expect((await post("/api/steer", body, user.headers)).status).toBe(200);
  });

  it("begin with the caller's vectors, also with a default strength of 0", async () => {
    const owner = await newUser();
    const vector = Array.from({ length: 256 }, (_, i) => Math.sin(i));
    const body = {
      modelId: "tiller-tales",
      layerNumber: 1,
      hookType: "hook_resid_post",
      vector,
      vectorDefaultSteerStrength: 0,
      vectorLabel: "Jedi",
    };
    expect((await post("/api/vector/new", body, owner.headers)).status).toBe(200);
    const [first] = (await presets(owner.headers)).featurePresets;
    expect(first).toMatchObject({ name: "Jedi", isUserVector: true, features: [{ strength: 0, layer: "1-neuronpedia-resid-post" }] });
    expect((await presets()).featurePresets.map(({ name }) => name)).not.toContain("Jedi");
  });

  it("of a model that is not there are not found", async () => {
    expect((await post("/api/steer/presets", { modelId: "none" })).status).toBe(404);
  });
});
