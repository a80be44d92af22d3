// The directions a model directory brings: `sources/<source id>/` with cfg.json and sae_weights.safetensors (SAELens layout) and
// labels.json. Only the decoder rows that are asked for are read.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import { boundaryOf, formatPoint, type Point, parsePoint, parseSource } from "../../shared/address.ts";
import { TillerError } from "../../shared/errors.ts";
import type { FeatureRef, SourceInfo } from "../../shared/protocol.ts";
import type { Shape } from "./blocks.ts";
import { openSafetensors, READABLE, readRows, type SafetensorsFile } from "./safetensors.ts";

/** SAELens keeps hook_name at the top level up to version 5 and under metadata from 6 on. `directions`: decoder rows alone. */
const Config = z.object({
  architecture: z.enum(["standard", "gated", "jumprelu", "topk", "directions"]).default("standard"),
  d_in: z.int().positive(),
  d_sae: z.int().positive(),
  hook_name: z.string().optional(),
  metadata: z.object({ hook_name: z.string().optional() }).optional(),
});

const Labels = z.object({ labels: z.record(z.string().regex(/^\d+$/), z.object({ label: z.string(), strength: z.number().optional() })) });

/** Rows kept in memory per source. */
const CACHED_ROWS = 256;

interface Source {
  readonly info: SourceInfo;
  readonly file: SafetensorsFile;
  /** Least recently used first. */
  readonly rows: Map<number, Float32Array>;
}

export interface SourceStore {
  info(): SourceInfo[];
  /**
   * The direction of a feature, float32 [width], and its point.
   * An SAE's decoder row is brought to length one (Neuronpedia folds W_dec's norms); a named direction is used as it is.
   * @throws TillerError `feature_not_found` naming what there is; `invalid_request` when the row is zero or not finite.
   */
  direction(feature: FeatureRef): { readonly direction: Float32Array; readonly point: string };
}

/**
 * Opens every source of a model directory.
 * @throws Error with the file and the reason when one does not fit the model.
 */
export function openSources(directory: string, shape: Shape): SourceStore {
  const root = path.join(directory, "sources");
  // File managers and git leave hidden files; only what looks like a source has to be one.
  const ids = existsSync(root)
    ? readdirSync(root)
        .filter((name) => !name.startsWith("."))
        .sort()
    : [];
  const sources = new Map(ids.map((id) => [id, openSource(path.join(root, id), id, shape)]));
  return {
    info: () => [...sources.values()].map((source) => source.info),
    direction(feature) {
      const source = sources.get(feature.source);
      if (source === undefined) {
        const known = [...sources.keys()].join(", ");
        throw new TillerError(
          "feature_not_found",
          `Model '${feature.model}' has no source '${feature.source}'. Its sources are: ${known || "none"}.`,
        );
      }
      const { info } = source;
      if (feature.index >= info.width) {
        throw new TillerError(
          "feature_not_found",
          `Source '${info.id}' has no feature ${feature.index}; its features are 0 to ${info.width - 1}.`,
        );
      }
      return { direction: rowOf(source, feature.index), point: info.point };
    },
  };
}

function rowOf(source: Source, index: number): Float32Array {
  const cached = source.rows.get(index);
  if (cached !== undefined) {
    source.rows.delete(index);
    source.rows.set(index, cached);
    return cached;
  }
  const row = readRows(source.file, "W_dec", index, 1);
  const length = Math.hypot(...row);
  if (!(length > 0 && Number.isFinite(length))) {
    throw new TillerError(
      "invalid_request",
      `Feature ${index} of source '${source.info.id}' cannot steer: its decoder row is zero or not finite. Choose another feature.`,
    );
  }
  if (source.info.architecture !== "directions") {
    for (let d = 0; d < row.length; d++) row[d] = (row[d] as number) / length;
  }
  source.rows.set(index, row);
  if (source.rows.size > CACHED_ROWS) source.rows.delete(source.rows.keys().next().value as number);
  return row;
}

function openSource(directory: string, id: string, shape: Shape): Source {
  const configFile = path.join(directory, "cfg.json");
  const fail = (reason: string): never => {
    throw new Error(`${configFile}: ${reason}`);
  };
  const address = parseSource(id);
  if (address === undefined) throw new Error(`${directory}: a source is called {layer}-{name}, such as 6-res-jb`);
  const config = parseFile(configFile, Config);
  const name = config.hook_name ?? config.metadata?.hook_name ?? fail("hook_name is missing");
  const point = pointOf(name, shape, fail);
  if (point.layer !== address.layer) fail(`hook_name is ${name}, but the source is called ${id}`);
  if (config.d_in !== shape.width) fail(`d_in is ${config.d_in}, the model's residual stream has ${shape.width} values`);
  const file = openSafetensors(path.join(directory, "sae_weights.safetensors"));
  const decoder = file.tensors.get("W_dec");
  if (decoder === undefined || decoder.shape.join() !== [config.d_sae, config.d_in].join()) {
    throw new Error(
      `${file.path}: W_dec must have shape [${config.d_sae}, ${config.d_in}]; it is ${decoder === undefined ? "missing" : `[${decoder.shape}]`}`,
    );
  }
  if (!READABLE.has(decoder.dtype)) throw new Error(`${file.path}: W_dec is ${decoder.dtype}; F32, F16 and BF16 can be read`);
  const labelFile = path.join(directory, "labels.json");
  const labels = existsSync(labelFile) ? parseFile(labelFile, Labels).labels : {};
  const labelled = Object.entries(labels)
    .map(([index, { label, strength }]) => ({ index: Number(index), label, ...(strength === undefined ? {} : { strength }) }))
    .sort((a, b) => a.index - b.index);
  for (const { index } of labelled)
    if (index >= config.d_sae) throw new Error(`${labelFile}: there is no feature ${index}; they are 0 to ${config.d_sae - 1}`);
  const info = { id, point: formatPoint(point), width: config.d_sae, architecture: config.architecture, labelled_features: labelled };
  return { info, file, rows: new Map() };
}

function pointOf(name: string, shape: Shape, fail: (reason: string) => never): Point {
  try {
    const point = parsePoint(name);
    boundaryOf(point, shape.layers);
    return point;
  } catch (cause) {
    return fail(`hook_name: ${(cause as Error).message}`);
  }
}

function parseFile<Schema extends z.ZodType>(file: string, schema: Schema): z.output<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, "utf8"));
  } catch (cause) {
    throw new Error(`${file} cannot be read as JSON`, { cause });
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new Error(`${file}: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}
