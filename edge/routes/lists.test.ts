import { beforeAll, describe, expect, it } from "vitest";
import { call, json, newUser, post, type TestUser } from "../test/worker/client.ts";

const MODEL = "tiller-tales";
const MOOD = { modelId: MODEL, layer: "3-tales-directions", index: 0 };
const LATENT = { modelId: MODEL, layer: "3-tales-res", index: "7" };
let user: TestUser;
let other: TestUser;
beforeAll(async () => {
  [user, other] = [await newUser({ hourlyLimit: 1000 }), await newUser({ hourlyLimit: 1000 })];
});
const create = async (features: object[] = [], more: object = {}) =>
  json(await post("/api/list/new-with-features", { name: "Cats", features, ...more }, user.headers));
const open = async (listId: unknown, headers: Record<string, string> = {}) => post("/api/list/get", { listId }, headers);
interface Opened {
  name: string;
  neurons: { layer: string; index: string; strength: number | null; description: string; neuron: { explanations: object[] } | null }[];
  comments: { id: string; text: string; user: { name: string } }[];
}
const read = async (listId: unknown, headers: Record<string, string> = {}) => (await (await open(listId, headers)).json()) as Opened;
const steer = (body: object, headers: Record<string, string> = user.headers) =>
  post(
    "/api/steer",
    { prompt: "One day", modelId: MODEL, temperature: 0, n_tokens: 6, seed: 1, strength_multiplier: 1, features: [], ...body },
    headers,
  );

describe("a list", () => {
  it("is made, filled, read by anybody with its id, and listed for its owner", async () => {
    const made = await json(await post("/api/list/new/", { name: "Cats", description: "d", testText: "a cat" }, user.headers));
    expect(made).toMatchObject({
      name: "Cats",
      description: "d",
      defaultTestText: "a cat",
      user: { name: "test" },
      url: `http://edge.test/list/${made.id}`,
    });
    const added = await post(
      "/api/list/add-features",
      { listId: made.id, featuresToAdd: [LATENT, { ...MOOD, description: "mood" }] },
      user.headers,
    );
    expect(await added.json()).toMatchObject([
      { ...LATENT, listId: made.id },
      { modelId: MODEL, index: "0", description: "mood" },
    ]);
    const opened = await read(made.id);
    expect(opened).toMatchObject({ name: "Cats", description: "d", defaultTestText: "a cat", user: { name: "test" } });
    expect(opened.neurons.map(({ layer }) => layer)).toEqual(["3-tales-res", "3-tales-directions"]);
    expect(opened.neurons[1]?.neuron?.explanations.length).toBeGreaterThan(0);
    const mine = (await (await call("/api/list/list", { method: "POST", headers: user.headers })).json()) as { id: string }[];
    expect(mine.map(({ id }) => id)).toContain(made.id);
    const theirs = (await (await call("/api/list/list", { method: "POST", headers: other.headers })).json()) as { id: string }[];
    expect(theirs).toEqual([]);
  });

  it("keeps a feature once, and says so by adding nothing", async () => {
    const { id } = await create([LATENT]);
    const again = await post("/api/list/add-features", { listId: id, featuresToAdd: [LATENT] }, user.headers);
    expect([again.status, await again.json()]).toEqual([200, []]);
  });

  it("is changed where it is said to change, and nowhere else", async () => {
    const { id } = await create([LATENT], { description: "first", testText: "t" });
    expect(await json(await post("/api/list/update", { listId: id, name: "Dogs" }, user.headers))).toMatchObject({
      ...{ name: "Dogs", description: "first", defaultTestText: "t" },
    });
    const edit = (changes: object) => post("/api/list/edit-feature", { listId: id, ...LATENT, ...changes }, user.headers);
    expect(await json(await edit({ description: "seven", strength: 12 }))).toMatchObject({ description: "seven", strength: 12 });
    expect(await json(await edit({ strength: null }))).toMatchObject({ description: "seven", strength: null });
    expect((await post("/api/list/remove", { listId: id, ...LATENT }, user.headers)).status).toBe(200);
    expect((await edit({ strength: 1 })).status).toBe(404);
    expect(await (await post("/api/list/delete", { listId: id }, user.headers)).json()).toBe(true);
    expect((await open(id)).status).toBe(404);
  });

  it("is its owner's to change, and a private one is as none for others", async () => {
    const { id } = await create([LATENT]);
    for (const [path, body] of [
      ["add-features", { featuresToAdd: [MOOD] }],
      ["edit-feature", { ...LATENT, strength: 1 }],
      ["remove", LATENT],
      ["update", { name: "x" }],
      ["delete", {}],
    ] as const) {
      const response = await post(`/api/list/${path}`, { listId: id, ...body }, other.headers);
      expect([path, response.status, (await json(response)).error]).toEqual([path, 403, "You do not own this list."]);
    }
    await post("/api/list/update", { listId: id, visibility: "private" }, user.headers);
    expect((await open(id, other.headers)).status).toBe(404);
    expect((await post("/api/list/update", { listId: id, name: "x" }, other.headers)).status).toBe(404);
    expect((await steer({ listId: id }, other.headers)).status).toBe(404);
    expect((await open(id, user.headers)).status).toBe(200);
  });

  it("takes no feature that is not there, and leaves none out in silence", async () => {
    const response = await post("/api/list/new-with-features", { name: "x", features: [LATENT, { ...LATENT, index: 5000 }] }, user.headers);
    expect([response.status, (await json(response)).error]).toEqual([
      404,
      expect.stringMatching(/^features\[1\]: there is no feature 5000/),
    ]);
    const many = { name: "x", features: Array(101).fill(LATENT) };
    expect((await json(await post("/api/list/new-with-features", many, user.headers))).error).toMatch(
      /Too many features to add. Max is 100/,
    );
  });

  it("has comments, deleted by their author or the list's owner", async () => {
    const { id } = await create();
    const comment = async (text: string) => json(await post("/api/list/comment/new", { listId: id, text }, other.headers));
    const [one, two] = [await comment("nice"), await comment("very nice")];
    expect((await read(id)).comments.map(({ text, user }) => [text, user.name])).toEqual([
      ["nice", "test"],
      ["very nice", "test"],
    ]);
    const third = await newUser();
    const remove = (commentId: unknown, headers: Record<string, string>) => post("/api/list/comment/delete", { commentId }, headers);
    expect((await remove(one.id, third.headers)).status).toBe(404);
    expect((await remove(one.id, other.headers)).status).toBe(200);
    expect((await remove(two.id, user.headers)).status).toBe(200);
    expect((await read(id)).comments).toEqual([]);
  });
});

describe("a recipe", () => {
  it("steers as its features with their strengths do, before those of the request", async () => {
    const { id } = await create([{ ...LATENT, index: 9, strength: -3, method: "SIMPLE_ADDITIVE" }, LATENT, { ...MOOD, strength: 8 }]);
    const listed = await json(await steer({ listId: id, features: [{ ...LATENT, strength: 5 }] }));
    const direct = await json(
      await steer({
        features: [
          { ...LATENT, index: 9, strength: -3 },
          { ...MOOD, strength: 8 },
          { ...LATENT, strength: 5 },
        ],
      }),
    );
    expect([listed.STEERED, listed.receipts]).toEqual([direct.STEERED, direct.receipts]);
    const loaded = await json(await post("/api/steer-load", { steerOutputId: listed.id }));
    expect((loaded.features as unknown as { strength: number }[]).map(({ strength }) => strength)).toEqual([-3, 8, 5]);
  });

  it("steers with its owner's vectors, for whoever may use them", async () => {
    const vector = Array.from({ length: 256 }, (_, i) => Math.cos(i));
    const body = {
      modelId: MODEL,
      layerNumber: 2,
      hookType: "hook_resid_pre",
      vector,
      vectorDefaultSteerStrength: 4,
      vectorLabel: "v",
      visibility: "private",
    };
    const kept = (await json(await post("/api/vector/new", body, user.headers))).vector as unknown as { source: string; index: string };
    const { id } = await create([{ modelId: MODEL, layer: kept.source, index: kept.index, strength: 4 }]);
    expect((await json(await steer({ listId: id }))).receipts).toMatchObject([{ point: "blocks.2.hook_resid_pre", strength: 4 }]);
    const refused = await steer({ listId: id }, other.headers);
    expect([refused.status, (await json(refused)).code]).toEqual([404, "feature_not_found"]);
  });

  it("is among its owner's presets", async () => {
    await create([{ ...MOOD, strength: 8 }], { name: "My recipe" });
    const { featurePresets } = (await json(await post("/api/steer/presets", { modelId: MODEL }, user.headers))) as unknown as {
      featurePresets: { name: string; features: object[] }[];
    };
    expect(featurePresets.find(({ name }) => name === "My recipe")?.features).toMatchObject([
      { layer: "3-tales-directions", index: 0, strength: 8 },
    ]);
  });

  it("without a strength is refused, as is one that is not there", async () => {
    const { id } = await create([LATENT]);
    const empty = await steer({ listId: id });
    expect([empty.status, (await json(empty)).error]).toEqual([400, expect.stringMatching(/no feature of this list has a strength/)]);
    expect((await steer({ listId: "cmnone" })).status).toBe(404);
  });

  it("has a page that shows how to steer with it", async () => {
    const { id } = await create([{ ...MOOD, strength: 8, description: "<b>mood</b>" }]);
    const page = await (await call(`/list/${id}`)).text();
    expect(page).toContain("&lt;b&gt;mood");
    expect(page).toContain(`&quot;listId&quot;:&quot;${id}&quot;`);
  });
});
