// Neuronpedia's official Python clients, unchanged, against `npm start`.
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { encodeHeader } from "../gpu-functions/cpu/safetensors.ts";
import { ROOT } from "./edge-bundle.ts";
import { Program } from "./test/program.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

/** The oldest version in use, and the newest of the package index; later ones are not on it. */
const VERSIONS = ["1.0.8", "1.2.1"];
const CLIENTS = path.join(ROOT, ".tiller", "clients");
const missing = VERSIONS.filter((version) => !existsSync(path.join(CLIENTS, version, "neuronpedia")));
if (missing.length > 0) {
  const sentence = `Neuronpedia's Python clients ${missing.join(" and ")} are not there, so they are not tried: sh scripts/test/install-clients.sh installs them.`;
  if (process.env.REQUIRE_CLIENTS) throw new Error(sentence);
  console.warn(sentence);
}

describe.skipIf(missing.length > 0)("Neuronpedia's Python client", () => {
  let folder: string;
  let program: Program;
  let url: string;
  let key: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "tiller-"));
    const bundled = path.join(ROOT, "gpu-functions", "bundled", "tiller-tales");
    const models = ["--model", bundled, "--model", makeGpt2(folder)];
    const args = ["--port", "0", "--engine-port", "0", "--state", path.join(folder, "state"), ...models];
    program = new Program([path.join(ROOT, "scripts", "start.ts"), ...args], { NO_COLOR: "1" });
    const [, address, secret] = await program.prints(/Edge on (\S+)[\s\S]*Key {4}(\S+)[\s\S]*Serving until Ctrl-C/);
    [url, key] = [address as string, secret as string];
  });
  afterAll(async () => {
    await program?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  it.each(VERSIONS)("%s gets every answer that it reads", async (version) => {
    const env = { ...process.env, TILLER_URL: url, NEURONPEDIA_API_KEY: key, PYTHONPATH: path.join(CLIENTS, version) };
    expect(await runPython(path.join(ROOT, "scripts", "test", "neuronpedia_clients.py"), env)).toMatch(/\nok\n$/);
  });
});

/** A model called gpt2-small that is as wide as GPT-2 and one layer deep: the clients' own vectors have 768 values. */
function makeGpt2(parent: string): string {
  const directory = path.join(parent, "gpt2-small");
  const tiny = path.join(ROOT, "gpu-functions", "fixtures", "tiny-gpt2");
  mkdirSync(directory);
  for (const file of ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
    cpSync(path.join(tiny, file), path.join(directory, file));
  const [width, inner, vocab, positions] = [768, 64, 320, 160];
  const config = {
    ...{ model_type: "gpt2", architectures: ["GPT2LMHeadModel"], n_embd: width, n_inner: inner, n_head: 12, n_layer: 1 },
    ...{ n_positions: positions, vocab_size: vocab, bos_token_id: 0, eos_token_id: 0, activation_function: "gelu_new" },
  };
  writeFileSync(path.join(directory, "config.json"), JSON.stringify(config));
  const layer = "transformer.h.0";
  const shapes: readonly [name: string, shape: readonly number[]][] = [
    ["transformer.wte.weight", [vocab, width]],
    ["transformer.wpe.weight", [positions, width]],
    [`${layer}.attn.c_attn.weight`, [width, 3 * width]],
    [`${layer}.attn.c_attn.bias`, [3 * width]],
    [`${layer}.attn.c_proj.weight`, [width, width]],
    [`${layer}.attn.c_proj.bias`, [width]],
    [`${layer}.mlp.c_fc.weight`, [width, inner]],
    [`${layer}.mlp.c_fc.bias`, [inner]],
    [`${layer}.mlp.c_proj.weight`, [inner, width]],
    [`${layer}.mlp.c_proj.bias`, [width]],
    ...["transformer.ln_f", `${layer}.ln_1`, `${layer}.ln_2`].flatMap((name): [string, number[]][] => [
      [`${name}.weight`, [width]],
      [`${name}.bias`, [width]],
    ]),
  ];
  const header = encodeHeader(shapes.map(([name, shape]) => ({ name, dtype: "F32", shape })));
  const file = path.join(directory, "model.safetensors");
  writeFileSync(file, header);
  for (const [, shape] of shapes) {
    const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i * 12.9898) / 20);
    writeFileSync(file, new Uint8Array(values.buffer), { flag: "a" });
  }
  return directory;
}

function runPython(script: string, env: NodeJS.ProcessEnv): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile("python3", [script], { env, timeout: 100_000 }, (error, stdout, stderr) => {
      if (error === null) resolve(`\n${stdout}`);
      else reject(new Error(`${stdout}\n${stderr}`));
    });
  });
}
