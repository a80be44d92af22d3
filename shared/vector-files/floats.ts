// Numbers as files hold them: IEEE 754 in 16, 32 and 64 bits, bfloat16, and signed integers.
import { refuse } from "./direction.ts";

/** Bytes of one value. */
export const VALUE_BYTES = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4 } as const;
export type ValueType = keyof typeof VALUE_BYTES;

/** binary16 of IEEE 754-2008: 1 sign, 5 exponent (bias 15) and 10 fraction bits. */
export function fromFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

const scratch = new DataView(new ArrayBuffer(4));

/** bfloat16: the upper half of a binary32. */
export function fromBFloat16(bits: number): number {
  scratch.setUint16(0, bits);
  scratch.setUint16(2, 0);
  return scratch.getFloat32(0);
}

const READ: Readonly<Record<ValueType, (view: DataView, at: number, little: boolean) => number>> = {
  F64: (view, at, little) => view.getFloat64(at, little),
  F32: (view, at, little) => view.getFloat32(at, little),
  F16: (view, at, little) => fromFloat16(view.getUint16(at, little)),
  BF16: (view, at, little) => fromBFloat16(view.getUint16(at, little)),
  I64: (view, at, little) => exact(view.getBigInt64(at, little)),
  I32: (view, at, little) => view.getInt32(at, little),
};

function exact(value: bigint): number {
  if (BigInt(Number(value)) !== value) refuse(`The integer ${value} is no float64: save the vector as floating-point numbers.`);
  return Number(value);
}

/** `count` values from byte `offset` on; the caller has made sure that they lie inside the bytes. */
export function decodeValues(bytes: Uint8Array, offset: number, count: number, type: ValueType, little = true): Float64Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, count * VALUE_BYTES[type]);
  const values = new Float64Array(count);
  for (let i = 0; i < count; i++) values[i] = READ[type](view, i * VALUE_BYTES[type], little);
  return values;
}

/** Little-endian float64, as they are. */
export function encodeF64(values: Float64Array): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(values.length * 8));
  values.forEach((value, i) => {
    view.setFloat64(i * 8, value, true);
  });
  return new Uint8Array(view.buffer);
}

/** Little-endian float32, each rounded to the nearest. */
export function encodeF32(values: Float64Array): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(values.length * 4));
  values.forEach((value, i) => {
    view.setFloat32(i * 4, value, true);
  });
  return new Uint8Array(view.buffer);
}
