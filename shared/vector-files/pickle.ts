// The pickle of a torch.save file, read as a description: its instructions build plain values and tensors here, and nothing that a
// pickle can import or call is ever imported or called. https://docs.python.org/3/library/pickletools.html, protocol 2.
import { Cursor } from "./bytes.ts";
import { refuse, shown } from "./direction.ts";
import { VALUE_BYTES, type ValueType } from "./floats.ts";

const STORAGES: Readonly<Record<string, ValueType>> = {
  "torch.DoubleStorage": "F64",
  "torch.FloatStorage": "F32",
  "torch.HalfStorage": "F16",
  "torch.BFloat16Storage": "BF16",
  "torch.LongStorage": "I64",
  "torch.IntStorage": "I32",
};
const ORDERED_DICT = "collections.OrderedDict";
const TENSOR = "torch._utils._rebuild_tensor_v2";
const PARAMETER = "torch._utils._rebuild_parameter";
const KNOWN: ReadonlySet<string> = new Set([ORDERED_DICT, TENSOR, PARAMETER, ...Object.keys(STORAGES)]);

/** A tensor by where it lies: `first` counts values from the beginning of the storage (its member of the archive). */
export class Tensor {
  readonly storage: Storage;
  readonly first: number;
  readonly shape: readonly number[];
  constructor(storage: Storage, first: number, shape: readonly number[]) {
    this.storage = storage;
    this.first = first;
    this.shape = shape;
  }
}

class Storage {
  readonly key: string;
  readonly type: ValueType;
  constructor(key: string, type: ValueType) {
    this.key = key;
    this.type = type;
  }
}

/** A name that the pickle imports: one of KNOWN, each a way to write a value down. */
class Global {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

const MARK = Symbol("mark");
function damaged(): never {
  refuse("The PyTorch file's data.pkl is damaged: save it again with torch.save.");
}

/**
 * What a pickle describes: a Tensor, a Map (string or number keys), an array, or a plain value; dicts and lists may hold each other.
 * @throws TillerError `invalid_request`: damaged, or it imports something else, which the sentence names (`posix.system`).
 */
export function readPickle(code: Uint8Array): unknown {
  return new Unpickler(code).value();
}

class Unpickler {
  private readonly cursor: Cursor;
  private readonly stack: unknown[] = [];
  private readonly memo = new Map<number, unknown>();

  constructor(code: Uint8Array) {
    this.cursor = new Cursor(code, "PyTorch file's data.pkl");
  }

  value(): unknown {
    for (;;) {
      const op = String.fromCharCode(this.cursor.u8());
      if (op === ".") return this.pop();
      const step = STEPS[op];
      if (step === undefined)
        return refuse(
          `The PyTorch file's data.pkl uses an instruction (0x${op.charCodeAt(0).toString(16)}) that tensors do not need; only tensors, dicts and lists of tensors are read.`,
        );
      this.stepWith(step);
    }
  }

  private stepWith(step: Step): void {
    step({
      cursor: this.cursor,
      memo: this.memo,
      push: (value) => {
        this.stack.push(value);
      },
      top: () => this.stack.at(-1),
      pop: () => this.pop(),
      popMany: (count) => Array.from({ length: count }, () => this.pop()).reverse(),
      popToMark: () => {
        const mark = this.stack.lastIndexOf(MARK);
        return mark < 0 ? damaged() : this.stack.splice(mark).slice(1);
      },
    });
  }

  private pop(): unknown {
    return this.stack.length === 0 ? damaged() : this.stack.pop();
  }
}

interface Machine {
  readonly cursor: Cursor;
  readonly memo: Map<number, unknown>;
  push(value: unknown): void;
  top(): unknown;
  pop(): unknown;
  popMany(count: number): unknown[];
  popToMark(): unknown[];
}
type Step = (machine: Machine) => void;

const STEPS: Readonly<Record<string, Step>> = {
  "\x80": ({ cursor }) => void cursor.u8(), // PROTO
  "(": ({ push }) => push(MARK),
  "}": ({ push }) => push(new Map()),
  "]": ({ push }) => push([]),
  ")": ({ push }) => push([]),
  N: ({ push }) => push(null),
  "\x88": ({ push }) => push(true),
  "\x89": ({ push }) => push(false),
  K: ({ cursor, push }) => push(cursor.u8()),
  M: ({ cursor, push }) => push(cursor.u16()),
  J: ({ cursor, push }) => push(cursor.i32()),
  "\x8a": ({ cursor, push }) => push(long(cursor.take(cursor.u8()))),
  G: ({ cursor, push }) => push(cursor.f64be()),
  X: ({ cursor, push }) => push(cursor.text(cursor.u32())),
  q: ({ cursor, memo, top }) => void memo.set(cursor.u8(), top()),
  r: ({ cursor, memo, top }) => void memo.set(cursor.u32(), top()),
  h: ({ cursor, memo, push }) => push(memo.get(cursor.u8())),
  j: ({ cursor, memo, push }) => push(memo.get(cursor.u32())),
  t: ({ popToMark, push }) => push(popToMark()),
  "\x85": ({ popMany, push }) => push(popMany(1)),
  "\x86": ({ popMany, push }) => push(popMany(2)),
  "\x87": ({ popMany, push }) => push(popMany(3)),
  s: ({ popMany, top }) => setItems(popMany(2), top()),
  u: ({ popToMark, top }) => setItems(popToMark(), top()),
  a: ({ pop, top }) => append([pop()], top()),
  e: ({ popToMark, top }) => append(popToMark(), top()),
  c: ({ cursor, push }) => push(global(`${line(cursor)}.${line(cursor)}`)),
  Q: ({ pop, push }) => push(storage(pop())),
  R: ({ pop, push }) => {
    const args = pop();
    push(build(pop(), args));
  },
  // BUILD: attributes of an OrderedDict, which hold no tensors.
  b: ({ pop }) => void pop(),
};

function long(bytes: Uint8Array): number {
  const value = bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  return Number(BigInt.asIntN(8 * bytes.length, value));
}

function line(cursor: Cursor): string {
  const end = cursor.bytes.indexOf(10, cursor.at);
  if (end < 0) return damaged();
  const text = cursor.text(end - cursor.at);
  cursor.skip(1);
  return text;
}

function setItems(items: readonly unknown[], target: unknown): void {
  if (!(target instanceof Map) || items.length % 2 !== 0) damaged();
  for (let i = 0; i < items.length; i += 2) {
    const key = items[i];
    if (typeof key !== "string" && typeof key !== "number") damaged();
    target.set(key, items[i + 1]);
  }
}

function append(items: readonly unknown[], target: unknown): void {
  if (!Array.isArray(target)) damaged();
  for (const item of items) target.push(item);
}

function global(name: string): Global {
  if (KNOWN.has(name)) return new Global(name);
  return refuse(
    `The PyTorch file wants to use ${shown(name)}, which is refused; only tensors of float16, bfloat16, float32, float64, int32 and int64, and dicts and lists of them, are read.`,
  );
}

/** ("storage", type, key, device, elements): a member of the archive with the values of one or several tensors. */
function storage(id: unknown): Storage {
  const [kind, type, key] = Array.isArray(id) ? (id as unknown[]) : [];
  const valueType = type instanceof Global ? STORAGES[type.name] : undefined;
  if (kind !== "storage" || typeof key !== "string" || valueType === undefined) return damaged();
  return new Storage(key, valueType);
}

function build(what: unknown, args: unknown): unknown {
  if (!(what instanceof Global) || !Array.isArray(args)) return damaged();
  if (what.name === ORDERED_DICT) return new Map();
  // (tensor, requires_grad, hooks)
  if (what.name === PARAMETER) return (args as unknown[])[0];
  const [storage, first, shape, strides] = args as unknown[];
  if (what.name !== TENSOR || !(storage instanceof Storage) || !isSizes([first]) || !isSizes(shape) || !isSizes(strides)) return damaged();
  if (shape.length > 2)
    return refuse(`The PyTorch file has a tensor of ${shape.length} dimensions; a vector has one and several have two.`);
  if (shape.length !== strides.length) return damaged();
  // The values lie one after another, the last axis fastest.
  const inOrder = shape.every((size, i) => size <= 1 || strides[i] === shape.slice(i + 1).reduce((a, b) => a * b, 1));
  if (!inOrder)
    return refuse(`The PyTorch file has a tensor of shape [${shape.join(", ")}] that is not contiguous: save tensor.contiguous().`);
  return new Tensor(storage, first as number, shape);
}

const isSizes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((each) => Number.isSafeInteger(each) && (each as number) >= 0);

/** Bytes of one value of the tensor. */
export const valueBytes = ({ storage }: Tensor): number => VALUE_BYTES[storage.type];
