// Reads NumPy's .npz files (.npy members, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html) that were written
// without compression, as numpy.savez does.
import type { TensorFile, TensorInfo } from "./safetensors.ts";
import { withZip, type ZipFile, type ZipMember } from "./zip.ts";

const DTYPES: Readonly<Record<string, readonly [TensorInfo["dtype"], number]>> = { "<f4": ["F32", 4], "<f2": ["F16", 2] };

/** @throws Error with the file and the reason: unreadable, truncated, compressed, or an array of another kind. */
export function openNpz(path: string): TensorFile {
  const tensors = withZip(path, "numpy.savez, not savez_compressed", (zip) =>
    zip.members
      .filter(({ name }) => name.endsWith(".npy"))
      .map((member) => [member.name.slice(0, -".npy".length), npyTensor(zip, member)] as const),
  );
  return { path, tensors: new Map(tensors), metadata: new Map() };
}

function npyTensor({ read, fail }: ZipFile, { name, offset, bytes: size }: ZipMember): TensorInfo {
  const head = read(offset, Math.min(size, 12));
  if (head.length < 12 || head.toString("latin1", 0, 6) !== "\x93NUMPY") return fail(`'${name}' is no .npy array`);
  const long = head.readUInt8(6) >= 2;
  const start = long ? 12 : 10;
  const text = read(offset + start, long ? head.readUInt32LE(8) : head.readUInt16LE(8)).toString("latin1");
  const descr = /'descr': *'([^']*)'/.exec(text)?.[1] ?? fail(`'${name}' does not say of which type it is`);
  const [dtype, width] = DTYPES[descr] ?? fail(`'${name}' is ${descr}; little-endian float32 (<f4) and float16 (<f2) can be read`);
  if (/'fortran_order': *True/.test(text)) return fail(`'${name}' is in Fortran order: write it with numpy.ascontiguousarray`);
  const dims = /'shape': *\(([^)]*)\)/.exec(text)?.[1] ?? fail(`'${name}' has no shape`);
  const shape = dims.split(",").flatMap((dim) => (dim.trim() === "" ? [] : [Number(dim)]));
  const bytes = shape.reduce((a, b) => a * b, 1) * width;
  if (start + text.length + bytes !== size) return fail(`'${name}' of shape [${shape}] needs ${bytes} bytes, it has another number`);
  return { dtype, shape, offset: offset + start + text.length, bytes };
}
