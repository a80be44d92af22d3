// What a run depends on: the model and its source, found by name, and a digest of everything that can change the result.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, statSync } from "node:fs";
import path from "node:path";
import { FEATURES_FILE } from "../../gpu-functions/cpu/feature-file.ts";
import type { KnownModel } from "../../gpu-functions/cpu/model.ts";
import { ROOT } from "../edge-bundle.ts";
import { storeFolder } from "../models/store.ts";
import type { TextFile } from "./texts.ts";

const BUNDLED = path.join(ROOT, "gpu-functions", "bundled");
/** Raised when a run of the same inputs would give another result. */
const VERSION = 1;

/** The directory of a model. @throws Error naming the models there are. */
export function findModel(id: string, environment: Readonly<Record<string, string | undefined>>): string {
  const folders = [BUNDLED, storeFolder(environment)];
  const known = folders
    .flatMap((folder) => (existsSync(folder) ? readdirSync(folder).map((name) => path.join(folder, name)) : []))
    .filter((directory) => existsSync(path.join(directory, "config.json")));
  const found = known.find((directory) => path.basename(directory) === id);
  if (found !== undefined) return found;
  const names = known.map((directory) => path.basename(directory)).join(", ");
  throw new Error(`There is no model '${id}'. There are: ${names || "none"}. npm run models -- pull NAME fetches others.`);
}

export interface Settings {
  /** Tokens of a window, BOS not counted. */
  readonly context: number;
  readonly examples: number;
  /** Tokens that are read at most; null: all. */
  readonly limit: number | null;
}

/** Of texts by content; of model and source by the names, sizes and times of their files, which may be large. */
export function digestInputs(known: KnownModel, source: string, settings: Settings, files: readonly TextFile[]): string {
  const sourceDirectory = known.sources.directory(source);
  const model = filesOf(known.directory, new Set(["sources", "README.md"]));
  const ofSource = filesOf(sourceDirectory, new Set(["labels.json", FEATURES_FILE]));
  const texts = files.map(({ sha256, marked }) => [sha256, marked]);
  const inputs = [VERSION, known.info.id, known.info.dtype, model, source, ofSource, settings, texts];
  return createHash("sha256").update(JSON.stringify(inputs)).digest("hex");
}

/** Files of a directory, without what the engine and this run make of them themselves. */
export function filesOf(directory: string, without: ReadonlySet<string>): [name: string, size: number, time: number][] {
  return readdirSync(directory, { recursive: true, encoding: "utf8" })
    .filter((name) => !without.has(name.split(path.sep)[0] as string) && !/(^|[/\\])\.|\.q8\.safetensors|\.part(ial)?$/.test(name))
    .sort()
    .flatMap((name) => {
      const found = statSync(path.join(directory, name));
      return found.isFile() ? [[name, found.size, found.mtimeMs] as [string, number, number]] : [];
    });
}
