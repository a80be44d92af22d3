import { beforeAll, describe, expect, it } from "vitest";
import type { z } from "zod";
import { cosine, dot, lengthOf } from "../../shared/vector-arithmetic.ts";
import type { CombinedVector } from "../directions/contract.ts";
import { LIMITS } from "../limits.ts";
import { json, newUser, post, type TestUser } from "../test/worker/client.ts";
import type { CreatedVector, Vector } from "../vectors/contract.ts";

const PATH = "/api/vector/combine";
const MODEL = "tiller-tales";
const WIDTH = 256;
type Kept = z.infer<typeof CreatedVector>["vector"];
type Term = Pick<Kept, "modelId" | "source" | "index"> & { readonly weight?: number };

let user: TestUser;
let other: TestUser;
let [a, b, c]: Kept[] = [];
beforeAll(async () => {
  [user, other] = [await newUser({ hourlyLimit: 1000 }), await newUser()];
  [a, b, c] = [await keep(1), await keep(2), await keep(3)];
});

const values = (seed: number, width = WIDTH) =>
  Array.from({ length: width }, (_, i) => (Math.sin(seed * 12.9898 + i * 78.233) * 43_758.5453) % 1);
async function keep(seed: number, changes: object = {}, who = user): Promise<Kept> {
  const body = {
    modelId: MODEL,
    layerNumber: 3,
    hookType: "hook_resid_pre",
    vector: values(seed),
    vectorDefaultSteerStrength: 6,
    vectorLabel: `v${seed}`,
    ...changes,
  };
  const response = await post("/api/vector/new", body, who.headers);
  expect(response.status, await response.clone().text()).toBe(200);
  return ((await response.json()) as z.infer<typeof CreatedVector>).vector;
}
const term = (vector: Kept | undefined, weight?: number): Term => {
  const { modelId, source, index } = vector as Kept;
  return { modelId, source, index, ...(weight === undefined ? {} : { weight }) };
};
const mood = (index = 0, weight?: number) => ({
  modelId: MODEL,
  source: "3-tales-directions",
  index,
  ...(weight === undefined ? {} : { weight }),
});
const ask = (body: object, who = user) => post(PATH, { vectorLabel: "mixed", ...body }, who.headers);
async function combine(body: object): Promise<z.infer<typeof CombinedVector>> {
  const response = await ask(body);
  expect(response.status, await response.clone().text()).toBe(200);
  return response.json();
}
const read = async ({ modelId, source, index }: Term, who = user) =>
  ((await json(await post("/api/vector/get", { modelId, source, index }, who.headers))) as unknown as { vector: z.infer<typeof Vector> })
    .vector;

describe("vectors become a vector", () => {
  it("that is the sum of the terms with their weights, to the last bit, and is kept", async () => {
    const { vector, cosines, url } = await combine({ terms: [term(a, 2), term(b, -0.5), term(c)] });
    const [x, y, z] = [values(1), values(2), values(3)];
    expect(vector.values).toEqual(x.map((value, i) => 2 * value + -0.5 * (y[i] as number) + (z[i] as number)));
    expect(cosines).toEqual([x, y, z].map((each) => expect.closeTo(cosine(each, vector.values) ?? 0, 12)));
    expect(vector).toMatchObject({ modelId: MODEL, source: "3-neuronpedia-resid-pre", label: "mixed", visibility: "unlisted" });
    expect(url).toBe(`http://edge.test/${MODEL}/3-neuronpedia-resid-pre/${vector.index}`);
    const kept = await read(vector);
    expect(kept.vector).toEqual(vector.values);
    expect(kept.description).toBe(
      `2 x 'v1' (3-neuronpedia-resid-pre ${a?.index}) + -0.5 x 'v2' (3-neuronpedia-resid-pre ${b?.index}) + 1 x 'v3' (3-neuronpedia-resid-pre ${c?.index}).`,
    );
  });

  it("without what it has of others, and as long as is asked for", async () => {
    const { vector } = await combine({ terms: [term(a)], orthogonalTo: [term(b), term(c), term(b)], length: 2.5 });
    for (const each of [values(2), values(3)]) expect(Math.abs(cosine(vector.values, each) ?? 1)).toBeLessThan(1e-12);
    expect(lengthOf(vector.values)).toBeCloseTo(2.5, 12);
    // What was taken out lies in the span of the others: taking those out of it leaves nothing.
    const scale = dot(vector.values, values(1)) / dot(vector.values, vector.values);
    const kept = await keep(0, { vector: values(1).map((value, i) => value - scale * (vector.values[i] as number)) });
    expect((await json(await ask({ terms: [term(kept)], orthogonalTo: [term(b), term(c)] }))).error).toMatch(
      /^Nothing is left: the sum of the terms lies in the span of orthogonalTo/,
    );
  });

  it("of features too, which are found at their engine", async () => {
    const [happy, latent] = [await read(mood() as unknown as Term), await read({ modelId: MODEL, source: "3-tales-res", index: "978" })];
    const { vector, cosines } = await combine({
      terms: [mood(0, 3), { modelId: MODEL, source: "3-tales-res", index: 978, weight: 2 }, term(a, 0)],
    });
    expect(vector.values).toEqual(happy.vector.map((value, i) => 3 * value + 2 * (latent.vector[i] as number)));
    expect(vector.source).toBe("3-neuronpedia-resid-pre");
    expect(cosines).toHaveLength(3);
    const many = await combine({
      terms: [term(a)],
      orthogonalTo: Array.from({ length: 64 }, (_, index) => ({ modelId: MODEL, source: "3-tales-res", index })),
    });
    const one = await read({ modelId: MODEL, source: "3-tales-res", index: "63" });
    expect(Math.abs(cosine(many.vector.values, one.vector) ?? 1)).toBeLessThan(1e-12);
  });

  it("that steers at once", async () => {
    const { vector } = await combine({ terms: [mood(0), mood(1)], length: 1 });
    const feature = { modelId: MODEL, layer: vector.source, index: vector.index, strength: vector.defaultSteerStrength };
    const body = { prompt: "One day", modelId: MODEL, features: [feature], temperature: 0, n_tokens: 4, seed: 1, strength_multiplier: 1 };
    expect((await json(await post("/api/steer", body, user.headers))).receipts).toMatchObject([{ positions_changed: expect.any(Number) }]);
  });

  it("which pushes by default as far as its terms do", async () => {
    expect((await combine({ terms: [term(a)] })).vector.defaultSteerStrength).toBe(6);
    expect((await combine({ terms: [term(a, 2)] })).vector.defaultSteerStrength).toBe(3);
    expect((await combine({ terms: [term(a)], length: lengthOf(values(1)) / 10 })).vector.defaultSteerStrength).toBe(60);
    expect((await combine({ terms: [term(a)], length: 0.001 })).vector.defaultSteerStrength).toBe(LIMITS.vectorStrength);
    const said = { vectorDefaultSteerStrength: -2, description: "mine", visibility: "private" };
    const { vector } = await combine({ terms: [term(a)], ...said });
    expect(await read(vector)).toMatchObject({ vectorDefaultSteerStrength: -2, description: "mine", visibility: "private" });
  });

  it("at the point of its terms, or at the one that is said", async () => {
    const after = await keep(4, { layerNumber: 1, hookType: "hook_resid_post" });
    const at = async (body: object) => (await combine(body)).vector.hookName;
    expect(await at({ terms: [term(after)] })).toBe("blocks.1.hook_resid_post");
    expect(await at({ terms: [term(after)], orthogonalTo: [term(a)] })).toBe("blocks.1.hook_resid_post");
    expect(await at({ terms: [term(after)], layerNumber: 2 })).toBe("blocks.2.hook_resid_post");
    expect(await at({ terms: [term(after), term(a)], layerNumber: 2, hookType: "hook_resid_pre" })).toBe("blocks.2.hook_resid_pre");
    for (const part of [{}, { layerNumber: 2 }, { hookType: "hook_resid_pre" }]) {
      const refused = await ask({ terms: [term(after), term(a)], ...part });
      expect([refused.status, (await json(refused)).error]).toEqual([
        400,
        "layerNumber and hookType are required fields here: the terms act at different points, blocks.1.hook_resid_post, blocks.3.hook_resid_pre.",
      ]);
    }
  });
});

describe("whose vectors may be combined", () => {
  it("are one's own, and those of others that are not private", async () => {
    const [shared, secret] = [await keep(5, {}, other), await keep(6, { visibility: "private" }, other)];
    expect((await combine({ terms: [term(shared)] })).vector.values).toEqual(values(5));
    for (const terms of [[term(secret)], [{ ...term(a), index: "90000001" }], [{ ...term(a), source: "2-neuronpedia-resid-pre" }]]) {
      const refused = await json(await ask({ terms }));
      expect([refused.code, refused.error]).toEqual([
        "feature_not_found",
        expect.stringMatching(/^terms\[0\]: there is no vector \d+ in '.*' that you may use/),
      ]);
    }
    expect((await ask({ terms: [term(a)], orthogonalTo: [term(secret)] })).status).toBe(404);
    expect((await ask({ terms: [term(secret)] }, other)).status).toBe(200);
  });

  it("and only with a key", async () => {
    expect((await post(PATH, { vectorLabel: "x", terms: [mood()] })).status).toBe(401);
  });
});

describe("a combination is refused", () => {
  it.each([
    ["without terms", () => ({}), 400, /^terms must be a list of 1 to 64 objects with modelId, source, index and weight/],
    ["with no term", () => ({ terms: [] }), 400, /^terms must be a list of 1 to 64/],
    ["with too many", () => ({ terms: Array(65).fill(mood()) }), 400, /^terms must be a list of 1 to 64/],
    [
      "with a weight that is none",
      () => ({ terms: [{ ...mood(), weight: "much" }] }),
      400,
      /^terms\[0\]\.weight must be a number from -1000 to 1000/,
    ],
    [
      "with a strength for a weight",
      () => ({ terms: [{ ...mood(), strength: 3 }] }),
      400,
      /^terms\[0\] has a field that is not known: strength/,
    ],
    ["without a label", () => ({ terms: [mood()], vectorLabel: undefined }), 400, /^vectorLabel is a required field/],
    ["with a length of 0", () => ({ terms: [mood()], length: 0 }), 400, /^length must be a number from 0\.000001 to 1000000/],
    [
      "with a layer that is not there",
      () => ({ terms: [mood()], layerNumber: 99 }),
      400,
      /^layerNumber must be a layer of tiller-tales: 0 to \d/,
    ],
    [
      "with terms of two models",
      () => ({ terms: [mood(), { ...mood(), modelId: "scripted" }] }),
      400,
      /^terms\[1\]\.modelId must be tiller-tales/,
    ],
    [
      "with another model's to be orthogonal to",
      () => ({ terms: [mood()], orthogonalTo: [{ ...mood(), modelId: "scripted" }] }),
      400,
      /^orthogonalTo\[0\]\.modelId must be tiller-tales/,
    ],
    ["with an unknown model", () => ({ terms: [{ ...mood(), modelId: "none" }] }), 404, /no model 'none'/],
    ["with an unknown source", () => ({ terms: [{ ...mood(), source: "9-none" }] }), 404, /has no source '9-none'\. Its sources are: /],
    [
      "with a feature that is not there",
      () => ({ terms: [mood(), mood(4)] }),
      404,
      /^terms\[1\]\.index: 3-tales-directions of tiller-tales has no feature 4; its features are 0 to 3/,
    ],
    ["where the terms cancel", () => ({ terms: [term(a, 2), term(b), term(a, -2), term(b, -1)] }), 400, /^The terms cancel each other out/],
    ["where all weights are 0", () => ({ terms: [term(a, 0)] }), 400, /^The terms cancel each other out/],
    [
      "where it is orthogonal to itself",
      () => ({ terms: [term(a, 3)], orthogonalTo: [term(a)] }),
      400,
      /^Nothing is left: the sum of the terms is a multiple of orthogonalTo/,
    ],
    [
      "where float32 cannot hold it",
      async () => ({ terms: [term(await keep(7, { vector: values(7).map((value) => value * 1e38) }), 1000)] }),
      400,
      /^The result must hold finite float32 values only/,
    ],
  ])("%s", async (_, body, status, words) => {
    const response = await ask(await body());
    expect([response.status, (await json(response)).error]).toEqual([status, expect.stringMatching(words)]);
  });
});
