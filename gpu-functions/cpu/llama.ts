// Llama 1 to 3 (transformers `LlamaForCausalLM`), and what is saved as one.
import { z } from "zod";
import { parseConfig } from "./config.ts";
import type { Family } from "./family.ts";
import { LlamaLikeConfig, llamaLike } from "./llama-like.ts";

const Config = LlamaLikeConfig.extend({
  hidden_act: z.literal("silu").default("silu"),
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  tie_word_embeddings: z.boolean().default(false),
});

export const llama: Family = {
  id: "llama",
  load(json, tensors, weightsFile) {
    const config = parseConfig(Config, json);
    const bias = { qkv: config.attention_bias, output: config.attention_bias, mlp: config.mlp_bias };
    return llamaLike(config, { tied: config.tie_word_embeddings, bias }, tensors, weightsFile);
  },
};
