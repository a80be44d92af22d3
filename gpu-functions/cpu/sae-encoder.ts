// All latents of an autoencoder at once: one matrix product in ONNX Runtime, with the activation function and the most active
// latents of every token in the same graph.
import { LIMITS } from "../../shared/protocol.ts";
import { Buffers } from "./buffers.ts";
import type { EncoderStore } from "./model.ts";
import { DataType, GraphWriter } from "./onnx.ts";
import { type Binding, PrepackedWeights, Session } from "./ort.ts";
import { decoderNorms, ENCODED, type Encoded, type InputTransform, type LatentEncoder, type Sae } from "./sae.ts";
import { readTensor } from "./safetensors.ts";

/** Encoders of one model may take this much together; one that takes more is kept alone. */
const KEPT_BYTES = 2 ** 31;
const OUTPUTS = ["activations", "greatest", "top_values", "top_ids"] as const;

export class SaeEncoder implements LatentEncoder {
  readonly latents: number;
  /** Of the matrix and what is computed with it. */
  readonly bytes: number;
  private readonly sae: Sae;
  private readonly buffers = new Buffers();
  private readonly prepacked = new PrepackedWeights();
  private readonly session: Session;
  private readonly inputs: readonly string[];
  private readonly bindings = new Map<number, Binding>();
  private readonly top: number;

  /** Reads the encoder, and the decoder once for its norms. @throws Error with the file when it cannot be read. */
  constructor(sae: Sae, threads: number) {
    this.sae = sae;
    this.latents = sae.latents;
    this.top = Math.min(LIMITS.topLatents, sae.latents);
    const { width, latents } = sae;
    this.bytes = 4 * (latents * (width + ENCODED) + ENCODED * width);
    const values: Record<string, Float32Array> = { encoder: readTensor(sae.encoder.file, sae.encoder.name) };
    const graph = new Graph(sae, values);
    const model = graph.model(this.top);
    this.inputs = graph.writer.inputs;
    for (const [name, data] of Object.entries(values)) this.buffers.allocate(name, data.length, false).float32().set(data);
    this.buffers.allocate("residuals", ENCODED * width);
    this.buffers.allocate("activations", ENCODED * latents);
    this.buffers.allocate("greatest", latents);
    for (const name of ["top_values", "top_ids"]) this.buffers.allocate(name, ENCODED * this.top);
    // The matrix is an input and no weight of the graph: ONNX Runtime would keep a second copy of it in another order.
    this.session = new Session(model, { threads, weightsFolder: ".", weights: new Map(), prepacked: this.prepacked });
  }

  /** @param residuals [T, width], T at most ENCODED. One call at a time. */
  async encode(residuals: Float32Array): Promise<Encoded> {
    const tokens = residuals.length / this.sae.width;
    this.buffers.float32("residuals").set(residuals);
    let binding = this.bindings.get(tokens);
    if (binding === undefined) {
      const shaped = (names: readonly string[]) => new Map(names.map((name) => [name, this.tensor(name, tokens)]));
      binding = this.session.bind(shaped(this.inputs), shaped(OUTPUTS));
      this.bindings.set(tokens, binding);
    }
    await this.session.run(binding);
    const [values, ids] = [this.buffers.float32("top_values"), this.buffers.int32("top_ids")];
    return {
      activations: this.buffers.float32("activations").subarray(0, tokens * this.latents),
      greatest: this.buffers.float32("greatest").subarray(0, this.latents),
      top: (t) => {
        const found = [];
        for (let i = t * this.top; i < (t + 1) * this.top && (values[i] as number) > 0; i++)
          found.push({ index: ids[i] as number, activation: values[i] as number });
        return found;
      },
    };
  }

  private tensor(name: string, tokens: number) {
    const { width, latents, encoder } = this.sae;
    switch (name) {
      case "residuals":
        return this.buffers.tensor(name, 0, [tokens, width]);
      case "encoder":
        return this.buffers.tensor(name, 0, encoder.latentsFirst ? [latents, width] : [width, latents]);
      case "input_bias":
        return this.buffers.tensor(name, 0, [width]);
      case "activations":
        return this.buffers.tensor(name, 0, [tokens, latents]);
      case "top_values":
        return this.buffers.tensor(name, 0, [tokens, this.top]);
      case "top_ids":
        return this.buffers.tensor(name, 0, [tokens, this.top], DataType.INT32);
      default:
        return this.buffers.tensor(name, 0, [latents]);
    }
  }

  close(): void {
    this.session.release();
    this.prepacked.release();
    this.buffers.close();
  }
}

export class Encoders implements EncoderStore {
  private readonly threads: number;
  /** Least recently used first. */
  private readonly kept = new Map<Sae, SaeEncoder>();
  /** One use after another: an encoder's memory serves one call at a time. */
  private turn: Promise<unknown> = Promise.resolve();
  private closed = false;

  constructor(threads: number) {
    this.threads = threads;
  }

  /** Does `work` with the encoder of an autoencoder. @throws Error with the file when it cannot be read. */
  use<T>(sae: Sae, work: (encoder: SaeEncoder) => Promise<T>): Promise<T> {
    const result = this.turn.then(() => work(this.take(sae)));
    this.turn = result.catch(() => undefined);
    return result;
  }

  private take(sae: Sae): SaeEncoder {
    if (this.closed) throw new Error("the model was unloaded");
    const encoder = this.kept.get(sae) ?? new SaeEncoder(sae, this.threads);
    this.kept.delete(sae);
    this.kept.set(sae, encoder);
    for (const other of this.kept.keys()) {
      const total = [...this.kept.values()].reduce((sum, each) => sum + each.bytes, 0);
      if (total <= KEPT_BYTES || other === sae) break;
      this.kept.get(other)?.close();
      this.kept.delete(other);
    }
    return encoder;
  }

  /** Frees everything when what runs has ended. */
  async close(): Promise<void> {
    this.closed = true;
    await this.turn;
    for (const encoder of this.kept.values()) encoder.close();
    this.kept.clear();
  }
}

/** Writes the graph and notes the values of the inputs that never change. */
class Graph {
  readonly writer = new GraphWriter();
  private readonly sae: Sae;
  private readonly values: Record<string, Float32Array>;

  constructor(sae: Sae, values: Record<string, Float32Array>) {
    this.sae = sae;
    this.values = values;
  }

  model(top: number): Uint8Array {
    const { writer: w, sae } = this;
    const { width, latents, encoder } = sae;
    const x = this.transformed(w.input("residuals", DataType.FLOAT, ["T", width]), sae.input);
    const matrix = w.input("encoder", DataType.FLOAT, encoder.latentsFirst ? [latents, width] : [width, latents]);
    const pre = encoder.latentsFirst ? w.contrib("FusedMatMul", [x, matrix], { transB: 1 }) : w.op("MatMul", [x, matrix]);
    const norms = sae.folded ? this.given("norms", decoderNorms(sae)) : undefined;
    const acts = this.active(pre, norms);
    w.output(w.op("Identity", [acts], {}, "activations"), DataType.FLOAT, ["T", latents]);
    w.output(w.op("ReduceMax", [acts, w.int64([0])], { keepdims: 0 }, "greatest"), DataType.FLOAT, [latents]);
    const [values, ids] = w.node("TopK", [acts, w.int64([top])], { axis: -1 }, { outputs: ["top_values", "top_ids64"] });
    w.output(values as string, DataType.FLOAT, ["T", top]);
    w.output(w.op("Cast", [ids as string], { to: DataType.INT32 }, "top_ids"), DataType.INT32, ["T", top]);
    return w.model();
  }

  private given(name: string, data: Float32Array): string {
    this.values[name] = data;
    return this.writer.input(name, DataType.FLOAT, [data.length]);
  }

  private transformed(h: string, { centre, scale, perToken, bias }: InputTransform): string {
    const { writer: w } = this;
    const { width } = this.sae;
    const last = { keepdims: 1 };
    const centred = (x: string) => w.op("Sub", [x, w.op("ReduceMean", [x, w.int64([-1])], last)]);
    let x = centre ? centred(h) : h;
    if (scale !== 1) x = w.op("Mul", [x, w.float32(scale)]);
    if (perToken === "layer_norm") {
      x = centred(x);
      const variance = w.op("Div", [w.op("ReduceSumSquare", [x, w.int64([-1])], last), w.float32(width - 1)]);
      x = w.op("Div", [x, w.op("Add", [w.op("Sqrt", [variance]), w.float32(1e-5)])]);
    }
    if (perToken === "constant_norm_rescale") {
      x = w.op("Div", [w.op("Mul", [x, w.float32(Math.sqrt(width))]), w.op("ReduceL2", [x, w.int64([-1])], last)]);
    }
    return bias === undefined ? x : w.op("Sub", [x, this.given("input_bias", bias)]);
  }

  /** sae.ts, Activation, times `norms`. */
  private active(pre: string, norms: string | undefined): string {
    const { writer: w } = this;
    const { activation } = this.sae;
    const none = w.float32(0);
    const plus = (x: string, name: string, values: Float32Array) => w.op("Add", [x, this.given(name, values)]);
    const folded = (x: string) => (norms === undefined ? x : w.op("Mul", [x, norms]));
    switch (activation.kind) {
      case "standard":
        return folded(w.op("Relu", [plus(pre, "bias", activation.bias)]));
      case "jumprelu": {
        const z = plus(pre, "bias", activation.bias);
        const above = w.op("Greater", [z, this.given("threshold", activation.threshold)]);
        return folded(w.op("Where", [above, w.op("Relu", [z]), none]));
      }
      case "gated": {
        const open = w.op("Greater", [plus(pre, "gate_bias", activation.gateBias), none]);
        const scaled = w.op("Mul", [pre, this.given("scale", activation.logScale.map(Math.exp))]);
        return folded(w.op("Where", [open, w.op("Relu", [plus(scaled, "bias", activation.magnitudeBias)]), none]));
      }
      case "topk": {
        const z = folded(plus(pre, "bias", activation.bias));
        const [values] = w.node("TopK", [z, w.int64([activation.k])], { axis: -1 }, { outputs: ["kept_values", "kept_ids"] });
        const least = w.op("Slice", [values as string, w.int64([activation.k - 1]), w.int64([activation.k]), w.int64([1])]);
        return w.op("Where", [w.op("GreaterOrEqual", [z, least]), w.op("Relu", [z]), none]);
      }
    }
  }
}
