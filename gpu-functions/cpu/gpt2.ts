// GPT-2 (transformers `GPT2LMHeadModel`): learned positions, pre-LayerNorm, packed q/k/v, tied embeddings.
import { z } from "zod";
import { DecoderGraph, type Shape, type Span, type Storage, type Variant } from "./blocks.ts";
import { parseConfig } from "./config.ts";
import type { Family, FamilyModel } from "./family.ts";

const Config = z.object({
  vocab_size: z.int().positive(),
  n_positions: z.int().positive(),
  n_embd: z.int().positive(),
  n_layer: z.int().positive(),
  n_head: z.int().positive(),
  n_inner: z.int().positive().nullish(),
  activation_function: z.enum(["gelu_new", "gelu_pytorch_tanh", "gelu_fast"]).default("gelu_new"),
  layer_norm_epsilon: z.number().positive().default(1e-5),
  scale_attn_weights: z.literal(true).default(true),
  scale_attn_by_inverse_layer_idx: z.boolean().default(false),
  tie_word_embeddings: z.literal(true).default(true),
});

function load(json: unknown, tensors: ReadonlySet<string>, weightsFile: string): FamilyModel {
  const config = parseConfig(Config, json);
  const { n_embd: width, n_head: heads, n_layer: layers } = config;
  if (width % heads !== 0) throw new Error(`n_embd ${width} is not a multiple of n_head ${heads}`);
  const headDim = width / heads;
  if (headDim % 8 !== 0) throw new Error(`heads of ${headDim} values are not supported: n_embd / n_head must be a multiple of 8`);
  const shape: Shape = { layers, width, heads, kvHeads: heads, headDim, vocab: config.vocab_size, context: config.n_positions };
  // Saved through the language-model class the names carry a prefix; the hub's original files do not.
  const root = tensors.has("transformer.wte.weight") ? "transformer." : "";
  const inner = config.n_inner ?? 4 * width;
  const epsilon = config.layer_norm_epsilon;

  const build = (variant: Variant, storage?: Storage, span?: Span) => {
    const graph = new DecoderGraph(shape, variant, weightsFile, storage, span);
    const w = graph.writer;
    let x = graph.begin(() => {
      const tokens = graph.embed(`${root}wte.weight`);
      return w.op("Add", [tokens, graph.lookup(`${root}wpe.weight`, shape.context, "positions")]);
    });
    for (let layer = graph.from; layer < graph.to; layer++) {
      const h = `${root}h.${layer}`;
      const scale = 1 / Math.sqrt(headDim) / (config.scale_attn_by_inverse_layer_idx ? layer + 1 : 1);
      const qkv = graph.conv1d(graph.layerNorm(x, `${h}.ln_1`, epsilon), `${h}.attn.c_attn`, width, 3 * width, true);
      const attended = graph.conv1d(graph.attention(layer, qkv, "", "", { scale }), `${h}.attn.c_proj`, width, width, true);
      const [normed, sum] = graph.addLayerNorm(x, attended, `${h}.ln_2`, epsilon);
      const hidden = graph.conv1d(normed, `${h}.mlp.c_fc`, width, inner, false);
      const active = w.contrib("FastGelu", [hidden, graph.weight(`${h}.mlp.c_fc.bias`, [inner])]);
      x = graph.boundary(layer + 1, w.op("Add", [sum, graph.conv1d(active, `${h}.mlp.c_proj`, inner, width, true)]));
    }
    const last = () => graph.layerNorm(graph.chosenRows(x), `${root}ln_f`, epsilon);
    const model = graph.finish(last, `${root}wte.weight`);
    return { model, inputs: w.inputs, outputs: w.outputs, weights: graph.weights };
  };
  return { shape, output: { centred: true, cap: null }, build };
}

export const gpt2: Family = { id: "gpt2", load };
