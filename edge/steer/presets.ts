// Features that are known to show, by model: Neuronpedia's presets for models that engines here can run, with their strengths.
import type { SteerFeature } from "./contract.ts";

export interface Preset {
  readonly name: string;
  readonly features: (Pick<SteerFeature, "modelId" | "layer" | "index" | "strength"> & { readonly explanation: string })[];
}

/** [name, source, index, strength], several of a preset in a row. */
type Row = readonly [name: string, ...features: (readonly [source: string, index: number, strength: number])[]];

const GEMMA = "20-gemmascope-res-16k";
const TABLE: Readonly<Record<string, { readonly sourceModel?: string; readonly rows: readonly Row[] }>> = {
  "gpt2-small": {
    rows: [
      ["Cats", ["10-res-jb", 16899, 40]],
      ["Golden State", ["10-res-jb", 19837, 40]],
      ["Apple", ["10-res-jb", 4269, 75]],
      ["Thunder", ["4-res-jb", 23123, 27]],
    ],
  },
  "gemma-2-2b": {
    rows: [
      ["Dogs", [GEMMA, 12082, 150]],
      ["British English", [GEMMA, 2292, 24]],
      ["French", [GEMMA, 12332, 100]],
      ["YELLING", [GEMMA, 11859, 80]],
    ],
  },
  "gemma-2-2b-it": {
    sourceModel: "gemma-2-2b",
    rows: [
      ["Dogs", [GEMMA, 12082, 276]],
      ["French", [GEMMA, 12332, 122]],
      ["YELLING", [GEMMA, 11859, 80]],
      ["Bravery", [GEMMA, 14377, 168]],
      ["British English", [GEMMA, 2292, 80]],
      ["Misspellings", [GEMMA, 8408, 240]],
      ["Spanish", [GEMMA, 8590, 80]],
      ["San Francisco", [GEMMA, 3124, 154]],
      ["Humor", [GEMMA, 1555, 156]],
      ["Cringe", [GEMMA, 13710, 218]],
    ],
  },
  "gemma-2-9b-it": {
    rows: [
      ["Cats", ["9-gemmascope-res-131k", 62610, 192]],
      ["Chinese", ["9-gemmascope-res-131k", 121465, 74]],
      ["Pirate", ["31-gemmascope-res-131k", 77558, 66], ["9-gemmascope-res-131k", 29917, 166]],
      ["Shakespeare", ["20-gemmascope-res-131k", 57285, 226]],
      ["Poetry", ["20-gemmascope-res-131k", 80360, 202]],
      ["San Francisco", ["20-gemmascope-res-131k", 116871, 200]],
      ["Positivity", ["20-gemmascope-res-131k", 111712, 160]],
      ["Negativity", ["20-gemmascope-res-131k", 120550, 112]],
      ["Music", ["20-gemmascope-res-131k", 61962, 170.5]],
      ["British English", ["20-gemmascope-res-131k", 90098, 60]],
    ],
  },
  "llama3.1-8b": {
    rows: [
      ["Cats", ["28-llamascope-res-32k", 12514, 16.25]],
      ["CEOs", ["26-llamascope-res-32k", 13427, 15]],
      ["Poetry", ["24-llamascope-res-32k", 20434, 25]],
    ],
  },
  "llama3.1-8b-it": {
    rows: [
      ["Nonsense", ["11-resid-post-aa", 110281, 7.9]],
      ["Opposite", ["11-resid-post-aa", 33274, 7.1]],
      ["Evil, reversed", ["11-resid-post-aa", 87027, -3.5]],
      ["Manipulation", ["11-resid-post-aa", 16205, 7]],
    ],
  },
  "deepseek-r1-distill-llama-8b": {
    rows: [
      ["San Francisco", ["15-llamascope-slimpj-res-32k", 30274, 2.25]],
      ["Anticipation", ["15-llamascope-slimpj-res-32k", 24910, 4]],
      ["Bread", ["15-llamascope-slimpj-res-32k", 8381, 4]],
      ["Overthinking", ["15-llamascope-slimpj-res-32k", 30939, 5]],
      ["Dogs", ["15-llamascope-slimpj-res-32k", 30288, 4]],
    ],
  },
};

/** Presets of a model, whether or not their sources are served. */
export function knownPresets(modelId: string): Preset[] {
  const { sourceModel = modelId, rows } = TABLE[modelId] ?? { rows: [] };
  return rows.map(([name, ...features]) => ({
    name,
    features: features.map(([layer, index, strength]) => ({ modelId: sourceModel, layer, index, strength, explanation: name })),
  }));
}
