// Keys and values of every slot and layer. Graphs read and extend the same memory: attention appends in place.
import type { Shape } from "./blocks.ts";
import type { Buffers } from "./buffers.ts";
import type { Tensor } from "./ort.ts";

export class KvCache {
  private readonly shape: Shape;
  private readonly length: number;
  private readonly buffers: Buffers;

  /** @param length positions of a slot. */
  constructor(shape: Shape, slots: number, length: number, buffers: Buffers) {
    this.shape = shape;
    this.length = length;
    this.buffers = buffers;
    for (let layer = 0; layer < shape.layers; layer++) {
      // What lies beyond a row's length is never read: the system gives these pages when they are first written.
      for (const s of ["k", "v"]) buffers.allocate(`${s}_${layer}`, slots * shape.kvHeads * length * shape.headDim, false);
    }
  }

  /** The graph's input or output `past_k_3`, `present_v_0`, ... of `rows` slots from `slot` on: [rows, KV, M, head]. */
  tensor(name: string, slot: number, rows: number): Tensor {
    const { kvHeads, headDim } = this.shape;
    return this.buffers.tensor(name.slice(name.indexOf("_") + 1), slot * kvHeads * this.length * headDim, [
      rows,
      kvHeads,
      this.length,
      headDim,
    ]);
  }

  /** Copies positions start .. end - 1 of a slot to another, of the first `layers` layers. */
  move(from: number, to: number, end: number, start = 0, layers = this.shape.layers): void {
    const skipped = start * this.shape.headDim;
    this.eachHead(from, to, end, layers, (cache, source, target, count) =>
      cache.copyWithin(target + skipped, source + skipped, source + count),
    );
  }

  /** Exchanges the first `length` positions of two slots. */
  swap(a: number, b: number, length: number): void {
    this.eachHead(a, b, length, this.shape.layers, (cache, source, target, count) => {
      const kept = cache.slice(target, target + count);
      cache.copyWithin(target, source, source + count);
      cache.set(kept, source);
    });
  }

  /** The used part of every head's cache in two slots: offsets and lengths in elements. */
  private eachHead(
    from: number,
    to: number,
    length: number,
    layers: number,
    act: (cache: Float32Array, source: number, target: number, count: number) => void,
  ): void {
    const { kvHeads, headDim } = this.shape;
    const head = this.length * headDim;
    for (let layer = 0; layer < layers; layer++) {
      for (const s of ["k", "v"]) {
        const cache = this.buffers.float32(`${s}_${layer}`);
        for (let h = 0; h < kvHeads; h++) act(cache, (from * kvHeads + h) * head, (to * kvHeads + h) * head, length * headDim);
      }
    }
  }
}
