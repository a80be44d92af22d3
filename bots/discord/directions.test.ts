import { describe, expect, it } from "vitest";
import type { TillerUser } from "../../shared/client.ts";
import type { Label, Model, Preset, Vector } from "../../shared/client-types.ts";
import { TillerError } from "../../shared/errors.ts";
import {
  type Chosen,
  findDirections,
  findModel,
  formatPlace,
  parsePlace,
  suggestFeatures,
  suggestModels,
  suggestPresets,
  suggestVectors,
} from "./directions.ts";

const SOURCE = "3-tales-directions";
const source = (id: string, ...labelledFeatures: { index: number; label: string; strength?: number }[]) => ({
  ...{ id, hookName: `blocks.${id}`, width: 100, architecture: "standard", labelledFeatures },
});
const model = (id: string, ...sources: Model["sources"]): Model => ({
  ...{ id, layers: 4, width: 8, context: 256, chatTemplate: false, sources },
});
const TALES = model("tales", source(SOURCE, { index: 0, label: "Joy", strength: 8 }, { index: 1, label: "The sea" }));
const BARE = model("bare");

const preset = (name: string, ...strengths: number[]): Preset => ({
  name,
  features: strengths.map((strength, index) => ({ modelId: "tales", layer: SOURCE, index, strength, explanation: `${name} ${index}` })),
});
const vector = (index: string, vectorLabel: string, vectorDefaultSteerStrength = 20): Vector => ({
  ...{ modelId: "tales", layer: "2-neuronpedia-resid-pre", index, vectorLabel, vectorDefaultSteerStrength },
  ...{ description: "", hookName: "blocks.2", visibility: "private", version: 1, vector: [] },
});
const label = (index: string, description: string, layer = SOURCE): Label => ({ modelId: "tales", layer, index, description });

interface Kept {
  readonly models?: readonly Model[];
  readonly presets?: readonly Preset[];
  readonly vectors?: readonly Vector[];
  readonly labels?: readonly Label[];
  /** What was asked for. */
  readonly calls?: object[];
}

/** A service with this in it; it searches as the real one does. */
function serve({ models = [TALES, BARE], presets = [], vectors = [], labels = [], calls = [] }: Kept): TillerUser {
  const has = (text: string, query: string) => text.toLowerCase().includes(query.toLowerCase());
  return {
    models: async () => models,
    presets: async () => presets,
    async searchLabels(modelId: string, query: string) {
      calls.push({ modelId, query });
      return labels.filter(({ description }) => has(description, query));
    },
    labelOf: async (_: string, layer: string, index: number) =>
      labels.find((each) => each.layer === layer && each.index === String(index))?.description,
    vectors: {
      async get({ source: layer, index }: { source: string; index: string }) {
        const found = vectors.find((each) => each.layer === layer && each.index === index);
        if (found === undefined) throw new TillerError("feature_not_found", `There is no vector ${layer}/${index}.`);
        return found;
      },
      async list(page: { query?: string } = {}) {
        calls.push(page);
        return vectors.filter(({ vectorLabel }) => has(vectorLabel, page.query ?? ""));
      },
    },
  } as unknown as TillerUser;
}

const choose = (chosen: Partial<Chosen>): Chosen => ({
  ...{ feature: undefined, vector: undefined, preset: undefined, strength: undefined },
  ...chosen,
});
const refusedWith = (message: RegExp | string) => ({ code: "invalid_request", message: expect.stringMatching(message) });

describe("a place", () => {
  it.each([
    ["6-res-jb/204", "6-res-jb", 204],
    ["6-res-jb 204", "6-res-jb", 204],
    ["6-res-jb:204", "6-res-jb", 204],
    [" 6-res-jb / 204\n", "6-res-jb", 204],
    ["0-gemmascope-res-16k/0", "0-gemmascope-res-16k", 0],
    ["12-res_fs.v2-l0/0012", "12-res_fs.v2-l0", 12],
  ])("is read from %j", (text, layer, index) => {
    expect(parsePlace(text)).toEqual({ layer, index });
  });

  it.each([
    ...["", "joy", "204", "6-res-jb", "6-res-jb/", "/204", "6-res-jb/-1", "6-res-jb/1.5", "6-res-jb/204/1", "res-jb/204", "6-/204"],
    ...["6-res-jb/99999999999", `6-${"a".repeat(100)}/1`, "6-res-jb/1\n6-res-jb/2", "6-<@1>/3", "99999-res-jb/1"],
  ])("is not read from %j", (text) => {
    expect(parsePlace(text)).toBeUndefined();
  });

  it("is written so that it can be read again", () => {
    for (const place of [
      { layer: SOURCE, index: 0 },
      { layer: "25-axbench-reft-r1-res-16k", index: 9_999_999_999 },
    ]) {
      expect(parsePlace(formatPlace(place))).toEqual(place);
      expect(formatPlace({ ...place, index: String(place.index) })).toBe(formatPlace(place));
    }
  });
});

describe("the model", () => {
  it("is the one that was named, or the first that has something to steer with", async () => {
    const tiller = serve({ models: [BARE, TALES] });
    expect((await findModel(tiller, undefined)).id).toBe("tales");
    expect((await findModel(tiller, "bare")).id).toBe("bare");
    expect((await findModel(serve({ models: [BARE] }), undefined)).id).toBe("bare");
  });

  it("that is not there is answered with those that are", async () => {
    await expect(findModel(serve({}), "gpt")).rejects.toMatchObject(
      refusedWith(/^There is no model gpt here. These are served: tales, bare\.$/),
    );
    for (const id of ["gpt", undefined])
      await expect(findModel(serve({ models: [] }), id)).rejects.toMatchObject(refusedWith(/^No model is served at the moment\.$/));
  });
});

describe("a direction", () => {
  const find = (chosen: Partial<Chosen>, kept: Kept = {}) => findDirections(serve(kept), TALES, choose(chosen));

  it.each([
    [{}],
    [{ feature: `${SOURCE}/0`, vector: "2-x/1" }],
    [{ feature: `${SOURCE}/0`, preset: "Joy" }],
    [{ vector: "2-x/1", preset: "Joy" }],
    [{ feature: `${SOURCE}/0`, vector: "2-x/1", preset: "Joy", strength: 1 }],
  ])("is exactly one of feature, vector and preset, not %j", async (chosen) => {
    await expect(find(chosen)).rejects.toMatchObject(refusedWith(/Choose one direction: a feature, a vector or a preset/));
  });

  it("that is a feature has its label and the strength that shows, or the one that was given", async () => {
    const joy = { modelId: "tales", layer: SOURCE, index: 0, label: "Joy" };
    expect(await find({ feature: `${SOURCE}/0` })).toEqual([{ ...joy, strength: 8 }]);
    expect(await find({ feature: `${SOURCE}/0`, strength: -3 })).toEqual([{ ...joy, strength: -3 }]);
    expect(await find({ feature: `${SOURCE}/0`, strength: 0 })).toEqual([{ ...joy, strength: 0 }]);
  });

  it("that is a feature nobody knows a strength of needs one", async () => {
    for (const feature of [`${SOURCE}/1`, `${SOURCE}/77`])
      await expect(find({ feature })).rejects.toMatchObject(refusedWith(/Give a strength/));
    expect(await find({ feature: `${SOURCE}/1`, strength: 5 })).toMatchObject([{ label: "The sea", strength: 5 }]);
    expect(await find({ feature: `${SOURCE}/77`, strength: 5 }, { labels: [label("77", "Ships")] })).toMatchObject([{ label: "Ships" }]);
    expect(await find({ feature: `${SOURCE}/77`, strength: 5 })).toMatchObject([{ label: `${SOURCE}/77`, index: 77 }]);
  });

  it("that is a vector has its name and its strength", async () => {
    const vectors = [vector("5", "Sines")];
    const sines = { modelId: "tales", layer: "2-neuronpedia-resid-pre", index: 5, label: "Sines" };
    expect(await find({ vector: "2-neuronpedia-resid-pre/5" }, { vectors })).toEqual([{ ...sines, strength: 20 }]);
    expect(await find({ vector: "2-neuronpedia-resid-pre/5", strength: 2 }, { vectors })).toEqual([{ ...sines, strength: 2 }]);
    await expect(find({ vector: "2-neuronpedia-resid-pre/6" }, { vectors })).rejects.toMatchObject({ code: "feature_not_found" });
  });

  it("that is a preset has its strengths, or one number that keeps their proportion", async () => {
    const presets = [preset("Joy", 8), preset("Storm", 10, -4, 0)];
    const strengths = async (chosen: Partial<Chosen>) => (await find(chosen, { presets })).map(({ strength }) => strength);
    expect(await strengths({ preset: "Storm" })).toEqual([10, -4, 0]);
    expect(await strengths({ preset: "Storm", strength: 5 })).toEqual([5, -2, 0]);
    expect(await strengths({ preset: "Storm", strength: -10 })).toEqual([-10, 4, -0]);
    expect(await strengths({ preset: "Storm", strength: 0 })).toEqual([0, -0, 0]);
    expect(await find({ preset: " storm " }, { presets })).toMatchObject([
      { label: "Storm 0" },
      { label: "Storm 1" },
      { label: "Storm 2" },
    ]);
    expect(JSON.stringify(await find({ preset: "Joy" }, { presets }))).not.toContain("explanation");
  });

  it("that is a list, some of whose features have no strength, counts by the first that has one", async () => {
    const found = await find({ preset: "Recipe", strength: 6 }, { presets: [preset("Recipe", 0, 3, 1)] });
    expect(found.map(({ strength }) => strength)).toEqual([0, 6, 2]);
    const none = { presets: [preset("Recipe", 0, 0)] };
    await expect(find({ preset: "Recipe", strength: 6 }, none)).rejects.toMatchObject(refusedWith(/leave the strength out/));
    expect((await find({ preset: "Recipe" }, none)).map(({ strength }) => strength)).toEqual([0, 0]);
  });

  it("that is a preset is found by what a choice carries of a long name", async () => {
    const presets = [preset(` ${"Very ".repeat(25)}long `, 3)];
    const [choice] = await suggestPresets(serve({ presets }), undefined, "", []);
    expect(await find({ preset: String(choice?.value) }, { presets })).toMatchObject([{ strength: 3 }]);
  });

  it.each([
    ["feature", { feature: "joy" }, new RegExp(`Choose the feature from the list.*such as ${SOURCE}/0`)],
    ["vector", { vector: "mine" }, new RegExp(`Choose the vector from the list.*such as ${SOURCE}/0`)],
    ["preset", { preset: "Calm" }, /^tales has no preset Calm. It has Joy, Storm\.$/],
  ])("that is an unknown %s is answered with what there is", async (_, chosen, message) => {
    await expect(find(chosen, { presets: [preset("Joy", 8), preset("Storm", 1)] })).rejects.toMatchObject(refusedWith(message));
  });

  it("that is unknown where there is nothing is answered with what to do", async () => {
    await expect(find({ preset: "Calm" })).rejects.toMatchObject(refusedWith(/tales has no presets: choose a feature/));
    await expect(findDirections(serve({}), BARE, choose({ feature: "joy" }))).rejects.toMatchObject(refusedWith(/such as 6-res-jb\/204/));
  });
});

describe("suggestions", () => {
  const LONG = "a long label of many words, 😀 and more ".repeat(5);
  const many = <T>(make: (i: number) => T): T[] => Array.from({ length: 60 }, (_, i) => make(i));
  const crowded: Kept = {
    models: [
      { ...TALES, sources: [source(SOURCE, ...many((index) => ({ index, label: `${LONG}${index}` })))] },
      ...many((i) => model(`m${i}-${"x".repeat(150)}`)),
    ],
    presets: many((i) => preset(`${i} ${LONG}`, 1)),
    vectors: many((i) => vector(String(i), `${LONG}${i}`)),
    labels: many((i) => label(String(i), LONG)),
  };

  it.each([
    ["models", (tiller: TillerUser) => suggestModels(tiller, "")],
    ["features", (tiller: TillerUser) => suggestFeatures(tiller, undefined, "")],
    ["features that are searched for", (tiller: TillerUser) => suggestFeatures(tiller, "m0-".padEnd(153, "x"), "long label")],
    ["vectors", (tiller: TillerUser) => suggestVectors(tiller, undefined, "")],
    ["presets", (tiller: TillerUser) => suggestPresets(tiller, undefined, "", [])],
  ])("are as many and as long as Discord takes: %s", async (_, suggest) => {
    const choices = await suggest(serve(crowded));
    expect(choices).toHaveLength(25);
    for (const { name, value } of choices) {
      for (const text of [name, value]) expect(text.length).toBeGreaterThan(0);
      for (const text of [name, value]) expect(text.length).toBeLessThanOrEqual(100);
      expect(name.isWellFormed()).toBe(true);
    }
    expect(new Set(choices.map(({ value }) => value)).size).toBe(25);
  });

  it("have no empty names, which Discord would refuse with all the others", async () => {
    const choices = await suggestPresets(serve({ presets: [preset("Joy", 1), preset(" ", 1), preset("\u200b", 1)] }), undefined, "", []);
    expect(choices.map(({ name }) => name)).toEqual(["Joy", "…"]);
  });

  it("of models and presets are those whose names have what was typed", async () => {
    expect((await suggestModels(serve({}), " TAL ")).map(({ value }) => value)).toEqual(["tales"]);
    const tiller = serve({ presets: [preset("Joy", 1), preset("Sea", 1), preset("The sea", 1)] });
    const names = async (typed: string, hidden: string[]) => (await suggestPresets(tiller, "tales", typed, hidden)).map(({ name }) => name);
    expect(await names("sea", [])).toEqual(["Sea", "The sea"]);
    expect(await names("", ["sea", "JOY "])).toEqual(["The sea"]);
  });

  it("of features search among all labels only from three letters on", async () => {
    const calls: object[] = [];
    const tiller = serve({ calls, labels: [label("50", "The open sea"), label("51", "日本語")] });
    const values = async (typed: string) => (await suggestFeatures(tiller, "tales", typed)).map(({ value }) => value);
    for (const typed of ["", "s", "se", " se ", "s-e!", "..."]) await values(typed);
    expect(calls).toEqual([]);
    expect(await values("se")).toEqual([`${SOURCE}/1`]);
    expect(await values(" sea ")).toEqual([`${SOURCE}/1`, `${SOURCE}/50`]);
    expect(await values("日本語")).toEqual([`${SOURCE}/51`]);
    expect(calls).toEqual([
      { modelId: "tales", query: "sea" },
      { modelId: "tales", query: "日本語" },
    ]);
    expect(await values("nothing is about this")).toEqual([]);
  });

  it("of features show the strength that is known, also where a search finds them too, and each once", async () => {
    const tiller = serve({ labels: [label("0", "Joyful words"), label("60", "Enjoyment")] });
    expect(await suggestFeatures(tiller, "tales", "joy")).toEqual([
      { name: `Joy · ${SOURCE} · 8`, value: `${SOURCE}/0` },
      { name: `Enjoyment · ${SOURCE}`, value: `${SOURCE}/60` },
    ]);
  });

  it("of vectors are of the model that was chosen, and searched by what was typed", async () => {
    const calls: object[] = [];
    const tiller = serve({ calls, vectors: [vector("5", "Sines", 2.5), vector("6", "Noise")] });
    expect(await suggestVectors(tiller, undefined, " sin ")).toEqual([
      { name: "Sines · tales 2-neuronpedia-resid-pre · 2.5", value: "2-neuronpedia-resid-pre/5" },
    ]);
    await suggestVectors(tiller, "tales", "");
    expect(calls).toEqual([{ query: "sin" }, { modelId: "tales" }]);
  });

  it("can be steered with", async () => {
    const kept: Kept = { presets: [preset("Joy", 1)], vectors: [vector("5", "Sines")] };
    const tiller = serve(kept);
    const [feature] = await suggestFeatures(tiller, undefined, "jo");
    const [own] = await suggestVectors(tiller, undefined, "");
    const [known] = await suggestPresets(tiller, undefined, "", []);
    for (const chosen of [{ feature: feature?.value }, { vector: own?.value }, { preset: known?.value }])
      expect(await findDirections(tiller, TALES, choose(chosen))).toHaveLength(1);
  });
});
