// Writes ONNX ModelProto messages (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto): nodes, initializers, graph inputs
// and outputs. Knows nothing of transformers; shapes are not inferred here, ONNX Runtime does that.
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

/** TensorProto.DataType */
export const DataType = { FLOAT: 1, UINT8: 2, INT32: 6, INT64: 7 } as const;
export type DataType = (typeof DataType)[keyof typeof DataType];

/** A number is a fixed extent, a string a symbolic one. */
export type Dim = number | string;

/** AttributeProto values; `{ float }` because 1 could be either kind of number. */
export type Attribute = number | string | readonly number[] | { readonly float: number };

export interface NodeOptions {
  /** Operator set: empty for ONNX, "com.microsoft" for ONNX Runtime's own. */
  readonly domain?: string;
  /** Names of the outputs; made up when absent. An empty name skips an output. */
  readonly outputs?: readonly string[];
}

const OPSET = 20;
const IR_VERSION = 9;
const MICROSOFT = "com.microsoft";
const ATTRIBUTE_TYPE = { FLOAT: 1, INT: 2, STRING: 3, INTS: 7 } as const;

type Fill = (writer: BinaryWriter) => void;

function message(writer: BinaryWriter, field: number, fill: Fill): BinaryWriter {
  writer.tag(field, WireType.LengthDelimited).fork();
  fill(writer);
  return writer.join();
}
const text = (writer: BinaryWriter, field: number, value: string) => writer.tag(field, WireType.LengthDelimited).string(value);
const integer = (writer: BinaryWriter, field: number, value: number) => writer.tag(field, WireType.Varint).int64(value);

/** Collects one graph and turns it into the bytes of a model. Names are the caller's; every name is produced once. */
export class GraphWriter {
  readonly inputs: string[] = [];
  readonly outputs: string[] = [];
  private readonly nodes: Fill[] = [];
  private readonly initializers: Fill[] = [];
  private readonly inputFields: Fill[] = [];
  private readonly outputFields: Fill[] = [];
  private readonly constants = new Map<string, string>();

  input(name: string, type: DataType, dims: readonly Dim[]): string {
    this.inputs.push(name);
    this.inputFields.push(valueInfo(name, type, dims));
    return name;
  }

  output(name: string, type: DataType, dims: readonly Dim[]): string {
    this.outputs.push(name);
    this.outputFields.push(valueInfo(name, type, dims));
    return name;
  }

  /**
   * Declares a weight whose memory the session is given by name. ONNX Runtime insists that the file it would otherwise
   * read exists in the session's `weightsFolder`; it never opens it.
   */
  external(name: string, dims: readonly number[], file: string, type: DataType = DataType.FLOAT): string {
    this.initializers.push((w) => {
      for (const dim of dims) integer(w, 1, dim);
      text(integer(w, 2, type), 8, name);
      message(w, 13, (entry) => text(text(entry, 1, "location"), 2, file));
      integer(w, 14, 1);
    });
    return name;
  }

  /** int64 constant: a vector, or a scalar (rank 0) when `scalar` is set. */
  int64(values: readonly number[], scalar = false): string {
    return this.constant(`i64${scalar ? "s" : ""}_${values.join("_")}`, DataType.INT64, scalar ? [] : [values.length], (view) => {
      for (let i = 0; i < values.length; i++) view.setBigInt64(i * 8, BigInt(values[i] as number), true);
    });
  }

  /** float32 scalar (rank 0), rounded from the number given. */
  float32(value: number): string {
    return this.constant(`f32_${value}`, DataType.FLOAT, [], (view) => view.setFloat32(0, value, true));
  }

  private constant(name: string, type: DataType, dims: readonly number[], fill: (view: DataView) => void): string {
    const known = this.constants.get(name);
    if (known !== undefined) return known;
    const count = dims.reduce((a, b) => a * b, 1);
    const bytes = new Uint8Array(count * (type === DataType.INT64 ? 8 : 4));
    fill(new DataView(bytes.buffer));
    this.initializers.push((w) => {
      for (const dim of dims) integer(w, 1, dim);
      text(integer(w, 2, type), 8, name)
        .tag(9, WireType.LengthDelimited)
        .bytes(bytes);
    });
    this.constants.set(name, name);
    return name;
  }

  /** Adds a node and returns the names of its outputs (one, unless `options.outputs` names more). */
  node(op: string, inputs: readonly string[], attributes: Readonly<Record<string, Attribute>> = {}, options: NodeOptions = {}): string[] {
    const name = `${op}_${this.nodes.length}`;
    const outputs = options.outputs === undefined ? [name] : [...options.outputs];
    this.nodes.push((w) => {
      for (const input of inputs) text(w, 1, input);
      for (const output of outputs) text(w, 2, output);
      text(text(w, 3, name), 4, op);
      for (const [key, value] of Object.entries(attributes)) message(w, 5, attribute(key, value));
      if (options.domain !== undefined) text(w, 7, options.domain);
    });
    return outputs;
  }

  /** A node of ONNX's own operator set with one output. */
  op(op: string, inputs: readonly string[], attributes: Readonly<Record<string, Attribute>> = {}, output?: string): string {
    return this.node(op, inputs, attributes, output === undefined ? {} : { outputs: [output] })[0] as string;
  }

  /** A node of ONNX Runtime's contributed operator set with one output. */
  contrib(op: string, inputs: readonly string[], attributes: Readonly<Record<string, Attribute>> = {}): string {
    return this.node(op, inputs, attributes, { domain: MICROSOFT })[0] as string;
  }

  /** A contributed node with several outputs. */
  contribMany(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>>,
    outputs: readonly string[],
  ): string[] {
    return this.node(op, inputs, attributes, { domain: MICROSOFT, outputs });
  }

  /** The serialized ModelProto. */
  model(): Uint8Array {
    const w = new BinaryWriter();
    text(integer(w, 1, IR_VERSION), 2, "tiller");
    message(w, 7, (graph) => {
      for (const node of this.nodes) message(graph, 1, node);
      text(graph, 2, "decoder");
      for (const initializer of this.initializers) message(graph, 5, initializer);
      for (const input of this.inputFields) message(graph, 11, input);
      for (const output of this.outputFields) message(graph, 12, output);
    });
    message(w, 8, (opset) => integer(text(opset, 1, ""), 2, OPSET));
    message(w, 8, (opset) => integer(text(opset, 1, MICROSOFT), 2, 1));
    return w.finish();
  }
}

function valueInfo(name: string, type: DataType, dims: readonly Dim[]): Fill {
  return (w) =>
    message(text(w, 1, name), 2, (typeProto) =>
      message(typeProto, 1, (tensor) =>
        message(integer(tensor, 1, type), 2, (shape) => {
          for (const dim of dims) message(shape, 1, (d) => (typeof dim === "number" ? integer(d, 1, dim) : text(d, 2, dim)));
        }),
      ),
    );
}

function attribute(name: string, value: Attribute): Fill {
  return (w) => {
    text(w, 1, name);
    if (typeof value === "number") integer(integer(w, 3, value), 20, ATTRIBUTE_TYPE.INT);
    else if (typeof value === "string") integer(text(w, 4, value), 20, ATTRIBUTE_TYPE.STRING);
    else if ("float" in value) integer(w.tag(2, WireType.Bit32).float(value.float), 20, ATTRIBUTE_TYPE.FLOAT);
    else {
      for (const item of value) integer(w, 8, item);
      integer(w, 20, ATTRIBUTE_TYPE.INTS);
    }
  };
}
