// The parts every decoder family is built from: embedding input, attention over a shared KV cache, hooked residual boundaries,
// logits of chosen rows. A family file wires them; this file fixes the names and shapes of the graph's inputs and outputs.
//
// B rows, T new tokens per row, D width, R edit slots, M cache length, L layers. Inputs:
//   input_ids, positions int32 [B, T]    seqlens_k int32 [B] (total length - 1)    total_len int32 [1]    logit_rows int32 [N]
//   inv_temperature float [N, 1]    resid_in float [B, T, D]: only of a graph that begins at a later boundary, whose residuals it is;
//   such a graph has the inputs and outputs of what follows only, and one that ends at a boundary those of what comes before
//   past_k_l, past_v_l float [B, KV, M, head]     and per boundary b in 0..L the edits of design 4:
//   edit_read_b [B, D, R]   edit_write_b [B, R, D]   edit_add_b [B, 1, D]
//   ordered graphs also:  edit_cross_b [B, R, R]   edit_scale_b, edit_offset_b, edit_low_b, edit_high_b, edit_edge_b [B, 1, R]
// Outputs: logits, log_probs = log softmax(logits), probs = softmax(logits inv_temperature) [N, V]; the TOP greatest of log_probs with
//   their ids: top_values [N, TOP], top_ids int32 [N, TOP] (ties by lower id);
//   present_k_l, present_v_l (the same memory as past); resid_b [B, T, D] after the boundary's edits, before_b before them (of the boundaries
//   after the first);
//   stats [B, T, (L + 1) (R + 2)]: per boundary the R reads, ||h||^2 before the edits, ||delta||^2 that was added.
import { LIMITS } from "../../shared/protocol.ts";
import { DataType, GraphWriter } from "./onnx.ts";
import { BLOCK, blockShape, type Layout, ZERO } from "./quantise.ts";

/**
 * `plain`: no hooks at all (a baseline for benchmarks). `read`: boundaries are offered as they are. `affine`: h + add + (h U) W.
 * `ordered`: scalar functions in order too.
 */
export type Variant = "plain" | "read" | "affine" | "ordered";

/** The part of a model that a graph computes. */
export interface Span {
  /** The boundary it begins at: 0 or absent: from tokens, else from residuals that are given. */
  readonly from?: number | undefined;
  /** The boundary it ends at; absent: it goes on to the logits. */
  readonly to?: number | undefined;
}

/** How matrices and the token table are held: as float32, or as 8-bit blocks of 32 (quantise.ts). Everything else is float32. */
export type Storage = "float32" | "q8";

/** Edit slots per boundary. A constant: with a varying rank a row's sums could depend on what else is in the batch. */
export const SLOTS = LIMITS.editsPerPoint;
export const STATS_PER_BOUNDARY = SLOTS + 2;
/** Most likely tokens that a graph lists for each row of logits. */
export const TOP = LIMITS.topLogprobs;

/** The numbers of a slot's scalar function (shared/steering.ts), in the order of the graph's inputs. */
export const FUNCTION_PARTS = ["scale", "offset", "low", "high", "edge"] as const;

/** Where a weight's values come from: the checkpoint's tensor of the same shape, values computed at load, or both. */
export interface Weight {
  readonly dims: readonly number[];
  /** Absent when nothing is read from the checkpoint. */
  readonly tensor?: string;
  /** Makes the values, from the tensor's when there is one; absent when they are the tensor's. */
  readonly compute?: (tensor: Float32Array) => Float32Array;
  /** Set when the tensor is held as 8-bit blocks: how it lies in the checkpoint. */
  readonly blocks?: Layout;
}

/** Initializers of a weight held as blocks: uint8 [outputs, blocks, 32] and float32 [outputs, blocks]. */
export const blockNames = (weight: string): readonly [blocks: string, scales: string] => [`${weight}.blocks`, `${weight}.scales`];

/** What the engine must know of a model's shape, whatever its family. */
export interface Shape {
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vocab: number;
  readonly context: number;
}

/** How one layer attends. */
export interface Attention {
  readonly scale: number;
  /** Keys a query sees, itself included; absent: all before it. */
  readonly window?: number | undefined;
  /** Scores s become softcap tanh(s / softcap). */
  readonly softcap?: number | undefined;
  /** Weights with the rotary cosines and sines of every position, [M, head / 2]; queries and keys are rotated in halves. */
  readonly rotary?: readonly [cos: string, sin: string];
}

export class DecoderGraph {
  readonly writer = new GraphWriter();
  /** Every weight the graph reads. */
  readonly weights = new Map<string, Weight>();
  private readonly stats: string[] = [];
  private readonly shape: Shape;
  private readonly variant: Variant;
  private readonly weightsFile: string;
  private readonly storage: Storage;
  /** The first boundary and the last. */
  readonly from: number;
  readonly to: number;
  private readonly hasLogits: boolean;

  constructor(shape: Shape, variant: Variant, weightsFile: string, storage: Storage = "float32", { from = 0, to }: Span = {}) {
    this.from = from;
    this.to = to ?? shape.layers;
    this.hasLogits = to === undefined;
    this.shape = shape;
    this.variant = variant;
    this.weightsFile = weightsFile;
    this.storage = storage;
    this.writer.input("input_ids", DataType.INT32, ["B", "T"]);
    this.writer.input("positions", DataType.INT32, ["B", "T"]);
    this.writer.input("seqlens_k", DataType.INT32, ["B"]);
    this.writer.input("total_len", DataType.INT32, [1]);
  }

  /** The checkpoint's tensor of that name. */
  weight(name: string, dims: readonly number[]): string {
    return this.addWeight(name, { dims, tensor: name });
  }

  /** Values that the configuration alone decides. */
  computed(name: string, dims: readonly number[], compute: () => Float32Array): string {
    return this.addWeight(name, { dims, compute });
  }

  /** 1 + the checkpoint's tensor of that name, as Gemma stores the gains of its norms. */
  weightPlusOne(name: string, dims: readonly number[]): string {
    return this.addWeight(`1 + ${name}`, { dims, tensor: name, compute: (values) => values.map((value) => 1 + value) });
  }

  private addWeight(name: string, weight: Weight): string {
    if (!this.weights.has(name)) {
      this.weights.set(name, weight);
      this.writer.external(name, weight.dims, this.weightsFile);
    }
    return name;
  }

  /** Rows of a table in float32: [.., D]. */
  lookup(table: string, rows: number, ids: string): string {
    return this.writer.op("Gather", [this.weight(table, [rows, this.shape.width]), ids]);
  }

  /** The input tokens' rows of the embedding [B, T, D]; held as blocks, they are the ones the output's product uses where it is tied. */
  embed(table: string): string {
    const { vocab, width } = this.shape;
    if (this.storage !== "q8") return this.lookup(table, vocab, "input_ids");
    const w = this.writer;
    const [blocks, scales] = this.blockWeight(table, [vocab, width], "rows");
    const { perOutput } = blockShape([vocab, width], "rows");
    const centred = w.op("Sub", [w.op("Cast", [w.op("Gather", [blocks, "input_ids"])], { to: DataType.FLOAT }), w.float32(ZERO)]);
    const scale = w.op("Reshape", [w.op("Gather", [scales, "input_ids"]), w.int64([0, 0, perOutput, 1])]);
    const values = w.op("Reshape", [w.op("Mul", [centred, scale]), w.int64([0, 0, perOutput * BLOCK])]);
    if (perOutput * BLOCK === width) return values;
    return w.op("Slice", [values, w.int64([0]), w.int64([width]), w.int64([2])]);
  }

  layerNorm(x: string, prefix: string, epsilon: number): string {
    const { width } = this.shape;
    const scale = this.weight(`${prefix}.weight`, [width]);
    const bias = this.weight(`${prefix}.bias`, [width]);
    return this.writer.op("LayerNormalization", [x, scale, bias], { axis: -1, epsilon: { float: epsilon } });
  }

  /** x + y and its LayerNorm in one kernel: [normed, sum]. */
  addLayerNorm(x: string, y: string, prefix: string, epsilon: number): [normed: string, sum: string] {
    const { width } = this.shape;
    const inputs = [x, y, this.weight(`${prefix}.weight`, [width]), this.weight(`${prefix}.bias`, [width])];
    const names = [`${prefix}.normed`, "", "", `${prefix}.sum`] as const;
    this.writer.contribMany("SkipLayerNormalization", inputs, { epsilon: { float: epsilon } }, names);
    return [names[0], names[3]];
  }

  /** x / sqrt(mean(x^2) + epsilon) * gain over the last axis; `gain` is a declared weight. */
  rmsNorm(x: string, gain: string, epsilon: number): string {
    return this.writer.op("SimplifiedLayerNormalization", [x, gain], { axis: -1, epsilon: { float: epsilon } });
  }

  /** x + y and its rmsNorm in one kernel: [normed, sum]. */
  addRmsNorm(x: string, y: string, gain: string, epsilon: number): [normed: string, sum: string] {
    const names = [`${gain}.normed`, "", "", `${gain}.sum`] as const;
    this.writer.contribMany("SkipSimplifiedLayerNormalization", [x, y, gain], { epsilon: { float: epsilon } }, names);
    return [names[0], names[3]];
  }

  /** rmsNorm of every head of x [B, T, heads * size] by itself. */
  headNorm(x: string, heads: number, size: number, gain: string, epsilon: number): string {
    const split = this.writer.op("Reshape", [x, this.writer.int64([0, 0, heads, size])]);
    return this.writer.op("Reshape", [this.rmsNorm(split, gain, epsilon), this.writer.int64([0, 0, heads * size])]);
  }

  /** x W^T + b with W stored [out, in], as torch's Linear has it. */
  linear(x: string, prefix: string, inputs: number, outputs: number, bias: boolean): string {
    const added = bias ? this.weight(`${prefix}.bias`, [outputs]) : "";
    if (this.storage === "q8") return this.blockProduct(x, `${prefix}.weight`, [outputs, inputs], "rows", added);
    const y = this.writer.contrib("FusedMatMul", [x, this.weight(`${prefix}.weight`, [outputs, inputs])], { transB: 1 });
    return bias ? this.writer.op("Add", [y, added]) : y;
  }

  /** x W + b with W stored [in, out] (Conv1D, as GPT-2 has it). Without `bias` the caller adds it in a fused kernel. */
  conv1d(x: string, prefix: string, inputs: number, outputs: number, bias: boolean): string {
    const added = bias ? this.weight(`${prefix}.bias`, [outputs]) : "";
    if (this.storage === "q8") return this.blockProduct(x, `${prefix}.weight`, [inputs, outputs], "columns", added);
    const y = this.writer.op("MatMul", [x, this.weight(`${prefix}.weight`, [inputs, outputs])]);
    return bias ? this.writer.op("Add", [y, added]) : y;
  }

  /** The initializers of the checkpoint's matrix as blocks. */
  private blockWeight(tensor: string, dims: readonly number[], layout: Layout): readonly [blocks: string, scales: string] {
    const name = `${tensor}.q8`;
    const { outputs, perOutput } = blockShape(dims, layout);
    const names = blockNames(name);
    if (!this.weights.has(name)) {
      this.weights.set(name, { dims, tensor, blocks: layout });
      this.writer.external(names[0], [outputs, perOutput, BLOCK], this.weightsFile, DataType.UINT8);
      this.writer.external(names[1], [outputs, perOutput], this.weightsFile);
    }
    return names;
  }

  /** x times the checkpoint's matrix held as 8-bit blocks, plus `bias` unless its name is empty. */
  private blockProduct(x: string, tensor: string, dims: readonly number[], layout: Layout, bias: string): string {
    const [blocks, scales] = this.blockWeight(tensor, dims, layout);
    const { outputs, inputs } = blockShape(dims, layout);
    // accuracy_level 4: activations become int8 in the same blocks; every other level is tens of times slower.
    return this.writer.contrib("MatMulNBits", bias === "" ? [x, blocks, scales] : [x, blocks, scales, "", "", bias], {
      K: inputs,
      N: outputs,
      bits: 8,
      block_size: BLOCK,
      accuracy_level: 4,
    });
  }

  /**
   * Causal attention over the layer's cache, which it also extends: of q [B, T, H head], k and v [B, T, KV head], or of all three
   * packed side by side in `q`.
   */
  attention(layer: number, q: string, k: string, v: string, how: Attention): string {
    const { heads, kvHeads, headDim } = this.shape;
    const cache = ["B", kvHeads, "M", headDim] as const;
    const past = ["k", "v"].map((s) => this.writer.input(`past_${s}_${layer}`, DataType.FLOAT, cache));
    const present = ["k", "v"].map((s) => this.writer.output(`present_${s}_${layer}`, DataType.FLOAT, cache));
    const [out] = this.writer.contribMany(
      "GroupQueryAttention",
      [q, k, v, ...past, "seqlens_k", "total_len", ...(how.rotary ?? [])],
      {
        num_heads: heads,
        kv_num_heads: kvHeads,
        scale: { float: how.scale },
        ...(how.window === undefined ? {} : { local_window_size: how.window }),
        ...(how.softcap === undefined ? {} : { softcap: { float: how.softcap } }),
        ...(how.rotary === undefined ? {} : { do_rotary: 1 }),
      },
      [`attention_${layer}`, ...present],
    );
    return out as string;
  }

  /** The first boundary, of the embedding or of the residuals that are given. */
  begin(embed: () => string): string {
    const x = this.from === 0 ? embed() : this.writer.input("resid_in", DataType.FLOAT, ["B", "T", this.shape.width]);
    return this.boundary(this.from, x);
  }

  /** Boundary b of the residual stream: applies the rows' edits and offers the result as `resid_b`. */
  boundary(b: number, x: string): string {
    if (this.variant === "plain") return x;
    const { width } = this.shape;
    const w = this.writer;
    const dims = ["B", "T", width] as const;
    if (this.variant === "read") return w.output(w.op("Identity", [x], {}, `resid_${b}`), DataType.FLOAT, dims);
    const read = w.input(`edit_read_${b}`, DataType.FLOAT, ["B", width, SLOTS]);
    const write = w.input(`edit_write_${b}`, DataType.FLOAT, ["B", SLOTS, width]);
    const add = w.input(`edit_add_${b}`, DataType.FLOAT, ["B", 1, width]);
    const reads = w.op("MatMul", [x, read]);
    const gains = this.variant === "ordered" ? this.orderedGains(b, reads) : reads;
    const delta = w.op("Add", [w.op("MatMul", [gains, write]), add]);
    this.stats.push(reads, this.squaredNorm(x), this.squaredNorm(delta));
    if (b > this.from) w.output(w.op("Identity", [x], {}, `before_${b}`), DataType.FLOAT, dims);
    const edited = w.op("Add", [x, delta], {}, `resid_${b}`);
    return w.output(edited, DataType.FLOAT, dims);
  }

  private squaredNorm(x: string): string {
    return this.writer.op("ReduceSumSquare", [x, this.writer.int64([-1])], { keepdims: 1 });
  }

  /**
   * The scalars g of nonlinear edits, found in order: s' = s + g(s') M is iterated, and M being strictly upper triangular makes
   * slot i exact after i rounds. For a slot with scale 1 and no bounds g = s, bit for bit, so affine rows pass unchanged.
   */
  private orderedGains(b: number, reads: string): string {
    const w = this.writer;
    const cross = w.input(`edit_cross_${b}`, DataType.FLOAT, ["B", SLOTS, SLOTS]);
    const [scale, offset, low, high, edge] = FUNCTION_PARTS.map((name) =>
      w.input(`edit_${name}_${b}`, DataType.FLOAT, ["B", 1, SLOTS]),
    ) as [string, string, string, string, string];
    const none = w.float32(0);
    const gains = (s: string): string => {
      const linear = w.op("Add", [w.op("Mul", [s, scale]), offset]);
      const clamped = w.op("Sub", [w.op("Min", [w.op("Max", [s, low]), high]), s]);
      return w.op("Add", [linear, w.op("Where", [w.op("Greater", [s, edge]), clamped, none])]);
    };
    let s = reads;
    for (let round = 1; round < SLOTS; round++) s = w.op("Add", [reads, w.op("MatMul", [gains(s), cross])]);
    return gains(s);
  }

  /** The rows of x [B, T, D] whose logits are wanted: [N, D]. */
  chosenRows(x: string): string {
    const flat = this.writer.op("Reshape", [x, this.writer.int64([-1, this.shape.width])]);
    return this.writer.op("Gather", [flat, this.writer.input("logit_rows", DataType.INT32, ["N"])]);
  }

  /** What sampling needs of each row's logits. Softmax kernels work row by row: the others in a batch change no bit. */
  private predictions(logits: string): void {
    const { vocab } = this.shape;
    const w = this.writer;
    const scaled = w.op("Mul", [logits, w.input("inv_temperature", DataType.FLOAT, ["N", 1])]);
    w.output(w.op("Softmax", [scaled], { axis: -1 }, "probs"), DataType.FLOAT, ["N", vocab]);
    const logProbs = w.output(w.op("LogSoftmax", [logits], { axis: -1 }, "log_probs"), DataType.FLOAT, ["N", vocab]);
    const top = Math.min(TOP, vocab);
    const [values, ids] = w.node("TopK", [logProbs, w.int64([top])], { axis: -1 }, { outputs: ["top_values", "top_ids64"] });
    w.output(values as string, DataType.FLOAT, ["N", top]);
    w.output(w.op("Cast", [ids as string], { to: DataType.INT32 }, "top_ids"), DataType.INT32, ["N", top]);
  }

  /** x becomes cap tanh(x / cap): nearly unchanged when small, never beyond the cap. */
  softcap(x: string, cap: number): string {
    const limit = this.writer.float32(cap);
    return this.writer.op("Mul", [this.writer.op("Tanh", [this.writer.op("Div", [x, limit])]), limit]);
  }

  /**
   * Ends the graph: with the logits of `last`, the normed rows, by a table stored [V, D] (the embedding itself when tied), soft-capped
   * where a cap is given; without any where it ends at a boundary.
   */
  finish(last: () => string, table: string, cap?: number | null): Uint8Array {
    if (this.hasLogits) this.logits(last(), table, cap);
    if (this.stats.length > 0) {
      const columns = (this.to + 1 - this.from) * STATS_PER_BOUNDARY;
      this.writer.output(this.writer.op("Concat", this.stats, { axis: -1 }, "stats"), DataType.FLOAT, ["B", "T", columns]);
    }
    return this.writer.model();
  }

  private logits(normed: string, table: string, cap: number | null | undefined): void {
    const { vocab, width } = this.shape;
    const product =
      this.storage === "q8"
        ? this.blockProduct(normed, table, [vocab, width], "rows", "")
        : this.writer.contrib("FusedMatMul", [normed, this.weight(table, [vocab, width])], { transB: 1 });
    const logits = typeof cap === "number" ? this.softcap(product, cap) : product;
    this.writer.output(this.writer.op("Identity", [logits], {}, "logits"), DataType.FLOAT, ["N", vocab]);
    this.predictions("logits");
  }
}
