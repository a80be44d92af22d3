import { beforeAll, describe, expect, it } from "vitest";
import type { z } from "zod";
import type { CosSim, Feature, FeatureActivation } from "../features/contract.ts";
import { call, json, newUser, post, type TestUser } from "../test/worker/client.ts";

const MODEL = "tiller-tales";
const SOURCE = "3-tales-res";
type Of<Schema extends z.ZodType> = z.infer<Schema>;
let user: TestUser;
let other: TestUser;
beforeAll(async () => {
  [user, other] = [await newUser({ hourlyLimit: 1000 }), await newUser()];
});
const feature = async (path: string, headers: Record<string, string> = {}) => call(`/api/feature/${path}`, { headers });
const read = async (index: number | string): Promise<Of<typeof Feature>> => (await feature(`${MODEL}/${SOURCE}/${index}`)).json();
const as = async <T>(response: Promise<Response>): Promise<T> => {
  const answer = await response;
  expect(answer.status).toBe(200);
  return answer.json();
};
let made = 0;
/** A source set of the user's, on a model that it described. */
const newSet = async (layers = 2) => {
  const modelId = `m-${Date.now()}-${made++}`;
  await as(post("/api/model/new", { id: modelId, layers }, user.headers));
  await as(post("/api/source-set/new", { name: "res-mine", modelId }, user.headers));
  return { modelId, source: "1-res-mine" };
};
const uploaded = (index: number, more: object = {}) => ({
  index,
  ...{ density: 0.02, topLogits: [{ token: " cat", value: 2 }], bottomLogits: [{ token: " dog", value: -1 }] },
  explanations: [{ text: `label ${index}`, methodName: "by hand" }],
  activations: [
    { tokens: ["a", " dog"], values: [0, 1] },
    { tokens: ["a", " cat"], values: [0.5, 3], quantileMin: 0.1, quantileMax: 0.9, quantileFraction: 0.5 },
  ],
  ...more,
});
const vectorOf = async (visibility = "unlisted") => {
  const vector = Array.from({ length: 256 }, (_, i) => Math.sin(i));
  const body = {
    modelId: MODEL,
    layerNumber: 3,
    hookType: "hook_resid_pre",
    vector,
    vectorDefaultSteerStrength: 4,
    vectorLabel: "Jedi",
    visibility,
  };
  const { vector: kept } = await as<{ vector: { source: string; index: string } }>(post("/api/vector/new", body, user.headers));
  return { modelId: MODEL, source: kept.source, index: kept.index };
};

describe("a feature of the bundled model", () => {
  it("has a label, a density, a histogram, logits, neighbours and texts whose activations are the engine's", async () => {
    const found = await read(7);
    expect(found).toMatchObject({ modelId: MODEL, layer: SOURCE, index: "7", sourceSetName: "tales-res", hasVector: false });
    expect(found.hookName).toBe("blocks.3.hook_resid_pre");
    expect(found.frac_nonzero).toBeGreaterThan(0);
    expect(found.pos_str.length).toBe(10);
    expect(found.pos_values[0]).toBeGreaterThan(found.neg_values[0] as number);
    expect(found.freq_hist_data_bar_heights.reduce((a, b) => a + b, 0)).toBeGreaterThan(0);
    expect(found.topkCosSimIndices).not.toContain(7);
    expect(found.activations[0]?.maxValue).toBeCloseTo(found.maxActApprox, 1);
    const values = found.activations.map(({ maxValue }) => maxValue);
    expect(values).toEqual([...values].sort((a, b) => b - a));
    for (const { tokens, values, maxValue, maxValueTokenIndex } of found.activations) {
      expect(tokens.length).toBe(values.length);
      expect(values[maxValueTokenIndex]).toBe(maxValue);
    }
  });

  it("says in every explanation and text where it is, as Neuronpedia's client reads it", async () => {
    const { explanations, activations } = await read(7);
    expect(explanations.length).toBeGreaterThan(0);
    for (const each of [...explanations, ...activations])
      expect(each).toMatchObject({ modelId: MODEL, source: SOURCE, layer: SOURCE, index: "7" });
  });

  it("is read with others, in the order asked for, without those that are not there", async () => {
    const body = [9, "7", 5000].map((index) => ({ modelId: MODEL, layer: SOURCE, index, maxActsToReturn: 2 }));
    const found = await as<Of<typeof Feature>[]>(
      post("/api/features", [...body, { modelId: MODEL, layer: "3-tales-directions", index: 0 }]),
    );
    expect(found.map(({ layer, index }) => `${layer}/${index}`)).toEqual([`${SOURCE}/9`, `${SOURCE}/7`, "3-tales-directions/0"]);
    expect(found[0]?.activations.length).toBe(2);
    expect((await post("/api/features", [])).status).toBe(400);
  });

  it("is on a page of 25, by index, from an offset on", async () => {
    const page = await as<Of<typeof Feature>[]>(post("/api/features-offset", { modelId: MODEL, layer: SOURCE, offset: 30 }));
    const indexes = page.map(({ index }) => Number(index));
    expect(indexes.length).toBe(25);
    expect(indexes[0]).toBeGreaterThanOrEqual(30);
    expect(indexes).toEqual([...indexes].sort((a, b) => a - b));
    expect(page.every(({ maxActApprox }) => maxActApprox > 0)).toBe(true);
  });

  it("gives its texts alone too", async () => {
    const texts = await as<Of<typeof FeatureActivation>[]>(post("/api/activation/get", { modelId: MODEL, source: SOURCE, index: "7" }));
    expect(texts).toEqual((await read(7)).activations);
  });

  it.each([
    ["a model", "none/3-tales-res/1", 404],
    ["a source", `${MODEL}/3-none/1`, 404],
    ["a source id", `${MODEL}/none/1`, 404],
    ["an index", `${MODEL}/${SOURCE}/5000`, 404],
    ["a number", `${MODEL}/${SOURCE}/x`, 400],
    ["a vector", `${MODEL}/3-neuronpedia-resid-pre/179999999`, 404],
  ])("without %s is refused in JSON", async (_, path, status) => {
    const response = await feature(path);
    expect([response.status, typeof (await json(response)).error]).toEqual([status, "string"]);
  });
});

describe("features that a user uploads", () => {
  it("are read as those of the model are, and are written once", async () => {
    const { modelId, source } = await newSet();
    const body = { modelId: modelId.toUpperCase(), source, features: [uploaded(3), uploaded(8)] };
    expect(await as(post("/api/feature/upload-batch", body, user.headers))).toEqual({ message: "2 features created." });
    expect(await as(post("/api/feature/upload-batch", { ...body, features: [uploaded(3), uploaded(9)] }, user.headers))).toEqual({
      message: "1 features created.",
    });
    const found = await as<Of<typeof Feature>>(feature(`${modelId}/${source}/3`));
    expect(found).toMatchObject({
      ...{ maxActApprox: 3, frac_nonzero: 0.02, pos_str: [" cat"], pos_values: [2], neg_str: [" dog"], creatorId: user.id },
      explanations: [{ description: "label 3", typeName: "by hand", triggeredByUser: { id: user.id } }],
    });
    expect(found.activations.map(({ maxValue, binMin }) => [maxValue, binMin])).toEqual([
      [3, 0.1],
      [1, null],
    ]);
    const page = await as<Of<typeof Feature>[]>(post("/api/features-offset", { modelId, layer: source, offset: 4 }));
    expect(page.map(({ index }) => index)).toEqual(["8", "9"]);
  });

  it("belong into a set of the user's own", async () => {
    const { modelId, source } = await newSet();
    const upload = (body: object, headers: Record<string, string> = user.headers) =>
      post("/api/feature/upload-batch", { modelId, source, features: [uploaded(1)], ...body }, headers);
    expect((await upload({}, other.headers)).status).toBe(403);
    expect((await upload({}, {})).status).toBe(401);
    expect((await upload({ modelId: MODEL, source: SOURCE })).status).toBe(403);
    expect((await upload({ source: "2-res-mine" })).status).toBe(404);
  });

  it.each([
    ["no text", { features: [uploaded(1, { activations: [] })] }, /features\[0\]\.activations must have at least one/],
    ["more tokens than values", { features: [uploaded(1, { activations: [{ tokens: ["a", "b"], values: [1] }] })] }, /as many numbers as/],
    ["an index twice", { features: [uploaded(1), uploaded(1)] }, /an index twice/],
    ["a density above 1", { features: [uploaded(1, { density: 2 })] }, /density must be a number from 0 to 1/],
    ["too many features", { features: Array.from({ length: 129 }, (_, i) => uploaded(i)) }, /at most 128/],
    ["a value that is none", { features: [uploaded(1, { activations: [{ tokens: ["a"], values: ["x"] }] })] }, /must be a finite number/],
  ])("with %s are refused with what is allowed", async (_, body, words) => {
    const response = await post("/api/feature/upload-batch", { modelId: "m", source: "1-x", ...body }, user.headers);
    expect([response.status, (await json(response)).error]).toEqual([400, expect.stringMatching(words)]);
  });
});

describe("texts of a vector", () => {
  it("are added by its owner and shown with it, the most active first", async () => {
    const at = await vectorOf();
    const activations = [
      { tokens: ["a"], values: [1] },
      { tokens: ["b", "c"], values: [-1, 2] },
    ];
    expect(await as(post("/api/activation/upload-batch", { ...at, activations }, user.headers))).toEqual({
      message: "2 activations created.",
    });
    const found = await as<Of<typeof Feature>>(feature(`${MODEL}/${at.source}/${at.index}`));
    expect(found).toMatchObject({ hasVector: true, vectorLabel: "Jedi", vectorDefaultSteerStrength: 4 });
    expect(found.vector.length).toBe(256);
    expect(found.activations.map(({ tokens }) => tokens)).toEqual([["b", "c"], ["a"]]);
    expect((await post("/api/activation/upload-batch", { ...at, activations }, other.headers)).status).toBe(403);
    expect((await post("/api/activation/upload-batch", { ...at, source: SOURCE, activations }, user.headers)).status).toBe(400);
  });

  it("of a private one are its owner's alone", async () => {
    const at = await vectorOf("private");
    expect((await feature(`${MODEL}/${at.source}/${at.index}`, user.headers)).status).toBe(200);
    expect((await feature(`${MODEL}/${at.source}/${at.index}`, other.headers)).status).toBe(404);
    expect((await post("/api/activation/get", at)).status).toBe(404);
    expect(
      (await post("/api/activation/upload-batch", { ...at, activations: [{ tokens: ["a"], values: [1] }] }, other.headers)).status,
    ).toBe(404);
  });
});

describe("cossim", () => {
  const ask = (body: object, headers: Record<string, string> = user.headers) =>
    post("/api/cossim", { modelId: MODEL, source: SOURCE, index: 7, targetModelId: MODEL, targetSourceId: SOURCE, ...body }, headers);

  it("finds a feature itself first, then its neighbours as the feature lists them", async () => {
    const found = await as<Of<typeof CosSim>>(ask({}));
    const [first, ...rest] = found.topkDecoderCossimFeatures;
    expect(found.feature).toEqual({ model: MODEL, source: SOURCE, index: 7 });
    expect([first?.feature.index, rest.length]).toEqual([7, 9]);
    expect(first?.cosineSimilarity).toBeCloseTo(1, 5);
    const { topkCosSimIndices } = await read(7);
    expect(rest.map(({ feature }) => feature.index)).toEqual(topkCosSimIndices.slice(0, 9));
  });

  it("is measured from a vector too, and agrees with the rows that vector/get gives", async () => {
    const at = await vectorOf("private");
    const found = await as<Of<typeof CosSim>>(ask({ ...at, numResults: 1 }));
    const [best] = found.topkDecoderCossimFeatures;
    const row = await as<{ vector: { vector: number[] } }>(
      post("/api/vector/get", { modelId: MODEL, source: SOURCE, index: best?.feature.index }),
    );
    const vector = Array.from({ length: 256 }, (_, i) => Math.sin(i));
    const dot = vector.reduce((sum, value, i) => sum + value * (row.vector.vector[i] as number), 0);
    expect(best?.cosineSimilarity).toBeCloseTo(dot / Math.hypot(...vector), 4);
    expect((await ask({ ...at }, other.headers)).status).toBe(404);
  });

  it("needs a source and a feature that are there", async () => {
    expect((await ask({ targetSourceId: "3-none" })).status).toBe(404);
    expect((await ask({ index: 5000 })).status).toBe(404);
    expect((await ask({ targetModelId: "none" })).status).toBe(404);
  });
});

describe("a density filter", () => {
  const text = "The happy dog ran home.";
  const topk = (densityThreshold: number) =>
    as<{ results: { topFeatures: { featureIndex: number }[] }[] }>(
      post("/api/search-topk-by-token", { modelId: MODEL, source: SOURCE, text, numResults: 20, densityThreshold }),
    );

  it("leaves out features that are active on more tokens, and no others", async () => {
    const [all, few] = [await topk(0), await topk(0.005)];
    const indexes = [...new Set(all.results.flatMap(({ topFeatures }) => topFeatures.map(({ featureIndex }) => featureIndex)))];
    const known = await as<Of<typeof Feature>[]>(
      post(
        "/api/features",
        indexes.slice(0, 100).map((index) => ({ modelId: MODEL, layer: SOURCE, index, maxActsToReturn: 0 })),
      ),
    );
    const rare = new Set(known.filter(({ frac_nonzero }) => (frac_nonzero ?? 0) <= 0.005).map(({ index }) => Number(index)));
    for (const [t, { topFeatures }] of few.results.entries()) {
      const left = all.results[t]?.topFeatures.map(({ featureIndex }) => featureIndex).filter((index) => rare.has(index)) ?? [];
      expect(topFeatures.map(({ featureIndex }) => featureIndex).slice(0, left.length)).toEqual(left);
    }
    expect(rare.size).toBeLessThan(indexes.length);
  });

  it("acts on search-all too, whose features are described", async () => {
    const found = await as<{ result: { index: string; neuron: Of<typeof Feature> }[] }>(
      post("/api/search-all", {
        modelId: MODEL,
        sourceSet: "tales-res",
        text,
        densityThreshold: 0.01,
        numResults: 5,
        selectedLayers: [],
        sortIndexes: [],
      }),
    );
    expect(found.result.length).toBe(5);
    for (const { index, neuron } of found.result) {
      expect(neuron.index).toBe(index);
      expect(neuron.frac_nonzero).toBeLessThanOrEqual(0.01);
      expect(neuron.explanations.length).toBeGreaterThan(0);
    }
  });
});
