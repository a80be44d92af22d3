// Qwen 2 and 2.5 (transformers `Qwen2ForCausalLM`): Llama with biases on queries, keys and values, and a window on the upper layers
// where one is switched on. Qwen 3 shares its windows.
import { z } from "zod";
import { parseConfig } from "./config.ts";
import type { Family } from "./family.ts";
import { LayerTypes, LlamaLikeConfig, llamaLike, windowOf } from "./llama-like.ts";

export const QwenConfig = LlamaLikeConfig.extend({
  hidden_act: z.literal("silu").default("silu"),
  use_sliding_window: z.boolean().default(false),
  sliding_window: z.int().positive().nullable().default(4096),
  max_window_layers: z.int().min(0).default(28),
  layer_types: LayerTypes,
  tie_word_embeddings: z.boolean().default(false),
});

/** The window of each layer; `sliding_window` counts only where `use_sliding_window` is set, as in transformers. */
export function qwenWindow(config: z.output<typeof QwenConfig>): (layer: number) => number | undefined {
  const window = config.use_sliding_window ? config.sliding_window : null;
  return windowOf(config.layer_types, window, config.num_hidden_layers, (layer) => window !== null && layer >= config.max_window_layers);
}

export const qwen2: Family = {
  id: "qwen2",
  load(json, tensors, weightsFile) {
    const config = parseConfig(QwenConfig, json);
    const bias = { qkv: true, output: false, mlp: false };
    return llamaLike(config, { tied: config.tie_word_embeddings, bias, window: qwenWindow(config) }, tensors, weightsFile);
  },
};
