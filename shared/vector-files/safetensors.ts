// safetensors files: https://github.com/huggingface/safetensors#format
import { formatPoint } from "../address.ts";
import { Cursor, concat } from "./bytes.ts";
import { type FileVector, Found, MOST, type OutVector, type Place, placeOf, placeOfName, refuse, shown } from "./direction.ts";
import { decodeValues, encodeF64, VALUE_BYTES, type ValueType } from "./floats.ts";

const TYPES: readonly string[] = ["F64", "F32", "F16", "BF16"] satisfies ValueType[];
const DAMAGED = "The safetensors file's header is damaged: write it with the safetensors library.";

/** There is no magic: eight bytes of header length (never 2^48), and the brace of the header. */
export const isSafetensors = (bytes: Uint8Array): boolean => bytes[8] === 0x7b && bytes[7] === 0 && bytes[6] === 0;

interface Tensor {
  readonly name: string;
  readonly type: ValueType;
  readonly shape: readonly number[];
  readonly start: number;
  readonly end: number;
}

/**
 * Reads F64, F32, F16 and BF16 tensors. Where a vector acts is taken from what `writeSafetensors` notes for it, from the metadata's
 * `layer` and `hook_name` when the file has one tensor, or from the tensor's name when that is a hook point.
 * @throws TillerError `invalid_request`: what is wrong, what is allowed.
 */
export function readSafetensors(bytes: Uint8Array): readonly FileVector[] {
  const cursor = new Cursor(bytes, "safetensors file");
  const length = cursor.u64();
  if (length > MOST.headerBytes) refuse(`The safetensors file's header has ${length} bytes; at most ${MOST.headerBytes} are read.`);
  const header = parse(cursor.text(length));
  const metadata = objectOf(header.__metadata__ ?? {});
  const tensors = Object.entries(header)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, each]) => tensorOf(name, each))
    .sort((a, b) => a.start - b.start);
  checkLayout(tensors, cursor.left);
  const found = new Found();
  for (const { name, type, shape, start } of tensors) {
    const decode = (first: number, count: number) => decodeValues(bytes, cursor.at + start + first * VALUE_BYTES[type], count, type);
    found.add(name, shape, decode, { place: place(name, metadata, tensors.length === 1) });
  }
  if (found.vectors.length === 0) refuse("The safetensors file has no tensors; it must have at least one.");
  return found.vectors;
}

function parse(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    refuse(DAMAGED);
  }
  return objectOf(value);
}

function objectOf(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return refuse(DAMAGED);
  return value as Record<string, unknown>;
}

function tensorOf(name: string, value: unknown): Tensor {
  const { dtype, shape, data_offsets: offsets } = objectOf(value);
  if (!isSizes(shape) || !isSizes(offsets) || offsets.length !== 2 || shape.length > 8) return refuse(DAMAGED);
  const [start = 0, end = 0] = offsets;
  if (typeof dtype !== "string" || !TYPES.includes(dtype))
    return refuse(`${shown(name)} is of the type ${shown(String(wordOf(dtype)))}; ${TYPES.join(", ")} are read.`);
  const type = dtype as ValueType;
  if (end - start !== shape.reduce((a, b) => a * b, 1) * VALUE_BYTES[type])
    refuse(`${shown(name)} has ${end - start} bytes, which is not what its shape and type need: write the file again.`);
  return { name, type, shape, start, end };
}

const wordOf = (value: unknown): string => (typeof value === "string" ? value : "");
const isSizes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((each) => Number.isSafeInteger(each) && (each as number) >= 0);

/** As the format demands: one tensor after another, without holes, to the end of the file. */
function checkLayout(tensors: readonly Tensor[], length: number): void {
  let at = 0;
  for (const { name, start, end } of tensors) {
    if (start !== at) refuse(`The bytes of ${shown(name)} overlap others or leave a hole: write the file with the safetensors library.`);
    at = end;
  }
  if (at > length) refuse("The safetensors file is truncated: it ends before its tensors do. Upload the whole file.");
  if (at < length) refuse(`The safetensors file has ${length - at} bytes behind its tensors: write it with the safetensors library.`);
}

function place(name: string, metadata: Record<string, unknown>, alone: boolean): Place {
  const noted = Object.hasOwn(metadata, keyOf(name)) ? metadata[keyOf(name)] : undefined;
  if (noted !== undefined) {
    const { layer, hook_name } = parse(wordOf(noted));
    return placeOf(name, layer, hook_name);
  }
  const { layer, hook_name } = metadata;
  if (alone && (layer !== undefined || hook_name !== undefined)) return placeOf(name, layer, hook_name);
  return placeOfName(name);
}

/** The metadata's key of what is said about a tensor. */
const keyOf = (name: string): string => `vector.${name}`;

/**
 * F64 tensors by the vectors' names; the metadata (strings only, says the format) has for each `vector.<name>`: a JSON object of
 * `layer`, `hook_name`, `label`, `strength` and `model_id`.
 */
export function writeSafetensors(vectors: readonly OutVector[]): Uint8Array<ArrayBuffer> {
  let at = 0;
  const tensors = new Map<string, unknown>();
  const metadata = new Map<string, string>([["format", "tiller-vectors"]]);
  for (const { name, layer, hook, values, label, modelId, strength } of vectors) {
    if (tensors.has(name) || name === "__metadata__")
      refuse(`Two vectors are called ${shown(name)}; in one file every vector has its own name.`);
    const hook_name = formatPoint({ layer, kind: hook });
    metadata.set(keyOf(name), JSON.stringify({ layer, hook_name, label, strength, model_id: modelId }));
    tensors.set(name, { dtype: "F64", shape: [values.length], data_offsets: [at, at + values.length * 8] });
    at += values.length * 8;
  }
  const text = JSON.stringify(Object.fromEntries([["__metadata__", Object.fromEntries(metadata)], ...tensors]));
  const header = new TextEncoder().encode(text);
  // Spaces behind the header keep the tensors aligned.
  const length = Math.ceil(header.length / 8) * 8;
  if (length > MOST.headerBytes) refuse("The vectors' names and labels are too long for one safetensors file: export fewer at once.");
  const size = new Uint8Array(8);
  new DataView(size.buffer).setBigUint64(0, BigInt(length), true);
  return concat([size, header, new Uint8Array(length - header.length).fill(0x20), ...vectors.map(({ values }) => encodeF64(values))]);
}
