// A sparse autoencoder, whatever format it was published in (sae-formats.ts): its directions, and its latents one by one as functions
// of the residual. Only the rows and columns that are asked for are read. All of its latents at once: sae-encoder.ts.
import type { Point } from "../../shared/address.ts";
import { TillerError } from "../../shared/errors.ts";
import type { Latent } from "../../shared/steering.ts";
import { readColumn, readRows, type TensorFile } from "./safetensors.ts";

/** A matrix in a file, with one vector [width] per latent: its rows (`latentsFirst`), or its columns. */
export interface LatentMatrix {
  readonly file: TensorFile;
  readonly name: string;
  readonly latentsFirst: boolean;
}

/**
 * What an autoencoder computes, in the terms of SAELens (sae_lens/saes/*.py). x is the residual, after `input`; pre = x W_enc.
 * standard: relu(pre + b). jumprelu: (pre + b) where that is above `threshold`, which is above 0. gated: relu(exp(r_mag) pre + b_mag)
 * where pre + b_gate > 0. topk: the k greatest of pre + b, where they are above 0.
 */
export type Activation =
  | { readonly kind: "standard"; readonly bias: Float32Array }
  | { readonly kind: "jumprelu"; readonly bias: Float32Array; readonly threshold: Float32Array }
  | { readonly kind: "gated"; readonly gateBias: Float32Array; readonly magnitudeBias: Float32Array; readonly logScale: Float32Array }
  | { readonly kind: "topk"; readonly bias: Float32Array; readonly k: number };

/** What is done to the residual h first: h, minus its mean if `centre`, by `scale`, by `perToken`, minus `bias`. */
export interface InputTransform {
  readonly centre: boolean;
  readonly scale: number;
  /** layer_norm: (x - mean) / (std + 1e-5), std unbiased. constant_norm_rescale: x sqrt(width) / ||x||. */
  readonly perToken?: "layer_norm" | "constant_norm_rescale" | undefined;
  readonly bias?: Float32Array | undefined;
}

export interface Sae {
  readonly point: Point;
  readonly width: number;
  readonly latents: number;
  readonly encoder: LatentMatrix;
  readonly decoder: LatentMatrix;
  readonly input: InputTransform;
  readonly activation: Activation;
  /**
   * Whether decoder rows are brought to length one and activations multiplied by that length, as Neuronpedia does; not for TopK
   * autoencoders whose choice of latents does not look at it.
   */
  readonly folded: boolean;
  /** What is left to multiply decoder rows by, where the format scales inputs and outputs. */
  readonly outputScale: number;
}

/** The vector [width] of one latent. */
export const latentVector = ({ file, name, latentsFirst }: LatentMatrix, index: number): Float32Array =>
  latentsFirst ? readRows(file, name, index, 1) : readColumn(file, name, index);

/** A latent's decoder row [width] as it steers, and what its activations are multiplied by. Not checked: it may be zero. */
export function decoderRow(sae: Sae, index: number): { direction: Float32Array; norm: number } {
  const row = latentVector(sae.decoder, index);
  for (let d = 0; d < row.length; d++) row[d] = (row[d] as number) * sae.outputScale;
  if (!sae.folded) return { direction: row, norm: 1 };
  const norm = Math.hypot(...row);
  for (let d = 0; d < row.length; d++) row[d] = (row[d] as number) / norm;
  return { direction: row, norm };
}

/** Why a latent's activation is no function of one projection of the residual; undefined when it is. */
export function notScalar(sae: Sae): string | undefined {
  if (sae.activation.kind === "topk") return "which latents a TopK autoencoder keeps depends on all of them";
  if (sae.input.perToken !== undefined) return `its inputs are normalised per token (${sae.input.perToken})`;
  return undefined;
}

/**
 * One latent with everything linear folded in: shared/steering.ts has the form.
 * @throws TillerError `invalid_request` when the autoencoder has no such form.
 */
export function latentOf(sae: Sae, index: number, norm: number): Latent {
  const reason = notScalar(sae);
  if (reason !== undefined) {
    throw new TillerError(
      "invalid_request",
      `LATENT_CLAMP is not possible here: ${reason}. SIMPLE_ADDITIVE steers along the same decoder row.`,
    );
  }
  const { input, activation, width } = sae;
  const column = Float64Array.from(latentVector(sae.encoder, index));
  // pre = (scale h - bias) . w, and a mean that is taken from h is one that is taken from w.
  let shift = 0;
  if (input.bias !== undefined) for (let d = 0; d < width; d++) shift -= (input.bias[d] as number) * (column[d] as number);
  const mean = input.centre ? column.reduce((a, b) => a + b, 0) / width : 0;
  const at = (values: Float32Array) => values[index] as number;
  const scale = activation.kind === "gated" ? Math.exp(at(activation.logScale)) : 1;
  const read = Float32Array.from(column, (value) => norm * scale * input.scale * (value - mean));
  if (activation.kind === "gated") {
    const zero = -norm * (scale * shift + at(activation.magnitudeBias));
    return { read, zero, edge: Math.max(zero, -norm * scale * (shift + at(activation.gateBias))) };
  }
  const zero = -norm * (shift + at(activation.bias));
  return { read, zero, edge: activation.kind === "jumprelu" ? zero + norm * Math.max(0, at(activation.threshold)) : zero };
}

/** Rows of a matrix that are read at a time. */
const PART = 1024;

/** Lengths of all decoder rows as they steer. */
export function decoderNorms({ decoder, latents, width, outputScale }: Sae): Float32Array {
  const squares = new Float64Array(latents);
  const rows = decoder.latentsFirst ? latents : width;
  for (let start = 0; start < rows; start += PART) {
    const count = Math.min(PART, rows - start);
    addSquares(decoder, readRows(decoder.file, decoder.name, start, count), start, squares);
  }
  return Float32Array.from(squares, (square) => Math.sqrt(square) * outputScale);
}

function addSquares({ latentsFirst }: LatentMatrix, values: Float32Array, start: number, squares: Float64Array): void {
  const latents = squares.length;
  if (!latentsFirst) {
    for (let i = 0; i < values.length; i++) squares[i % latents] = (squares[i % latents] as number) + (values[i] as number) ** 2;
    return;
  }
  const count = Math.min(PART, latents - start);
  const width = values.length / count;
  for (let i = 0; i < values.length; i++) {
    const row = start + Math.floor(i / width);
    squares[row] = (squares[row] as number) + (values[i] as number) ** 2;
  }
}

/** Tokens that are encoded at once. */
export const ENCODED = 64;

/** What an encoder found; views that the next call overwrites. */
export interface Encoded {
  /** [T, N] */
  readonly activations: Float32Array;
  /** [N]: of each latent, over the tokens. */
  readonly greatest: Float32Array;
  /** The latents of token t that are most active, at most LIMITS.topLatents, the greatest first; only those above 0. */
  top(t: number): { readonly index: number; readonly activation: number }[];
}

/** All latents of an autoencoder at once. */
export interface LatentEncoder {
  readonly latents: number;
  /** @param residuals [T, width], T at most ENCODED. One call at a time. */
  encode(residuals: Float32Array): Promise<Encoded>;
}
