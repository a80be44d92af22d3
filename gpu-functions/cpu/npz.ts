// Reads NumPy's .npz files (a ZIP archive of .npy members, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html)
// that were written without compression, as numpy.savez does: their arrays lie in the file as they are and are read by range.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import type { TensorFile, TensorInfo } from "./safetensors.ts";

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const LOCAL = 0x04034b50;
/** The end record has 22 bytes and a comment of up to 64 KiB behind it. */
const TAIL = 22 + 65_535;
const LARGE = 0xffffffff;
const DTYPES: Readonly<Record<string, readonly [TensorInfo["dtype"], number]>> = { "<f4": ["F32", 4], "<f2": ["F16", 2] };

/** @throws Error with the file and the reason: unreadable, truncated, compressed, or an array of another kind. */
export function openNpz(path: string): TensorFile {
  const fail = (reason: string): never => {
    throw new Error(`${path}: ${reason}`);
  };
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (cause) {
    throw new Error(`${path}: the file cannot be read`, { cause });
  }
  try {
    const { size } = fstatSync(fd);
    const view = (position: number, length: number): DataView => {
      if (position < 0 || position + length > size) return fail("it is truncated");
      const bytes = Buffer.alloc(length);
      for (let done = 0; done < length; ) done += readSync(fd, bytes, done, length - done, position + done) || fail("it is truncated");
      return new DataView(bytes.buffer, bytes.byteOffset, length);
    };
    const tail = view(Math.max(0, size - TAIL), Math.min(size, TAIL));
    let end = tail.byteLength - 22;
    while (end >= 0 && tail.getUint32(end, true) !== END) end--;
    if (end < 0) return fail("not an .npz file, or the end of it is missing");
    const [count, length, start] = [tail.getUint16(end + 10, true), tail.getUint32(end + 12, true), tail.getUint32(end + 16, true)];
    if (start === LARGE) return fail("archives of more than 4 GiB are not supported: convert it to safetensors");
    const directory = view(start, length);
    const tensors = new Map<string, TensorInfo>();
    for (let i = 0, at = 0; i < count; i++) {
      if (at + 46 > length || directory.getUint32(at, true) !== ENTRY) return fail("its directory is damaged");
      const [method, bytes] = [directory.getUint16(at + 10, true), directory.getUint32(at + 24, true)];
      const [nameLength, extra, comment] = [28, 30, 32].map((field) => directory.getUint16(at + field, true)) as [number, number, number];
      const local = directory.getUint32(at + 42, true);
      const name = Buffer.from(directory.buffer, directory.byteOffset + at + 46, nameLength).toString("utf8");
      at += 46 + nameLength + extra + comment;
      if (!name.endsWith(".npy")) continue;
      if (method !== 0) return fail(`'${name}' is compressed: write the file with numpy.savez, not savez_compressed`);
      const header = view(local, 30);
      if (header.getUint32(0, true) !== LOCAL) return fail("its directory is damaged");
      const data = local + 30 + header.getUint16(26, true) + header.getUint16(28, true);
      tensors.set(name.slice(0, -".npy".length), npyTensor(name, data, bytes, view, fail));
    }
    return { path, tensors, metadata: new Map() };
  } finally {
    closeSync(fd);
  }
}

function npyTensor(
  name: string,
  start: number,
  size: number,
  view: (position: number, length: number) => DataView,
  fail: (reason: string) => never,
): TensorInfo {
  const head = view(start, 12);
  if (head.getUint32(0) !== 0x934e554d || head.getUint16(4) !== 0x5059) return fail(`'${name}' is no .npy array`);
  const long = head.getUint8(6) >= 2;
  const headerLength = long ? head.getUint32(8, true) : head.getUint16(8, true);
  const headerStart = long ? 12 : 10;
  const text = Buffer.from(view(start + headerStart, headerLength).buffer).toString("latin1");
  const descr = /'descr': *'([^']*)'/.exec(text)?.[1] ?? fail(`'${name}' does not say of which type it is`);
  const [dtype, width] = DTYPES[descr] ?? fail(`'${name}' is ${descr}; little-endian float32 (<f4) and float16 (<f2) can be read`);
  if (/'fortran_order': *True/.test(text)) return fail(`'${name}' is in Fortran order: write it with numpy.ascontiguousarray`);
  const dims = /'shape': *\(([^)]*)\)/.exec(text)?.[1] ?? fail(`'${name}' has no shape`);
  const shape = dims.split(",").flatMap((dim) => (dim.trim() === "" ? [] : [Number(dim)]));
  const bytes = shape.reduce((a, b) => a * b, 1) * width;
  if (headerStart + headerLength + bytes !== size) return fail(`'${name}' of shape [${shape}] needs ${bytes} bytes, it has another number`);
  // The last byte is there, so that a file cut off is refused now and not when it is steered with.
  if (bytes > 0) view(start + size - 1, 1);
  return { dtype, shape, offset: start + headerStart + headerLength, bytes };
}
