// labels.json of a source, as it is now: whoever edits it need not start the engine again.
import { statSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import type { SourceInfo } from "../../shared/protocol.ts";
import { parseFile } from "./source-file.ts";

const LabelFile = z.object({
  labels: z.record(z.string().regex(/^\d+$/), z.object({ label: z.string(), strength: z.number().optional() })),
});

type Label = SourceInfo["labelled_features"][number];

/** Changes whenever a file does; undefined while there is none. */
export function stampOf(file: string): string | undefined {
  const found = statSync(file, { throwIfNoEntry: false });
  return found === undefined ? undefined : `${found.size} ${found.mtimeMs} ${found.ino}`;
}

export class Labels {
  private readonly file: string;
  private readonly width: number;
  private stamp: string | undefined;
  private byIndex: ReadonlyMap<number, Label> = new Map();

  /** @param width features of the source. @throws Error with the file and the reason when it is there and cannot be used. */
  constructor(directory: string, width: number) {
    this.file = path.join(directory, "labels.json");
    this.width = width;
    const stamp = this.revision();
    if (stamp !== undefined) this.byIndex = this.read();
    this.stamp = stamp;
  }

  revision(): string | undefined {
    return stampOf(this.file);
  }

  /** By index, in its order. */
  current(): ReadonlyMap<number, Label> {
    const stamp = this.revision();
    if (stamp === this.stamp) return this.byIndex;
    try {
      this.byIndex = stamp === undefined ? new Map() : this.read();
      this.stamp = stamp;
    } catch {
      // Somebody is writing it, or wrote it badly: what it said before holds until it can be read again.
    }
    return this.byIndex;
  }

  private read(): Map<number, Label> {
    const labels = Object.entries(parseFile(this.file, LabelFile).labels)
      .map(([index, { label, strength }]): Label => ({ index: Number(index), label, ...(strength === undefined ? {} : { strength }) }))
      .sort((a, b) => a.index - b.index);
    for (const { index } of labels)
      if (index >= this.width) throw new Error(`${this.file}: there is no feature ${index}; they are 0 to ${this.width - 1}`);
    return new Map(labels.map((label) => [label.index, label]));
  }
}
