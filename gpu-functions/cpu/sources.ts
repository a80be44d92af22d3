// The directions a model directory brings: `sources/<source id>/` with an autoencoder (sae-formats.ts) or named directions, and labels.
import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import { formatPoint, type Point, parseSource } from "../../shared/address.ts";
import { TillerError } from "../../shared/errors.ts";
import type { FeatureRef, SourceInfo } from "../../shared/protocol.ts";
import type { Latent } from "../../shared/steering.ts";
import type { Shape } from "./blocks.ts";
import { FeatureFile } from "./feature-file.ts";
import { Labels } from "./labels.ts";
import { decoderRow, type LatentMatrix, latentOf, latentVector, type Sae } from "./sae.ts";
import { openSae } from "./sae-formats.ts";
import { openSafetensors } from "./safetensors.ts";
import { parseFile, pointOf, Tensors } from "./source-file.ts";

/** Named directions without an encoder: rows of W_dec, in the layout of SAELens. */
const Directions = z.object({
  architecture: z.literal("directions"),
  d_in: z.int().positive(),
  d_sae: z.int().positive(),
  hook_name: z.string(),
});

/** Rows kept in memory per source. */
const CACHED_ROWS = 256;

/** What never changes of a source's description. */
type FixedInfo = Pick<SourceInfo, "id" | "point" | "width" | "architecture">;

/** What is known of a source's features. */
export interface SourceFeatures {
  readonly info: FixedInfo;
  /** All directions, as they are stored: their lengths mean nothing. */
  readonly decoder: LatentMatrix;
  readonly labels: Labels;
  readonly file: FeatureFile;
}

interface Source extends SourceFeatures {
  readonly directory: string;
  /** Undefined for named directions. */
  readonly sae: Sae | undefined;
  /** The row as it steers, and what activations are multiplied by. */
  readonly row: (index: number) => { direction: Float32Array; norm: number };
  /** Least recently used first. */
  readonly rows: Map<number, { readonly direction: Float32Array; readonly norm: number }>;
}

/** A feature that was found. */
export interface Feature {
  /** float32 [width], finite and not zero. */
  readonly direction: Float32Array;
  readonly point: string;
}

export interface SourceStore {
  /** Every source, with its labels as they are now. */
  info(): SourceInfo[];
  /**
   * An autoencoder's decoder row is brought to length one (Neuronpedia folds W_dec's norms); a named direction is used as it is.
   * @throws TillerError `feature_not_found` naming what there is; `invalid_request` when the row is zero or not finite.
   */
  direction(feature: FeatureRef): Feature;
  /**
   * The feature as a latent whose activation is a function of one projection.
   * @throws TillerError as `direction`; `invalid_request` when it is no latent, or not one of that kind.
   */
  latent(feature: FeatureRef): Feature & { readonly latent: Latent };
  /** @throws TillerError `feature_not_found`, or `invalid_request` for named directions, which have no encoder. */
  sae(source: string): Sae;
  /** @throws TillerError `feature_not_found` naming the sources there are. */
  features(source: string): SourceFeatures;
  /** The folder a source lies in. @throws TillerError like `features`. */
  directory(source: string): string;
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
  const find = (id: string): Source => {
    const source = sources.get(id);
    if (source !== undefined) return source;
    const known = [...sources.keys()].join(", ");
    throw new TillerError(
      "feature_not_found",
      `Model '${path.basename(path.resolve(directory))}' has no source '${id}'. Its sources are: ${known || "none"}.`,
    );
  };
  const autoencoder = (source: Source, wanted: string): Sae => {
    if (source.sae !== undefined) return source.sae;
    throw new TillerError("invalid_request", `Source '${source.info.id}' has named directions and no encoder, so that ${wanted}.`);
  };
  const direction = ({ source, index }: FeatureRef): Feature => {
    const found = find(source);
    return { direction: rowOf(found, index).direction, point: found.info.point };
  };
  return {
    info: () => [...sources.values()].map(describe),
    direction,
    latent(feature) {
      const source = find(feature.source);
      const sae = autoencoder(source, "there is no activation to clamp: PROJECTION_CLAMP bounds the projection on a direction");
      const { norm } = rowOf(source, feature.index);
      return { ...direction(feature), latent: latentOf(sae, feature.index, norm) };
    },
    sae: (id) => autoencoder(find(id), "it has no latents that could be active; /activations gives projections on its directions"),
    features: find,
    directory: (id) => find(id).directory,
  };
}

function describe({ info, labels, file }: Source): SourceInfo {
  const labelled_features = [...labels.current().values()];
  const [label, found] = [labels.revision(), file.revision()];
  const revision = createHash("sha256").update(`${label}\n${found}`).digest("hex").slice(0, 16);
  return {
    ...info,
    labelled_features,
    ...(label === undefined && found === undefined ? {} : { features_revision: revision }),
    ...(found === undefined ? {} : { densities: true }),
  };
}

/** @throws TillerError `feature_not_found` naming the features there are. */
export function checkIndex({ id, width }: Pick<SourceInfo, "id" | "width">, index: number): void {
  if (index >= width)
    throw new TillerError("feature_not_found", `Source '${id}' has no feature ${index}; its features are 0 to ${width - 1}.`);
}

function rowOf(source: Source, index: number): { readonly direction: Float32Array; readonly norm: number } {
  const { info } = source;
  checkIndex(info, index);
  const row = source.rows.get(index) ?? source.row(index);
  if (!row.direction.every(Number.isFinite) || row.direction.every((value) => value === 0)) {
    throw new TillerError(
      "invalid_request",
      `Feature ${index} of source '${info.id}' cannot steer: its decoder row is zero or not finite. Choose another feature.`,
    );
  }
  source.rows.delete(index);
  source.rows.set(index, row);
  if (source.rows.size > CACHED_ROWS) source.rows.delete(source.rows.keys().next().value as number);
  return row;
}

function openSource(directory: string, id: string, shape: Shape): Source {
  const address = parseSource(id);
  if (address === undefined) throw new Error(`${directory}: a source is called {layer}-{name}, such as 6-res-jb`);
  const opened = openDirections(directory, shape) ?? openAutoencoder(directory, address.layer, shape);
  const { point, width } = opened;
  if (point.layer !== address.layer) throw new Error(`${directory}: it belongs to ${formatPoint(point)}, but the source is called ${id}`);
  const info = { id, point: formatPoint(point), width, architecture: opened.architecture };
  const { sae, row, decoder } = opened;
  return {
    directory,
    info,
    decoder,
    labels: new Labels(directory, width),
    file: new FeatureFile(directory, id, width),
    sae,
    row,
    rows: new Map(),
  };
}

type Opened = Pick<Source, "decoder" | "sae" | "row"> & { readonly point: Point; readonly width: number; readonly architecture: string };

function openAutoencoder(directory: string, layer: number, shape: Shape): Opened {
  const sae = openSae(directory, layer, shape);
  const { point, latents: width, decoder } = sae;
  return { point, sae, width, decoder, architecture: sae.activation.kind, row: (index) => decoderRow(sae, index) };
}

/** Undefined when the directory does not say that it holds named directions. */
function openDirections(directory: string, shape: Shape): Opened | undefined {
  const file = path.join(directory, "cfg.json");
  if (!existsSync(file) || parseFile(file, z.object({ architecture: z.unknown().optional() })).architecture !== "directions")
    return undefined;
  const config = parseFile(file, Directions);
  const point = pointOf(file, config.hook_name, shape);
  if (config.d_in !== shape.width)
    throw new Error(`${file}: d_in is ${config.d_in}, the model's residual stream has ${shape.width} values`);
  const rows = new Tensors(openSafetensors(path.join(directory, "sae_weights.safetensors"))).matrix(
    "W_dec",
    config.d_sae,
    config.d_in,
    true,
  );
  const row = (index: number) => ({ direction: latentVector(rows, index), norm: 1 });
  return { point, sae: undefined, width: config.d_sae, decoder: rows, architecture: config.architecture, row };
}
