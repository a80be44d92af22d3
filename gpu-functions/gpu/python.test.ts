// The PyTorch engine, where Python with PyTorch is: its own tests (tests/*.py), and the same texts as the CPU engine.
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { encodeFloat32 } from "../../shared/base64.ts";
import { GenerateRequest, type Receipt } from "../../shared/protocol.ts";
import { type Engine, loadEngine } from "../cpu/engine.ts";

vi.setConfig({ testTimeout: 300_000 });

const ROOT = path.join(import.meta.dirname, "..", "..");
const INSTALLED = path.join(ROOT, ".tiller", "torch");
// One thread: other tests run beside it.
const env = {
  ...process.env,
  OMP_NUM_THREADS: "1",
  PYTHONDONTWRITEBYTECODE: "1",
  ...(existsSync(INSTALLED) ? { PYTHONPATH: INSTALLED } : {}),
};

interface Run {
  readonly code: number | string | undefined;
  readonly stdout: string;
  readonly stderr: string;
}
const python = (args: readonly string[], input = "") =>
  new Promise<Run>((resolve) => {
    const options = { env, cwd: path.join(ROOT, "gpu-functions"), maxBuffer: 1 << 24 };
    const child = execFile(process.env.TILLER_PYTHON ?? "python3", args, options, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : (error.code ?? undefined), stdout, stderr }),
    );
    // A Python that is not there takes no input.
    child.stdin?.on("error", () => undefined).end(input);
  });

const { code } = await python(["-c", "import torch, safetensors"]);
if (code !== 0) {
  const sentence =
    "The PyTorch engine is not tried: there is no Python with torch and safetensors. sh scripts/test/install-torch.sh installs them.";
  if (process.env.REQUIRE_TORCH) throw new Error(sentence);
  console.warn(sentence);
}

describe.skipIf(code !== 0)("the PyTorch engine", () => {
  it.each(["test_golden", "test_decoder"])("passes %s", async (name) => {
    const run = await python(["-m", "unittest", `gpu.tests.${name}`]);
    expect(run.stderr).toMatch(/Ran \d+ tests?[\s\S]*\nOK\n$/);
    expect(run.code).toBe(0);
  });
});

describe.skipIf(code !== 0)("both engines write the same of the bundled model", () => {
  const MODEL = "tiller-tales";
  const directory = path.join(ROOT, "gpu-functions", "bundled", MODEL);
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ directories: [directory] });
  });
  afterAll(() => engine?.close());

  const wave = (phase: number) => Array.from({ length: 256 }, (_, i) => Math.fround(Math.sin(i * 1.7 + phase)));
  const rows = [
    [],
    [{ method: "SIMPLE_ADDITIVE", vector: wave(0), strength: 1.5, layer: 3 }],
    [
      { method: "ORTHOGONAL_DECOMP", vector: wave(1), strength: -1, layer: 2 },
      { method: "PROJECTION_CAP", vector: wave(2), strength: -0.5, layer: 2 },
      { method: "SIMPLE_ADDITIVE", vector: wave(3), strength: -1, layer: 5 },
    ],
  ] as const;

  it.each([
    ["the likeliest", { temperature: 0, top_p: 1, top_k: 0, frequency_penalty: 0.4, presence_penalty: 0, seed: 1 }],
    ["drawn", { temperature: 0.8, top_p: 0.95, top_k: 60, frequency_penalty: 0.3, presence_penalty: 0.1, seed: 7 }],
  ])("tokens: %s", async (_, sampling) => {
    const prompt = "One day a little girl named Mia went to the park.";
    const request = GenerateRequest.parse({
      ...{ model: MODEL, prompt, sampling, max_tokens: 40 },
      rows: rows.map((edits, i) => ({
        name: String(i),
        edits: edits.map(({ method, vector, strength, layer }) => ({
          ...{ method, strength, vector: encodeFloat32(vector), point: `blocks.${layer}.hook_resid_pre` },
        })),
      })),
    });
    const written = rows.map((): number[] => []);
    let receipts: Receipt[][] = [];
    for await (const { event, data } of engine.generate(request, new AbortController().signal)) {
      if (event === "token") written[Number(data.row)]?.push(data.id);
      if (event === "done") receipts = data.rows.map((row) => row.receipts);
    }
    const { ids } = await engine.tokenize({ model: MODEL, text: prompt });
    const run = await python(["-m", "gpu.tests.write"], JSON.stringify({ directory, ids, rows, sampling, max_tokens: 40 }));
    expect(run.stderr).toBe("");
    const other = JSON.parse(run.stdout) as { ids: number[]; receipts: Receipt[] }[];
    other.forEach((row, i) => {
      const ended = written[i] as number[];
      expect(ended.length).toBeGreaterThan(10);
      expect(row.ids.slice(0, ended.length)).toEqual(ended);
      row.receipts.forEach((receipt, k) => {
        const wanted = receipts[i]?.[k] as Receipt;
        if (ended.length === 40)
          expect([receipt.positions, receipt.positions_changed]).toEqual([wanted.positions, wanted.positions_changed]);
        expect(receipt.mean_relative_delta).toBeCloseTo(wanted.mean_relative_delta, ended.length === 40 ? 3 : 1);
      });
    });
  });
});
