// GPT-Neo (transformers `GPTNeoForCausalLM`): GPT-2 with separate unscaled q/k/v and layers that see only a window of keys.
import { z } from "zod";
import { DecoderGraph, type Shape, type Span, type Storage, type Variant } from "./blocks.ts";
import { parseConfig } from "./config.ts";
import type { Family, FamilyModel } from "./family.ts";

const Kind = z.enum(["global", "local"]);

const Config = z.object({
  vocab_size: z.int().positive(),
  max_position_embeddings: z.int().positive(),
  hidden_size: z.int().positive(),
  num_layers: z.int().positive(),
  num_heads: z.int().positive(),
  intermediate_size: z.int().positive().nullish(),
  /** [[kinds], times] pairs: the kinds of the layers, each list repeated. */
  attention_types: z.array(z.tuple([z.array(Kind), z.int().positive()])).default([[["global", "local"], 12]]),
  window_size: z.int().positive().default(256),
  activation_function: z.enum(["gelu_new", "gelu_pytorch_tanh", "gelu_fast"]).default("gelu_new"),
  layer_norm_epsilon: z.number().positive().default(1e-5),
  tie_word_embeddings: z.literal(true).default(true),
});

function load(json: unknown, tensors: ReadonlySet<string>, weightsFile: string): FamilyModel {
  const config = parseConfig(Config, json);
  const { hidden_size: width, num_heads: heads, num_layers: layers, layer_norm_epsilon: epsilon } = config;
  const headDim = width / heads;
  if (headDim % 8 !== 0) throw new Error(`heads of ${headDim} values are not supported: hidden_size / num_heads must be a multiple of 8`);
  const kinds = config.attention_types.flatMap(([list, times]) => Array.from({ length: times }, () => list).flat());
  if (kinds.length !== layers) throw new Error(`attention_types lists ${kinds.length} layers, num_layers is ${layers}`);
  const shape: Shape = { layers, width, heads, kvHeads: heads, headDim, vocab: config.vocab_size, context: config.max_position_embeddings };
  const root = tensors.has("transformer.wte.weight") ? "transformer." : "";
  const inner = config.intermediate_size ?? 4 * width;

  const build = (variant: Variant, storage?: Storage, span?: Span) => {
    const graph = new DecoderGraph(shape, variant, weightsFile, storage, span);
    const w = graph.writer;
    let x = graph.begin(() => {
      const tokens = graph.embed(`${root}wte.weight`);
      return w.op("Add", [tokens, graph.lookup(`${root}wpe.weight`, shape.context, "positions")]);
    });
    for (let layer = graph.from; layer < graph.to; layer++) {
      const h = `${root}h.${layer}`;
      const attention = `${h}.attn.attention`;
      const first = graph.layerNorm(x, `${h}.ln_1`, epsilon);
      const [q, k, v] = (["q", "k", "v"] as const).map((s) => graph.linear(first, `${attention}.${s}_proj`, width, width, false)) as [
        string,
        string,
        string,
      ];
      const window = kinds[layer] === "local" ? config.window_size : undefined;
      const attended = graph.linear(graph.attention(layer, q, k, v, { scale: 1, window }), `${attention}.out_proj`, width, width, true);
      const [normed, sum] = graph.addLayerNorm(x, attended, `${h}.ln_2`, epsilon);
      const hidden = graph.linear(normed, `${h}.mlp.c_fc`, width, inner, false);
      const active = w.contrib("FastGelu", [hidden, graph.weight(`${h}.mlp.c_fc.bias`, [inner])]);
      x = graph.boundary(layer + 1, w.op("Add", [sum, graph.linear(active, `${h}.mlp.c_proj`, inner, width, true)]));
    }
    const last = () => graph.layerNorm(graph.chosenRows(x), `${root}ln_f`, epsilon);
    const model = graph.finish(last, `${root}wte.weight`);
    return { model, inputs: w.inputs, outputs: w.outputs, weights: graph.weights };
  };
  return { shape, output: { centred: true, cap: null }, build };
}

export const gptNeo: Family = { id: "gpt_neo", load };
