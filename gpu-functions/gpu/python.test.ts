// The PyTorch engine, where Python with PyTorch is: its own tests (tests/*.py), the same texts as the CPU engine, and the end of its process.
// The protocol's tests run on it too: ../conformance.
import { execFile } from "node:child_process";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { encodeFloat32 } from "../../shared/base64.ts";
import { GenerateRequest, type GenerateResult, type TokenEvent } from "../../shared/protocol.ts";
import { type Engine, loadEngine } from "../cpu/engine.ts";
import { type GpuEngine, loadGpuEngine } from "./engine.ts";
import { findPython, hasModule, hasTorch } from "./python.ts";

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

// One thread: other tests run beside it.
const python = findPython({ ...process.env, OMP_NUM_THREADS: "1" });
const torch = await hasTorch(python);
// The app's file is read by Modal's own package, where that is there.
const tests = [
  "test_golden",
  "test_decoder",
  "test_loop",
  ...((await hasModule(python, "modal")) ? ["test_modal_app"] : []),
  // In Triton's interpreter, where there is no GPU.
  ...((await hasModule(python, "triton")) ? ["test_kernels", "test_compile"] : []),
];
if (!torch) {
  const sentence =
    "The PyTorch engine is not tried: there is no Python with torch and safetensors. sh scripts/test/install-torch.sh installs them.";
  if (process.env.REQUIRE_TORCH) throw new Error(sentence);
  console.warn(sentence);
}

describe.skipIf(!torch)("the PyTorch engine", () => {
  it.each(tests)("passes %s", async (name) => {
    const options = { env: python.env, cwd: path.join(import.meta.dirname, ".."), maxBuffer: 1 << 24 };
    const [error, stderr] = await new Promise<[Error | null, string]>((resolve) => {
      execFile(python.command, ["-m", "unittest", `gpu.tests.${name}`], options, (error, _, stderr) => resolve([error, stderr]));
    });
    expect(stderr).toMatch(/Ran \d+ tests?[\s\S]*\nOK\n$/);
    expect(error).toBeNull();
  });
});

const MODEL = "tiller-tales";
// As MODELS may name it: from where the engine was started.
const directories = [path.relative(process.cwd(), path.join(import.meta.dirname, "..", "bundled", MODEL))];
const GIB = 2 ** 30;
const logged: string[] = [];
const gpuOptions = {
  ...{
    directories,
    device: "cpu" as const,
    dtype: "float32" as const,
    kernels: true,
    threads: 1,
    slots: 8,
    python,
    cacheBytes: GIB,
    memoryBytes: 8 * GIB,
  },
  log: (line: string) => logged.push(line),
};

async function write(engine: Engine, request: object): Promise<{ tokens: TokenEvent[]; result: GenerateResult }> {
  const tokens: TokenEvent[] = [];
  for await (const { event, data } of engine.generate(GenerateRequest.parse(request), new AbortController().signal)) {
    if (event === "token") tokens.push(data);
    if (event === "done") return { tokens, result: data };
  }
  throw new Error("the events ended without a result");
}

describe.skipIf(!torch)("on the bundled model", () => {
  let cpu: Engine;
  let gpu: GpuEngine;
  beforeAll(async () => {
    [cpu, gpu] = await Promise.all([loadEngine({ directories }), loadGpuEngine(gpuOptions)]);
  });
  afterAll(async () => {
    await Promise.all([cpu?.close(), gpu?.close()]);
  });

  const wave = (phase: number) => encodeFloat32(Array.from({ length: 256 }, (_, i) => Math.fround(Math.sin(i * 1.7 + phase))));
  const at = (layer: number) => `blocks.${layer}.hook_resid_pre`;
  const rows = [
    { name: "plain", edits: [] },
    { name: "one", edits: [{ method: "SIMPLE_ADDITIVE", vector: wave(0), strength: 1.5, point: at(3) }] },
    {
      name: "several",
      edits: [
        { method: "ORTHOGONAL_DECOMP", vector: wave(1), strength: -1, point: at(2) },
        { method: "PROJECTION_CAP", vector: wave(2), strength: -0.5, point: at(2) },
        { method: "SIMPLE_ADDITIVE", vector: wave(3), strength: -1, point: at(5), schedule: { kind: "decay", tokens: 9 } },
      ],
    },
    { name: "feature", edits: [{ method: "ABLATE", vector: wave(4), strength: 0, layers: "all", positions: "generated" }] },
  ];
  const body = (sampling: object, more: object = {}) => ({
    ...{ model: MODEL, prompt: "One day a little girl named Mia went to the park.", rows, sampling: { seed: 7, ...sampling } },
    ...{ max_tokens: 40, kl_baseline: "plain", ...more },
  });

  it("keeps a checkpoint's own 16 bits unless told otherwise, and makes bfloat16 of 32", async () => {
    const fixtures = path.join(import.meta.dirname, "..", "fixtures");
    const both = [...directories, path.join(fixtures, "tiny-gpt2")];
    for (const [dtype, wanted] of [
      ["auto", ["float16", "bfloat16"]],
      ["float32", ["float32", "float32"]],
    ] as const) {
      const engine = await loadGpuEngine({ ...gpuOptions, directories: both, dtype, warm: 0 });
      expect(engine.models().map((model) => model.dtype)).toEqual(wanted);
      await engine.close();
    }
  });

  it("with the checkpoint's own 16 bits it writes the CPU engine's likeliest texts too", async () => {
    const half = await loadGpuEngine({ ...gpuOptions, dtype: "auto" });
    try {
      expect(half.models().map(({ dtype }) => dtype)).toEqual(["float16"]);
      const likeliest = body({ temperature: 0, frequency_penalty: 0.4 });
      const [wanted, found] = await Promise.all([write(cpu, likeliest), write(half, likeliest)]);
      expect(found.result.rows.map(({ text }) => text)).toEqual(wanted.result.rows.map(({ text }) => text));
    } finally {
      await half.close();
    }
  });

  it.each([
    ["the likeliest", { temperature: 0, frequency_penalty: 0.4 }],
    ["drawn", { temperature: 0.8, top_p: 0.95, top_k: 60, frequency_penalty: 0.3, presence_penalty: 0.1 }],
    ["drawn from all", { temperature: 0.6, logprobs: 5 }],
    ["up to a stop string", { temperature: 0.6, stop: ["the", "."] }],
  ])("both engines write the same tokens, with the same numbers and receipts: %s", async (_, sampling) => {
    const [wanted, found] = await Promise.all([write(cpu, body(sampling)), write(gpu, body(sampling))]);
    expect(found.result.rows.map(({ text, finish_reason }) => [text, finish_reason])).toEqual(
      wanted.result.rows.map(({ text, finish_reason }) => [text, finish_reason]),
    );
    expect(found.result.usage).toEqual(wanted.result.usage);
    for (const { name } of rows) {
      const [a, b] = [wanted, found].map(({ tokens }) => tokens.filter(({ row }) => row === name)) as [TokenEvent[], TokenEvent[]];
      expect(b.map(({ id, text, index }) => ({ id, text, index }))).toEqual(a.map(({ id, text, index }) => ({ id, text, index })));
      for (const [i, token] of a.entries()) {
        const other = b[i] as TokenEvent;
        expect(other.logprob).toBeCloseTo(token.logprob, 3);
        expect(other.top.map(({ id }) => id)).toEqual(token.top.map(({ id }) => id));
        if (typeof token.kl === "number") expect(other.kl).toBeCloseTo(token.kl, 3);
        else expect(other.kl).toBe(token.kl);
      }
    }
    const receipts = ({ result }: typeof wanted) => result.rows.map((row) => row.receipts);
    for (const [r, row] of receipts(wanted).entries()) {
      for (const [i, receipt] of row.entries()) {
        const { mean_relative_delta, ...counts } = receipts(found)[r]?.[i] ?? receipt;
        const { mean_relative_delta: mean, ...others } = receipt;
        expect(counts).toEqual(others);
        expect(mean_relative_delta).toBeCloseTo(mean, 4);
      }
    }
  });

  it("says how long each phase of its start took", () => {
    const phases = gpu.phases()[MODEL] as Record<string, number>;
    expect(Object.keys(phases)).toEqual(["import_ms", "weights_ms", "kernels_ms", "self_test_ms"]);
    expect(Object.values(phases)).toEqual(Object.values(phases).toSorted((a, b) => a - b));
  });
});

describe.skipIf(!torch)("a PyTorch process", () => {
  it("that dies ends its requests with engine_failed, and another one answers the next", async () => {
    const engine = await loadGpuEngine(gpuOptions);
    try {
      const request = { model: MODEL, prompt: "The cat", rows: [{ name: "A", edits: [] }], sampling: { temperature: 0, seed: 1 } };
      const before = await write(engine, { ...request, max_tokens: 5 });
      const events = engine.generate(GenerateRequest.parse({ ...request, max_tokens: 200 }), new AbortController().signal);
      const reader = events[Symbol.asyncIterator]();
      await reader.next();
      process.kill(Number(engine.processes()[MODEL]), "SIGKILL");
      const rest = async () => {
        while (!(await reader.next()).done);
      };
      await expect(rest()).rejects.toMatchObject({ code: "engine_failed" });
      expect(engine.model(MODEL).scheduler.load()).toEqual({ rows: 0, waiting: 0 });
      expect((await write(engine, { ...request, max_tokens: 5 })).tokens).toEqual(before.tokens);
      expect(logged.join("\n")).toContain("SIGKILL");
    } finally {
      await engine.close();
    }
  });

  it("that cannot start is refused with the reason", async () => {
    const missing = { ...gpuOptions, python: { command: "/nowhere/python", env: python.env } };
    await expect(loadGpuEngine(missing)).rejects.toThrow(/model 'tiller-tales': There is no \/nowhere\/python: set PYTHON/);
    const wrong = {
      ...gpuOptions,
      python: { command: python.command, env: { ...python.env, PYTHONPATH: "/nowhere", PYTHONNOUSERSITE: "1" } },
    };
    const bare = await hasTorch(wrong.python);
    if (!bare) await expect(loadGpuEngine(wrong)).rejects.toThrow(/No module named|torch/);
  });
});
