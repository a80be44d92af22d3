import { describe, expect, it } from "vitest";
import { EXPORTS, readVectorFile, writeVectorFile } from "./index.ts";

const values = Float64Array.from([0.1, -2.5, 3e-5, 1024, -0, 7, Number.MIN_VALUE, 1 / 3, 1e30]);
const vector = (more: object = {}) => ({
  ...{ name: "gpt2-1", layer: 6, hook: "resid_post" as const, values, label: "down “under”", modelId: "gpt2", strength: 4.5 },
  ...more,
});
const two = [vector(), vector({ name: "gpt2-2", layer: 3, hook: "resid_pre", values: values.map((value) => -value) })];
const single = (from: Float64Array) => Float64Array.from(from, Math.fround);

describe("a written file", () => {
  it.each(["json", "safetensors"] as const)("%s gives back names, places and values to the bit", (format) => {
    for (const vectors of [[vector()], two]) {
      const { bytes } = writeVectorFile(format, vectors);
      expect(readVectorFile(bytes)).toEqual(vectors.map(({ name, layer, hook, values }) => ({ name, layer, hook, values })));
    }
  });

  it("npy gives back values to the bit", () => {
    expect(readVectorFile(writeVectorFile("npy", [vector()]).bytes)).toEqual([{ name: "vector", values }]);
    expect(readVectorFile(writeVectorFile("npy", two).bytes).map((each) => each.values)).toEqual(two.map((each) => each.values));
  });

  it("gguf gives back float32 after the block whose output the vector is added to", () => {
    const place = { hook: "resid_post", modelHint: "gpt2", layerCount: 2 };
    expect(readVectorFile(writeVectorFile("gguf", two).bytes)).toEqual([
      { name: "direction.2", layer: 2, ...place, values: single(two[1]?.values as Float64Array) },
      { name: "direction.6", layer: 6, ...place, values: single(values) },
    ]);
  });

  it("says what it is", () => {
    const said = EXPORTS.map((format) => writeVectorFile(format, two)).map(({ contentType, extension }) => `${extension} ${contentType}`);
    const binary = "application/octet-stream";
    expect(said).toEqual(["json application/json", `npy ${binary}`, `safetensors ${binary}`, `gguf ${binary}`]);
    expect(JSON.parse(new TextDecoder().decode(writeVectorFile("json", [vector()]).bytes))).toEqual({
      ...{ name: "gpt2-1", modelId: "gpt2", layer: 6, hookName: "blocks.6.hook_resid_post", label: "down “under”", strength: 4.5 },
      vector: [...values],
    });
  });

  it("has its numbers where they can be mapped: npy at a multiple of 64, safetensors of 8, gguf of 32", () => {
    const startOf = (format: (typeof EXPORTS)[number]) => writeVectorFile(format, [vector({ values: Float64Array.of(1) })]).bytes.length;
    expect([startOf("npy") % 64, startOf("safetensors") % 8, startOf("gguf") % 32]).toEqual([8, 0, 0]);
  });
});

describe("what a format cannot hold", () => {
  it.each([
    ["gguf", [vector({ layer: 0, hook: "resid_pre" })], /before the first block/],
    ["gguf", [vector({ layer: 2 }), vector({ layer: 3, hook: "resid_pre" })], /Two vectors act after block 2/],
    ["gguf", [vector(), vector({ layer: 1, modelId: "gpt2-medium" })], /are of gpt2 and gpt2-medium/],
    ["gguf", [vector(), vector({ layer: 1, values: Float64Array.of(1) })], /has 1 values and the first vector 9/],
    ["gguf", [vector({ values: Float64Array.of(1e39) })], /beyond float32/],
    ["npy", [vector(), vector({ values: Float64Array.of(1) })], /vectors of one width/],
    ["safetensors", [vector(), vector()], /Two vectors are called 'gpt2-1'/],
    ["json", [], /at least one vector/],
  ] as const)("%s: refused (%#)", (format, vectors, sentence) => {
    expect(() => writeVectorFile(format, vectors)).toThrow(sentence);
  });
});
