// A model's weights in native memory, read from its checkpoint when a graph first needs them and shared by all its graphs.
import { blockNames, type Weight } from "./blocks.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { DataType } from "./onnx.ts";
import { NativeMemory, PrepackedWeights, Tensor } from "./ort.ts";
import { BLOCK, blockShape, type Layout } from "./quantise.ts";
import type { BlockSource } from "./sidecar.ts";

export class Weights {
  /** By the names of the graphs' initializers. */
  readonly tensors = new Map<string, Tensor>();
  /** What ONNX Runtime makes of matrices for its kernels: one copy for all graphs. */
  readonly prepacked = new PrepackedWeights();
  private readonly checkpoint: Checkpoint;
  private readonly blocks: BlockSource | undefined;
  private readonly memories: NativeMemory[] = [];

  constructor(checkpoint: Checkpoint, blocks: BlockSource | undefined) {
    this.checkpoint = checkpoint;
    this.blocks = blocks;
  }

  load(weights: ReadonlyMap<string, Weight>): void {
    for (const [name, weight] of weights) {
      if (weight.blocks !== undefined) this.loadBlocks(name, weight, weight.blocks);
      else if (!this.tensors.has(name)) this.loadValues(name, weight);
    }
  }

  private loadValues(name: string, weight: Weight): void {
    const tensor = weight.tensor === undefined ? new Float32Array() : this.checkpoint.read(weight.tensor);
    const values = weight.compute === undefined ? tensor : weight.compute(tensor);
    const memory = this.memory(values.length);
    memory.float32().set(values);
    this.tensors.set(name, new Tensor(memory, 0, weight.dims, DataType.FLOAT));
  }

  private loadBlocks(name: string, weight: Weight, layout: Layout): void {
    const [blockName, scaleName] = blockNames(name);
    if (this.tensors.has(blockName)) return;
    const { outputs, perOutput } = blockShape(weight.dims, layout);
    const count = outputs * perOutput;
    const [blocks, scales] = [this.memory((count * BLOCK) / 4), this.memory(count)];
    this.blocks?.read(name, weight, blocks.uint8().subarray(0, count * BLOCK), scales.float32().subarray(0, count));
    this.tensors.set(blockName, new Tensor(blocks, 0, [outputs, perOutput, BLOCK], DataType.UINT8));
    this.tensors.set(scaleName, new Tensor(scales, 0, [outputs, perOutput], DataType.FLOAT));
  }

  private memory(elements: number): NativeMemory {
    const memory = new NativeMemory(elements * 4);
    this.memories.push(memory);
    return memory;
  }

  /** Frees everything; the sessions that use it are gone. */
  close(): void {
    for (const tensor of this.tensors.values()) tensor.release();
    this.prepacked.release();
    for (const memory of this.memories) memory.free();
    this.tensors.clear();
  }
}
