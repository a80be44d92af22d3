// The engine that these tests are run against. They are the engine protocol's: `npm test` runs them once on each engine (vitest.config.ts).
import { type EngineOptions, loadEngine as loadCpuEngine } from "../cpu/engine.ts";
import type { Engine } from "../cpu/service.ts";
import { loadGpuEngine } from "../gpu/engine.ts";
import { findPython } from "../gpu/python.ts";

export type { Engine } from "../cpu/service.ts";

export const ENGINE = process.env.TILLER_ENGINE === "gpu" ? "gpu" : "cpu";

const GIB = 2 ** 30;

export const loadEngine = (options: EngineOptions): Promise<Engine> =>
  ENGINE === "cpu"
    ? loadCpuEngine(options)
    : loadGpuEngine({
        ...{ device: "cpu", dtype: "float32", kernels: true, slots: 16, cacheBytes: GIB, memoryBytes: 8 * GIB, log: () => undefined },
        ...{ directories: options.directories, warm: options.warm, threads: options.threads ?? 1, python: findPython() },
      });

/**
 * Numbers of rows that are asked for the same. The CPU engine computes a row alone, and equal rows are equal to the bit; the libraries
 * under PyTorch add in another order where a row lies elsewhere in a matrix.
 */
export const ROUNDING = ENGINE === "cpu" ? 0 : 1e-5;
