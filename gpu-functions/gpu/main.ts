// The GPU engine as a process. Besides what ../cpu/process.ts reads: DEVICE (cuda or cpu), DTYPE (bfloat16, float16 or float32; on a CPU
// float32), SLOTS (rows that run at once), THREADS (of PyTorch on a CPU), PYTHON (the Python that has PyTorch).
import { oneOfWords, serveEngine, wholeNumber } from "../cpu/process.ts";
import { loadGpuEngine } from "./engine.ts";
import { findPython } from "./python.ts";

const device = oneOfWords("DEVICE", ["cuda", "cpu"]);
const dtype = oneOfWords("DTYPE", device === "cuda" ? ["bfloat16", "float16", "float32"] : ["float32", "bfloat16"]);
const slots = wholeNumber("SLOTS", undefined, 64);
const threads = wholeNumber("THREADS", 0, 256) as number;
const GIB = 2 ** 30;

await serveEngine(({ cacheBytes = 8 * GIB, memoryBytes = 72 * GIB, ...environment }) =>
  loadGpuEngine({
    ...environment,
    ...{ device, dtype, slots, threads, cacheBytes, memoryBytes },
    python: findPython(),
  }),
);
