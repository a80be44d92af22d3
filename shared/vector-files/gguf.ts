// Control vectors of llama.cpp in GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A file has `direction.N` tensors;
// llama.cpp adds the one of N to what block N (zero-based) leaves, and itself takes N from 1 on.
import { beginsWith, Cursor, concat } from "./bytes.ts";
import { type FileVector, Found, type OutVector, refuse, shown } from "./direction.ts";
import { decodeValues, encodeF32, VALUE_BYTES, type ValueType } from "./floats.ts";

export const isGguf = (bytes: Uint8Array): boolean => beginsWith(bytes, "GGUF");

/** Bytes of a metadata value of each type number; strings (8) and arrays (9) say their own length. */
const VALUE_SIZES: Readonly<Record<number, number>> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
const [UINT32, STRING, ARRAY] = [4, 8, 9];
/** ggml_type. */
const TENSOR_TYPES: Readonly<Record<number, ValueType>> = { 0: "F32", 1: "F16", 28: "F64", 30: "BF16" };
const MOST_KEYS = 4096;
/** Of arrays in arrays, of which the format has no need. */
const DEEPEST = 4;
const ARCHITECTURE = "controlvector";

interface Direction {
  readonly name: string;
  readonly layer: number;
  readonly width: number;
  readonly type: ValueType;
  readonly offset: number;
}

/**
 * Reads versions 2 and 3, little-endian. The vectors come in the order of their layers and act after their block (`resid_post`).
 * @throws TillerError `invalid_request`: what is wrong, what is allowed.
 */
export function readGguf(bytes: Uint8Array): readonly FileVector[] {
  const cursor = new Cursor(bytes, "GGUF file", 4);
  const version = cursor.u32();
  if (version !== 2 && version !== 3) refuse(`The GGUF file is of version ${version}; little-endian files of versions 2 and 3 are read.`);
  const tensors = cursor.u64();
  const keys = readKeys(cursor, cursor.u64());
  const architecture = keys.get("general.architecture");
  if (architecture !== ARCHITECTURE)
    refuse(`The GGUF file is of the architecture ${shown(String(architecture))}; only control vectors (${ARCHITECTURE}) are read.`);
  const directions = new Map<number, Direction>();
  for (let i = 0; i < tensors; i++) {
    const direction = readDirection(cursor);
    if (directions.has(direction.layer))
      refuse(`The GGUF file has two tensors for layer ${direction.layer}; it may have one for each layer.`);
    directions.set(direction.layer, direction);
  }
  const modelHint = keys.get(`${ARCHITECTURE}.model_hint`);
  const layerCount = keys.get(`${ARCHITECTURE}.layer_count`);
  const place = {
    hook: "resid_post" as const,
    ...(typeof modelHint === "string" && modelHint !== "" ? { modelHint } : {}),
    ...(typeof layerCount === "number" ? { layerCount } : {}),
  };
  const alignment = alignmentOf(keys);
  const start = Math.ceil(cursor.at / alignment) * alignment;
  return directionsOf(bytes, start, alignment, [...directions.values()], place);
}

function directionsOf(
  bytes: Uint8Array,
  start: number,
  alignment: number,
  directions: readonly Direction[],
  place: Omit<FileVector, "name" | "values">,
): readonly FileVector[] {
  const found = new Found();
  // Tensors that share bytes could make a small file a large one.
  let room = bytes.length - start;
  for (const { name, layer, width, type, offset } of directions.toSorted((a, b) => a.layer - b.layer)) {
    if (width !== directions[0]?.width)
      refuse(`${shown(name)} has ${width} values and others have ${directions[0]?.width}; they must all have as many.`);
    if (offset % alignment !== 0) refuse(`${shown(name)} does not begin at a multiple of ${alignment} bytes, as the file says it must.`);
    const length = width * VALUE_BYTES[type];
    room -= length;
    if (start + offset + length > bytes.length || room < 0) refuse(`The GGUF file ends before ${shown(name)} does. Upload the whole file.`);
    found.add(name, [width], () => decodeValues(bytes, start + offset, width, type), { place: { ...place, layer } });
  }
  if (found.vectors.length === 0) refuse("The GGUF file has no direction.N tensors; it must have at least one.");
  return found.vectors;
}

/** The strings and integers of the metadata; everything else is gone over. */
function readKeys(cursor: Cursor, count: number): ReadonlyMap<string, string | number> {
  if (count > MOST_KEYS) refuse(`The GGUF file has ${count} metadata keys; at most ${MOST_KEYS} are read.`);
  const keys = new Map<string, string | number>();
  for (let i = 0; i < count; i++) {
    const name = cursor.text(cursor.u64());
    const type = cursor.u32();
    if (type === STRING) keys.set(name, cursor.text(cursor.u64()));
    else if (type === UINT32) keys.set(name, cursor.u32());
    else if (type === 5) keys.set(name, cursor.i32());
    else if (type === 10) keys.set(name, cursor.u64());
    else skipValue(cursor, type, 0);
  }
  return keys;
}

function skipValue(cursor: Cursor, type: number, depth: number): void {
  const size = VALUE_SIZES[type];
  if (size !== undefined) cursor.skip(size);
  else if (type === STRING) cursor.skip(cursor.u64());
  else if (type === ARRAY && depth < DEEPEST) {
    const [each, count] = [cursor.u32(), cursor.u64()];
    const eachSize = VALUE_SIZES[each];
    if (eachSize !== undefined) cursor.skip(eachSize * count);
    // Every element takes bytes of the file: a count that lies ends with them.
    else for (let i = 0; i < count; i++) skipValue(cursor, each, depth + 1);
  } else refuse(`The GGUF file has a metadata value of type ${type}, which version 3 of the format does not have here.`);
}

function alignmentOf(keys: ReadonlyMap<string, string | number>): number {
  const alignment = keys.get("general.alignment") ?? 32;
  if (typeof alignment !== "number" || alignment < 1 || alignment > 65_536 || (alignment & (alignment - 1)) !== 0)
    return refuse(`The GGUF file's general.alignment is ${shown(String(alignment))}; it must be a power of two up to 65536.`);
  return alignment;
}

function readDirection(cursor: Cursor): Direction {
  const name = cursor.text(cursor.u64());
  const layer = /^direction\.(\d{1,4})$/.exec(name)?.[1];
  if (layer === undefined)
    return refuse(`The GGUF file has a tensor ${shown(name)}; a control vector has direction.N only, N a layer from 0 on.`);
  const dims = cursor.u32();
  if (dims < 1 || dims > 4) refuse(`${shown(name)} has ${dims} dimensions; a direction has one.`);
  const shape = Array.from({ length: dims }, () => cursor.u64());
  if (shape.slice(1).some((each) => each !== 1))
    refuse(`${shown(name)} has the shape [${shape.join(", ")}]; a direction has one dimension.`);
  const number = cursor.u32();
  const type = TENSOR_TYPES[number];
  if (type === undefined) return refuse(`${shown(name)} is of the ggml type ${number}; F32, F16, BF16 and F64 are read.`);
  return { name, layer: Number(layer), width: shape[0] ?? 0, type, offset: cursor.u64() };
}

/**
 * Version 3, float32 (the only type llama.cpp takes). The key layer_count is the number of directions, as llama.cpp writes it.
 * Label and strength have no place in it. llama.cpp refuses files with a direction.0: what acts after the first block.
 * @throws TillerError `invalid_request`: before the first block, two at one layer, several models or widths, beyond float32.
 */
export function writeGguf(vectors: readonly OutVector[]): Uint8Array<ArrayBuffer> {
  const width = vectors[0]?.values.length ?? 0;
  const hint = vectors[0]?.modelId ?? "";
  const byLayer = new Map<number, OutVector>();
  for (const vector of vectors) {
    const { name, layer, hook, values, modelId } = vector;
    // What enters a block is what the one before left.
    const after = hook === "resid_post" ? layer : layer - 1;
    if (after < 0) refuse(`${shown(name)} acts before the first block; a GGUF control vector can only act after a block.`);
    if (byLayer.has(after))
      refuse(`Two vectors act after block ${after}; a GGUF control vector has one for each layer. Export them one by one.`);
    if (modelId !== hint)
      refuse(`The vectors are of ${hint} and ${modelId}; a GGUF control vector is of one model. Export them one by one.`);
    if (values.length !== width)
      refuse(`${shown(name)} has ${values.length} values and the first vector ${width}; they must all have as many.`);
    if (values.some((value) => !Number.isFinite(Math.fround(value))))
      refuse(`${shown(name)} has a value beyond float32, which GGUF control vectors hold.`);
    byLayer.set(after, vector);
  }
  const layers = [...byLayer].toSorted(([a], [b]) => a - b);
  const padded = Math.ceil((width * 4) / 32) * 32;
  const head = concat([
    ...[ascii("GGUF"), u32(3), u64(layers.length), u64(3)],
    ...[text("general.architecture"), u32(STRING), text(ARCHITECTURE)],
    ...[text(`${ARCHITECTURE}.model_hint`), u32(STRING), text(hint)],
    ...[text(`${ARCHITECTURE}.layer_count`), u32(UINT32), u32(layers.length)],
    ...layers.flatMap(([layer], i) => [text(`direction.${layer}`), u32(1), u64(width), u32(0), u64(i * padded)]),
  ]);
  const body = layers.flatMap(([, { values }]) => [encodeF32(values), new Uint8Array(padded - width * 4)]);
  return concat([head, new Uint8Array((32 - (head.length % 32)) % 32), ...body]);
}

const ascii = (value: string): Uint8Array => new TextEncoder().encode(value);
const u32 = (value: number): Uint8Array => new Uint8Array([value, value >>> 8, value >>> 16, value >>> 24]);
const u64 = (value: number): Uint8Array => concat([u32(value >>> 0), u32(Math.floor(value / 2 ** 32))]);
const text = (value: string): Uint8Array => concat([u64(ascii(value).length), ascii(value)]);
