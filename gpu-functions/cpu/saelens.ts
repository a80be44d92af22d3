// SAELens' format, of version 6 and before.
import { existsSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import type { Shape } from "./blocks.ts";
import type { Activation, Sae } from "./sae.ts";
import { openSafetensors } from "./safetensors.ts";
import { checkValue, pointOf, readJson, Tensors } from "./source-file.ts";

/**
 * SAELens' cfg.json. From version 6 on hook_name and the like are under `metadata`; before, they are at the top level, the first
 * files call it `hook_point`, and TopK is an `activation_fn_str` of a standard autoencoder. Values of an `overrides.json` beside it
 * win, as those of SAELens' own list of published autoencoders do.
 */
const Metadata = z.object({
  hook_name: z.string().optional(),
  hook_head_index: z.unknown().optional(),
  model_from_pretrained_kwargs: z.unknown().optional(),
});
const LensConfig = Metadata.extend({
  architecture: z.enum(["standard", "gated", "jumprelu", "topk"]).default("standard"),
  d_in: z.int().positive(),
  d_sae: z.int().positive(),
  hook_point: z.string().optional(),
  apply_b_dec_to_input: z.boolean().default(true),
  normalize_activations: z.string().default("none"),
  norm_scaling_factor: z.number().positive().optional(),
  reshape_activations: z.string().default("none"),
  rescale_acts_by_decoder_norm: z.boolean().default(false),
  finetuning_scaling_factor: z.boolean().default(false),
  activation_fn_str: z.string().optional(),
  activation_fn: z.string().optional(),
  activation_fn_kwargs: z.object({ k: z.number().optional() }).nullish(),
  k: z.int().positive().optional(),
  metadata: Metadata.partial().optional(),
});

const Centred = z.object({ center_writing_weights: z.boolean().optional() }).nullish();

export function openSaeLens(directory: string, _: number, shape: Shape): Sae {
  const file = path.join(directory, "cfg.json");
  const overrides = path.join(directory, "overrides.json");
  const merged = existsSync(overrides) ? { ...(readJson(file) as object), ...(readJson(overrides) as object) } : readJson(file);
  const config = checkValue(file, merged, LensConfig);
  const { d_in: width, d_sae: latents } = config;
  const refuse = (what: string): never => {
    throw new Error(`${file}: ${what}`);
  };
  const point = pointOf(file, config.hook_name ?? config.metadata?.hook_name ?? config.hook_point, shape);
  if (width !== shape.width) refuse(`d_in is ${width}, the model's residual stream has ${shape.width} values`);
  if (config.reshape_activations !== "none") refuse(`reshape_activations '${config.reshape_activations}' is not supported, only none`);
  if ((config.hook_head_index ?? config.metadata?.hook_head_index ?? null) !== null)
    refuse("hook_head_index: an autoencoder of one head is not supported");
  if (config.finetuning_scaling_factor) refuse("finetuning_scaling_factor is not supported");
  const tensors = new Tensors(openSafetensors(path.join(directory, "sae_weights.safetensors")));
  const named = config.activation_fn_str ?? config.activation_fn ?? "relu";
  const kind = config.architecture === "standard" && named === "topk" ? "topk" : config.architecture;
  if (config.architecture === "standard" && named !== "topk" && named !== "relu")
    refuse(`activation_fn_str '${named}' is not supported: relu and topk are`);
  const perToken = NORMALISATIONS.find((known) => known === config.normalize_activations);
  if (perToken === undefined)
    refuse(`normalize_activations '${config.normalize_activations}' is not supported: ${NORMALISATIONS.join(", ")} are`);
  const scaled = perToken === "expected_average_only_in" ? (config.norm_scaling_factor ?? 1) : 1;
  const kwargs = checkValue(file, config.model_from_pretrained_kwargs ?? config.metadata?.model_from_pretrained_kwargs, Centred);
  return {
    point,
    width,
    latents,
    decoder: tensors.matrix("W_dec", latents, width, true),
    encoder: tensors.matrix("W_enc", latents, width, false),
    input: {
      centre: kwargs?.center_writing_weights === true,
      scale: scaled,
      perToken: perToken === "layer_norm" || perToken === "constant_norm_rescale" ? perToken : undefined,
      bias: config.apply_b_dec_to_input ? tensors.vector("b_dec", width) : undefined,
    },
    activation: lensActivation(kind, tensors, latents, config.k ?? config.activation_fn_kwargs?.k, refuse),
    folded: kind !== "topk" || config.rescale_acts_by_decoder_norm,
    outputScale: 1 / scaled,
  };
}

const NORMALISATIONS = ["none", "expected_average_only_in", "constant_norm_rescale", "layer_norm"] as const;

function lensActivation(
  kind: Activation["kind"],
  tensors: Tensors,
  latents: number,
  k: number | undefined,
  refuse: (what: string) => never,
): Activation {
  switch (kind) {
    case "standard":
      return { kind, bias: tensors.vector("b_enc", latents) };
    case "jumprelu":
      return { kind, bias: tensors.vector("b_enc", latents), threshold: tensors.vector("threshold", latents) };
    case "gated":
      return {
        kind,
        gateBias: tensors.vector("b_gate", latents),
        magnitudeBias: tensors.vector("b_mag", latents),
        logScale: tensors.vector("r_mag", latents),
      };
    case "topk":
      if (k === undefined || !Number.isInteger(k) || k < 1 || k > latents) return refuse(`k must be a whole number from 1 to ${latents}`);
      return { kind, bias: tensors.vector("b_enc", latents), k };
  }
}
