// Mistral (transformers `MistralForCausalLM`): Llama whose layers may all see only a window of keys.
import { z } from "zod";
import { parseConfig } from "./config.ts";
import type { Family } from "./family.ts";
import { LlamaLikeConfig, llamaLike } from "./llama-like.ts";

const Config = LlamaLikeConfig.extend({
  hidden_act: z.literal("silu").default("silu"),
  sliding_window: z.int().positive().nullable().default(4096),
  tie_word_embeddings: z.boolean().default(false),
});

export const mistral: Family = {
  id: "mistral",
  load(json, tensors, weightsFile) {
    const config = parseConfig(Config, json);
    const window = () => config.sliding_window ?? undefined;
    return llamaLike(config, { tied: config.tie_word_embeddings, window }, tensors, weightsFile);
  },
};
