// Gemma 2 (transformers `Gemma2ForCausalLM`): Gemma with four norms a layer, soft caps on scores and logits, and a window on every
// other layer.
import { z } from "zod";
import { parseConfig } from "./config.ts";
import type { Family } from "./family.ts";
import { GemmaConfig, gemmaTraits } from "./gemma.ts";
import { LayerTypes, llamaLike, windowOf } from "./llama-like.ts";

const Config = GemmaConfig.extend({
  query_pre_attn_scalar: z.number().positive().default(256),
  sliding_window: z.int().positive().nullable().default(4096),
  layer_types: LayerTypes,
  attn_logit_softcapping: z.number().positive().nullable().default(50),
  final_logit_softcapping: z.number().positive().nullable().default(30),
});

export const gemma2: Family = {
  id: "gemma2",
  load(json, tensors, weightsFile) {
    const config = parseConfig(Config, json);
    const traits = {
      ...gemmaTraits(config),
      sandwich: true,
      scoreWidth: config.query_pre_attn_scalar,
      scoreCap: config.attn_logit_softcapping ?? undefined,
      logitCap: config.final_logit_softcapping,
      window: windowOf(config.layer_types, config.sliding_window, config.num_hidden_layers, (layer) => layer % 2 === 0),
    };
    return llamaLike(config, traits, tensors, weightsFile);
  },
};
