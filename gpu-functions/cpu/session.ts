// One loaded model ready to compute: weights and KV cache in native memory, one graph per variant, edits per slot. It runs what it
// is told (a chunk of one slot's prompt, one token of the first B slots) and knows nothing of requests, text or sampling.
import path from "node:path";
import { BatchReader } from "./batch.ts";
import { type Shape, type Span, STATS_PER_BOUNDARY, type Variant } from "./blocks.ts";
import { Buffers } from "./buffers.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { EditSlots } from "./edit-slots.ts";
import type { BuiltGraph, FamilyModel } from "./family.ts";
import { KvCache } from "./kv-cache.ts";
import { DataType } from "./onnx.ts";
import { type Binding, Session, type Tensor } from "./ort.ts";
import type { BlockSource } from "./sidecar.ts";
import { PER_LOGIT_ROW, type Step, stepOf, topOf } from "./step.ts";
import { Weights } from "./weights.ts";

/** Longest piece of a prompt that one call may compute. */
export const CHUNK = 128;
/** Calls shorter than this run on the JavaScript thread: handing them to another thread would cost more than it frees. */
const SYNC_BELOW_MS = 2;

/** Graphs that begin at a later boundary and are kept: each costs memory beside the weights it shares. */
const LATE_GRAPHS = 4;
/** Shapes of calls that are kept for a graph: which residuals are wanted, of how many rows and tokens, is the callers' choice. */
const BINDINGS = 2048;
/** Inputs with one number for each row or token of a call. */
const PER_CALL = ["input_ids", "positions", "seqlens_k", "total_len", "logit_rows", "inv_temperature"] as const;
/** The greatest 1 / temperature: colder is no different, and the product stays finite. */
const COLDEST = 1e30;

/** What is wanted of a call besides its logits. */
export interface Options {
  /** Boundaries whose residuals are wanted after their edits. */
  readonly captures?: readonly number[];
  /** Boundaries above the call's first whose residuals are wanted before their edits. */
  readonly before?: readonly number[];
  /** What `probs` are made with; 1 when absent. */
  readonly temperature?: number;
}

interface Call extends Required<Pick<Options, "captures" | "before">> {
  readonly slot: number;
  readonly rows: number;
  readonly tokens: number;
  readonly logitRows: readonly number[];
  /** Boundary the call begins at. */
  readonly from: number;
}

interface LoadedGraph {
  readonly session: Session;
  readonly graph: BuiltGraph;
  readonly bindings: Map<string, Binding>;
}

export interface SessionSettings {
  readonly slots: number;
  readonly threads: number;
  /** Tokens the cache holds per slot; the model's context unless smaller is wanted. */
  readonly cacheLength: number;
  /** Longest piece of a prompt that one call computes; CHUNK when absent. */
  readonly chunk?: number;
  /** Holds the matrices as 8-bit blocks, taken from here; absent: as float32. */
  readonly blocks?: BlockSource | undefined;
}

export class DecoderSession {
  readonly shape: Shape;
  readonly settings: SessionSettings;
  /** The edits that each slot's next calls apply. */
  readonly edits: EditSlots;
  readonly cache: KvCache;
  /** Reads texts without edits; like everything else here, one call at a time. */
  readonly texts: BatchReader;
  private readonly family: FamilyModel;
  private readonly checkpoint: Checkpoint;
  private readonly weights: Weights;
  private readonly buffers = new Buffers();
  /** By variant and first boundary. */
  private readonly graphs = new Map<string, LoadedGraph>();
  private closed = false;
  /** The graph that rows without nonlinear edits run on. */
  base: Variant;
  /** Milliseconds that calls of ONNX Runtime took so far, with handing them to another thread and back. */
  runMs = 0;
  private lastMs = Number.POSITIVE_INFINITY;

  /**
   * @param base see the field; "plain" (no hooks) exists for benchmarks only.
   * @throws Error naming every tensor that the checkpoint lacks or has in another shape, before any memory is taken.
   */
  constructor(family: FamilyModel, checkpoint: Checkpoint, settings: SessionSettings, base: Variant = "affine") {
    checkpoint.check(family.build(base, settings.blocks && "q8").weights.values());
    this.family = family;
    this.shape = family.shape;
    this.checkpoint = checkpoint;
    this.settings = settings;
    this.base = base;
    const { buffers, shape } = this;
    this.weights = new Weights(checkpoint, settings.blocks);
    this.cache = new KvCache(shape, settings.slots, settings.cacheLength, buffers);
    this.edits = new EditSlots(shape, settings.slots, buffers);
    const most = Math.max(settings.slots, CHUNK);
    for (const name of PER_CALL) buffers.allocate(name, most);
    this.allocateRows(settings.slots);
    buffers.allocate("stats", most * (shape.layers + 1) * STATS_PER_BOUNDARY);
    this.texts = new BatchReader(shape, (to) => this.load("read", { to }));
    this.graph(base, 0);
  }

  /** Memory for `rows` rows of logits and what is made of them. */
  private allocateRows(rows: number): void {
    for (const name of PER_LOGIT_ROW) this.buffers.allocate(name, rows * (name.startsWith("top_") ? topOf(this.shape) : this.shape.vocab));
  }

  /** Loads a variant on first use. Variants share the weights and their packed copies. */
  private graph(variant: Variant, from: number): LoadedGraph {
    const key = `${variant} ${from}`;
    let loaded = this.graphs.get(key);
    if (loaded === undefined) {
      loaded = { ...this.load(variant, { from }), bindings: new Map() };
    }
    // The order of the map is that of use.
    this.graphs.delete(key);
    this.graphs.set(key, loaded);
    const late = [...this.graphs].filter(([, { graph }]) => graph.inputs.includes("resid_in"));
    if (late.length > LATE_GRAPHS) {
      const [oldest, { session }] = late[0] as [string, LoadedGraph];
      session.release();
      this.graphs.delete(oldest);
    }
    return loaded;
  }

  private load(variant: Variant, span: Span): Pick<LoadedGraph, "session" | "graph"> {
    const graph = this.family.build(variant, this.settings.blocks && "q8", span);
    this.weights.load(graph.weights);
    const session = new Session(graph.model, {
      threads: this.settings.threads,
      weightsFolder: path.dirname(this.checkpoint.path),
      weights: this.weights.tensors,
      prepacked: this.weights.prepacked,
    });
    return { session, graph };
  }

  /**
   * Computes positions start .. start + ids.length - 1 of one slot's sequence (at most CHUNK), after the `start` positions it has.
   * @param logits token offsets in `ids` whose logits are wanted.
   */
  async prefill(slot: number, ids: ArrayLike<number>, start: number, logits: readonly number[], options: Options = {}): Promise<Step> {
    return this.prefillAt(0, slot, ids, start, logits, options);
  }

  /**
   * Like `prefill`, from the residuals [T, D] that boundary `from` has before its edits: the layers below are not computed, and their
   * cache is the caller's affair (`cache.move`). The graph for a boundary is loaded at its first use.
   */
  async prefillFrom(
    from: number,
    residual: Float32Array,
    slot: number,
    ids: ArrayLike<number>,
    start: number,
    logits: readonly number[],
    options: Options = {},
  ): Promise<Step> {
    if (!this.buffers.has("resid_in")) this.buffers.allocate("resid_in", CHUNK * this.shape.width);
    this.buffers.float32("resid_in").set(residual);
    return this.prefillAt(from, slot, ids, start, logits, options);
  }

  private async prefillAt(
    from: number,
    slot: number,
    ids: ArrayLike<number>,
    start: number,
    logits: readonly number[],
    { captures = [], before = [], temperature = 1 }: Options,
  ): Promise<Step> {
    const tokens = ids.length;
    this.setTemperatures(Array.from({ length: Math.max(1, logits.length) }, () => temperature));
    if (logits.length > 1) this.growLogits(logits.length);
    const [input, positions] = [this.buffers.int32("input_ids"), this.buffers.int32("positions")];
    for (let t = 0; t < tokens; t++) {
      input[t] = ids[t] as number;
      positions[t] = start + t;
    }
    this.buffers.int32("seqlens_k")[0] = start + tokens - 1;
    this.buffers.int32("total_len")[0] = start + tokens;
    // A graph needs at least one row of logits; the caller that wants none ignores it.
    return this.execute({ slot, rows: 1, tokens, logitRows: logits.length === 0 ? [tokens - 1] : logits, captures, before, from });
  }

  /**
   * One new token for each of the slots 0 .. ids.length - 1; `lengths` are the positions each slot has already, `temperatures` what
   * `probs` are made with (1 when absent; 0 leaves them without meaning).
   * @param before as in Options.
   */
  async decode(
    ids: ArrayLike<number>,
    lengths: ArrayLike<number>,
    temperatures?: readonly number[],
    before: readonly number[] = [],
  ): Promise<Step> {
    const rows = ids.length;
    this.setTemperatures(temperatures ?? Array.from({ length: rows }, () => 1));
    const [input, positions, seqlens] = (["input_ids", "positions", "seqlens_k"] as const).map((name) => this.buffers.int32(name)) as [
      Int32Array,
      Int32Array,
      Int32Array,
    ];
    let total = 0;
    for (let row = 0; row < rows; row++) {
      input[row] = ids[row] as number;
      positions[row] = lengths[row] as number;
      seqlens[row] = lengths[row] as number;
      total = Math.max(total, (lengths[row] as number) + 1);
    }
    this.buffers.int32("total_len")[0] = total;
    return this.execute({
      slot: 0,
      rows,
      tokens: 1,
      logitRows: Array.from({ length: rows }, (_, row) => row),
      captures: [],
      before,
      from: 0,
    });
  }

  private setTemperatures(temperatures: readonly number[]): void {
    const inverse = this.buffers.float32("inv_temperature");
    for (const [row, temperature] of temperatures.entries()) inverse[row] = temperature === 0 ? 0 : Math.min(1 / temperature, COLDEST);
  }

  private async execute(call: Call): Promise<Step> {
    const variant = this.edits.needOrder(call.slot, call.rows) ? "ordered" : this.base;
    const loaded = this.graph(variant, call.from);
    this.buffers.int32("logit_rows").set(call.logitRows);
    const key = `${call.slot},${call.rows},${call.tokens},${call.logitRows.length},${call.captures} ${call.before}`;
    let binding = loaded.bindings.get(key);
    if (binding === undefined) {
      binding = this.bind(loaded, call);
      if (loaded.bindings.size >= BINDINGS) loaded.bindings.clear();
      loaded.bindings.set(key, binding);
    }
    const started = performance.now();
    if (this.lastMs < SYNC_BELOW_MS && call.tokens === 1) loaded.session.runSync(binding);
    else await loaded.session.run(binding);
    const elapsed = performance.now() - started;
    this.runMs += elapsed;
    if (call.tokens === 1) this.lastMs = elapsed;
    return stepOf(this.buffers, this.shape, call);
  }

  private bind(loaded: LoadedGraph, call: Call): Binding {
    const outputs = [...PER_LOGIT_ROW, ...loaded.graph.outputs.filter((name) => name.startsWith("present_") || name === "stats")];
    const { captures, before } = call;
    for (const name of [...captures.map((b) => `resid_${b}`), ...before.map((b) => `before_${b}`)]) {
      outputs.push(name);
      if (!this.buffers.has(name)) this.buffers.allocate(name, Math.max(CHUNK, this.settings.slots) * this.shape.width);
    }
    const bindAll = (names: readonly string[]) => new Map(names.map((name) => [name, this.tensor(name, call)]));
    return loaded.session.bind(bindAll(loaded.graph.inputs), bindAll(outputs));
  }

  private tensor(name: string, call: Call): Tensor {
    const { width, vocab, layers } = this.shape;
    const { slot, rows, tokens } = call;
    const logitRows = call.logitRows.length;
    const { buffers } = this;
    if (name.startsWith("edit_")) return this.edits.tensor(name, slot, rows);
    if (name.startsWith("past_") || name.startsWith("present_")) return this.cache.tensor(name, slot, rows);
    if (name.startsWith("resid_") || name.startsWith("before_")) return buffers.tensor(name, 0, [rows, tokens, width]);
    switch (name) {
      case "input_ids":
      case "positions":
        return buffers.tensor(name, 0, [rows, tokens], DataType.INT32);
      case "seqlens_k":
        return buffers.tensor(name, 0, [rows], DataType.INT32);
      case "total_len":
        return buffers.tensor(name, 0, [1], DataType.INT32);
      case "logit_rows":
        return buffers.tensor(name, 0, [logitRows], DataType.INT32);
      case "inv_temperature":
        return buffers.tensor(name, 0, [logitRows, 1]);
      case "top_values":
        return buffers.tensor(name, 0, [logitRows, topOf(this.shape)]);
      case "top_ids":
        return buffers.tensor(name, 0, [logitRows, topOf(this.shape)], DataType.INT32);
      case "stats":
        return buffers.tensor(name, 0, [rows, tokens, (layers + 1 - call.from) * STATS_PER_BOUNDARY]);
      default:
        return buffers.tensor(name, 0, [logitRows, vocab]);
    }
  }

  /** Logits of many positions are wanted by tests and scoring, not by generation: their memory is made when first needed. */
  private growLogits(rows: number): void {
    if (this.buffers.memory("logits").bytes >= rows * this.shape.vocab * 4) return;
    for (const graph of this.graphs.values()) graph.bindings.clear();
    for (const name of PER_LOGIT_ROW) this.buffers.free(name);
    this.allocateRows(rows);
  }

  /** Frees everything, once; the session must be idle. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    for (const { session } of this.graphs.values()) session.release();
    this.texts.close();
    this.weights.close();
    this.buffers.close();
  }
}
