// How fast this machine multiplies float32 matrices: one large product of the same library. What a prefill cannot beat by much.
import path from "node:path";
import { DataType, GraphWriter } from "../../gpu-functions/cpu/onnx.ts";
import { NativeMemory, PrepackedWeights, Session, Tensor } from "../../gpu-functions/cpu/ort.ts";
import { ROOT } from "../edge-bundle.ts";

const SIZE = 1536;

/** A product of two square matrices, ready to be timed. */
export class PeakProduct {
  private readonly memories = Array.from({ length: 3 }, () => new NativeMemory(SIZE * SIZE * 4));
  private readonly tensors = this.memories.map((memory) => new Tensor(memory, 0, [SIZE, SIZE], DataType.FLOAT));
  private readonly prepacked = new PrepackedWeights();
  private readonly session: Session;

  constructor(threads: number) {
    const writer = new GraphWriter();
    const a = writer.input("a", DataType.FLOAT, [SIZE, SIZE]);
    const b = writer.external("b", [SIZE, SIZE], "package.json");
    writer.output(writer.op("MatMul", [a, b], {}, "y"), DataType.FLOAT, [SIZE, SIZE]);
    for (const memory of this.memories) memory.float32().fill(0.5);
    const weights = new Map([["b", this.tensors[1] as Tensor]]);
    this.session = new Session(writer.model(), { threads, weightsFolder: path.resolve(ROOT), weights, prepacked: this.prepacked });
  }

  /** Operations per second of one product: 2 n^3, each multiplication and each addition counted. */
  measure(): number {
    const binding = this.session.bind(new Map([["a", this.tensors[0] as Tensor]]), new Map([["y", this.tensors[2] as Tensor]]));
    const began = performance.now();
    this.session.runSync(binding);
    return (2 * SIZE ** 3) / ((performance.now() - began) / 1000);
  }

  close(): void {
    this.session.release();
    for (const tensor of this.tensors) tensor.release();
    this.prepacked.release();
    for (const memory of this.memories) memory.free();
  }
}
