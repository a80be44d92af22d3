import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { FAMILIES } from "./family.ts";
import { FIXTURES, fixtures } from "./fixture.ts";

function load(name: string, change: Record<string, unknown>): { shape: object; weights: ReadonlyMap<string, unknown> } {
  const config = { ...JSON.parse(readFileSync(path.join(fixtures, name, "config.json"), "utf8")), ...change };
  const family = FAMILIES.find(({ id }) => id === config.model_type);
  if (family === undefined) throw new Error(`no family ${config.model_type}`);
  const { shape, build } = family.load(config, new Set(), "model.safetensors");
  return { shape, weights: build("affine").weights };
}

describe("a model's configuration", () => {
  it("of every family has a fixture", () => {
    const covered = FIXTURES.map((name) => JSON.parse(readFileSync(path.join(fixtures, name, "config.json"), "utf8")).model_type);
    for (const { id } of FAMILIES) expect(covered).toContain(id);
  });

  it.each([
    ["tiny-llama", { hidden_act: "gelu" }, /hidden_act/],
    ["tiny-llama", { final_logit_softcapping: 30 }, /final_logit_softcapping 30 is not supported by this family/],
    ["tiny-llama", { sliding_window: 64 }, /sliding_window 64 is not supported/],
    ["tiny-llama", { quantization_config: { bits: 4 } }, /quantization_config \{"bits":4\} is not supported/],
    ["tiny-llama", { head_dim: 24 }, /heads of 24 values are not supported: rotary attention needs a multiple of 16/],
    ["tiny-llama", { num_key_value_heads: 3 }, /num_attention_heads 4 is not a multiple of num_key_value_heads 3/],
    ["tiny-llama", { hidden_size: "40" }, /hidden_size/],
    ["tiny-mistral", { layer_types: ["sliding_attention"] }, /layer_types \["sliding_attention"\] is not supported/],
    ["tiny-qwen2", { layer_types: ["full_attention"] }, /layer_types lists 1 layers, num_hidden_layers is 3/],
    ["tiny-qwen3", { layer_types: Array(3).fill("chunked_attention") }, /layer_types/],
    ["tiny-gemma", { hidden_activation: "relu" }, /hidden_activation/],
    ["tiny-gemma2", { sliding_window: null }, /sliding_window is missing, but layers with a window are asked for/],
    ["tiny-gemma2", { use_bidirectional_attention: true }, /use_bidirectional_attention true/],
    ["tiny-gpt-neo", { attention_types: [[["global"], 2]] }, /attention_types lists 2 layers, num_layers is 3/],
    ["tiny-gpt-neo", { num_heads: 4 }, /heads of 12 values are not supported/],
    ["tiny-gpt2", { quantization_config: {} }, /quantization_config/],
  ])("of %s with %j is refused by name", (name, change, reason) => {
    expect(() => load(name, change)).toThrow(reason);
  });

  it("that leaves an option of another family off is accepted", () => {
    expect(() => load("tiny-llama", { sliding_window: null, use_sliding_window: false })).not.toThrow();
  });

  it("asks for an output table only when it is not the embedding", () => {
    expect(load("tiny-llama", {}).weights.has("lm_head.weight")).toBe(true);
    expect(load("tiny-llama", { tie_word_embeddings: true }).weights.has("lm_head.weight")).toBe(false);
  });
});
