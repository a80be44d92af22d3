// Gemma 1 (transformers `GemmaForCausalLM`): scaled embeddings, gains stored as their difference from 1, tanh GELU. Gemma 2 shares
// these.
import { z } from "zod";
import { parseConfig } from "./config.ts";
import type { Family } from "./family.ts";
import { LlamaLikeConfig, llamaLike } from "./llama-like.ts";

export const GemmaConfig = LlamaLikeConfig.extend({
  head_dim: z.int().positive().default(256),
  // The first releases say gelu and mean its tanh form, which is what transformers runs (its pull request 29402).
  hidden_act: z.enum(["gelu", "gelu_pytorch_tanh"]).nullish(),
  hidden_activation: z.literal("gelu_pytorch_tanh").nullish(),
  attention_bias: z.boolean().default(false),
  tie_word_embeddings: z.boolean().default(true),
});

/** What both generations share. The embedding's scale is rounded to the type of the arithmetic, as in transformers: float32 here. */
export const gemmaTraits = (config: z.output<typeof GemmaConfig>) => ({
  tied: config.tie_word_embeddings,
  activation: "gelu_tanh" as const,
  bias: { qkv: config.attention_bias, output: config.attention_bias, mlp: false },
  gainPlusOne: true,
  embeddingScale: Math.sqrt(config.hidden_size),
});

export const gemma: Family = {
  id: "gemma",
  load(json, tensors, weightsFile) {
    const config = parseConfig(GemmaConfig, json);
    return llamaLike(config, gemmaTraits(config), tensors, weightsFile);
  },
};
