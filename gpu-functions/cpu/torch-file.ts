// Reads the tensors of files that torch.save wrote (a ZIP archive: a pickle that describes them, and their bytes) without running
// what a pickle can run: its instructions are read as a description, and anything but tensors in dicts and lists is refused by name.
import type { TensorFile, TensorInfo } from "./safetensors.ts";
import { withZip, type ZipFile } from "./zip.ts";

/** torch.save of older versions, whose files are no archives, is not read. */
const WRITTEN = "torch.save of PyTorch 1.6 or later";
const STORAGES: Readonly<Record<string, readonly [TensorInfo["dtype"], number]>> = {
  DoubleStorage: ["F64", 8],
  FloatStorage: ["F32", 4],
  HalfStorage: ["F16", 2],
  BFloat16Storage: ["BF16", 2],
  LongStorage: ["I64", 8],
  IntStorage: ["I32", 4],
  ShortStorage: ["I16", 2],
  CharStorage: ["I8", 1],
  ByteStorage: ["U8", 1],
  BoolStorage: ["BOOL", 1],
};

/** What a pickle may describe: plain values, and tensors by where they lie. */
export type TorchValue = string | number | boolean | null | TorchTensor | TorchValue[] | Map<string, TorchValue>;

export class TorchTensor {
  readonly info: TensorInfo;
  /** A matrix that lies column by column: `info` is that of its transpose. */
  readonly transposed: boolean;
  constructor(info: TensorInfo, transposed: boolean) {
    this.info = info;
    this.transposed = transposed;
  }
}

/**
 * Opens a saved dict. Tensors in it become the file's, by their names, a transposed one as `<name>.T`; `values` is all of it.
 * @throws Error with the file and the reason: no archive, no dict, or something in it that is neither tensor nor plain value.
 */
export function openTorch(path: string): TensorFile & { readonly values: ReadonlyMap<string, TorchValue> } {
  return withZip(path, WRITTEN, (zip) => {
    const pickle = zip.members.find(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
    if (pickle === undefined) return zip.fail(`it has no data.pkl: it was not written by ${WRITTEN}`);
    const folder = pickle.name.slice(0, -"data.pkl".length);
    const value = new Unpickler(zip, folder, zip.read(pickle.offset, pickle.bytes)).value();
    if (!(value instanceof Map)) return zip.fail("it does not hold a dict of tensors");
    const tensors = [...value].flatMap(([name, each]) =>
      each instanceof TorchTensor ? [[each.transposed ? `${name}.T` : String(name), each.info] as const] : [],
    );
    return { path, tensors: new Map(tensors), metadata: new Map(), values: value as ReadonlyMap<string, TorchValue> };
  });
}

/** A name that the pickle imports. Only what follows is known; each is a way to write a value down, none is called. */
class Global {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}
const KNOWN = new Set([
  "collections.OrderedDict",
  "torch._utils._rebuild_tensor_v2",
  "torch._utils._rebuild_parameter",
  ...Object.keys(STORAGES).map((name) => `torch.${name}`),
]);

interface Storage {
  readonly dtype: TensorInfo["dtype"];
  readonly size: number;
  readonly offset: number;
  readonly bytes: number;
}

const MARK = Symbol("mark");

/** Protocol 2 of https://docs.python.org/3/library/pickletools.html, as far as torch.save writes it. */
class Unpickler {
  private readonly zip: ZipFile;
  private readonly folder: string;
  private readonly code: Buffer;
  private at = 0;
  private readonly stack: unknown[] = [];
  private readonly memo = new Map<number, unknown>();

  constructor(zip: ZipFile, folder: string, code: Buffer) {
    this.zip = zip;
    this.folder = folder;
    this.code = code;
  }

  value(): unknown {
    for (;;) {
      if (this.at >= this.code.length) return this.zip.fail("its data.pkl is cut off");
      const op = String.fromCharCode(this.code.readUInt8(this.at++));
      if (op === ".") return this.stack.pop();
      this.step(op);
    }
  }

  private take(length: number): Buffer {
    if (this.at + length > this.code.length) return this.zip.fail("its data.pkl is cut off");
    this.at += length;
    return this.code.subarray(this.at - length, this.at);
  }

  private line(): string {
    const end = this.code.indexOf(10, this.at);
    if (end < 0) return this.zip.fail("its data.pkl is cut off");
    const text = this.code.toString("utf8", this.at, end);
    this.at = end + 1;
    return text;
  }

  private pop(): unknown {
    return this.stack.length === 0 ? this.zip.fail("its data.pkl is damaged") : this.stack.pop();
  }

  private popToMark(): unknown[] {
    const mark = this.stack.lastIndexOf(MARK);
    if (mark < 0) return this.zip.fail("its data.pkl is damaged");
    return this.stack.splice(mark).slice(1);
  }

  private step(op: string): void {
    const { stack, memo } = this;
    const push = (value: unknown) => stack.push(value);
    const top = () => stack.at(-1);
    switch (op) {
      case "\x80": // PROTO
        this.take(1);
        return;
      case "(":
        push(MARK);
        return;
      case "}":
        push(new Map());
        return;
      case "]":
        push([]);
        return;
      case ")":
        push([]);
        return;
      case "N":
        push(null);
        return;
      case "\x88":
      case "\x89": // NEWTRUE, NEWFALSE
        push(op === "\x88");
        return;
      case "K":
        push(this.take(1).readUInt8());
        return;
      case "M":
        push(this.take(2).readUInt16LE());
        return;
      case "J":
        push(this.take(4).readInt32LE());
        return;
      case "\x8a": // LONG1
        push(this.long(this.take(1).readUInt8()));
        return;
      case "G":
        push(this.take(8).readDoubleBE());
        return;
      case "X":
        push(this.take(this.take(4).readUInt32LE()).toString("utf8"));
        return;
      case "q":
        memo.set(this.take(1).readUInt8(), top());
        return;
      case "r":
        memo.set(this.take(4).readUInt32LE(), top());
        return;
      case "h":
        push(memo.get(this.take(1).readUInt8()));
        return;
      case "j":
        push(memo.get(this.take(4).readUInt32LE()));
        return;
      case "t":
        push(this.popToMark());
        return;
      case "\x85":
      case "\x86":
      case "\x87": // TUPLE1, 2, 3
        push(stack.splice(stack.length - (op.charCodeAt(0) - 0x84)));
        return;
      case "s":
        this.setItems(stack.splice(stack.length - 2));
        return;
      case "u":
        this.setItems(this.popToMark());
        return;
      case "a":
        this.append([this.pop()]);
        return;
      case "e":
        this.append(this.popToMark());
        return;
      case "c":
        push(this.global());
        return;
      case "Q":
        push(this.storage(this.pop()));
        return;
      case "R": {
        const args = this.pop();
        push(this.build(this.pop(), args));
        return;
      }
      case "b": // BUILD: attributes of an OrderedDict, which hold no tensors.
        this.pop();
        return;
      default:
        this.zip.fail(`its data.pkl uses an instruction (0x${op.charCodeAt(0).toString(16)}) that a dict of tensors does not need`);
    }
  }

  private long(length: number): number {
    let value = 0n;
    const bytes = this.take(length);
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i] as number);
    return Number(BigInt.asIntN(8 * length, value));
  }

  private setItems(items: unknown[]): void {
    const target = this.stack.at(-1);
    if (!(target instanceof Map)) throw this.damaged();
    for (let i = 0; i + 1 < items.length; i += 2) target.set(String(items[i]), items[i + 1]);
  }

  private append(items: unknown[]): void {
    const target = this.stack.at(-1);
    if (!Array.isArray(target)) throw this.damaged();
    target.push(...items);
  }

  private damaged(): Error {
    return this.zip.fail("its data.pkl is damaged");
  }

  private global(): Global {
    const name = `${this.line()}.${this.line()}`;
    if (!KNOWN.has(name)) return this.zip.fail(`its data.pkl wants to use ${name}, which is refused: only dicts of tensors are read`);
    return new Global(name);
  }

  /** ("storage", type, key, device, elements): the bytes of one or several tensors, a member of the archive. */
  private storage(id: unknown): Storage {
    const [kind, type, key] = Array.isArray(id) ? (id as unknown[]) : [];
    if (kind !== "storage" || !(type instanceof Global)) return this.zip.fail("its data.pkl is damaged");
    const [dtype, size] = STORAGES[type.name.slice("torch.".length)] ?? this.zip.fail(`its data.pkl is damaged`);
    const member = this.zip.members.find(({ name }) => name === `${this.folder}data/${key}`);
    if (member === undefined) return this.zip.fail(`the bytes of storage '${key}' are missing`);
    return { dtype, size, offset: member.offset, bytes: member.bytes };
  }

  private build(what: unknown, args: unknown): unknown {
    if (!(what instanceof Global) || !Array.isArray(args)) return this.zip.fail("its data.pkl is damaged");
    if (what.name === "collections.OrderedDict") return new Map();
    // (tensor, requires_grad, hooks)
    if (what.name === "torch._utils._rebuild_parameter") return (args as unknown[])[0];
    const [storage, first, shape, strides] = args as [unknown, unknown, unknown, unknown];
    if (!isStorage(storage) || typeof first !== "number" || !isSizes(shape) || !isSizes(strides) || shape.length !== strides.length)
      return this.zip.fail("its data.pkl is damaged");
    const transposed = shape.length === 2 && !liesInOrder(shape, strides);
    const [dims, steps] = transposed ? [shape.toReversed(), strides.toReversed()] : [shape, strides];
    if (!liesInOrder(dims, steps)) return this.zip.fail(`a tensor of shape [${shape}] is not contiguous: save tensor.contiguous()`);
    const count = dims.reduce((a, b) => a * b, 1);
    if ((first + count) * storage.size > storage.bytes) return this.zip.fail(`a tensor of shape [${shape}] goes beyond its bytes`);
    const info = { dtype: storage.dtype, shape: dims, offset: storage.offset + first * storage.size, bytes: count * storage.size };
    return new TorchTensor(info, transposed);
  }
}

const isSizes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((each) => Number.isSafeInteger(each) && (each as number) >= 0);
const isStorage = (value: unknown): value is Storage => typeof value === "object" && value !== null && "dtype" in value && "size" in value;

/** Whether a tensor's values lie one after another, the last axis fastest. */
const liesInOrder = (shape: readonly number[], strides: readonly number[]): boolean =>
  shape.every((dim, i) => dim <= 1 || strides[i] === shape.slice(i + 1).reduce((a, b) => a * b, 1));
