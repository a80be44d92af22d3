// The folder of models that were pulled or added: one model directory each, in the layout the engines read.
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { defaultCacheBytes, defaultModelBytes, planBytes } from "../../gpu-functions/cpu/memory.ts";
import { readModel } from "../../gpu-functions/cpu/model.ts";
import { ROOT } from "../edge-bundle.ts";

/** What `pull` notes of a model beside its files. */
const RECORD = "hub.json";
const ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$/;

export interface StoredModel {
  readonly id: string;
  readonly directory: string;
  readonly bytes: number;
  /** Added from elsewhere: only a link is here. */
  readonly linked: boolean;
  /** Why it cannot be served; undefined when it can. */
  readonly problem: string | undefined;
}

/** TILLER_MODELS, or .tiller/models of the checkout. */
export const storeFolder = (environment: Readonly<Record<string, string | undefined>> = process.env): string =>
  path.resolve(environment.TILLER_MODELS || path.join(ROOT, ".tiller", "models"));

/** @throws Error when the id could leave the store or is no model id. */
export function checkId(id: string): string {
  if (!ID.test(id)) throw new Error(`'${id}' is no model id: letters, digits, '.', '_' and '-', beginning with a letter or digit.`);
  return id;
}

/** Every model of the store, and why those that cannot be served cannot. */
export function storedModels(folder: string): StoredModel[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((id) => ID.test(id) && statSync(path.join(folder, id), { throwIfNoEntry: false })?.isDirectory() === true)
    .sort()
    .map((id) => {
      const directory = path.join(folder, id);
      return { id, directory, bytes: sizeOf(directory), linked: lstatSync(directory).isSymbolicLink(), problem: problemOf(directory) };
    });
}

/** Why the engine could not serve a directory on this machine. */
export function problemOf(directory: string): string | undefined {
  try {
    const { plan } = readModel(directory, defaultCacheBytes());
    const [needed, there] = [planBytes(plan), defaultModelBytes()];
    if (needed > there)
      return `it needs ${(needed / 1e9).toFixed(1)} GB of memory, and models may take ${(there / 1e9).toFixed(1)} GB on this machine`;
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

function sizeOf(directory: string): number {
  let sum = 0;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const name = path.join(directory, entry.name);
    if (entry.isDirectory()) sum += sizeOf(name);
    else sum += statSync(name, { throwIfNoEntry: false })?.size ?? 0;
  }
  return sum;
}

/** Links a model directory into the store. @throws Error when it is no model, or its name is taken. @returns its id. */
export function addModel(folder: string, directory: string): string {
  const source = path.resolve(directory);
  const id = checkId(path.basename(source));
  if (!existsSync(path.join(source, "config.json")))
    throw new Error(`There is no model in ${source}: a model directory has config.json, model.safetensors and tokenizer.json.`);
  const target = path.join(folder, id);
  if (lstatSync(target, { throwIfNoEntry: false }) !== undefined)
    throw new Error(`There is a model '${id}' in the store already: remove it first, or rename the directory.`);
  const problem = problemOf(source);
  if (problem !== undefined) throw new Error(`${source} cannot be served: ${problem}.`);
  mkdirSync(folder, { recursive: true });
  symlinkSync(source, target, "junction");
  return id;
}

/** @throws Error naming the models there are. @returns the bytes that were freed: none for a link, whose directory stays. */
export function removeModel(folder: string, id: string): number {
  const target = path.join(folder, checkId(id));
  const entry = lstatSync(target, { throwIfNoEntry: false });
  if (entry === undefined) {
    const known = existsSync(folder) ? readdirSync(folder).filter((name) => ID.test(name)) : [];
    throw new Error(`There is no model '${id}' in the store. It holds: ${known.join(", ") || "none"}.`);
  }
  const freed = entry.isSymbolicLink() ? 0 : sizeOf(target);
  // Of a link only the link goes: recursive removal does not follow it.
  rmSync(target, { recursive: true });
  return freed;
}

export interface PullRecord {
  readonly repo: string;
  readonly revision: string;
  /** Hash of every file that was fetched, by its path in the model directory. */
  readonly files: Readonly<Record<string, string>>;
}

/** What was noted when a model was pulled; undefined when it was not, or cannot be read any more. */
export function readRecord(directory: string): PullRecord | undefined {
  try {
    const { repo, revision, files } = JSON.parse(readFileSync(path.join(directory, RECORD), "utf8")) as PullRecord;
    return { repo, revision, files };
  } catch {
    return undefined;
  }
}

/** Whole or not at all, and at once: several downloads end at about the same time, and a damaged note costs all of them again. */
export function writeRecord(directory: string, record: PullRecord): void {
  const file = path.join(directory, RECORD);
  writeFileSync(`${file}.part`, `${JSON.stringify(record, null, 1)}\n`);
  renameSync(`${file}.part`, file);
}
