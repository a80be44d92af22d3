// The GPU engine as a process. Besides what ../cpu/process.ts reads: DEVICE (cuda or cpu), DTYPE (auto, bfloat16, float16 or float32; on a
// CPU float32), SLOTS (rows that run at once), KERNELS (on or off: fused kernels of a GPU), THREADS (of PyTorch on a CPU), PYTHON (the Python that has PyTorch),
// SPAWN_URL (who begins generations that report to their callers; absent: this process runs them).
import { newCallbacks, remoteCallbacks } from "../cpu/callbacks.ts";
import { oneOfWords, serveEngine, wholeNumber } from "../cpu/process.ts";
import { loadGpuEngine } from "./engine.ts";
import { findPython } from "./python.ts";

const device = oneOfWords("DEVICE", ["cuda", "cpu"]);
const dtype = oneOfWords("DTYPE", device === "cuda" ? ["auto", "bfloat16", "float16", "float32"] : ["float32", "bfloat16", "float16"]);
const kernels = oneOfWords("KERNELS", ["on", "off"]) === "on";
const slots = wholeNumber("SLOTS", undefined, 64);
const threads = wholeNumber("THREADS", 0, 256) as number;
const GIB = 2 ** 30;

await serveEngine(
  ({ cacheBytes = 8 * GIB, memoryBytes = 72 * GIB, ...environment }) =>
    loadGpuEngine({ ...environment, ...{ device, dtype, kernels, slots, threads, cacheBytes, memoryBytes }, python: findPython() }),
  (engine, token) =>
    newCallbacks({
      ...{ generate: engine.generate, token, log: (line: string) => console.error(line) },
      elsewhere: process.env.SPAWN_URL ? remoteCallbacks(process.env.SPAWN_URL) : undefined,
    }),
);
