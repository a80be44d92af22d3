// Qwen 3 (transformers `Qwen3ForCausalLM`): queries and keys normed head by head.
import { z } from "zod";
import { parseConfig } from "./config.ts";
import type { Family } from "./family.ts";
import { llamaLike } from "./llama-like.ts";
import { QwenConfig, qwenWindow } from "./qwen2.ts";

const Config = QwenConfig.extend({
  head_dim: z.int().positive().default(128),
  attention_bias: z.boolean().default(false),
});

export const qwen3: Family = {
  id: "qwen3",
  load(json, tensors, weightsFile) {
    const config = parseConfig(Config, json);
    const bias = { qkv: config.attention_bias, output: config.attention_bias, mlp: false };
    const traits = { tied: config.tie_word_embeddings, bias, headNorm: true, window: qwenWindow(config) };
    return llamaLike(config, traits, tensors, weightsFile);
  },
};
