// How much memory a model takes, planned before any of it is taken.
import { totalmem } from "node:os";
import type { Shape } from "./blocks.ts";

/** Rows at once; never fewer than one request may ask for. */
const MIN_SLOTS = 8;
const MAX_SLOTS = 16;
/** The least context worth serving, in tokens. */
const MIN_LENGTH = 64;
const MIB = 2 ** 20;

export interface MemoryPlan {
  /** Rows that run at once. */
  readonly slots: number;
  /** Tokens the KV cache holds per slot: the context that can be served. */
  readonly cacheLength: number;
  readonly cacheBytes: number;
  /** The weights as they are computed with, with the copy that the kernels pack for themselves. */
  readonly weightBytes: number;
}

/** Bytes of keys and values of one position: float32, every layer. */
export const cacheBytesPerToken = (shape: Shape): number => 8 * shape.layers * shape.kvHeads * shape.headDim;

/** What a model's KV cache may take unless something else is asked for. */
export const defaultCacheBytes = (): number => Math.min(2048 * MIB, 0.15 * totalmem());
/** What all loaded models together may take unless something else is asked for. */
export const defaultModelBytes = (): number => 0.6 * totalmem();

/**
 * As many slots as fit with the model's whole context, 8 to `most`; with 8 that do not fit, a shorter context.
 * @param how `most` slots, 16 when absent, and the bytes of a value of the cache.
 * @throws Error when not even a short context fits.
 */
export function planMemory(shape: Shape, weightBytes: number, cacheBytes: number, { most = MAX_SLOTS, bytes = 4 } = {}): MemoryPlan {
  const perToken = (cacheBytesPerToken(shape) * bytes) / 4;
  const slots = Math.min(most, Math.max(MIN_SLOTS, Math.floor(cacheBytes / (perToken * shape.context))));
  const cacheLength = Math.min(shape.context, Math.floor(cacheBytes / (perToken * slots)));
  if (cacheLength < Math.min(MIN_LENGTH, shape.context)) {
    const needed = Math.ceil((MIN_LENGTH * slots * perToken) / MIB);
    throw new Error(`a KV cache of ${(cacheBytes / MIB).toFixed(0)} MiB is too small for this model: give it at least ${needed} MiB`);
  }
  return { slots, cacheLength, cacheBytes: slots * cacheLength * perToken, weightBytes };
}

export const planBytes = (plan: MemoryPlan): number => plan.cacheBytes + plan.weightBytes;

/** The plan as a person reads it. */
export function describePlan(plan: MemoryPlan, context: number): string {
  const size = (bytes: number) => (bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`);
  const cut = plan.cacheLength < context ? ` of the ${context} it was trained for` : "";
  return `weights ${size(plan.weightBytes)}, KV cache of ${plan.slots} rows of ${plan.cacheLength} tokens${cut} ${size(plan.cacheBytes)}`;
}
