// Many texts in one call: each a row that is computed from its first token, without edits, without logits, and without a cache that lasts.
import type { Shape } from "./blocks.ts";
import { Buffers } from "./buffers.ts";
import type { BuiltGraph } from "./family.ts";
import { DataType } from "./onnx.ts";
import type { Binding, Session, Tensor } from "./ort.ts";

/** Positions that one call may compute, those of padding included. */
export const BATCH = 128;
/** Graphs that are kept, by the boundary they end at: each costs memory beside the weights it shares. */
const GRAPHS = 2;

export interface ReadingGraph {
  readonly session: Session;
  readonly graph: BuiltGraph;
}

export class BatchReader {
  private readonly shape: Shape;
  private readonly open: (to: number) => ReadingGraph;
  private readonly buffers = new Buffers();
  /** In the order of use. */
  private readonly graphs = new Map<number, ReadingGraph>();

  /** @param open loads the graph that ends at a boundary. */
  constructor(shape: Shape, open: (to: number) => ReadingGraph) {
    this.shape = shape;
    this.open = open;
    for (const name of ["input_ids", "positions", "seqlens_k"]) this.buffers.allocate(name, BATCH);
    this.buffers.allocate("total_len", 1);
    // Of a prompt's first part attention reads nothing but what it has just written: one layer's keys and values do for all.
    for (const name of ["k", "v"]) this.buffers.allocate(name, BATCH * shape.kvHeads * shape.headDim);
  }

  /**
   * Reads texts together: their number times the longest is at most BATCH.
   * @returns residuals [T, width] of a text at one of the boundaries, which the next call overwrites.
   */
  async read(
    texts: readonly (readonly number[])[],
    boundaries: readonly number[],
  ): Promise<(row: number, boundary: number) => Float32Array> {
    const { buffers } = this;
    const { width } = this.shape;
    const tokens = Math.max(...texts.map(({ length }) => length));
    const [ids, positions] = [buffers.int32("input_ids"), buffers.int32("positions")];
    // Attention looks back only: what stands after a text's end changes nothing before it.
    for (const [row, text] of texts.entries()) {
      for (let t = 0; t < tokens; t++) {
        ids[row * tokens + t] = text[t] ?? 0;
        positions[row * tokens + t] = t;
      }
    }
    buffers.int32("seqlens_k").fill(tokens - 1);
    buffers.int32("total_len")[0] = tokens;
    const { session, graph } = this.graph(Math.max(...boundaries));
    await session.run(this.bind(session, graph, texts.length, tokens, boundaries));
    return (row, boundary) => {
      const begin = row * tokens * width;
      return buffers.float32(`resid_${boundary}`).subarray(begin, begin + (texts[row] as readonly number[]).length * width);
    };
  }

  private graph(to: number): ReadingGraph {
    const loaded = this.graphs.get(to) ?? this.open(to);
    this.graphs.delete(to);
    this.graphs.set(to, loaded);
    if (this.graphs.size > GRAPHS) {
      const [oldest, { session }] = this.graphs.entries().next().value as [number, ReadingGraph];
      session.release();
      this.graphs.delete(oldest);
    }
    return loaded;
  }

  private bind(session: Session, graph: BuiltGraph, rows: number, tokens: number, boundaries: readonly number[]): Binding {
    const captures = [...new Set(boundaries)].map((b) => `resid_${b}`);
    for (const name of captures) if (!this.buffers.has(name)) this.buffers.allocate(name, BATCH * this.shape.width);
    const outputs = [...captures, ...graph.outputs.filter((name) => name.startsWith("present_"))];
    const bindAll = (names: readonly string[]) => new Map(names.map((name) => [name, this.tensor(name, rows, tokens)]));
    return session.bind(bindAll(graph.inputs), bindAll(outputs));
  }

  private tensor(name: string, rows: number, tokens: number): Tensor {
    const { width, kvHeads, headDim } = this.shape;
    const { buffers } = this;
    if (name.startsWith("resid_")) return buffers.tensor(name, 0, [rows, tokens, width]);
    if (name === "total_len") return buffers.tensor(name, 0, [1], DataType.INT32);
    if (name === "seqlens_k") return buffers.tensor(name, 0, [rows], DataType.INT32);
    if (name === "input_ids" || name === "positions") return buffers.tensor(name, 0, [rows, tokens], DataType.INT32);
    // past_k_3, present_v_0, ...
    return buffers.tensor(name.includes("_k_") ? "k" : "v", 0, [rows, kvHeads, tokens, headDim]);
  }

  close(): void {
    for (const { session } of this.graphs.values()) session.release();
    this.buffers.close();
  }
}
