// One loaded model ready to compute: weights and KV cache in native memory, one graph per variant, edits per slot. It runs what it
// is told (a chunk of one slot's prompt, one token of the first B slots) and knows nothing of requests, text or sampling.
import path from "node:path";
import type { PointProgram } from "../../shared/steering.ts";
import { blockNames, type Shape, SLOTS, STATS_PER_BOUNDARY, TOP, type Variant, type Weight } from "./blocks.ts";
import type { Checkpoint } from "./checkpoint.ts";
import type { BuiltGraph, FamilyModel } from "./family.ts";
import { DataType } from "./onnx.ts";
import { type Binding, NativeMemory, PrepackedWeights, Session, Tensor } from "./ort.ts";
import { BLOCK, blockShape, type Layout } from "./quantise.ts";
import type { Prediction } from "./sampler.ts";
import type { BlockSource } from "./sidecar.ts";

/** Longest piece of a prompt that one call may compute. */
export const CHUNK = 128;
/** Calls shorter than this run on the JavaScript thread: handing them to another thread would cost more than it frees. */
const SYNC_BELOW_MS = 2;

/** Graphs that begin at a later boundary and are kept: each costs memory beside the weights it shares. */
const LATE_GRAPHS = 4;
/** Outputs with one row for each row of logits. */
const PER_LOGIT_ROW = ["logits", "log_probs", "probs", "top_values", "top_ids"] as const;
/** The greatest 1 / temperature: colder is no different, and the product stays finite. */
const COLDEST = 1e30;

/** Programs of one row at one position, by boundary. */
export type Edits = ReadonlyMap<number, PointProgram>;

/** Reads of one call's edits: what the hooks measured. */
export interface Measured {
  /** s = h U of the row's slots, ||h||^2 before and ||delta||^2 of the boundary's edits. */
  reads(row: number, token: number, boundary: number): Float32Array;
  residualSquared(row: number, token: number, boundary: number): number;
  deltaSquared(row: number, token: number, boundary: number): number;
}

export interface Step {
  /** Logits of the wanted rows, [V] each; views that the next call overwrites. */
  logits(row: number): Float32Array;
  /** The same rows' distributions; views too. */
  prediction(row: number): Prediction;
  readonly measured: Measured;
  /** resid_b after edits, [T, D]; only of captured boundaries, valid until the next call. */
  captured(boundary: number): Float32Array;
}

interface Call {
  readonly slot: number;
  readonly rows: number;
  readonly tokens: number;
  readonly logitRows: readonly number[];
  readonly captures: readonly number[];
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
  private readonly family: FamilyModel;
  private readonly checkpoint: Checkpoint;
  private readonly prepacked = new PrepackedWeights();
  private readonly weights = new Map<string, Tensor>();
  /** By variant and first boundary. */
  private readonly graphs = new Map<string, LoadedGraph>();
  private readonly tensors = new Map<string, Tensor>();
  private readonly memories = new Map<string, NativeMemory>();
  /** Whether the slot's edits need the ordered graph. */
  private readonly ordered: boolean[];
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
    this.ordered = new Array<boolean>(settings.slots).fill(false);
    const { layers, width, kvHeads, headDim } = this.shape;
    for (let layer = 0; layer < layers; layer++) {
      // What lies beyond a row's length is never read: the system gives these pages when they are first written.
      for (const s of ["k", "v"]) this.allocate(`${s}_${layer}`, settings.slots * kvHeads * settings.cacheLength * headDim, false);
    }
    for (const [name, size] of [
      ["input_ids", 1],
      ["positions", 1],
      ["seqlens_k", 1],
      ["total_len", 1],
      ["logit_rows", 1],
      ["inv_temperature", 1],
    ] as const) {
      this.allocate(name, size * Math.max(settings.slots, CHUNK));
    }
    this.allocateRows(settings.slots);
    this.allocate("stats", Math.max(settings.slots, CHUNK) * (layers + 1) * STATS_PER_BOUNDARY);
    for (let b = 0; b <= layers; b++) {
      this.allocate(`edit_read_${b}`, settings.slots * width * SLOTS);
      this.allocate(`edit_write_${b}`, settings.slots * width * SLOTS);
      this.allocate(`edit_add_${b}`, settings.slots * width);
      this.allocate(`edit_cross_${b}`, settings.slots * SLOTS * SLOTS);
      for (const [name, neutral] of NEUTRAL)
        this.allocate(`edit_${name}_${b}`, settings.slots * SLOTS)
          .float32()
          .fill(neutral);
    }
    this.graph(base, 0);
  }

  private allocate(name: string, elements: number, zeroed = true): NativeMemory {
    const memory = new NativeMemory(elements * 4, zeroed);
    this.memories.set(name, memory);
    return memory;
  }

  /** Memory for `rows` rows of logits and what is made of them. */
  private allocateRows(rows: number): void {
    for (const name of PER_LOGIT_ROW) this.allocate(name, rows * (name.startsWith("top_") ? this.top : this.shape.vocab));
  }

  private get top(): number {
    return Math.min(TOP, this.shape.vocab);
  }

  private memory(name: string): NativeMemory {
    return this.memories.get(name) as NativeMemory;
  }

  /** Loads a variant on first use. Variants share the weights and their packed copies. */
  private graph(variant: Variant, from: number): LoadedGraph {
    const key = `${variant} ${from}`;
    let loaded = this.graphs.get(key);
    if (loaded === undefined) {
      const graph = this.family.build(variant, this.settings.blocks && "q8", from);
      for (const [name, weight] of graph.weights) this.loadWeight(name, weight);
      const session = new Session(graph.model, {
        threads: this.settings.threads,
        weightsFolder: path.dirname(this.checkpoint.path),
        weights: this.weights,
        prepacked: this.prepacked,
      });
      loaded = { session, graph, bindings: new Map() };
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

  private loadWeight(name: string, weight: Weight): void {
    if (this.weights.has(name)) return;
    if (weight.blocks !== undefined) {
      this.loadBlocks(name, weight, weight.blocks);
      return;
    }
    const tensor = weight.tensor === undefined ? new Float32Array() : this.checkpoint.read(weight.tensor);
    const values = weight.compute === undefined ? tensor : weight.compute(tensor);
    const memory = this.allocate(`weight:${name}`, values.length);
    memory.float32().set(values);
    this.weights.set(name, new Tensor(memory, 0, weight.dims, DataType.FLOAT));
  }

  private loadBlocks(name: string, weight: Weight, layout: Layout): void {
    const [blockName, scaleName] = blockNames(name);
    if (this.weights.has(blockName)) return;
    const { outputs, perOutput } = blockShape(weight.dims, layout);
    const count = outputs * perOutput;
    const blocks = this.allocate(`weight:${blockName}`, (count * BLOCK) / 4);
    const scales = this.allocate(`weight:${scaleName}`, count);
    this.settings.blocks?.read(name, weight, blocks.uint8().subarray(0, count * BLOCK), scales.float32().subarray(0, count));
    this.weights.set(blockName, new Tensor(blocks, 0, [outputs, perOutput, BLOCK], DataType.UINT8));
    this.weights.set(scaleName, new Tensor(scales, 0, [count], DataType.FLOAT));
  }

  /** Writes the edits that slot's next calls apply; replaces what was there. */
  setEdits(slot: number, edits: Edits): void {
    const { width, layers } = this.shape;
    let ordered = false;
    for (let b = 0; b <= layers; b++) {
      const program = edits.get(b);
      const part = (name: string, size: number) =>
        this.memory(`edit_${name}_${b}`)
          .float32()
          .subarray(slot * size, (slot + 1) * size);
      const read = part("read", width * SLOTS).fill(0);
      const write = part("write", width * SLOTS).fill(0);
      const add = part("add", width).fill(0);
      const cross = part("cross", SLOTS * SLOTS).fill(0);
      for (const [name, neutral] of NEUTRAL) part(name, SLOTS).fill(neutral);
      if (program === undefined) continue;
      const { slots } = program;
      for (let d = 0; d < width; d++) for (let k = 0; k < slots; k++) read[d * SLOTS + k] = program.read[d * slots + k] as number;
      write.set(program.write);
      add.set(program.add);
      if (program.affine) continue;
      ordered = true;
      for (let j = 0; j < slots; j++) for (let i = 0; i < slots; i++) cross[j * SLOTS + i] = program.cross[j * slots + i] as number;
      program.functions.forEach((f, k) => {
        for (const [name] of NEUTRAL) part(name, SLOTS)[k] = f[name];
      });
    }
    this.ordered[slot] = ordered;
  }

  /** Copies cached positions start .. end - 1 of a slot to another, of the first `layers` layers; the caller sets the edits there. */
  moveCache(from: number, to: number, end: number, start = 0, layers = this.shape.layers): void {
    const skipped = start * this.shape.headDim;
    this.eachHead(from, to, end, layers, (cache, source, target, count) =>
      cache.copyWithin(target + skipped, source + skipped, source + count),
    );
  }

  /** Exchanges the first `length` cached positions of two slots. */
  swapCache(a: number, b: number, length: number): void {
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
    const head = this.settings.cacheLength * headDim;
    for (let layer = 0; layer < layers; layer++) {
      for (const s of ["k", "v"]) {
        const cache = this.memory(`${s}_${layer}`).float32();
        for (let h = 0; h < kvHeads; h++) act(cache, (from * kvHeads + h) * head, (to * kvHeads + h) * head, length * headDim);
      }
    }
  }

  /**
   * Computes positions start .. start + ids.length - 1 of one slot's sequence (at most CHUNK), after the `start` positions it has.
   * @param logits token offsets in `ids` whose logits are wanted.
   */
  async prefill(
    slot: number,
    ids: ArrayLike<number>,
    start: number,
    logits: readonly number[],
    captures: readonly number[] = [],
    temperature = 1,
  ): Promise<Step> {
    return this.prefillAt(0, slot, ids, start, logits, captures, temperature);
  }

  /**
   * Like `prefill`, from the residuals [T, D] that boundary `from` has before its edits: the layers below are not computed, and their
   * cache is the caller's affair (`moveCache`). The graph for a boundary is loaded at its first use.
   */
  async prefillFrom(
    from: number,
    residual: Float32Array,
    slot: number,
    ids: ArrayLike<number>,
    start: number,
    logits: readonly number[],
    temperature = 1,
  ): Promise<Step> {
    if (!this.memories.has("resid_in")) this.allocate("resid_in", CHUNK * this.shape.width);
    this.memory("resid_in").float32().set(residual);
    return this.prefillAt(from, slot, ids, start, logits, [], temperature);
  }

  private async prefillAt(
    from: number,
    slot: number,
    ids: ArrayLike<number>,
    start: number,
    logits: readonly number[],
    captures: readonly number[],
    temperature: number,
  ): Promise<Step> {
    const tokens = ids.length;
    this.setTemperatures(Array.from({ length: Math.max(1, logits.length) }, () => temperature));
    if (logits.length > 1) this.growLogits(logits.length);
    const [input, positions] = [this.memory("input_ids").int32(), this.memory("positions").int32()];
    for (let t = 0; t < tokens; t++) {
      input[t] = ids[t] as number;
      positions[t] = start + t;
    }
    this.memory("seqlens_k").int32()[0] = start + tokens - 1;
    this.memory("total_len").int32()[0] = start + tokens;
    // A graph needs at least one row of logits; the caller that wants none ignores it.
    return this.execute({ slot, rows: 1, tokens, logitRows: logits.length === 0 ? [tokens - 1] : logits, captures, from });
  }

  /**
   * One new token for each of the slots 0 .. ids.length - 1; `lengths` are the positions each slot has already, `temperatures` what
   * `probs` are made with (1 when absent; 0 leaves them without meaning).
   */
  async decode(ids: ArrayLike<number>, lengths: ArrayLike<number>, temperatures?: readonly number[]): Promise<Step> {
    const rows = ids.length;
    this.setTemperatures(temperatures ?? Array.from({ length: rows }, () => 1));
    const [input, positions, seqlens] = [
      this.memory("input_ids").int32(),
      this.memory("positions").int32(),
      this.memory("seqlens_k").int32(),
    ];
    let total = 0;
    for (let row = 0; row < rows; row++) {
      input[row] = ids[row] as number;
      positions[row] = lengths[row] as number;
      seqlens[row] = lengths[row] as number;
      total = Math.max(total, (lengths[row] as number) + 1);
    }
    this.memory("total_len").int32()[0] = total;
    return this.execute({ slot: 0, rows, tokens: 1, logitRows: Array.from({ length: rows }, (_, row) => row), captures: [], from: 0 });
  }

  private setTemperatures(temperatures: readonly number[]): void {
    const inverse = this.memory("inv_temperature").float32();
    for (const [row, temperature] of temperatures.entries()) inverse[row] = temperature === 0 ? 0 : Math.min(1 / temperature, COLDEST);
  }

  private async execute(call: Call): Promise<Step> {
    const variant = this.ordered.slice(call.slot, call.slot + call.rows).some(Boolean) ? "ordered" : this.base;
    const loaded = this.graph(variant, call.from);
    this.memory("logit_rows").int32().set(call.logitRows);
    const key = `${call.slot},${call.rows},${call.tokens},${call.logitRows.length},${call.captures}`;
    let binding = loaded.bindings.get(key);
    if (binding === undefined) {
      binding = this.bind(loaded, call);
      loaded.bindings.set(key, binding);
    }
    const started = performance.now();
    if (this.lastMs < SYNC_BELOW_MS && call.tokens === 1) loaded.session.runSync(binding);
    else await loaded.session.run(binding);
    const elapsed = performance.now() - started;
    this.runMs += elapsed;
    if (call.tokens === 1) this.lastMs = elapsed;
    return this.result(call);
  }

  private bind(loaded: LoadedGraph, call: Call): Binding {
    const outputs = [...PER_LOGIT_ROW, ...loaded.graph.outputs.filter((name) => name.startsWith("present_") || name === "stats")];
    for (const b of call.captures) {
      outputs.push(`resid_${b}`);
      if (!this.memories.has(`resid_${b}`)) this.allocate(`resid_${b}`, CHUNK * this.shape.width);
    }
    const bindAll = (names: readonly string[]) => new Map(names.map((name) => [name, this.tensor(name, call)]));
    return loaded.session.bind(bindAll(loaded.graph.inputs), bindAll(outputs));
  }

  private tensor(name: string, call: Call): Tensor {
    const { width, vocab, layers, kvHeads, headDim } = this.shape;
    const { slot, rows, tokens } = call;
    const tensor = (memory: string, offset: number, shape: readonly number[], type: 1 | 6 = DataType.FLOAT) => {
      const key = `${memory}|${offset}|${shape}`;
      let made = this.tensors.get(key);
      if (made === undefined) {
        made = new Tensor(this.memory(memory), offset, shape, type);
        this.tensors.set(key, made);
      }
      return made;
    };
    const perSlot = (shape: readonly number[]) => tensor(name, slot * shape.reduce((a, b) => a * b, 1), [rows, ...shape]);
    if (name === "input_ids" || name === "positions") return tensor(name, 0, [rows, tokens], DataType.INT32);
    if (name === "seqlens_k") return tensor(name, 0, [rows], DataType.INT32);
    if (name === "total_len") return tensor(name, 0, [1], DataType.INT32);
    if (name === "logit_rows") return tensor(name, 0, [call.logitRows.length], DataType.INT32);
    if (name === "inv_temperature") return tensor(name, 0, [call.logitRows.length, 1]);
    if (name === "top_values") return tensor(name, 0, [call.logitRows.length, this.top]);
    if (name === "top_ids") return tensor(name, 0, [call.logitRows.length, this.top], DataType.INT32);
    if ((PER_LOGIT_ROW as readonly string[]).includes(name)) return tensor(name, 0, [call.logitRows.length, vocab]);
    if (name === "stats") return tensor(name, 0, [rows, tokens, (layers + 1 - call.from) * STATS_PER_BOUNDARY]);
    const [kind, detail] = name.split("_") as [string, string];
    // Past and present are the same memory: attention appends in place.
    if (kind === "past" || kind === "present") {
      const cache = [kvHeads, this.settings.cacheLength, headDim];
      return tensor(name.slice(kind.length + 1), slot * cache.reduce((a, b) => a * b, 1), [rows, ...cache]);
    }
    if (kind === "resid") return tensor(name, 0, [rows, tokens, width]);
    switch (detail) {
      case "read":
        return perSlot([width, SLOTS]);
      case "write":
        return perSlot([SLOTS, width]);
      case "add":
        return perSlot([1, width]);
      case "cross":
        return perSlot([SLOTS, SLOTS]);
      default:
        return perSlot([1, SLOTS]);
    }
  }

  private result(call: Call): Step {
    const { vocab, width, layers } = this.shape;
    const perRow = (name: (typeof PER_LOGIT_ROW)[number], size: number) => {
      const all = this.memory(name).float32();
      return (row: number) => all.subarray(row * size, (row + 1) * size);
    };
    const [logits, logProbs, probs] = [perRow("logits", vocab), perRow("log_probs", vocab), perRow("probs", vocab)];
    const topValues = perRow("top_values", this.top);
    const topIds = this.memory("top_ids").int32();
    const stats = this.memory("stats").float32();
    const boundaries = layers + 1 - call.from;
    const at = (row: number, token: number, b: number) => ((row * call.tokens + token) * boundaries + b - call.from) * STATS_PER_BOUNDARY;
    return {
      logits,
      prediction: (row) => ({
        logProbs: logProbs(row),
        probs: probs(row),
        top: Array.from(topValues(row), (logprob, i) => ({ id: topIds[row * this.top + i] as number, logprob })),
      }),
      measured: {
        reads: (row, token, b) => stats.subarray(at(row, token, b), at(row, token, b) + SLOTS),
        residualSquared: (row, token, b) => stats[at(row, token, b) + SLOTS] as number,
        deltaSquared: (row, token, b) => stats[at(row, token, b) + SLOTS + 1] as number,
      },
      captured: (b) =>
        this.memory(`resid_${b}`)
          .float32()
          .subarray(0, call.rows * call.tokens * width),
    };
  }

  /** Logits of many positions are wanted by tests and scoring, not by generation: their memory is made when first needed. */
  private growLogits(rows: number): void {
    if (this.memory("logits").bytes >= rows * this.shape.vocab * 4) return;
    for (const [key, tensor] of this.tensors) {
      if (PER_LOGIT_ROW.some((name) => key.startsWith(`${name}|`))) {
        tensor.release();
        this.tensors.delete(key);
      }
    }
    for (const graph of this.graphs.values()) graph.bindings.clear();
    for (const name of PER_LOGIT_ROW) this.memory(name).free();
    this.allocateRows(rows);
  }

  /** Frees everything, once; the session must be idle. */
  close(): void {
    for (const { session } of this.graphs.values()) session.release();
    for (const tensor of [...this.tensors.values(), ...this.weights.values()]) tensor.release();
    if (this.memories.size > 0) this.prepacked.release();
    for (const memory of this.memories.values()) memory.free();
    for (const kept of [this.graphs, this.tensors, this.weights, this.memories]) kept.clear();
  }
}

/** A slot whose function is neutral passes its read through unchanged (blocks.ts, orderedGains). */
const NEUTRAL = [
  ["scale", 1],
  ["offset", 0],
  ["low", Number.NEGATIVE_INFINITY],
  ["high", Number.POSITIVE_INFINITY],
] as const;
