// Models for the engine's benchmark: a directory, or the shape of a known model with random weights (speed does not depend on them).
import { existsSync } from "node:fs";
import { mkdir, open, readFile, rename } from "node:fs/promises";
import path from "node:path";
import { ROOT } from "../edge-bundle.ts";

/** GPT-2 small's shape: 124M parameters, half a gigabyte of float32. */
const GPT2_SMALL = { model_type: "gpt2", vocab_size: 50_257, n_positions: 1024, n_embd: 768, n_layer: 12, n_head: 12 };

/** Writes (once) a model of GPT-2 small's shape under .tiller and returns its directory, which has no tokenizer. */
export async function makeGpt2Small(): Promise<string> {
  const directory = path.join(ROOT, ".tiller", "bench", "gpt2-small-random");
  const file = path.join(directory, "model.safetensors");
  if (existsSync(file)) return directory;
  await mkdir(directory, { recursive: true });
  const { n_embd: d, n_layer, vocab_size, n_positions } = GPT2_SMALL;
  const tensors: [string, number[]][] = [
    ["wte.weight", [vocab_size, d]],
    ["wpe.weight", [n_positions, d]],
    ["ln_f.weight", [d]],
    ["ln_f.bias", [d]],
  ];
  for (let layer = 0; layer < n_layer; layer++) {
    const parts: [string, number[]][] = [
      ["ln_1.weight", [d]],
      ["ln_1.bias", [d]],
      ["attn.c_attn.weight", [d, 3 * d]],
      ["attn.c_attn.bias", [3 * d]],
      ["attn.c_proj.weight", [d, d]],
      ["attn.c_proj.bias", [d]],
      ["ln_2.weight", [d]],
      ["ln_2.bias", [d]],
      ["mlp.c_fc.weight", [d, 4 * d]],
      ["mlp.c_fc.bias", [4 * d]],
      ["mlp.c_proj.weight", [4 * d, d]],
      ["mlp.c_proj.bias", [d]],
    ];
    tensors.push(...parts.map(([name, shape]): [string, number[]] => [`h.${layer}.${name}`, shape]));
  }
  let offset = 0;
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: number[] }> = {};
  for (const [name, shape] of tensors) {
    const bytes = 4 * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype: "F32", shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const out = await open(`${file}.part`, "w");
  try {
    await out.write(length);
    await out.write(json);
    for (const [name, shape] of tensors) await out.write(Buffer.from(randomWeights(name, shape).buffer));
  } finally {
    await out.close();
  }
  await rename(`${file}.part`, file);
  return directory;
}

/** The configuration of a model directory; of GPT-2 small for the directory that `makeGpt2Small` made. */
export async function readConfig(directory: string): Promise<unknown> {
  const file = path.join(directory, "config.json");
  return existsSync(file) ? JSON.parse(await readFile(file, "utf8")) : GPT2_SMALL;
}

/** Of the size that training starts from, so that no value overflows or vanishes (denormal numbers would be slow). */
function randomWeights(name: string, shape: readonly number[]): Float32Array {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  const scale = name.includes("ln_") && name.endsWith("weight") ? 0 : 0.02;
  const offset = scale === 0 ? 1 : 0;
  let state = 0x9e3779b9;
  for (let i = 0; i < values.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    values[i] = offset + scale * (state / 2 ** 31 - 1);
  }
  return values;
}
