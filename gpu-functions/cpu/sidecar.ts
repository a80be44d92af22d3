// The 8-bit blocks of a checkpoint (quantise.ts): made once, kept in a safetensors file beside the weights, read at every later load.
// The file names the weights it was made of; when they have changed, or it is damaged, it is made again. Where none can be written
// the blocks are computed at every load.
import { readdirSync, rmSync, statSync } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import path from "node:path";
import { blockNames, type Weight } from "./blocks.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { openDirectory } from "./directory.ts";
import type { FamilyModel } from "./family.ts";
import { BLOCK, blockShape, type Layout, quantisePart } from "./quantise.ts";
import { encodeHeader, openSafetensors, readBytes, type TensorFile } from "./safetensors.ts";

export const SIDECAR = "model.q8.safetensors";
/** Of the bytes and their meaning; a file of another version is made again. */
const FORMAT = "tiller-q8-1";
/** Values quantised at a time: little memory, and a moment for others between the parts. */
const PART = 4 * 2 ** 20;
/** A temporary file that nobody has written to for so long belongs to a process that died. */
const ABANDONED_MS = 10 * 60_000;

/** Called with the number of weights quantised so far and in all. */
export type Progress = (done: number, total: number) => void;

/** A weight of the graph that is held as blocks. */
interface BlockWeight extends Weight {
  readonly tensor: string;
  readonly blocks: Layout;
}

/** Where a session gets its blocks. */
export interface BlockSource {
  /** Fills `blocks` [outputs, perOutput, 32] and `scales` [outputs, perOutput]. */
  read(name: string, weight: Weight, blocks: Uint8Array, scales: Float32Array): void;
  readonly origin: "found" | "written" | "computed";
}

/**
 * The blocks of every weight that has them, from the file beside the checkpoint, which is written when it is absent or stale.
 * @throws Error naming the tensors that are missing, or the one that holds a value that is not finite.
 */
export async function openBlocks(model: FamilyModel, checkpoint: Checkpoint, onProgress?: Progress): Promise<BlockSource> {
  const { weights } = model.build("plain", "q8");
  checkpoint.check(weights.values());
  const wanted = new Map([...weights].filter((entry): entry is [string, BlockWeight] => entry[1].blocks !== undefined));
  const file = path.join(path.dirname(checkpoint.path), SIDECAR);
  const metadata = { format: FORMAT, source: JSON.stringify(checkpoint.identity()) };
  const found = findSidecar(file, metadata, wanted);
  if (found !== undefined) return fromFile(found, "found");
  try {
    await writeSidecar(file, metadata, checkpoint, wanted, onProgress);
  } catch (error) {
    // A read-only or full disk costs time at every load, nothing else.
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    return computedBlocks(checkpoint);
  }
  return fromFile(openSafetensors(file), "written");
}

/**
 * Quantises a model directory ahead of its first load.
 * @returns where the blocks are: "found" beside the weights, "written" there now, or "computed" because nothing can be written.
 */
export async function quantiseModel(directory: string, onProgress?: Progress): Promise<BlockSource["origin"]> {
  const { model, checkpoint } = openDirectory(directory);
  return (await openBlocks(model, checkpoint, onProgress)).origin;
}

/** Blocks that are computed when they are asked for, and kept nowhere. */
export function computedBlocks(checkpoint: Checkpoint): BlockSource {
  const read = (_: string, weight: Weight, blocks: Uint8Array, scales: Float32Array) => {
    for (const _part of quantiseParts(checkpoint, weight as BlockWeight, blocks, scales));
  };
  return { origin: "computed", read };
}

function fromFile(file: TensorFile, origin: "found" | "written"): BlockSource {
  const read = (name: string, _: Weight, blocks: Uint8Array, scales: Float32Array) => {
    const [blockName, scaleName] = blockNames(name);
    readBytes(file, blockName, blocks);
    readBytes(file, scaleName, new Uint8Array(scales.buffer, scales.byteOffset, scales.byteLength));
  };
  return { origin, read };
}

type Metadata = Readonly<Record<string, string>>;

function findSidecar(file: string, metadata: Metadata, weights: ReadonlyMap<string, BlockWeight>): TensorFile | undefined {
  let found: TensorFile;
  try {
    found = openSafetensors(file);
  } catch {
    return undefined;
  }
  const holds = tensorsOf(weights).every(({ name, dtype, shape }) => {
    const info = found.tensors.get(name);
    return info?.dtype === dtype && info.shape.join() === shape.join();
  });
  return holds && Object.entries(metadata).every(([key, value]) => found.metadata.get(key) === value) ? found : undefined;
}

function tensorsOf(weights: ReadonlyMap<string, BlockWeight>) {
  return [...weights].flatMap(([key, { dims, blocks }]) => {
    const { outputs, perOutput } = blockShape(dims, blocks);
    const [blockName, scaleName] = blockNames(key);
    return [
      { name: blockName, dtype: "U8" as const, shape: [outputs, perOutput, BLOCK] },
      { name: scaleName, dtype: "F32" as const, shape: [outputs, perOutput] },
    ];
  });
}

/** Atomic: the file appears under its name only when it is whole. */
async function writeSidecar(
  file: string,
  metadata: Metadata,
  checkpoint: Checkpoint,
  weights: ReadonlyMap<string, BlockWeight>,
  onProgress: Progress | undefined,
): Promise<void> {
  removeAbandoned(file);
  const temporary = `${file}.${process.pid}.part`;
  const total = [...weights.values()].reduce((sum, { dims }) => sum + dims.reduce((a, b) => a * b, 1), 0);
  let finished = 0;
  const out = await open(temporary, "w");
  try {
    try {
      await writeAll(out, encodeHeader(tensorsOf(weights), metadata));
      for (const weight of weights.values()) {
        const { outputs, perOutput } = blockShape(weight.dims, weight.blocks);
        const blocks = new Uint8Array(outputs * perOutput * BLOCK);
        const scales = new Float32Array(outputs * perOutput);
        for (const count of quantiseParts(checkpoint, weight, blocks, scales)) {
          finished += count;
          onProgress?.(finished, total);
          await new Promise<void>((resolve) => setImmediate(resolve));
        }
        await writeAll(out, blocks);
        await writeAll(out, new Uint8Array(scales.buffer));
      }
      await out.sync();
    } finally {
      await out.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

async function writeAll(out: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += (await out.write(bytes, done, Math.min(bytes.length - done, 2 ** 30))).bytesWritten;
}

function removeAbandoned(file: string): void {
  const directory = path.dirname(file);
  for (const name of readdirSync(directory)) {
    const other = path.join(directory, name);
    if (!name.startsWith(`${SIDECAR}.`) || !name.endsWith(".part")) continue;
    if ((statSync(other, { throwIfNoEntry: false })?.mtimeMs ?? Number.POSITIVE_INFINITY) < Date.now() - ABANDONED_MS)
      rmSync(other, { force: true });
  }
}

/** Quantises a tensor part by part and yields how many weights each part had. */
function* quantiseParts(checkpoint: Checkpoint, weight: BlockWeight, blocks: Uint8Array, scales: Float32Array): Generator<number> {
  const shape = blockShape(weight.dims, weight.blocks);
  const [rows, columns] = weight.dims as [number, number];
  const step = Math.max(1, Math.floor(PART / columns / BLOCK)) * BLOCK;
  for (let first = 0; first < rows; first += step) {
    const values = checkpoint.readRows(weight.tensor, first, Math.min(step, rows - first));
    try {
      quantisePart(values, shape, weight.blocks, first, blocks, scales);
    } catch (cause) {
      throw new Error(`${checkpoint.path}: tensor '${weight.tensor}': ${(cause as Error).message}, so it has no 8-bit form`, { cause });
    }
    yield values.length;
  }
}
