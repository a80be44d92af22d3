// `models pull`: from a name to a model directory that the engine serves, with the autoencoders that are asked for.
import { existsSync, lstatSync, readFileSync, statSync } from "node:fs";
import { mkdir, statfs, writeFile } from "node:fs/promises";
import { totalmem } from "node:os";
import path from "node:path";
import { chooseStorage, openDirectory, type Quantise } from "../../gpu-functions/cpu/directory.ts";
import { FAMILIES } from "../../gpu-functions/cpu/family.ts";
import { measureKl } from "../../gpu-functions/cpu/kl.ts";
import { readModel } from "../../gpu-functions/cpu/model.ts";
import { quantiseModel, SIDECAR } from "../../gpu-functions/cpu/sidecar.ts";
import { CATALOG, type CatalogModel, type CatalogSource } from "../../shared/catalog.ts";
import { download } from "./download.ts";
import { type HubFile, type HubSettings, listHub } from "./hub.ts";
import { bytes, millions, Progress, type ProgressOptions } from "./progress.ts";
import { checkId, readRecord, writeRecord } from "./store.ts";

/** Memory of a weight in float32 with its packed copy, and how much of the machine's a comparison may take. */
const FLOAT_BYTES = 8;
const MEMORY_SHARE = 0.8;
/** Files fetched at once. */
const PARALLEL = 4;
const MODEL_FILES = /^(config|generation_config|tokenizer|tokenizer_config|chat_template)\.json$|^chat_template\.jinja$/;
const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";

export interface PullOptions {
  readonly hub: HubSettings;
  readonly store: string;
  readonly revision: string;
  /** As `res-jb:6,7`, `res-jb:all`. */
  readonly sources: readonly string[];
  readonly quantise: Quantise;
  readonly progress: ProgressOptions;
  readonly say: (line: string) => void;
  readonly sleep: (ms: number) => Promise<void>;
}

interface ChosenSource {
  readonly source: CatalogSource;
  readonly layer: number;
}

/** A file and its place in the model directory. */
interface Wanted {
  readonly file: HubFile;
  readonly place: string;
}

/** @param name a name of the catalogue, or a repository `owner/name`. @returns the model's directory. */
export async function pull(name: string, options: PullOptions): Promise<string> {
  const known = CATALOG.find(({ id }) => id === name) ?? fromRepository(name);
  const directory = path.join(options.store, checkId(known.id));
  if (lstatSync(directory, { throwIfNoEntry: false })?.isSymbolicLink() === true)
    throw new Error(`'${known.id}' in the store is a link to a directory of yours, which nothing is written to: remove the link first.`);
  const sources = chosenSources(known, options.sources);
  const [small, weights] = await modelFiles(known, options);
  // Small files first: a model that the engine cannot run costs no download.
  await fetchAll(small, directory, known, options);
  checkFamily(directory);
  await fetchAll([...weights, ...(await sourceFiles(sources, options))], directory, known, options);
  await writeOverrides(sources, directory);
  // All that a load would refuse is refused now, but for the values of the weights.
  readModel(directory, Number.MAX_SAFE_INTEGER);
  await quantise(directory, options);
  return directory;
}

function fromRepository(name: string): CatalogModel {
  if (!/^[\w.-]+\/[\w.-]+$/.test(name)) {
    throw new Error(
      `'${name}' is not in the catalogue (npm run models -- list shows it), and no repository of the hub, which is written owner/name.`,
    );
  }
  return { id: name.slice(name.indexOf("/") + 1), repo: name, layers: 0, width: 0 };
}

async function modelFiles({ repo, tokenizer }: CatalogModel, { hub, revision }: PullOptions): Promise<[Wanted[], Wanted[]]> {
  const { files } = await listHub(hub, repo, revision);
  const at = (name: string) => files.find(({ path: place }) => place === name);
  if (at("config.json") === undefined) throw new Error(`${repo} has no config.json: it is no model in the layout of transformers.`);
  let small = files.filter(({ path: place }) => MODEL_FILES.test(place) || place === INDEX);
  const place = (file: HubFile): Wanted => ({ file, place: file.path });
  if (at("tokenizer.json") === undefined) {
    if (tokenizer === undefined)
      throw new Error(`${repo} has no tokenizer.json, which this engine reads; older tokenizer files it does not.`);
    const other = await listHub(hub, tokenizer, "main");
    // Both files from there: a configuration belongs to its own tokenizer.
    const ofTokenizer = ({ path: name }: HubFile) => /^tokenizer(_config)?\.json$/.test(name);
    small = [...small.filter((file) => !ofTokenizer(file)), ...other.files.filter(ofTokenizer)];
  }
  const shards = files.filter(({ path: name }) => /^model-\d+-of-\d+\.safetensors$/.test(name));
  const single = at(WEIGHTS);
  const weights = single === undefined ? shards : [single];
  if (weights.length === 0) {
    const pickled = files.some(({ path: name }) => name.endsWith(".bin"));
    throw new Error(
      `${repo} has no *.safetensors.${pickled ? " It has PyTorch's pickled weights, which are not read because a pickle can run code: convert them with transformers' save_pretrained, and add the directory." : ""}`,
    );
  }
  return [(single === undefined ? small : small.filter(({ path: name }) => name !== INDEX)).map(place), weights.map(place)];
}

/** Reads `set:layers`. @throws Error naming the sets and layers there are. */
function chosenSources({ id, sources = [] }: CatalogModel, wanted: readonly string[]): ChosenSource[] {
  return wanted.flatMap((text) => {
    const [set = "", list] = text.split(":");
    const source = sources.find((known) => known.set === set);
    if (source === undefined)
      throw new Error(`'${id}' has no sources '${set}' in the catalogue: ${sources.map((s) => s.set).join(", ") || "it has none"}.`);
    const { layers } = source;
    const there = layers.length > 6 ? `${layers[0]} to ${layers.at(-1)}` : layers.join(", ");
    if (list === undefined)
      throw new Error(`Say which layers of '${set}': --source ${set}:${layers[layers.length >> 1]} or ${set}:all; there are ${there}.`);
    const chosen = list === "all" ? layers : list.split(",").map(Number);
    for (const layer of chosen) if (!layers.includes(layer)) throw new Error(`'${set}' has no layer '${list}'; it has ${there}.`);
    return chosen.map((layer) => ({ source, layer }));
  });
}

async function sourceFiles(chosen: readonly ChosenSource[], { hub }: PullOptions): Promise<Wanted[]> {
  const wanted: Wanted[] = [];
  for (const { source, layer } of chosen) {
    const folder = await concrete(hub, source.repo, source.folder(layer));
    for (const name of source.files) {
      const parent = path.posix.dirname(`${folder}/${name}`);
      const file = (await listHub(hub, source.repo, "main", parent)).files.find((each) => each.path === `${folder}/${name}`);
      if (file === undefined) throw new Error(`${source.repo} has no ${folder}/${name}: its layout has changed.`);
      wanted.push({ file, place: `sources/${layer}-${source.set}/${name}` });
    }
  }
  return wanted;
}

/** The folder that a `*` stands for: of those with a number in its place, the one closest to 100, the lower of two. */
async function concrete(hub: HubSettings, repo: string, pattern: string): Promise<string> {
  const [before, after] = pattern.split("*");
  if (before === undefined || after === undefined) return pattern;
  const { folders } = await listHub(hub, repo, "main", path.posix.dirname(pattern));
  const numbers = folders.flatMap((folder) => {
    const number = Number(folder.slice(before.length, folder.length - after.length) || Number.NaN);
    return folder.startsWith(before) && folder.endsWith(after) && Number.isFinite(number) ? [number] : [];
  });
  const [best] = numbers.sort((a, b) => Math.abs(a - 100) - Math.abs(b - 100) || a - b);
  if (best === undefined) throw new Error(`${repo} has no ${pattern}: its layout has changed.`);
  return `${before}${best}${after}`;
}

function checkFamily(directory: string): void {
  const { model_type } = JSON.parse(readFileSync(path.join(directory, "config.json"), "utf8")) as { model_type?: unknown };
  if (!FAMILIES.some(({ id }) => id === model_type)) {
    throw new Error(`This engine does not run ${JSON.stringify(model_type)} models; it runs ${FAMILIES.map(({ id }) => id).join(", ")}.`);
  }
}

/** Fetches what is not there yet and notes what came. */
async function fetchAll(all: readonly Wanted[], directory: string, { repo }: CatalogModel, options: PullOptions): Promise<void> {
  const { hub, revision, progress, sleep } = options;
  const files: Record<string, string> = { ...readRecord(directory)?.files };
  const missing = all.filter(({ file, place }) => {
    const there = statSync(path.join(directory, place), { throwIfNoEntry: false });
    return there?.size !== file.bytes || files[place] !== file.hash.hex;
  });
  if (missing.length === 0) return;
  await mkdir(directory, { recursive: true });
  const partial = missing.map(({ place }) => statSync(path.join(directory, `${place}.part`), { throwIfNoEntry: false })?.size ?? 0);
  const total = missing.reduce((sum, { file }) => sum + file.bytes, 0);
  const needed = total - partial.reduce((a, b) => a + b, 0);
  const { bavail, bsize } = await statfs(directory);
  if (needed > bavail * bsize) throw new Error(`${bytes(needed)} are needed in ${directory}, and ${bytes(bavail * bsize)} are free there.`);
  const line = new Progress(missing.length === 1 ? path.basename(missing[0]?.place ?? "") : `${missing.length} files`, total, progress);
  const queue = [...missing];
  const failures: unknown[] = [];
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined && failures.length === 0; next = queue.shift()) {
      const { file, place } = next;
      let first = true;
      const onBytes = (count: number) => {
        if (first) line.skip(count);
        else line.add(count);
        first = false;
      };
      try {
        await download(hub, file, path.join(directory, place), { onBytes, sleep });
        files[place] = file.hash.hex;
        writeRecord(directory, { repo, revision, files });
      } catch (error) {
        failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
  line.end();
  if (failures.length > 0) throw failures[0];
}

async function writeOverrides(chosen: readonly ChosenSource[], directory: string): Promise<void> {
  for (const { source, layer } of chosen) {
    const values = source.overrides?.(layer);
    if (values !== undefined)
      await writeFile(path.join(directory, "sources", `${layer}-${source.set}`, "overrides.json"), `${JSON.stringify(values)}\n`);
  }
}

async function quantise(directory: string, { quantise: how, progress, say }: PullOptions): Promise<void> {
  const { parameters } = openDirectory(directory).checkpoint;
  if (chooseStorage(parameters, how) !== "q8") return;
  if (!existsSync(path.join(directory, SIDECAR))) say("Making 8-bit blocks of the weights.");
  let line: Progress | undefined;
  let before = 0;
  const origin = await quantiseModel(directory, (done, total) => {
    line ??= new Progress("weights in 8-bit blocks", total, progress, millions);
    line.add(done - before);
    before = done;
  });
  line?.end();
  if (origin === "found") return;
  if (parameters * FLOAT_BYTES > MEMORY_SHARE * totalmem()) {
    return say(`  Not compared with the float32 weights: that would take ${bytes(parameters * FLOAT_BYTES)} of memory.`);
  }
  say("Comparing their predictions with those of the float32 weights on a fixed text.");
  const { mean, max, agreement, tokens } = await measureKl(directory);
  say(
    `  KL divergence ${mean.toExponential(1)} nats a token on average, ${max.toExponential(1)} at most; the same next token after ${(100 * agreement).toFixed(1)}% of ${tokens} tokens.`,
  );
}
