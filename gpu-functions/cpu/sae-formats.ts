// The formats that sparse autoencoders are published in, each brought to the terms of sae.ts. Which one a directory holds is seen
// from its files. Everything that is not understood is refused with the file and the reason: a guess would steer wrongly in silence.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import { boundaryOf, type Point, parsePoint } from "../../shared/address.ts";
import type { Shape } from "./blocks.ts";
import { openNpz } from "./npz.ts";
import type { Activation, LatentMatrix, Sae } from "./sae.ts";
import { openSafetensors, READABLE, readTensor, type TensorFile } from "./safetensors.ts";
import { openTorch } from "./torch-file.ts";

type Format = (directory: string, layer: number, shape: Shape) => Sae;

/** Opens the autoencoder of a source directory. @throws Error with the file and the reason. */
export function openSae(directory: string, layer: number, shape: Shape): Sae {
  for (const [file, open] of FORMATS) if (existsSync(path.join(directory, file))) return open(directory, layer, shape);
  throw new Error(`${directory}: no autoencoder is here; one of these files is looked for: ${FORMATS.map(([file]) => file).join(", ")}`);
}

/** A file of JSON, checked. @throws Error with the file and the reason. */
export function parseFile<Schema extends z.ZodType>(file: string, schema: Schema): z.output<Schema> {
  return checkValue(file, readJson(file), schema);
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch (cause) {
    throw new Error(`${file} cannot be read as JSON`, { cause });
  }
}

function checkValue<Schema extends z.ZodType>(file: string, value: unknown, schema: Schema): z.output<Schema> {
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new Error(`${file}: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

/** The point that a configuration names. @throws Error when the model has no such point. */
export function pointOf(file: string, name: string | undefined, shape: Shape): Point {
  if (name === undefined) throw new Error(`${file}: hook_name is missing`);
  try {
    const point = parsePoint(name);
    boundaryOf(point, shape.layers);
    return point;
  } catch (cause) {
    throw new Error(`${file}: hook_name: ${(cause as Error).message}`, { cause });
  }
}

/** Looks tensors up and checks their shapes, so that a file that does not fit is refused before anything is read. */
export class Tensors {
  private readonly file: TensorFile;
  constructor(file: TensorFile) {
    this.file = file;
  }

  private check(name: string, wanted: readonly number[]): void {
    const info = this.file.tensors.get(name);
    if (info === undefined || info.shape.join() !== wanted.join())
      throw new Error(`${this.file.path}: ${name} must have shape [${wanted.join(", ")}]; it is ${info ? `[${info.shape}]` : "missing"}`);
    if (!READABLE.has(info.dtype)) throw new Error(`${this.file.path}: ${name} is ${info.dtype}; F32, F16 and BF16 can be read`);
  }

  /** The first of the names that there is. */
  name(...names: readonly string[]): string {
    return names.find((name) => this.file.tensors.has(name)) ?? (names[0] as string);
  }

  has(name: string): boolean {
    return this.file.tensors.has(name);
  }

  rowsOf(name: string): number {
    return this.file.tensors.get(name)?.shape[0] ?? 0;
  }

  matrix(name: string, latents: number, width: number, latentsFirst: boolean): LatentMatrix {
    this.check(name, latentsFirst ? [latents, width] : [width, latents]);
    return { file: this.file, name, latentsFirst };
  }

  vector(name: string, length: number): Float32Array {
    this.check(name, [length]);
    const values = readTensor(this.file, name);
    if (!values.every(Number.isFinite)) throw new Error(`${this.file.path}: ${name} has a value that is not a finite number`);
    return values;
  }
}

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

function openSaeLens(directory: string, _: number, shape: Shape): Sae {
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
