// Native memory by name, and the tensors that look at parts of it: what a session's graphs read and write.
import { DataType } from "./onnx.ts";
import { NativeMemory, Tensor } from "./ort.ts";

export class Buffers {
  private readonly memories = new Map<string, NativeMemory>();
  private readonly tensors = new Map<string, Tensor>();

  /** @param elements of four bytes. @param zeroed see NativeMemory. */
  allocate(name: string, elements: number, zeroed = true): NativeMemory {
    const memory = new NativeMemory(elements * 4, zeroed);
    this.memories.set(name, memory);
    return memory;
  }

  has(name: string): boolean {
    return this.memories.has(name);
  }

  memory(name: string): NativeMemory {
    return this.memories.get(name) as NativeMemory;
  }

  float32(name: string): Float32Array {
    return this.memory(name).float32();
  }

  int32(name: string): Int32Array {
    return this.memory(name).int32();
  }

  /** A tensor over the memory's elements from `offset` on; the same one for the same arguments. */
  tensor(name: string, offset: number, shape: readonly number[], type: 1 | 6 = DataType.FLOAT): Tensor {
    const key = `${name}|${offset}|${shape}`;
    let made = this.tensors.get(key);
    if (made === undefined) {
      made = new Tensor(this.memory(name), offset, shape, type);
      this.tensors.set(key, made);
    }
    return made;
  }

  /** Frees one memory and its tensors: nothing may use them any more. */
  free(name: string): void {
    for (const [key, tensor] of this.tensors) {
      if (!key.startsWith(`${name}|`)) continue;
      tensor.release();
      this.tensors.delete(key);
    }
    this.memory(name).free();
    this.memories.delete(name);
  }

  close(): void {
    for (const tensor of this.tensors.values()) tensor.release();
    for (const memory of this.memories.values()) memory.free();
    this.tensors.clear();
    this.memories.clear();
  }
}
