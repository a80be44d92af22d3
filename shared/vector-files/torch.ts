// Tensors that torch.save wrote (PyTorch 1.6 or later): a ZIP archive of a pickle that describes them, which is never executed, and
// their bytes. https://docs.pytorch.org/docs/stable/notes/serialization.html
import { beginsWith } from "./bytes.ts";
import { type FileVector, Found, MOST, placeOfName, refuse, shown } from "./direction.ts";
import { decodeValues } from "./floats.ts";
import { readPickle, Tensor, valueBytes } from "./pickle.ts";
import { isZip, membersOf } from "./zip.ts";

export const isTorch = isZip;

/** A bare pickle of protocol 2 to 5: older versions of torch.save, pickle.dump, joblib. */
export const isPickle = (bytes: Uint8Array): boolean =>
  ["\x80\x02", "\x80\x03", "\x80\x04", "\x80\x05"].some((magic) => beginsWith(bytes, magic));

/**
 * Reads a tensor, a dict of tensors (each a vector with its key as the name), or a list of tensors (`tensor 0`, ...).
 * @throws TillerError `invalid_request`: what is wrong, what is allowed.
 */
export function readTorch(bytes: Uint8Array): readonly FileVector[] {
  const members = membersOf(bytes);
  const pickle = [...members.keys()].find((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickle === undefined) {
    const arrays = [...members.keys()].some((name) => name.endsWith(".npy"));
    return refuse(
      arrays
        ? "The file is an archive of NumPy arrays (.npz); save one array with numpy.save (.npy) instead."
        : "The archive has no data.pkl, so torch.save did not write it; a .pt file of torch.save is the only archive that is read.",
    );
  }
  const folder = pickle.slice(0, -"data.pkl".length);
  const code = members.get(pickle) as Uint8Array;
  if (code.length > MOST.headerBytes) refuse(`The PyTorch file's data.pkl has ${code.length} bytes; at most ${MOST.headerBytes} are read.`);
  const order = members.get(`${folder}byteorder`);
  const little = order === undefined || !beginsWith(order, "big");
  const found = new Found();
  // Tensors that share bytes could make a small file a large one.
  let room = bytes.length;
  for (const [name, tensor] of tensorsOf(readPickle(code))) {
    const { storage, first, shape } = tensor;
    const data = members.get(`${folder}data/${storage.key}`);
    if (data === undefined) return refuse(`The bytes of ${shown(name)} are missing from the PyTorch file: save it again with torch.save.`);
    const size = valueBytes(tensor);
    const length = shape.reduce((a, b) => a * b, 1) * size;
    room -= length;
    if (first * size + length > data.length || room < 0)
      refuse(`${shown(name)} goes beyond its bytes or shares them with others: save tensor.clone() of each.`);
    const decode = (from: number, count: number) => decodeValues(data, (first + from) * size, count, storage.type, little);
    found.add(name, shape, decode, { place: placeOfName(name) });
  }
  if (found.vectors.length === 0) refuse("The PyTorch file holds no tensors; it must hold at least one.");
  return found.vectors;
}

function tensorsOf(value: unknown): [name: string, tensor: Tensor][] {
  const entries: [string, unknown][] =
    value instanceof Tensor
      ? [["vector", value]]
      : value instanceof Map
        ? [...(value as Map<string | number, unknown>)].map(([key, each]) => [String(key), each])
        : Array.isArray(value)
          ? (value as unknown[]).map((each, i) => [`tensor ${i}`, each])
          : refuse(`The PyTorch file holds ${kindOf(value)}; a tensor, or a dict or list of tensors, is read.`);
  return entries.map(([name, each]) =>
    each instanceof Tensor ? [name, each] : refuse(`${shown(name)} in the PyTorch file is ${kindOf(each)}; only tensors may be in it.`),
  );
}

const kindOf = (value: unknown): string =>
  value === null
    ? "None"
    : value instanceof Map
      ? "a dict"
      : Array.isArray(value)
        ? "a list"
        : typeof value === "object"
          ? "an object"
          : `a ${typeof value}`;
