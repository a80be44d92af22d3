// Parses a model's config.json. What a family does not know must not change its arithmetic, or the file is refused.
import type { z } from "zod";

/** Options that change the arithmetic of some family: one that a family's schema does not know is refused, never ignored. */
const ARITHMETIC = [
  "attention_bias",
  "attention_multiplier",
  "attn_logit_softcapping",
  "clip_qkv",
  "embedding_multiplier",
  "final_logit_softcapping",
  "hidden_activation",
  "layer_types",
  "logit_scale",
  "logits_scaling",
  "mlp_bias",
  "no_rope_layers",
  "num_experts",
  "num_local_experts",
  "quantization_config",
  "query_pre_attn_scalar",
  "residual_multiplier",
  "rope_interleaved",
  "sliding_window",
  "use_bidirectional_attention",
  "use_qk_norm",
  "use_sliding_window",
] as const;

/**
 * Parses a configuration with the family's schema.
 * @throws ZodError, or Error naming an option that changes the arithmetic and that this family does not have.
 */
export function parseConfig<Schema extends z.ZodObject>(schema: Schema, json: unknown): z.output<Schema> {
  const config = schema.parse(json);
  for (const option of ARITHMETIC) {
    const value = (json as Record<string, unknown>)[option];
    if (option in schema.shape || value === undefined || value === null || value === false) continue;
    throw new Error(`${option} ${JSON.stringify(value)} is not supported by this family; remove it if the model does not use it`);
  }
  return config;
}
