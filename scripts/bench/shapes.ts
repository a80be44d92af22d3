// Models for the engine's benchmark: the shapes of known models with random weights, on which speed does not depend.
import { existsSync } from "node:fs";
import { mkdir, open, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Weight } from "../../gpu-functions/cpu/blocks.ts";
import { FAMILIES } from "../../gpu-functions/cpu/family.ts";
import { encodeHeader } from "../../gpu-functions/cpu/safetensors.ts";
import { ROOT } from "../edge-bundle.ts";

interface Known {
  readonly config: Readonly<Record<string, unknown>>;
  readonly dtype: "F32" | "BF16";
  /** Made and run only when it is asked for by name, or with --all. */
  readonly large?: true;
}

export const SHAPES: Readonly<Record<string, Known>> = {
  "gpt2-small": {
    config: { model_type: "gpt2", vocab_size: 50_257, n_positions: 1024, n_embd: 768, n_layer: 12, n_head: 12 },
    dtype: "F32",
  },
  "llama-125m": {
    config: {
      model_type: "llama",
      vocab_size: 32_000,
      hidden_size: 768,
      intermediate_size: 2048,
      num_hidden_layers: 12,
      num_attention_heads: 12,
      num_key_value_heads: 4,
      max_position_embeddings: 2048,
      tie_word_embeddings: true,
    },
    dtype: "F32",
  },
  "gemma-2-2b": {
    config: {
      model_type: "gemma2",
      vocab_size: 256_000,
      hidden_size: 2304,
      intermediate_size: 9216,
      num_hidden_layers: 26,
      num_attention_heads: 8,
      num_key_value_heads: 4,
      head_dim: 256,
      max_position_embeddings: 8192,
      query_pre_attn_scalar: 256,
      sliding_window: 4096,
      attn_logit_softcapping: 50,
      final_logit_softcapping: 30,
      hidden_activation: "gelu_pytorch_tanh",
    },
    dtype: "BF16",
    large: true,
  },
};

/** Writes (once) a model of a known shape under .tiller and returns its directory, which has no tokenizer. */
export async function makeShape(name: string, say: (line: string) => void): Promise<string> {
  const { config, dtype } = SHAPES[name] as Known;
  const directory = path.join(ROOT, ".tiller", "bench", name);
  const file = path.join(directory, "model.safetensors");
  if (existsSync(file)) return directory;
  const family = FAMILIES.find(({ id }) => id === config.model_type);
  if (family === undefined) throw new Error(`There is no family for ${name}.`);
  const { weights } = family.load(config, new Set(), path.basename(file)).build("plain");
  const stored = [...weights.values()].filter((weight): weight is Weight & { tensor: string } => weight.tensor !== undefined);
  const tensors = [...new Map(stored.map(({ tensor, dims }) => [tensor, { name: tensor, dtype, shape: dims }])).values()];
  const parameters = tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const bytes = parameters * (dtype === "F32" ? 4 : 2);
  const blocks = parameters > 200e6 ? ` and, when it is first run, ${gigabytes(parameters * 1.125)} of 8-bit blocks` : "";
  say(`writing ${gigabytes(bytes)} of random weights${blocks} to ${path.relative(ROOT, directory)} (kept for later runs)`);
  await mkdir(directory, { recursive: true });
  await writeFile(path.join(directory, "config.json"), JSON.stringify(config));
  const out = await open(`${file}.part`, "w");
  try {
    await out.write(encodeHeader(tensors));
    for (const { name: tensor, shape } of tensors) {
      const count = shape.reduce((a, b) => a * b, 1);
      for (let start = 0; start < count; start += PART) {
        const values = randomWeights(tensor, start, Math.min(PART, count - start));
        await out.write(dtype === "F32" ? new Uint8Array(values.buffer) : upperHalves(values));
      }
    }
  } finally {
    await out.close();
  }
  await rename(`${file}.part`, file);
  return directory;
}

const PART = 2 ** 24;
const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;

/** float32 as bfloat16, cut off. */
function upperHalves(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer);
  return new Uint8Array(Uint16Array.from(bits, (word) => word >>> 16).buffer);
}

/** Of the size that training starts from, so that no value overflows or vanishes (denormal numbers would be slow). */
function randomWeights(name: string, start: number, count: number): Float32Array {
  const values = new Float32Array(count);
  const scale = /(ln_|norm)/.test(name) && name.endsWith("weight") ? 0 : 0.02;
  const offset = scale === 0 ? 1 : 0;
  let state = (0x9e3779b9 + start) >>> 0;
  for (let i = 0; i < values.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    values[i] = offset + scale * (state / 2 ** 31 - 1);
  }
  return values;
}
