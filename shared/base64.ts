// Vectors as text: base64 of little-endian float32 on the wire, of float64 at rest. Works in Node and in workerd without Buffer.

const littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

function toBase64(bytes: Uint8Array): string {
  let binary = "";
  // String.fromCharCode takes its arguments on the stack: chunks keep long vectors from overflowing it.
  for (let i = 0; i < bytes.length; i += 8192) binary += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(binary);
}

/** Encodes values as base64 little-endian float32, rounding each to float32. */
export function encodeFloat32(values: ArrayLike<number>): string {
  const view = new DataView(new ArrayBuffer(values.length * 4));
  for (let i = 0; i < values.length; i++) view.setFloat32(i * 4, values[i] as number, true);
  return toBase64(new Uint8Array(view.buffer));
}

/** Encodes values as base64 little-endian float64: every number comes back as it was. */
export function encodeFloat64(values: ArrayLike<number>): string {
  const view = new DataView(new ArrayBuffer(values.length * 8));
  for (let i = 0; i < values.length; i++) view.setFloat64(i * 8, values[i] as number, true);
  return toBase64(new Uint8Array(view.buffer));
}

/** Decodes what `encodeFloat64` made; undefined when the text is not base64 of whole float64 values. */
export function decodeFloat64(text: string): Float64Array | undefined {
  const bytes = fromBase64(text, 8);
  if (bytes === undefined) return undefined;
  const view = new DataView(bytes.buffer);
  return Float64Array.from({ length: bytes.length / 8 }, (_, i) => view.getFloat64(i * 8, true));
}

/** The bytes, if the text is base64 of some values of that size. */
function fromBase64(text: string, size: number): Uint8Array<ArrayBuffer> | undefined {
  let binary: string;
  try {
    binary = atob(text);
  } catch {
    return undefined;
  }
  if (binary.length === 0 || binary.length % size !== 0) return undefined;
  return Uint8Array.from(binary, (char) => char.charCodeAt(0));
}

/** Decodes base64 little-endian float32; undefined when the text is not base64 of whole float32 values. */
export function decodeFloat32(text: string): Float32Array | undefined {
  const bytes = fromBase64(text, 4);
  if (bytes === undefined) return undefined;
  if (littleEndian) return new Float32Array(bytes.buffer);
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(i * 4, true));
}
