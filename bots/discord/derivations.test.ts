import { describe, expect, it } from "vitest";
import type { Derived, DerivedLayer, Model } from "../../shared/client-types.ts";
import { toMessage } from "./asked.ts";
import { deriveFields } from "./commands/vector-derive.ts";
import { derivedMessage, derivingMessage } from "./derivations.ts";
import { newCheck } from "./test/openapi.ts";

const OWNER = "12345678901234567890";
const JOB_ID = `cm${"j7q2".repeat(6).slice(0, 23)}`;
const view = { name: "Cheerful", modelId: "tiller-tales", ownerId: OWNER };

const layerOf = (layer: number, aucHeldOut: number | null, more: Partial<DerivedLayer> = {}): DerivedLayer => ({
  ...{ layer, hookName: `blocks.${layer}.hook_resid_pre`, norm: 3.5, meanNorm: 40, aucHeldOut, aucTrain: 0.99 },
  ...{ effect: 2.25, suggestedStrength: 10.123_456, ...more },
});
function derived(layers: DerivedLayer[], bestLayer: number): Derived {
  const counts = { texts: 160, heldOut: 40, tokens: 2400 };
  const at = { modelId: "tiller-tales", source: `${bestLayer}-neuronpedia-resid-pre`, index: "142855848" };
  return {
    vectors: [{ ...at, url: "https://tiller.example/v", label: "Cheerful", defaultSteerStrength: 10, visibility: "unlisted" }],
    report: { method: "mean_difference", bestLayer, layers, counts: { positive: counts, negative: { ...counts, texts: 159 } } },
  };
}
const latents = (count: number, label: string | null) => Array.from({ length: count }, (_, index) => ({ index, label, value: -1234.5678 }));

const check = newCheck();
function problemsOf(answer: ReturnType<typeof derivedMessage>): string[] {
  const { body, files } = toMessage(answer);
  const names = files.map(({ name }) => name);
  return check("PATCH /webhooks/{webhook_id}/{webhook_token}/messages/@original", JSON.parse(JSON.stringify(body)), names);
}
const embedOf = (answer: ReturnType<typeof derivedMessage>) => answer.embeds?.[0];
const fieldsOf = (answer: ReturnType<typeof derivedMessage>) =>
  Object.fromEntries((embedOf(answer)?.fields ?? []).map(({ name, value }) => [name, value]));

describe("an answer about a derivation", () => {
  it("says where the vector is, how well it separates, how hard to steer, and how to", () => {
    const answer = derivedMessage(view, JOB_ID, derived([layerOf(3, 0.975)], 3));
    expect(fieldsOf(answer)).toEqual({
      Place: "`3-neuronpedia-resid-pre/142855848` of tiller-tales, blocks.3.hook\\_resid\\_pre",
      "Suggested strength": "10.12",
      "AUC on held-out texts": "0.975 (0.5 is chance)",
      Layer: "3",
    });
    expect(embedOf(answer)?.description).toContain("`/steer vector: 3-neuronpedia-resid-pre/142855848`");
    expect(embedOf(answer)?.footer?.text).toBe(
      "mean_difference · 160 positive texts (2400 tokens) and 40 held out, 159 negative texts (2400 tokens) and 40 held out · unlisted",
    );
    expect(answer.files).toEqual([]);
  });

  it("has a table of several layers, the best marked, and of very many those that separate best", () => {
    const few = fieldsOf(derivedMessage(view, JOB_ID, derived([layerOf(1, 0.5), layerOf(2, 0.9), layerOf(3, null)], 2)));
    expect(few["Best layer"]).toBe("2");
    expect(few.Layers?.split("\n").map((line) => line.trim().split(/\s+/).join(" "))).toEqual([
      ...["```", "layer AUC effect strength", "1 0.500 2.25 10.12", "→ 2 0.900 2.25 10.12", "3 0.990 2.25 10.12", "```"],
    ]);
    // The best one is in it, whatever its AUC says, and the file has all.
    const many = Array.from({ length: 128 }, (_, layer) => layerOf(layer, layer / 128));
    const answer = derivedMessage(view, JOB_ID, derived(many, 5));
    const table = fieldsOf(answer)["Layers (the best 16 of 128)"] ?? "";
    expect(table.split("\n").length).toBe(16 + 3);
    expect([...table.matchAll(/^\W*(\d+) /gm)].map(([, layer]) => Number(layer))).toEqual([
      5,
      ...Array.from({ length: 15 }, (_, i) => 113 + i),
    ]);
    const [file] = answer.files ?? [];
    expect(JSON.parse(file !== undefined && "text" in file ? file.text : "").layers).toHaveLength(128);
  });

  it("names the first latents that were chosen, without markup", () => {
    const chosen = [{ index: 978, label: "*joy* @everyone", value: 0.314_159 }, ...latents(99, null)];
    const answer = derivedMessage(view, JOB_ID, derived([layerOf(3, 0.9, { latents: chosen })], 3));
    const lines = fieldsOf(answer)["Latents (100)"]?.split("\n") ?? [];
    expect(lines[0]).toBe("`978` 0.3142 \\*joy\\* \\@everyone");
    expect([lines[1], lines.at(-1), lines.length]).toEqual(["`0` -1235", "and 90 more", 11]);
    expect(answer.files?.length).toBe(1);
  });

  it.each(["*".repeat(300), "😀".repeat(300), "\n@everyone `".repeat(60), " "])("holds Discord's limits for names like %j", (text) => {
    const all = Array.from({ length: 128 }, (_, layer) => layerOf(layer, null, { latents: latents(1000, text), effect: -123_456.789 }));
    const named = { ...view, name: text };
    expect(problemsOf(derivedMessage(named, JOB_ID, derived(all, 127)))).toEqual([]);
    for (const state of ["queued", "running"] as const) {
      const growing = derivingMessage(named, { state, jobId: JOB_ID, texts: { STEERED: "", DEFAULT: "" }, done: 3, of: 400 });
      expect(problemsOf(growing)).toEqual([]);
      expect(embedOf(growing)?.footer?.text).toBe(state === "queued" ? "Waits for its turn" : "Reading: 3 of 400 texts");
    }
  });
});

describe("what is asked of the service", () => {
  const source = (id: string, architecture: string, hook = "hook_resid_pre") => ({
    ...{ id, hookName: `blocks.${Number.parseInt(id, 10)}.${hook}`, width: 100, architecture, labelledFeatures: [] },
  });
  const model: Model = {
    ...{ id: "tales", layers: 4, width: 8, context: 256, chatTemplate: false },
    sources: [
      source("3-dirs", "directions"),
      source("1-res", "standard"),
      source("3-res", "standard"),
      source("2-post", "topk", "hook_resid_post"),
    ],
  };
  const plan = (given: Record<string, string | number>) =>
    deriveFields(model, {
      text: (name) => (typeof given[name] === "string" ? given[name] : undefined),
      number: (name) => (typeof given[name] === "number" ? given[name] : undefined),
    });

  it("is all layers when none is named, and everything by the names of the form", () => {
    expect(plan({ name: "Joy" })).toEqual({ modelId: "tales", method: "mean_difference", layers: "0,1,2,3", vectorLabel: "Joy" });
    const all = { name: "Joy", layer: "3", hook: "hook_resid_post", method: "probe", tokens: " last ", strength: 0 };
    expect(plan({ ...all, description: "d", visibility: "private" })).toEqual({
      ...{ modelId: "tales", method: "probe", layers: "3", vectorLabel: "Joy", hookType: "hook_resid_post", tokens: "last" },
      ...{ vectorDefaultSteerStrength: "0", description: "d", visibility: "private" },
    });
  });

  it.each([
    ["0", "0"],
    ["3, 1 ,1", "1,3"],
    ["1-2", "1,2"],
    ["0 2-3", "0,2,3"],
    [" ALL ", "0,1,2,3"],
  ])("has the layers of %j", (layer, layers) => {
    expect(plan({ layer }).layers).toBe(layers);
  });

  it("is, of the method sae, the layers that have its autoencoders", () => {
    expect(plan({ name: "Joy", method: "sae", top_k: 20 })).toMatchObject({ layers: "1,3", sourceSet: "res", topK: "20" });
    expect(plan({ name: "Joy", method: "sae", layer: "all" })).toMatchObject({ layers: "0,1,2,3" });
    const post = { name: "Joy", method: "sae", source_set: "post" };
    expect(plan({ ...post, hook: "hook_resid_post" })).toMatchObject({ layers: "2", sourceSet: "post" });
  });

  it.each<[Record<string, string | number>, RegExp]>([
    [{ layer: "4" }, /tales has the layers 0 to 3/],
    [{ layer: "3-1" }, /Write layers as 3/],
    [{ layer: "-1" }, /Write layers as 3/],
    [{ layer: " " }, /Write layers as 3/],
    [{ layer: "one" }, /Write layers as 3, as 2,3,4/],
    [{ method: "sae", source_set: "dirs" }, /no autoencoders dirs. It has res, post/],
    [{ method: "sae", source_set: "post" }, /are not at hook_resid_pre: choose the other hook/],
    [{ method: "pca", source_set: "res" }, /source_set and top_k belong to the method sae/],
    [{ top_k: 5 }, /source_set and top_k belong to the method sae/],
  ])("is refused for %j", (given, words) => {
    expect(() => plan(given)).toThrow(words);
  });

  it("is refused where there is no autoencoder", () => {
    const bare = { ...model, sources: [source("3-dirs", "directions")] };
    const options = { text: (name: string) => (name === "method" ? "sae" : undefined), number: () => undefined };
    expect(() => deriveFields(bare, options)).toThrow(/tales has no autoencoder, which the method sae needs/);
  });
});
