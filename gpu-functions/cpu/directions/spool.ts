// Rows of float32 in a temporary file, for what takes several passes: memory does not grow with them. The file loses its name when it is
// made, so that the system frees it however its owner ends.
import { randomUUID } from "node:crypto";
import { closeSync, openSync, readSync, statfsSync, unlinkSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { TillerError } from "../../../shared/errors.ts";
import type { Pace } from "../pace.ts";
import type { Pass } from "./vectors.ts";

/** Bytes that are read at once: less than a millisecond's work. */
const BLOCK = 2 ** 20;

export class Spool {
  private file: number;
  private readonly width: number;
  private readonly rows: number;

  /** @param rows that will be written, each of `width` values, in any order. */
  constructor(width: number, rows: number, folder = tmpdir()) {
    this.width = width;
    this.rows = rows;
    const name = path.join(folder, `tiller-${randomUUID()}.spool`);
    this.file = openSync(name, "wx+", 0o600);
    unlinkSync(name);
  }

  /** @param values float32 [width] */
  write(row: number, values: Float32Array): void {
    const { byteLength } = values;
    for (let done = 0; done < byteLength; ) done += writeSync(this.file, values, done, byteLength - done, row * byteLength + done);
  }

  /** All rows, in order; they have to be written before. Other work has its turn between blocks. */
  pass(pace: Pace): Pass {
    const { width, rows } = this;
    const bytes = 4 * width;
    const most = Math.max(1, Math.floor(BLOCK / bytes));
    return async (visit) => {
      const block = new Float32Array(Math.min(most, rows) * width);
      for (let start = 0; start < rows; start += most) {
        await pace();
        const count = Math.min(most, rows - start);
        for (let done = 0; done < count * bytes; ) {
          const read = readSync(this.file, block, done, count * bytes - done, start * bytes + done);
          if (read === 0) throw new Error(`a spool of ${rows} rows ends at byte ${start * bytes + done}`);
          done += read;
        }
        for (let i = 0; i < count; i++) visit(start + i, block.subarray(i * width, (i + 1) * width));
      }
    };
  }

  close(): void {
    closeSync(this.file);
    // Its number may soon be another file's.
    this.file = -1;
  }
}

/**
 * Spools of one shape, all or none.
 * @param free bytes that the folder for temporary files has left.
 * @throws TillerError `invalid_request` when they would not fit there.
 */
export function openSpools(count: number, width: number, rows: number, free = freeBytes()): Spool[] {
  const bytes = 4 * count * width * rows;
  if (bytes > free) {
    const [needed, left] = [bytes, free].map((value) => `${Math.ceil(value / 2 ** 20)} MB`);
    throw new TillerError(
      "invalid_request",
      `${rows} texts at ${count} layers take ${needed} of temporary space; this engine has ${left}. Ask for fewer layers at once, or give fewer texts.`,
    );
  }
  const spools: Spool[] = [];
  try {
    while (spools.length < count) spools.push(new Spool(width, rows));
    return spools;
  } catch (error) {
    for (const spool of spools) spool.close();
    throw error;
  }
}

function freeBytes(): number {
  const { bavail, bsize } = statfsSync(tmpdir());
  return bavail * bsize;
}
