// All decoder rows of a source at length one, in memory, and their nearest neighbours by cosine: a matrix product and a choice of the
// greatest in ONNX Runtime, block by block.
import { Buffers } from "./buffers.ts";
import { DataType, GraphWriter } from "./onnx.ts";
import { type Binding, PrepackedWeights, Session } from "./ort.ts";
import type { LatentMatrix } from "./sae.ts";
import { readRows } from "./safetensors.ts";

/** Values of one part of the file. */
const PART = 2 ** 22;
/** Cosines of one block. */
const COSINES = 2 ** 23;
/** Added to the cosines with rows that have no direction: they are nobody's neighbours. */
const NOT = -4;
const OUTPUTS = ["cosines", "ids"] as const;

export interface Nearby {
  readonly index: number;
  readonly cosine: number;
}

export class UnitRows {
  /** Rows that one call of `nearest` takes at most. */
  readonly block: number;
  private readonly width: number;
  private readonly latents: number;
  /** Neighbours that are looked for: one more than wanted, because a row is its own nearest. */
  private readonly top: number;
  private readonly buffers = new Buffers();
  private readonly prepacked = new PrepackedWeights();
  private readonly session: Session;

  /**
   * Takes 4 bytes for every value of the matrix.
   * @param count neighbours that `nearest` lists.
   * @throws Error with the file when it cannot be read.
   */
  constructor(matrix: LatentMatrix, latents: number, width: number, count: number, threads: number) {
    this.latents = latents;
    this.width = width;
    this.top = Math.min(count + 1, latents);
    this.block = Math.max(1, Math.min(256, latents, Math.floor(COSINES / latents)));
    const rows = this.buffers
      .allocate("rows", latents * width, false)
      .float32()
      .subarray(0, latents * width);
    readInto(rows, matrix, latents, width);
    const without = this.buffers.allocate("without", latents).float32();
    for (let i = 0; i < latents; i++) if (!normalise(this.row(i))) without[i] = NOT;
    for (const name of OUTPUTS) this.buffers.allocate(name, this.block * this.top);
    this.session = new Session(this.graph(), { threads, weightsFolder: ".", weights: new Map(), prepacked: this.prepacked });
  }

  /** One row [width]; all zero where the decoder's is zero or not finite. */
  row(index: number): Float32Array {
    return this.rows(index, 1);
  }

  /** [count, width] */
  rows(start: number, count: number): Float32Array {
    return this.buffers.float32("rows").subarray(start * this.width, (start + count) * this.width);
  }

  /** Of each of `count` rows from `start` on: the others, the nearest first, the lower index first among equals. */
  async nearest(start: number, count: number): Promise<Nearby[][]> {
    await this.session.run(this.bind(start, count));
    const [cosines, ids] = [this.buffers.float32("cosines"), this.buffers.int32("ids")];
    return Array.from({ length: count }, (_, row) => {
      const found: Nearby[] = [];
      if (this.row(start + row).every((value) => value === 0)) return found;
      for (let at = row * this.top; at < (row + 1) * this.top; at++) {
        const [index, cosine] = [ids[at] as number, cosines[at] as number];
        if (index !== start + row && cosine > NOT / 2) found.push({ index, cosine });
      }
      return found.slice(0, this.top - 1);
    });
  }

  private bind(start: number, count: number): Binding {
    const { buffers, width, latents, top } = this;
    const inputs = new Map([
      ["queries", buffers.tensor("rows", start * width, [count, width])],
      ["rows", buffers.tensor("rows", 0, [latents, width])],
      ["without", buffers.tensor("without", 0, [latents])],
    ]);
    const outputs = new Map([
      ["cosines", buffers.tensor("cosines", 0, [count, top])],
      ["ids", buffers.tensor("ids", 0, [count, top], DataType.INT32)],
    ]);
    return this.session.bind(inputs, outputs);
  }

  private graph(): Uint8Array {
    const { latents, width, top } = this;
    const w = new GraphWriter();
    const queries = w.input("queries", DataType.FLOAT, ["Q", width]);
    const rows = w.input("rows", DataType.FLOAT, [latents, width]);
    const products = w.contrib("FusedMatMul", [queries, rows], { transB: 1 });
    const cosines = w.op("Add", [products, w.input("without", DataType.FLOAT, [latents])]);
    const [values, ids] = w.node("TopK", [cosines, w.int64([top])], { axis: -1 }, { outputs: ["cosines", "ids64"] });
    w.output(values as string, DataType.FLOAT, ["Q", top]);
    w.output(w.op("Cast", [ids as string], { to: DataType.INT32 }, "ids"), DataType.INT32, ["Q", top]);
    return w.model();
  }

  close(): void {
    this.session.release();
    this.prepacked.release();
    this.buffers.close();
  }
}

/** The matrix as [latents, width], whichever way it lies in the file. */
function readInto(target: Float32Array, { file, name, latentsFirst }: LatentMatrix, latents: number, width: number): void {
  const [rows, columns] = latentsFirst ? [latents, width] : [width, latents];
  const part = Math.max(1, Math.floor(PART / columns));
  for (let start = 0; start < rows; start += part) {
    const values = readRows(file, name, start, Math.min(part, rows - start));
    if (latentsFirst) target.set(values, start * width);
    else
      for (let at = 0; at < values.length; at++) target[(at % latents) * width + start + Math.floor(at / latents)] = values[at] as number;
  }
}

/** Brings a row to length one, or to zero when it has no direction; says which. */
function normalise(row: Float32Array): boolean {
  let squares = 0;
  for (const value of row) squares += value * value;
  const norm = Math.sqrt(squares);
  const good = norm > 0 && Number.isFinite(norm);
  for (let d = 0; d < row.length; d++) row[d] = good ? (row[d] as number) / norm : 0;
  return good;
}
