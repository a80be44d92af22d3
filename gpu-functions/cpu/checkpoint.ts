// A model's weights: one model.safetensors, or the shards that model.safetensors.index.json lists, read as one set of tensors.
import { existsSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import type { Weight } from "./blocks.ts";
import { openSafetensors, READABLE, readRows, readTensor, type TensorFile, type TensorInfo } from "./safetensors.ts";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
/** How many names an error lists before it only counts. */
const LISTED = 20;

const Index = z.object({ weight_map: z.record(z.string(), z.string().regex(/^[^/\\]+\.safetensors$/, "is no file of the directory")) });

export class Checkpoint {
  /** Path of what lists the tensors: the file itself or the index of its shards. */
  readonly path: string;
  /** Name of a file in the checkpoint's directory that holds tensors. */
  readonly firstFile: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  private readonly files: ReadonlyMap<string, TensorFile>;

  /** @param files by tensor name. */
  constructor(listing: string, files: ReadonlyMap<string, TensorFile>) {
    this.path = listing;
    this.files = files;
    this.tensors = new Map([...files].map(([name, file]) => [name, file.tensors.get(name) as TensorInfo]));
    const [first] = files.values();
    if (first === undefined) throw new Error(`${listing} lists no tensors`);
    this.firstFile = path.basename(first.path);
  }

  /**
   * Compares what is needed with what there is.
   * @throws Error naming every tensor that is missing or has another shape or type, all at once.
   */
  check(weights: Iterable<Weight>): void {
    const missing: string[] = [];
    const wrong: string[] = [];
    for (const { tensor, dims } of weights) {
      if (tensor === undefined) continue;
      const info = this.tensors.get(tensor);
      if (info === undefined) missing.push(`'${tensor}'`);
      else if (info.shape.join() !== dims.join()) {
        wrong.push(`tensor '${tensor}' has shape [${info.shape}], the configuration asks for [${dims}]`);
      } else if (!READABLE.has(info.dtype)) wrong.push(`tensor '${tensor}' is ${info.dtype}; F32, F16 and BF16 can be read`);
    }
    if (missing.length > 0) throw new Error(`${this.path} has no tensor ${listed(missing, ", ")}`);
    if (wrong.length > 0) throw new Error(`${this.path}: ${listed(wrong, "; ")}`);
  }

  /** A tensor's values as float32, row-major. @throws Error when it cannot be read. */
  read(name: string): Float32Array {
    return readTensor(this.fileOf(name), name);
  }

  /** Rows start .. start + count - 1 of a tensor. @throws Error when they cannot be read. */
  readRows(name: string, start: number, count: number): Float32Array {
    return readRows(this.fileOf(name), name, start, count);
  }

  private fileOf(name: string): TensorFile {
    const file = this.files.get(name);
    if (file === undefined) throw new Error(`${this.path} has no tensor '${name}'`);
    return file;
  }

  get parameters(): number {
    return [...this.tensors.values()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  }

  /** Name, size and time of the last change of every file with weights: when they are the same, so are the weights. */
  identity(): { file: string; bytes: number; modified_ns: string }[] {
    const paths = [...new Set([...this.files.values()].map((file) => file.path))].sort();
    return paths.map((file) => {
      const { size, mtimeNs } = statSync(file, { bigint: true });
      return { file: path.basename(file), bytes: Number(size), modified_ns: String(mtimeNs) };
    });
  }
}

function listed(items: readonly string[], separator: string): string {
  const more = items.length - LISTED;
  return items.slice(0, LISTED).join(separator) + (more > 0 ? ` and ${more} more` : "");
}

/**
 * Opens the weights of a model directory. A single file is preferred to shards, as transformers does.
 * @throws Error with the file and the reason: missing, damaged, or an index that does not match its shards.
 */
export function openCheckpoint(directory: string): Checkpoint {
  const single = path.join(directory, SINGLE);
  const index = path.join(directory, INDEX);
  if (existsSync(single) || !existsSync(index)) {
    const file = openSafetensors(single);
    return new Checkpoint(single, new Map([...file.tensors.keys()].map((name) => [name, file])));
  }
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(index, "utf8"));
  } catch (cause) {
    throw new Error(`${index} cannot be read as JSON`, { cause });
  }
  const parsed = Index.safeParse(json);
  if (!parsed.success) throw new Error(`${index}: ${z.prettifyError(parsed.error)}`);
  const placed = Object.entries(parsed.data.weight_map);
  const shards = new Map([...new Set(placed.map(([, shard]) => shard))].map((name) => [name, openSafetensors(path.join(directory, name))]));
  const files = new Map<string, TensorFile>();
  const absent: string[] = [];
  for (const [name, shard] of placed) {
    const file = shards.get(shard) as TensorFile;
    if (file.tensors.has(name)) files.set(name, file);
    else absent.push(`'${name}' is not in ${shard}`);
  }
  if (absent.length > 0) throw new Error(`${index} does not match its shards: ${listed(absent, ", ")}`);
  return new Checkpoint(index, files);
}
