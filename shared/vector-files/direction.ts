// What a file of vectors holds, how much of it is taken, and how a file that is not taken is refused.
import { parsePoint, type ResidualPoint } from "../address.ts";
import { TillerError } from "../errors.ts";
import { LIMITS } from "../protocol.ts";

/** How much one file may hold. */
export const MOST = { vectors: 256, values: LIMITS.vectorWidth, headerBytes: 1 << 20 } as const;

/** Where a vector acts, as far as its file says. */
export interface Place {
  /** Zero-based. */
  readonly layer?: number;
  readonly hook?: ResidualPoint;
}

/** One direction of a file. `values`: finite, at least one and at most 24,576. */
export interface FileVector extends Place {
  readonly name: string;
  readonly values: Float64Array;
  /** Control vectors: the architecture they were made for (`controlvector.model_hint`). */
  readonly modelHint?: string;
  /** Control vectors: `controlvector.layer_count`. */
  readonly layerCount?: number;
}

/** A direction to be written. */
export interface OutVector {
  readonly name: string;
  readonly layer: number;
  readonly hook: ResidualPoint;
  readonly values: Float64Array;
  readonly label: string;
  readonly modelId: string;
  readonly strength: number;
}

/** Says what is wrong with a file and what is allowed. */
export function refuse(sentence: string): never {
  throw new TillerError("invalid_request", sentence);
}

/** A name of the file, short and without control characters, for a sentence. */
export const shown = (name: string): string => `'${name.slice(0, 80).replace(/\p{Cc}/gu, "?")}'`;

/** Takes the directions of a file, one tensor after another, within the limits. */
export class Found {
  readonly vectors: FileVector[] = [];

  /**
   * Takes a tensor: shapes [d], [1, d] and [d, 1] are one direction with the tensor's name, [n, d] is n of them.
   * @param decode gives `count` values from the tensor's value number `first` on.
   * @throws TillerError `invalid_request`: another shape, too many, not finite.
   */
  add(
    name: string,
    shape: readonly number[],
    decode: (first: number, count: number) => Float64Array,
    {
      place = {},
      rowName = (row) => `${name}[${row}]`,
    }: { place?: Omit<FileVector, "name" | "values">; rowName?: (row: number) => string } = {},
  ): void {
    const [rows, width] = rowsOf(name, shape);
    if (this.vectors.length + rows > MOST.vectors)
      refuse(`The file holds more than ${MOST.vectors} vectors; a file may hold at most that many.`);
    for (let row = 0; row < rows; row++) {
      const called = rows === 1 ? name : rowName(row);
      const values = decode(row * width, width);
      checkFinite(called, values);
      this.vectors.push({ name: called, ...place, values });
    }
  }
}

function rowsOf(name: string, shape: readonly number[]): [rows: number, width: number] {
  const [rows = 0, width = 0] = shape.length === 1 ? [1, shape[0]] : shape[1] === 1 ? [1, shape[0]] : shape;
  if (shape.length < 1 || shape.length > 2 || rows < 1 || width < 1)
    refuse(
      `${shown(name)} has the shape [${shape.slice(0, 8).join(", ")}]; a vector has the shape [d], [1, d] or [d, 1], and several have [n, d].`,
    );
  if (width > MOST.values) refuse(`${shown(name)} has ${width} values; a vector has at most ${MOST.values}.`);
  return [rows, width];
}

function checkFinite(name: string, values: Float64Array): void {
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) refuse(`Value ${at} of ${shown(name)} (the first is 0) is ${values[at]}; every value of a vector must be finite.`);
}

/**
 * Where a vector acts, from what its file says.
 * @param layer an integer, or a string that begins with one (`6`, `6-res-jb`); undefined or null when the file does not say.
 * @param hookName `blocks.L.hook_resid_pre` or `..._post`, or the same without `blocks.L.`; undefined or null when it does not say.
 * @throws TillerError `invalid_request`: no layer, a point that cannot be steered, or two layers that differ.
 */
export function placeOf(name: string, layer: unknown, hookName: unknown): Place {
  const said =
    layer === undefined || layer === null ? undefined : Number(/^(\d{1,4})(-.*)?$/.exec(String(wordOf(layer)))?.[1] ?? Number.NaN);
  if (Number.isNaN(said)) refuse(`The layer of ${shown(name)} is not a layer; it must be an integer from 0 on.`);
  const ofLayer: Place = said === undefined ? {} : { layer: said };
  if (hookName === undefined || hookName === null) return ofLayer;
  if (typeof hookName !== "string") return refuse(`The hook name of ${shown(name)} must be a string like blocks.6.hook_resid_post.`);
  const short = /^(?:hook_)?(resid_pre|resid_post)$/.exec(hookName)?.[1];
  if (short !== undefined) return { ...ofLayer, hook: short as ResidualPoint };
  const point = parsePoint(hookName);
  if (said !== undefined && said !== point.layer)
    refuse(`${shown(name)} is said to act at layer ${said} and at ${hookName}: make them the same.`);
  return { layer: point.layer, hook: point.kind };
}

const wordOf = (value: unknown): string | number => (typeof value === "string" || typeof value === "number" ? value : "");

/** Where a tensor acts that is called after its point, `blocks.6.hook_resid_post`; nothing for any other name. */
export const placeOfName = (name: string): Place =>
  /^blocks\.\d{1,4}\.hook_resid_(pre|post)$/.test(name) ? placeOf(name, undefined, name) : {};
