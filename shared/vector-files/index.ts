// Vectors as files: what users upload, and what they take away again.
import { TillerError } from "../errors.ts";
import { type FileVector, type OutVector, refuse, shown } from "./direction.ts";
import { isGguf, readGguf, writeGguf } from "./gguf.ts";
import { isNpy, readNpy, writeNpy } from "./npy.ts";
import { isSafetensors, readSafetensors, writeSafetensors } from "./safetensors.ts";
import { readJson, readNumbers, writeJson } from "./text.ts";
import { isPickle, isTorch, readTorch } from "./torch.ts";

export type { FileVector } from "./direction.ts";

const READ = "NumPy (.npy), safetensors, GGUF control vectors, PyTorch (.pt of torch.save), JSON, and text of numbers are read";
/** Formats whose files are known by their first bytes; a file that only bears the name is truncated or something else. */
const BINARY = /\.(npy|npz|safetensors|gguf|pt|pth|bin|pkl)$/i;

/**
 * Reads the directions of a file, by what it is and not by what it is called; the name only tells kinds of text apart.
 * @throws TillerError `invalid_request`: what is wrong with the file, what is allowed.
 */
export function readVectorFile(bytes: Uint8Array, fileName?: string): readonly FileVector[] {
  if (bytes.length === 0) refuse(`The file is empty; ${READ}.`);
  if (isNpy(bytes)) return readNpy(bytes);
  if (isGguf(bytes)) return readGguf(bytes);
  if (isTorch(bytes)) return readTorch(bytes);
  if (isSafetensors(bytes)) return readSafetensors(bytes);
  if (isPickle(bytes))
    refuse("The file is a bare pickle, which is never read: save it with torch.save of PyTorch 1.6 or later, or as .npy or safetensors.");
  return readText(bytes, fileName ?? "");
}

function readText(bytes: Uint8Array, fileName: string): readonly FileVector[] {
  const ending = BINARY.exec(fileName)?.[0];
  if (ending !== undefined)
    refuse(`The file is called ${shown(fileName)} and does not begin as a ${ending} file does: it may be truncated. ${READ}.`);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch (cause) {
    throw new TillerError("invalid_request", `The file is of no known format; ${READ}.`, { cause });
  }
  if (text.trim() === "") refuse(`The file is empty; ${READ}.`);
  return /\.json$/i.test(fileName) || /^\s*[[{]/.test(text) ? readJson(text) : readNumbers(text);
}

export const EXPORTS = ["json", "npy", "safetensors", "gguf"] as const;
export type ExportFormat = (typeof EXPORTS)[number];

const WRITERS: Readonly<Record<ExportFormat, (vectors: readonly OutVector[]) => Uint8Array<ArrayBuffer>>> = {
  json: writeJson,
  npy: writeNpy,
  safetensors: writeSafetensors,
  gguf: writeGguf,
};

/**
 * Writes vectors so that `readVectorFile` gives them back: exactly, but for gguf, which holds float32. json and safetensors keep
 * the names and where they act, gguf where they act, npy the values alone.
 * @throws TillerError `invalid_request`: what the format cannot hold.
 */
export function writeVectorFile(
  format: ExportFormat,
  vectors: readonly OutVector[],
): { bytes: Uint8Array<ArrayBuffer>; contentType: string; extension: string } {
  if (vectors.length === 0) refuse("A file of vectors must hold at least one vector.");
  return {
    bytes: WRITERS[format](vectors),
    contentType: format === "json" ? "application/json" : "application/octet-stream",
    extension: format,
  };
}
