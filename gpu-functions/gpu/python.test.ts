// The PyTorch engine's own tests (tests/*.py), where Python with PyTorch is.
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { describe, expect, it, vi } from "vitest";

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

const python = (...args: string[]) =>
  new Promise<{ readonly code: number | string | undefined; readonly printed: string }>((resolve) => {
    execFile(process.env.TILLER_PYTHON ?? "python3", args, { env, cwd: path.join(ROOT, "gpu-functions") }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : (error.code ?? undefined), printed: stdout + stderr }),
    );
  });

const { code } = await python("-c", "import torch, safetensors");
if (code !== 0) {
  const sentence =
    "The PyTorch engine is not tried: there is no Python with torch and safetensors. sh scripts/test/install-torch.sh installs them.";
  if (process.env.REQUIRE_TORCH) throw new Error(sentence);
  console.warn(sentence);
}

describe.skipIf(code !== 0)("the PyTorch engine", () => {
  it.each(["test_golden", "test_decoder"])("passes %s", async (name) => {
    const run = await python("-m", "unittest", `gpu.tests.${name}`);
    expect(run.printed).toMatch(/Ran \d+ tests?[\s\S]*\nOK\n$/);
    expect(run.code).toBe(0);
  });
});
