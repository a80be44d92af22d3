// The formats that sparse autoencoders are published in, each brought to the terms of sae.ts. Which one a directory holds is seen
// from its files. Everything that is not understood is refused with the file and the reason: a guess would steer wrongly in silence.
import { existsSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import type { Shape } from "./blocks.ts";
import { openNpz } from "./npz.ts";
import type { Sae } from "./sae.ts";
import { openSaeLens } from "./saelens.ts";
import { openSafetensors, type TensorFile } from "./safetensors.ts";
import { parseFile, pointOf, Tensors } from "./source-file.ts";
import { openTorch } from "./torch-file.ts";

type Format = (directory: string, layer: number, shape: Shape) => Sae;

/** Opens the autoencoder of a source directory. @throws Error with the file and the reason. */
export function openSae(directory: string, layer: number, shape: Shape): Sae {
  for (const [file, open] of FORMATS) if (existsSync(path.join(directory, file))) return open(directory, layer, shape);
  throw new Error(`${directory}: no autoencoder is here; one of these files is looked for: ${FORMATS.map(([file]) => file).join(", ")}`);
}

/** Gemma Scope: JumpReLU on resid_post, nothing subtracted from the input. Names are lower case in Gemma Scope 2. */
function gemmaScope(open: (directory: string) => TensorFile): Format {
  return (directory, layer, shape) => {
    const file = open(directory);
    const tensors = new Tensors(file);
    const { width } = shape;
    const bias = tensors.name("b_enc");
    const latents = tensors.rowsOf(bias);
    return {
      point: pointOf(file.path, `blocks.${layer}.hook_resid_post`, shape),
      width,
      latents,
      decoder: tensors.matrix(tensors.name("W_dec", "w_dec"), latents, width, true),
      encoder: tensors.matrix(tensors.name("W_enc", "w_enc"), latents, width, false),
      input: { centre: false, scale: 1 },
      activation: { kind: "jumprelu", bias: tensors.vector(bias, latents), threshold: tensors.vector("threshold", latents) },
      folded: true,
      outputScale: 1,
    };
  };
}

/** What Gemma Scope 2 says of itself; other kinds (transcoders, other activations) share the layout of its repository. */
const Scope2Config = z.object({
  architecture: z.literal("jump_relu", { error: "is not supported: only jump_relu is" }).default("jump_relu"),
  hf_hook_point_in: z.string().optional(),
  hf_hook_point_out: z.string().optional(),
});

function openGemmaScope2(directory: string, layer: number, shape: Shape): Sae {
  const file = path.join(directory, "config.json");
  if (existsSync(file)) {
    const config = parseFile(file, Scope2Config);
    for (const hook of [config.hf_hook_point_in, config.hf_hook_point_out]) {
      if (hook !== undefined && hook !== `model.layers.${layer}.output`)
        throw new Error(
          `${file}: it reads or writes ${hook}; only the residual stream after layer ${layer} (model.layers.${layer}.output) can be steered`,
        );
    }
  }
  return gemmaScope((where) => openSafetensors(path.join(where, "params.safetensors")))(directory, layer, shape);
}

/** Llama Scope (https://huggingface.co/fnlp): one threshold for all latents, inputs brought to an average length of sqrt(d_model). */
const LlamaScopeConfig = z.object({
  hook_point_in: z.string(),
  hook_point_out: z.string(),
  d_model: z.int().positive(),
  d_sae: z.int().positive(),
  act_fn: z.literal("jumprelu", { error: "is not supported: only jumprelu is" }),
  jump_relu_threshold: z.number().min(0),
  norm_activation: z.literal("dataset-wise", { error: "is not supported: only dataset-wise is" }),
  dataset_average_activation_norm: z.object({ in: z.number().positive() }),
  apply_decoder_bias_to_pre_encoder: z.literal(false, { error: "is not supported" }),
  use_glu_encoder: z.literal(false, { error: "is not supported" }),
});

function openLlamaScope(directory: string, _: number, shape: Shape): Sae {
  const file = path.join(directory, "hyperparams.json");
  const config = parseFile(file, LlamaScopeConfig);
  const { d_model: width, d_sae: latents } = config;
  if (config.hook_point_in !== config.hook_point_out)
    throw new Error(
      `${file}: it reads ${config.hook_point_in} and writes ${config.hook_point_out}: that is a transcoder, not an autoencoder`,
    );
  const point = pointOf(file, config.hook_point_in, shape);
  if (width !== shape.width) throw new Error(`${file}: d_model is ${width}, the model's residual stream has ${shape.width} values`);
  const tensors = new Tensors(openSafetensors(path.join(directory, "checkpoints", "final.safetensors")));
  const scale = Math.sqrt(width) / config.dataset_average_activation_norm.in;
  return {
    point,
    width,
    latents,
    decoder: tensors.matrix("decoder.weight", latents, width, false),
    encoder: tensors.matrix("encoder.weight", latents, width, true),
    input: { centre: false, scale },
    activation: {
      kind: "jumprelu",
      bias: tensors.vector("encoder.bias", latents),
      // Times the scale, as SAELens and so Neuronpedia read it (llama_scope_sae_huggingface_loader).
      threshold: new Float32Array(latents).fill(config.jump_relu_threshold * scale),
    },
    folded: true,
    outputScale: 1 / scale,
  };
}

/**
 * OpenAI's autoencoders for GPT-2 (sparse_autoencoder/model.py of https://github.com/openai/sparse_autoencoder), of the stream after a
 * layer. Those with TopK normalise their input per token.
 */
function openOpenAi(directory: string, layer: number, shape: Shape): Sae {
  const file = openTorch(path.join(directory, "autoencoder.pt"));
  const tensors = new Tensors(file);
  const { width } = shape;
  const latents = tensors.rowsOf("latent_bias");
  const bias = tensors.vector("latent_bias", latents);
  const name = file.values.get("activation") ?? "ReLU";
  const settings = file.values.get("activation_state_dict");
  const k = settings instanceof Map ? settings.get("k") : undefined;
  if (name !== "ReLU" && name !== "TopK")
    throw new Error(`${file.path}: activation ${JSON.stringify(name)} is not supported: ReLU and TopK are`);
  if (name === "TopK" && !(Number.isInteger(k) && (k as number) > 0 && (k as number) <= latents))
    throw new Error(`${file.path}: k must be a whole number from 1 to ${latents}`);
  const decoder = tensors.name("decoder.weight", "decoder.weight.T");
  return {
    point: pointOf(file.path, `blocks.${layer}.hook_resid_post`, shape),
    width,
    latents,
    decoder: tensors.matrix(decoder, latents, width, decoder.endsWith(".T")),
    encoder: tensors.matrix("encoder.weight", latents, width, true),
    input: { centre: false, scale: 1, perToken: name === "TopK" ? "layer_norm" : undefined, bias: tensors.vector("pre_bias", width) },
    activation: name === "TopK" ? { kind: "topk", bias, k: k as number } : { kind: "standard", bias },
    folded: name === "ReLU",
    outputScale: 1,
  };
}

const FORMATS: readonly (readonly [file: string, open: Format])[] = [
  ["cfg.json", openSaeLens],
  ["params.npz", gemmaScope((directory) => openNpz(path.join(directory, "params.npz")))],
  ["params.safetensors", openGemmaScope2],
  ["hyperparams.json", openLlamaScope],
  ["autoencoder.pt", openOpenAi],
];
