// features.jsonl of a source: what `npm run features` found out about its features on texts. A line of the run, then one line per
// feature in order. Lines are found by an index of where they begin; what they hold stays on the disk.
import { type FileHandle, open } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import { TillerError } from "../../shared/errors.ts";
import { FeatureStats } from "../../shared/features.ts";
import { stampOf } from "./labels.ts";

export const FEATURES_FILE = "features.jsonl";

/** The first line: what was run. */
export const FeaturesHeader = z.object({
  model: z.string(),
  source: z.string(),
  /** Tokens that were read, BOS left out, and texts they came from. */
  tokens: z.int(),
  texts: z.int(),
  created: z.string(),
  settings: z.record(z.string(), z.unknown()),
});
export type FeaturesHeader = z.infer<typeof FeaturesHeader>;

/** The line of a feature. `label` is the automatic one; null when it was active nowhere. */
export const FeatureLine = z.object({ index: z.int(), label: z.string().nullable(), ...FeatureStats.shape });
export type FeatureLine = z.infer<typeof FeatureLine>;
/** What is read of every line for the index. */
const Brief = FeatureLine.pick({ index: true, label: true, density: true, max_activation: true });

/** What is known of all features at once. */
export interface FeatureIndex {
  readonly densities: Float64Array;
  readonly maxima: Float64Array;
  readonly labels: readonly (string | null)[];
}
interface Lines extends FeatureIndex {
  readonly stamp: string;
  /** Of the first byte of every feature's line, and of the end. */
  readonly offsets: Float64Array;
}

const PART = 2 ** 20;
const NEWLINE = 10;

export class FeatureFile {
  private readonly file: string;
  private readonly source: string;
  private readonly width: number;
  private lines: { readonly stamp: string; readonly found: Promise<Lines> } | undefined;

  /** @param width features of the source. */
  constructor(directory: string, source: string, width: number) {
    this.file = path.join(directory, FEATURES_FILE);
    this.source = source;
    this.width = width;
  }

  /** Changes whenever the file does; undefined while there is none. */
  revision(): string | undefined {
    return stampOf(this.file);
  }

  /** Undefined while there is no file. @throws TillerError `engine_failed` when it is damaged. */
  index(): Promise<FeatureIndex | undefined> {
    return this.withLines(async (_, lines) => lines);
  }

  /** The lines of some features, with the index of the same file; undefined while there is none. @throws like `index`. */
  read(indexes: readonly number[]): Promise<FeatureLine[] | undefined> {
    return this.withLines(async (handle, { offsets }) => {
      const found: FeatureLine[] = [];
      for (const index of indexes) {
        const [start, end] = [offsets[index] as number, offsets[index + 1] as number];
        const { buffer } = await handle.read(Buffer.alloc(end - start), 0, end - start, start);
        found.push(this.parse(FeatureLine, buffer.toString("utf8"), index + 2));
      }
      return found;
    });
  }

  /** Opens the file as it is now: one that takes its place meanwhile does not disturb. */
  private async withLines<T>(work: (handle: FileHandle, lines: Lines) => Promise<T>): Promise<T | undefined> {
    let handle: FileHandle;
    try {
      handle = await open(this.file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw this.damaged("it cannot be read", error);
    }
    try {
      const { size, mtimeMs, ino } = await handle.stat();
      const stamp = `${size} ${mtimeMs} ${ino}`;
      if (this.lines?.stamp !== stamp) this.lines = { stamp, found: this.findLines(handle, stamp) };
      return await work(handle, await this.lines.found);
    } finally {
      await handle.close();
    }
  }

  private async findLines(handle: FileHandle, stamp: string): Promise<Lines> {
    const { width } = this;
    const offsets = new Float64Array(width + 1);
    const [densities, maxima] = [new Float64Array(width), new Float64Array(width)];
    const labels: (string | null)[] = [];
    let number = 0;
    for await (const { line, end } of readLines(handle)) {
      number++;
      if (number === 1) {
        const { source } = this.parse(FeaturesHeader, line, number);
        if (source !== this.source) throw this.damaged(`it is of source '${source}'`);
        offsets[0] = end;
        continue;
      }
      const { index, label, density, max_activation } = this.parse(Brief, line, number);
      if (index !== number - 2 || index >= width) throw this.damaged(`line ${number} is of feature ${index}`);
      labels.push(label);
      [densities[index], maxima[index], offsets[index + 1]] = [density, max_activation, end];
    }
    if (labels.length !== width) throw this.damaged(`it has ${labels.length} features, the source ${width}`);
    return { stamp, offsets, densities, maxima, labels };
  }

  private parse<Schema extends z.ZodType>(schema: Schema, line: string, number: number): z.output<Schema> {
    try {
      return schema.parse(JSON.parse(line));
    } catch (cause) {
      throw this.damaged(`line ${number} is not what it should be`, cause);
    }
  }

  private damaged(reason: string, cause?: unknown): TillerError {
    return new TillerError(
      "engine_failed",
      `${FEATURES_FILE} of source '${this.source}' cannot be used: ${reason}. npm run features makes a new one.`,
      { cause },
    );
  }
}

/** Lines of a file, each with the position after its line feed; what follows the last one is a line too. */
async function* readLines(handle: FileHandle): AsyncGenerator<{ line: string; end: number }> {
  let rest: Uint8Array = new Uint8Array();
  let position = 0;
  for (;;) {
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(PART), 0, PART, position);
    if (bytesRead === 0) break;
    const bytes = Buffer.concat([rest, buffer.subarray(0, bytesRead)]);
    const first = position - rest.length;
    let start = 0;
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, start)) {
      yield { line: bytes.toString("utf8", start, end), end: first + end + 1 };
      start = end + 1;
    }
    rest = bytes.subarray(start);
    position += bytesRead;
  }
  if (rest.length > 0) yield { line: new TextDecoder().decode(rest), end: position };
}
