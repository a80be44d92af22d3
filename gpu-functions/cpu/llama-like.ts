// The graph that Llama and its relatives share: rotary attention with grouped keys, RMS norms, a gated MLP. A family file reads its
// configuration and says how it differs.
import { z } from "zod";
import { DecoderGraph, type Shape, type Span, type Storage, type Variant } from "./blocks.ts";
import type { FamilyModel } from "./family.ts";
import { type Rope, RopeConfig, readRope, ropeTable } from "./rope.ts";

/** What every Llama-like config.json holds; a family extends it with its own options. */
export const LlamaLikeConfig = z.object({
  vocab_size: z.int().positive(),
  hidden_size: z.int().positive(),
  intermediate_size: z.int().positive(),
  num_hidden_layers: z.int().positive(),
  num_attention_heads: z.int().positive(),
  num_key_value_heads: z.int().positive().nullish(),
  head_dim: z.int().positive().nullish(),
  max_position_embeddings: z.int().positive(),
  rms_norm_eps: z.number().positive().default(1e-6),
  ...RopeConfig,
});

type Config = z.output<typeof LlamaLikeConfig>;

/** Which layers see only a window of keys: `layer_types` where it is given, `otherwise` where not. */
export const LayerTypes = z.array(z.enum(["full_attention", "sliding_attention"])).nullish();

/** @throws Error when the list does not fit the model or a sliding layer has no window. */
export function windowOf(
  types: z.output<typeof LayerTypes>,
  window: number | null | undefined,
  layers: number,
  otherwise: (layer: number) => boolean,
): (layer: number) => number | undefined {
  if (types !== null && types !== undefined && types.length !== layers) {
    throw new Error(`layer_types lists ${types.length} layers, num_hidden_layers is ${layers}`);
  }
  const slides = (layer: number) => (types === null || types === undefined ? otherwise(layer) : types[layer] === "sliding_attention");
  const sliding = Array.from({ length: layers }, (_, layer) => slides(layer));
  if (sliding.some(Boolean) && typeof window !== "number")
    throw new Error("sliding_window is missing, but layers with a window are asked for");
  return (layer) => (sliding[layer] ? (window as number) : undefined);
}

/** Where a family differs from Llama without biases; everything has Llama's value when absent. */
export interface Traits {
  readonly tied: boolean;
  readonly activation?: "silu" | "gelu_tanh";
  readonly bias?: { readonly qkv: boolean; readonly output: boolean; readonly mlp: boolean };
  /** Queries and keys are RMS-normed head by head before they are rotated. */
  readonly headNorm?: boolean;
  /** Keys that a layer's queries see. */
  readonly window?: (layer: number) => number | undefined;
  /** Attention scores are multiplied by scoreWidth^-1/2; the head's width when absent. */
  readonly scoreWidth?: number;
  readonly scoreCap?: number | undefined;
  readonly logitCap?: number | null;
  /** Norm gains are stored as their difference from 1. */
  readonly gainPlusOne?: boolean;
  /** Attention and MLP outputs are normed before they join the stream. */
  readonly sandwich?: boolean;
  readonly embeddingScale?: number;
}

/**
 * Builds the model from a parsed configuration.
 * @throws Error naming a size that the kernels cannot do.
 */
export function llamaLike(config: Config, traits: Traits, tensors: ReadonlySet<string>, weightsFile: string): FamilyModel {
  const shape = shapeOf(config);
  const rope = readRope(config, shape.context);
  // The language-model class adds the prefix; the bare model saves without it.
  const root = tensors.has("embed_tokens.weight") ? "" : "model.";
  const build = (variant: Variant, storage?: Storage, span?: Span) => {
    const graph = new DecoderGraph(shape, variant, weightsFile, storage, span);
    const model = wire({ graph, config, traits, shape, rotary: rotaryWeights(graph, rope, shape) }, root);
    return { model, inputs: graph.writer.inputs, outputs: graph.writer.outputs, weights: graph.weights };
  };
  return { shape, output: { centred: false, cap: traits.logitCap ?? null }, build };
}

function shapeOf(config: Config): Shape {
  const { hidden_size: width, num_attention_heads: heads, num_hidden_layers: layers } = config;
  const kvHeads = config.num_key_value_heads ?? heads;
  if (heads % kvHeads !== 0) throw new Error(`num_attention_heads ${heads} is not a multiple of num_key_value_heads ${kvHeads}`);
  const headDim = config.head_dim ?? width / heads;
  if (headDim % 16 !== 0) throw new Error(`heads of ${headDim} values are not supported: rotary attention needs a multiple of 16`);
  return { layers, width, heads, kvHeads, headDim, vocab: config.vocab_size, context: config.max_position_embeddings };
}

/** One graph while it is wired. */
interface Wiring {
  readonly graph: DecoderGraph;
  readonly config: Config;
  readonly traits: Traits;
  readonly shape: Shape;
  readonly rotary: readonly [cos: string, sin: string];
}

function rotaryWeights(graph: DecoderGraph, rope: Rope, { headDim, context }: Shape): Wiring["rotary"] {
  const table = (name: "cos" | "sin") =>
    graph.computed(`rotary.${name}`, [context, headDim / 2], () => ropeTable(rope, headDim, context, Math[name]));
  return [table("cos"), table("sin")];
}

/** The whole graph, serialized. */
function wire(wiring: Wiring, root: string): Uint8Array {
  const { graph, traits, shape, config } = wiring;
  const w = graph.writer;
  const norm = (x: string, name: string) => graph.rmsNorm(x, gain(wiring, name, shape.width), config.rms_norm_eps);
  let x = graph.begin(() => {
    const embedded = graph.embed(`${root}embed_tokens.weight`);
    return traits.embeddingScale === undefined ? embedded : w.op("Mul", [embedded, w.float32(traits.embeddingScale)]);
  });
  for (let layer = graph.from; layer < graph.to; layer++) {
    const prefix = `${root}layers.${layer}`;
    let attended = attend(wiring, layer, norm(x, `${prefix}.input_layernorm`), `${prefix}.self_attn`);
    // The name post_attention_layernorm is the norm before the MLP where there is no sandwich, the one after attention where there is.
    if (traits.sandwich === true) attended = norm(attended, `${prefix}.post_attention_layernorm`);
    const before = `${prefix}.${traits.sandwich === true ? "pre_feedforward_layernorm" : "post_attention_layernorm"}`;
    const [normed, sum] = graph.addRmsNorm(x, attended, gain(wiring, before, shape.width), config.rms_norm_eps);
    let added = feedForward(wiring, normed, `${prefix}.mlp`);
    if (traits.sandwich === true) added = norm(added, `${prefix}.post_feedforward_layernorm`);
    x = graph.boundary(layer + 1, w.op("Add", [sum, added]));
  }
  const last = () => norm(graph.chosenRows(x), `${root}norm`);
  return graph.finish(last, traits.tied ? `${root}embed_tokens.weight` : "lm_head.weight", traits.logitCap);
}

function gain({ graph, traits }: Wiring, norm: string, size: number): string {
  const name = `${norm}.weight`;
  return traits.gainPlusOne === true ? graph.weightPlusOne(name, [size]) : graph.weight(name, [size]);
}

function attend(wiring: Wiring, layer: number, x: string, prefix: string): string {
  const { graph, traits, shape, config, rotary } = wiring;
  const { width, heads, kvHeads, headDim } = shape;
  const project = (name: string, count: number) =>
    graph.linear(x, `${prefix}.${name}_proj`, width, count * headDim, traits.bias?.qkv ?? false);
  const normed = (name: string, count: number) => {
    const projected = project(name, count);
    if (traits.headNorm !== true) return projected;
    return graph.headNorm(projected, count, headDim, gain(wiring, `${prefix}.${name}_norm`, headDim), config.rms_norm_eps);
  };
  const attended = graph.attention(layer, normed("q", heads), normed("k", kvHeads), project("v", kvHeads), {
    scale: (traits.scoreWidth ?? headDim) ** -0.5,
    window: traits.window?.(layer),
    softcap: traits.scoreCap,
    rotary,
  });
  return graph.linear(attended, `${prefix}.o_proj`, heads * headDim, width, traits.bias?.output ?? false);
}

function feedForward({ graph, traits, shape, config }: Wiring, x: string, prefix: string): string {
  const { writer: w } = graph;
  const bias = traits.bias?.mlp ?? false;
  const inner = config.intermediate_size;
  const gate = graph.linear(x, `${prefix}.gate_proj`, shape.width, inner, bias);
  // QuickGelu is x sigmoid(alpha x): SiLU at alpha 1.
  const active =
    traits.activation === "gelu_tanh" ? w.contrib("FastGelu", [gate]) : w.contrib("QuickGelu", [gate], { alpha: { float: 1 } });
  const up = graph.linear(x, `${prefix}.up_proj`, shape.width, inner, bias);
  return graph.linear(w.op("Mul", [active, up]), `${prefix}.down_proj`, inner, shape.width, bias);
}
