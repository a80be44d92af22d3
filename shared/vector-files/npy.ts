// NumPy's .npy files: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
import { beginsWith, Cursor, concat } from "./bytes.ts";
import { type FileVector, Found, MOST, type OutVector, refuse, shown } from "./direction.ts";
import { decodeValues, encodeF64, VALUE_BYTES, type ValueType } from "./floats.ts";

const MAGIC = "\x93NUMPY";
const TYPES: Readonly<Record<string, ValueType>> = { f8: "F64", f4: "F32", f2: "F16", i8: "I64", i4: "I32" };

export const isNpy = (bytes: Uint8Array): boolean => beginsWith(bytes, MAGIC);

/**
 * Reads versions 1 to 3: one array of floating-point numbers or integers of either byte order. Object arrays are pickles: refused.
 * @throws TillerError `invalid_request`: what is wrong, what is allowed.
 */
export function readNpy(bytes: Uint8Array): readonly FileVector[] {
  const cursor = new Cursor(bytes, ".npy file", MAGIC.length);
  const [major] = [cursor.u8(), cursor.u8()];
  if (major < 1 || major > 3) refuse(`The .npy file is of version ${major}; versions 1, 2 and 3 are read.`);
  const length = major === 1 ? cursor.u16() : cursor.u32();
  if (length > MOST.headerBytes) refuse(`The .npy file's header has ${length} bytes; at most ${MOST.headerBytes} are read.`);
  const { type, little, fortran, shape } = headerOf(cursor.text(length));
  if (fortran && shape.length === 2 && !shape.includes(1))
    refuse("The .npy file's array lies column by column (Fortran order): save np.ascontiguousarray(array).");
  const size = VALUE_BYTES[type];
  const needed = shape.reduce((a, b) => a * b, 1) * size;
  const start = cursor.skip(needed);
  if (cursor.left > 0) refuse(`The .npy file has ${cursor.left} bytes behind its array; it must hold one array and nothing else.`);
  const found = new Found();
  found.add("vector", shape, (first, count) => decodeValues(bytes, start + first * size, count, type, little), {
    rowName: (row) => `row ${row}`,
  });
  return found.vectors;
}

/** The header is a Python dict of exactly `descr`, `fortran_order` and `shape`. */
function headerOf(header: string): { type: ValueType; little: boolean; fortran: boolean; shape: number[] } {
  const descr = /'descr'\s*:\s*(?:'([^']{0,40})'|\[)/.exec(header);
  const fortran = /'fortran_order'\s*:\s*(True|False)/.exec(header)?.[1];
  const sizes = /'shape'\s*:\s*\(([\d,\s]{0,200})\)/.exec(header)?.[1];
  if (descr === null || fortran === undefined || sizes === undefined)
    return refuse("The .npy file's header is damaged: write it with numpy.save.");
  const [order, kind] = [descr[1]?.[0], descr[1]?.slice(1)];
  if (kind === "O")
    refuse("The .npy file holds Python objects, which is a pickle and is never read: save an array of numbers (array.astype('float64')).");
  const type = kind === undefined ? undefined : Object.hasOwn(TYPES, kind) ? TYPES[kind] : undefined;
  if (type === undefined || (order !== "<" && order !== ">"))
    return refuse(
      `The .npy file holds ${descr[1] === undefined ? "records" : shown(descr[1])}; float16, float32, float64, int32 and int64 are read.`,
    );
  const shape = sizes.split(",").flatMap((text) => (text.trim() === "" ? [] : [Number(text)]));
  if (!shape.every(Number.isSafeInteger)) refuse("The .npy file's header is damaged: write it with numpy.save.");
  return { type, little: order === "<", fortran: fortran === "True", shape };
}

/** Version 1.0, float64: shape [d] for one vector, [n, d] for several of one width. Names and layers have no place in it. */
export function writeNpy(vectors: readonly OutVector[]): Uint8Array<ArrayBuffer> {
  const width = vectors[0]?.values.length ?? 0;
  const other = vectors.find(({ values }) => values.length !== width);
  if (other !== undefined)
    refuse(
      `${shown(other.name)} has ${other.values.length} values and the first vector ${width}; one .npy file holds vectors of one width.`,
    );
  const shape = vectors.length === 1 ? `(${width},)` : `(${vectors.length}, ${width})`;
  const text = `{'descr': '<f8', 'fortran_order': False, 'shape': ${shape}, }`;
  // The array begins at a multiple of 64; the header ends with a line feed.
  const length = Math.ceil((MAGIC.length + 4 + text.length + 1) / 64) * 64 - MAGIC.length - 4;
  const header = `${MAGIC}\x01\x00${String.fromCharCode(length & 255, length >> 8)}${text.padEnd(length - 1)}\n`;
  return concat([Uint8Array.from(header, (char) => char.charCodeAt(0)), ...vectors.map(({ values }) => encodeF64(values))]);
}
