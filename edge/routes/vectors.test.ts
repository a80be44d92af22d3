import { beforeAll, describe, expect, it } from "vitest";
import type { z } from "zod";
import { encodeFloat32 } from "../../shared/base64.ts";
import { LIMITS } from "../limits.ts";
import { vectors } from "../schema.ts";
import { call, config, json, newUser, nextSeed, post, scripted, seenBy, type TestUser } from "../test/worker/client.ts";
import type { CreatedVector, Vector } from "../vectors/contract.ts";

const MODEL = "tiller-tales";
const WIDTH = 256;
let owner: TestUser;
let other: TestUser;
beforeAll(async () => {
  owner = await newUser({ hourlyLimit: 10_000 });
  other = await newUser();
});

/** Numbers that a float32 does not hold. */
const values = Array.from({ length: WIDTH }, (_, i) => Math.sin(i) / 3);
const fresh = (changes: object = {}) => ({
  ...{ modelId: MODEL, layerNumber: 3, hookType: "hook_resid_pre", vector: values },
  ...{ vectorDefaultSteerStrength: 15, vectorLabel: "Jedi", ...changes },
});
type Created = z.infer<typeof CreatedVector>;
async function create(changes: object = {}, user = owner): Promise<Created["vector"]> {
  const response = await post("/api/vector/new", fresh(changes), user.headers);
  const answer: Created = await response.json();
  expect(response.status, JSON.stringify(answer).slice(0, 200)).toBe(200);
  return answer.vector;
}
const addressOf = ({ modelId, source, index }: Created["vector"]) => ({ modelId, source, index });
const get = (vector: Created["vector"], headers: Record<string, string> = {}) => post("/api/vector/get", addressOf(vector), headers);
const list = async (user: TestUser, body?: object): Promise<z.infer<typeof Vector>[]> => {
  const init = { method: "POST", headers: user.headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
  return ((await (await call("/api/vector/list-owned/", init)).json()) as { vectors: z.infer<typeof Vector>[] }).vectors;
};
const steer = (features: object[], headers: Record<string, string> = {}, more: object = {}) =>
  post(
    "/api/steer",
    {
      ...{ prompt: "One day a little girl", modelId: MODEL, features, temperature: 0.7, n_tokens: 6 },
      ...{ freq_penalty: 0, seed: 4, strength_multiplier: 1, ...more },
    },
    headers,
  );

describe("a vector", () => {
  it("is kept as it was sent, to the last bit, and answered in the documented shapes", async () => {
    const response = await post("/api/vector/new", fresh(), owner.headers);
    const created: Created = await response.json();
    expect(created).toMatchObject({
      message: "Success",
      url: `http://edge.test/${MODEL}/3-neuronpedia-resid-pre/${created.vector.index}`,
      vector: {
        ...{ modelId: MODEL, source: "3-neuronpedia-resid-pre", label: "Jedi", defaultSteerStrength: 15 },
        ...{ hookName: "blocks.3.hook_resid_pre", values, visibility: "unlisted" },
      },
    });
    expect(Number(created.vector.index)).toBeGreaterThanOrEqual(90_000_000);
    expect(Number(created.vector.index)).toBeLessThan(180_000_000);
    const read = (await (await get(created.vector)).json()) as { vector: z.infer<typeof Vector> };
    expect(read.vector).toEqual({
      ...{ modelId: MODEL, layer: "3-neuronpedia-resid-pre", index: created.vector.index, vectorLabel: "Jedi" },
      ...{ createdAt: created.vector.createdAt, creatorId: owner.id, vectorDefaultSteerStrength: 15 },
      ...{ hookName: "blocks.3.hook_resid_pre", vector: values, visibility: "unlisted" },
      ...{ description: "", version: 1, updatedAt: created.vector.createdAt },
    });
  });

  it.each([
    ["a text with commas", values.join(", ")],
    ["a JSON list in a text", JSON.stringify(values)],
    ["a text with spaces and line ends", values.join(" \n")],
  ])("is read from %s", async (_, vector) => {
    expect((await create({ vector })).values).toEqual(values);
  });

  it("is read from base64 of float32, which it is rounded to", async () => {
    expect((await create({ vector: encodeFloat32(values) })).values).toEqual(values.map(Math.fround));
  });

  it("steers at once, as the same numbers given inline, alone and among features", async () => {
    const vector = await create({ hookType: "hook_resid_post", layerNumber: 2 });
    const feature = { modelId: MODEL, layer: vector.source, index: vector.index, strength: 9 };
    const saved = await json(await steer([feature], owner.headers));
    const inline = { vector: values, hookName: "blocks.2.hook_resid_post", strength: 9 };
    const direct = await json(await steer([], owner.headers, { vectors: [inline] }));
    expect(saved.STEERED).toBe(direct.STEERED);
    expect(saved.receipts).toEqual(direct.receipts);
    const mood = { modelId: MODEL, layer: "3-tales-directions", index: 0, strength: 4 };
    const both = await json(await steer([mood, feature], owner.headers));
    expect(both.receipts?.map(({ point }) => point)).toEqual(["blocks.3.hook_resid_pre", "blocks.2.hook_resid_post"]);
  });

  it("steers every model of its width that has its layer", async () => {
    const keep = (layerNumber: number) => create({ modelId: "scripted", layerNumber, vector: [1, 2, 3, 4, 5, 6, 7, 8] });
    const on = async (vector: Created["vector"], modelId: string, seed = nextSeed()) => {
      const feature = { modelId: "scripted", layer: vector.source, index: vector.index, strength: 2 };
      const response = await post("/api/steer", scripted({ modelId, features: [feature], seed }), owner.headers);
      return { response, seen: await seenBy(seed) };
    };
    const [first, last] = [await keep(1), await keep(3)];
    const { response, seen } = await on(first, "scripted-twin");
    expect(response.status).toBe(200);
    expect(seen?.request.model).toBe("scripted-twin");
    expect(seen?.request.rows[1]?.edits).toMatchObject([
      { vector: encodeFloat32([1, 2, 3, 4, 5, 6, 7, 8]), point: "blocks.1.hook_resid_pre" },
    ]);
    expect((await json((await on(last, "scripted-twin")).response)).error).toMatch(/its layers are 0 to 1/);
    expect((await json((await on(first, "scripted-narrow")).response)).error).toMatch(/8 values, scripted-narrow needs 4/);
  });

  it("is read on a text: the projection of every token's residual on it", async () => {
    const mood = { modelId: MODEL, layer: "3-tales-directions", index: "0" };
    const customText = "They were so happy.";
    const read = async (feature: object, headers: Record<string, string> = {}) =>
      json(await post("/api/activation/new", { feature, customText }, headers));
    const unit = await read(mood);
    const one = values.map((_, i) => (i === 5 ? 1 : 0));
    const two = values.map((_, i) => (i === 5 ? 2 : 0));
    const [first, second] = [await create({ vector: one }), await create({ vector: two, visibility: "private" })];
    const at = (vector: Created["vector"]) => ({ modelId: MODEL, layer: vector.source, index: vector.index });
    const [single, double] = [await read(at(first)), await read(at(second), owner.headers)];
    expect(single.tokens).toEqual(unit.tokens);
    const doubled = double.values as unknown as number[];
    for (const [t, value] of (single.values as unknown as number[]).entries()) expect(doubled[t]).toBeCloseTo(2 * value, 4);
    expect(await read(at(second))).toMatchObject({ code: "feature_not_found" });
  });

  it("that is deleted is gone, for its owner too, and a steer that used it stays as it was", async () => {
    const vector = await create({ vectorLabel: "Gone" });
    const feature = { modelId: MODEL, layer: vector.source, index: vector.index, strength: 9 };
    const { id } = await json(await steer([feature], owner.headers));
    const before = await json(await post("/api/steer-load", { steerOutputId: id }));
    const removed = await post("/api/vector/delete", addressOf(vector), owner.headers);
    expect([removed.status, await removed.json()]).toEqual([200, { message: "Success" }]);
    expect((await get(vector, owner.headers)).status).toBe(404);
    expect((await list(owner)).map(({ index }) => index)).not.toContain(vector.index);
    expect((await steer([feature], owner.headers)).status).toBe(404);
    expect((await post("/api/vector/delete", addressOf(vector), owner.headers)).status).toBe(404);
    const after = await json(await post("/api/steer-load", { steerOutputId: id }));
    expect(after).toEqual(before);
    expect(JSON.stringify(after)).toContain("Gone");
  });
});

describe("who may use a vector", () => {
  it("is its owner alone when it is private, and for others it is as one that is not there", async () => {
    const vector = await create({ visibility: "private" });
    const feature = { modelId: MODEL, layer: vector.source, index: vector.index, strength: 9 };
    expect((await get(vector, owner.headers)).status).toBe(200);
    expect((await steer([feature], owner.headers)).status).toBe(200);
    const nothing = { ...vector, index: "179999999" };
    const words = async (response: Response, index: string) => {
      const { error, code } = await json(response);
      return [response.status, code, String(error).replaceAll(index, "INDEX")];
    };
    for (const headers of [{}, other.headers]) {
      expect(await words(await get(vector, headers), vector.index)).toEqual(await words(await get(nothing, headers), nothing.index));
      expect(await words(await steer([feature], headers), vector.index)).toEqual(
        await words(await steer([{ ...feature, index: nothing.index }], headers), nothing.index),
      );
    }
    const deleted = await post("/api/vector/delete", addressOf(vector), other.headers);
    expect(await words(deleted, vector.index)).toEqual(
      await words(await post("/api/vector/delete", addressOf(nothing), other.headers), nothing.index),
    );
    expect((await get(vector, owner.headers)).status).toBe(200);
  });

  it("and a saved steer does not give its values away", async () => {
    const vector = await create({ visibility: "private" });
    const feature = { modelId: MODEL, layer: vector.source, index: vector.index, strength: 9 };
    const inline = { vector: values.toReversed(), hookName: "blocks.1.hook_resid_pre", strength: 2 };
    const { id } = await json(await steer([feature], owner.headers, { vectors: [inline] }));
    const loaded = await json(await post("/api/steer-load", { steerOutputId: id }));
    expect(loaded.vectors).toEqual([expect.objectContaining({ hookName: "blocks.1.hook_resid_pre", strength: 2 })]);
    expect(JSON.stringify(loaded)).not.toContain(encodeFloat32(values).slice(0, 40));
    expect(JSON.stringify(loaded)).toContain("Jedi");
  });

  it("is whoever has the address of an unlisted or public one, but only its owner may delete it", async () => {
    for (const visibility of ["unlisted", "public"]) {
      const vector = await create({ visibility });
      expect((await get(vector)).status).toBe(200);
      expect((await post("/api/vector/delete", addressOf(vector), other.headers)).status).toBe(404);
      const wrong = { ...addressOf(vector), source: "4-neuronpedia-resid-pre" };
      expect((await post("/api/vector/get", wrong)).status).toBe(404);
      expect((await post("/api/vector/delete", wrong, owner.headers)).status).toBe(404);
    }
  });
});

describe("a vector that is changed", () => {
  const update = (vector: Created["vector"], changes: object, headers: Record<string, string> = owner.headers) =>
    post("/api/vector/update", { ...addressOf(vector), ...changes }, headers);

  it("has the new words and a new version, and its numbers stay", async () => {
    const vector = await create({ description: "from a paper" });
    const changes = { vectorLabel: "Sith", vectorDefaultSteerStrength: 0, visibility: "public" };
    const { vector: changed } = (await (await update(vector, changes)).json()) as { vector: z.infer<typeof Vector> };
    expect(changed).toMatchObject({ ...changes, description: "from a paper", version: 2, vector: values });
    expect(((await (await get(vector)).json()) as { vector: object }).vector).toEqual(changed);
  });

  it("is not changed by one who read an older version", async () => {
    const vector = await create();
    const answers = await Promise.all(["one", "two"].map((vectorLabel) => update(vector, { vectorLabel, version: 1 })));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409]);
    const refused = answers.find(({ status }) => status === 409) as Response;
    expect((await json(refused)).error).toMatch(/has version 2 by now, not 1/);
  });

  it("is its owner's alone, and something has to change", async () => {
    const vector = await create({ visibility: "public" });
    expect((await update(vector, { vectorLabel: "x" }, other.headers)).status).toBe(404);
    expect((await update(vector, {})).status).toBe(400);
    expect((await update(vector, { vectorLabel: "x" }, {})).status).toBe(401);
    expect((await update({ ...vector, index: "179999999" }, { vectorLabel: "x", version: 1 })).status).toBe(404);
  });

  it("leaves steers that used it as they were", async () => {
    const vector = await create();
    const { id } = await json(await steer([{ modelId: MODEL, layer: vector.source, index: vector.index, strength: 9 }], owner.headers));
    const before = await json(await post("/api/steer-load", { steerOutputId: id }));
    await update(vector, { vectorLabel: "Renamed" });
    expect(await json(await post("/api/steer-load", { steerOutputId: id }))).toEqual(before);
  });
});

describe("a feature's direction", () => {
  it("is the decoder row that steers: as a vector it steers to the same text", async () => {
    const at = { modelId: MODEL, source: "3-tales-res", index: "7" };
    const { vector } = (await (await post("/api/vector/get", at)).json()) as { vector: { vector: number[]; hookName: string } };
    expect(Math.hypot(...vector.vector)).toBeCloseTo(1, 5);
    const feature = await json(await steer([{ modelId: MODEL, layer: at.source, index: 7, strength: 20 }], owner.headers));
    const inline = { vector: vector.vector, hookName: vector.hookName, strength: 20 };
    const given = await json(await steer([], owner.headers, { vectors: [inline] }));
    expect([given.STEERED, given.receipts]).toEqual([feature.STEERED, feature.receipts]);
  });
});

describe("the page of a vector", () => {
  it("shows what it is, as text, and how to steer with it; a private one has none", async () => {
    const vector = await create({ vectorLabel: "<script>alert(1)</script>" });
    const page = await call(`/${MODEL}/${vector.source}/${vector.index}`);
    const html = await page.text();
    expect(page.status).toBe(200);
    expect(html).toContain("&lt;script&gt;");
    expect(html).not.toContain("<script");
    expect(html).toContain("blocks.3.hook_resid_pre");
    const hidden = await create({ visibility: "private" });
    for (const index of [hidden.index, "179999999"]) {
      const missing = await call(`/${MODEL}/${hidden.source}/${index}`);
      expect([missing.status, (await missing.text()).includes("There is no vector here")]).toEqual([404, true]);
    }
  });
});

describe("the list of one's vectors", () => {
  it("has the newest first, in pages, and nobody else's", async () => {
    const user = await newUser();
    expect(await list(user)).toEqual([]);
    for (const vectorLabel of ["one", "two", "three"]) await create({ vectorLabel }, user);
    expect((await list(user)).map(({ vectorLabel }) => vectorLabel).sort()).toEqual(["one", "three", "two"]);
    const pages = [await list(user, { limit: 2 }), await list(user, { limit: 2, offset: 2 })];
    expect(pages.map((page) => page.length)).toEqual([2, 1]);
    expect(pages.flat()).toEqual(await list(user));
  });

  it("is filtered by model and words, says how many there are, and leaves numbers out when asked to", async () => {
    const user = await newUser();
    for (const vectorLabel of ["Red fox", "red wine", "blue"]) await create({ vectorLabel, description: "colours" }, user);
    const ask = async (body: object) =>
      (await (await post("/api/vector/list-owned", body, user.headers)).json()) as { vectors: z.infer<typeof Vector>[]; total: number };
    const red = await ask({ query: "RED", values: false, limit: 1 });
    expect([red.total, red.vectors.length, red.vectors[0]?.vector]).toEqual([2, 1, []]);
    expect((await ask({ query: "colour" })).total).toBe(3);
    expect((await ask({ query: "%" })).total).toBe(0);
    expect((await ask({ modelId: "other" })).total).toBe(0);
  });

  it("ends at a limit that says what to do", async () => {
    const user = await newUser();
    const { db } = config();
    const row = { user_id: user.id, model_id: MODEL, layer: 1, hook: "resid_pre", label: "x", default_strength: 1 } as const;
    const rows = Array.from({ length: LIMITS.vectorsPerUser }, (_, i) => ({
      ...row,
      ...{ index: 1000 + i, visibility: "private" as const, values: Float64Array.of(1), created_at: i },
    }));
    // D1 takes 100 values in one statement.
    for (let i = 0; i < rows.length; i += 7) await db.insert(vectors).values(rows.slice(i, i + 7));
    const response = await post("/api/vector/new", fresh(), user.headers);
    expect([response.status, (await json(response)).error]).toEqual([
      409,
      expect.stringMatching(/You have 1000 vectors.*delete some before/),
    ]);
  });
});

describe("a vector that cannot be kept", () => {
  it.each([
    ["no key", {}, {}, 401, /requires authorization: send an API key/],
    ["a model", { modelId: "gpt5" }, undefined, 404, /no model 'gpt5'/],
    ["a layer", { layerNumber: 6 }, undefined, 400, /layerNumber must be a layer of tiller-tales: 0 to \d/],
    ["half a layer", { layerNumber: 1.5 }, undefined, 400, /^layerNumber must be a whole number/],
    ["a hook", { hookType: "hook_mlp_out" }, undefined, 400, /hook_resid_pre, hook_resid_post/],
    ["a width", { vector: [1, 2] }, undefined, 400, /vector has 2 values; tiller-tales needs exactly 256/],
    ["zero", { vector: Array(WIDTH).fill(0) }, undefined, 400, /is zero/],
    ["an infinite value", { vector: Array(WIDTH).fill(1e39) }, undefined, 400, /finite float32/],
    ["words", { vector: "a b c" }, undefined, 400, /neither numbers/],
    ["nothing", { vector: undefined }, undefined, 400, /^vector must be a list of up to 24576/],
    ["no label", { vectorLabel: "" }, undefined, 400, /^vectorLabel must be a text of 1 to 200/],
    ["a strength", { vectorDefaultSteerStrength: 301 }, undefined, 400, /from -300 to 300/],
    ["a visibility", { visibility: "secret" }, undefined, 400, /private, unlisted, public/],
  ])("for %s is refused with what is allowed", async (_, changes, headers, status, words) => {
    const response = await post("/api/vector/new", fresh(changes), headers ?? owner.headers);
    expect([response.status, (await json(response)).error]).toEqual([status, expect.stringMatching(words)]);
  });

  it("the other calls need a key or an address too", async () => {
    expect((await call("/api/vector/list-owned", { method: "POST" })).status).toBe(401);
    expect((await post("/api/vector/list-owned", { limit: 101 }, owner.headers)).status).toBe(400);
    expect((await post("/api/vector/delete", {}, owner.headers)).status).toBe(400);
    expect((await post("/api/vector/get", { modelId: MODEL, source: "3-none", index: "1" })).status).toBe(404);
  });
});
