// The CPU engine: the calls of the engine protocol on models that ONNX Runtime computes.
import { availableParallelism } from "node:os";
import type { Quantise } from "./directory.ts";
import { defaultCacheBytes, defaultModelBytes } from "./memory.ts";
import { readModel } from "./model.ts";
import { openModel } from "./open-model.ts";
import { ModelPool } from "./pool.ts";
import { type Engine, newEngine } from "./service.ts";

export type { Engine } from "./service.ts";

export interface EngineOptions {
  /** Model directories in Hugging Face layout; a model's id is its directory's name. */
  readonly directories: readonly string[];
  /** Threads of the numeric kernels; every core when absent. */
  readonly threads?: number | undefined;
  /** How the models' matrices are held; "auto" when absent. */
  readonly quantise?: Quantise | undefined;
  /** What the KV cache of one model may take; 2 GiB, or 15% of the memory where that is less, when absent. */
  readonly cacheBytes?: number | undefined;
  /** What all loaded models together may take; 60% of the memory when absent. */
  readonly memoryBytes?: number | undefined;
  /** How many models are loaded at the start, in order, if they fit into memory together; all when absent. */
  readonly warm?: number | undefined;
  /** Receives a line when a model is loaded or unloaded. */
  readonly log?: ((line: string) => void) | undefined;
}

/**
 * Reads every model and loads the first of them; the others are loaded when they are asked for.
 * @throws Error with the file and the reason when a model cannot be served.
 */
export async function loadEngine(options: EngineOptions): Promise<Engine> {
  const cacheBytes = options.cacheBytes ?? defaultCacheBytes();
  const threads = options.threads ?? availableParallelism();
  const pool = new ModelPool(
    options.directories.map((directory) => readModel(directory, cacheBytes, options.quantise)),
    {
      open: (known) => openModel(known, threads),
      memoryBytes: options.memoryBytes ?? defaultModelBytes(),
      log: options.log ?? (() => undefined),
    },
  );
  await pool.warm(options.warm ?? Number.POSITIVE_INFINITY);
  return newEngine(pool);
}
