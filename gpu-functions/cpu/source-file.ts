// Reading the files of a source directory: JSON that is checked, tensors that have the shape they must have.
import { readFileSync } from "node:fs";
import { z } from "zod";
import { boundaryOf, type Point, parsePoint } from "../../shared/address.ts";
import type { Shape } from "./blocks.ts";
import type { LatentMatrix } from "./sae.ts";
import { READABLE, readTensor, type TensorFile } from "./safetensors.ts";

/** A file of JSON, checked. @throws Error with the file and the reason. */
export function parseFile<Schema extends z.ZodType>(file: string, schema: Schema): z.output<Schema> {
  return checkValue(file, readJson(file), schema);
}

export function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch (cause) {
    throw new Error(`${file} cannot be read as JSON`, { cause });
  }
}

export function checkValue<Schema extends z.ZodType>(file: string, value: unknown, schema: Schema): z.output<Schema> {
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new Error(`${file}: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

/** The point that a configuration names. @throws Error when the model has no such point. */
export function pointOf(file: string, name: string | undefined, shape: Shape): Point {
  if (name === undefined) throw new Error(`${file}: hook_name is missing`);
  try {
    const point = parsePoint(name);
    boundaryOf(point, shape.layers);
    return point;
  } catch (cause) {
    throw new Error(`${file}: hook_name: ${(cause as Error).message}`, { cause });
  }
}

/** Looks tensors up and checks their shapes, so that a file that does not fit is refused before anything is read. */
export class Tensors {
  private readonly file: TensorFile;
  constructor(file: TensorFile) {
    this.file = file;
  }

  private check(name: string, wanted: readonly number[]): void {
    const info = this.file.tensors.get(name);
    if (info === undefined || info.shape.join() !== wanted.join())
      throw new Error(`${this.file.path}: ${name} must have shape [${wanted.join(", ")}]; it is ${info ? `[${info.shape}]` : "missing"}`);
    if (!READABLE.has(info.dtype)) throw new Error(`${this.file.path}: ${name} is ${info.dtype}; F32, F16 and BF16 can be read`);
  }

  /** The first of the names that there is. */
  name(...names: readonly string[]): string {
    return names.find((name) => this.file.tensors.has(name)) ?? (names[0] as string);
  }

  rowsOf(name: string): number {
    return this.file.tensors.get(name)?.shape[0] ?? 0;
  }

  matrix(name: string, latents: number, width: number, latentsFirst: boolean): LatentMatrix {
    this.check(name, latentsFirst ? [latents, width] : [width, latents]);
    return { file: this.file, name, latentsFirst };
  }

  vector(name: string, length: number): Float32Array {
    this.check(name, [length]);
    const values = readTensor(this.file, name);
    if (!values.every(Number.isFinite)) throw new Error(`${this.file.path}: ${name} has a value that is not a finite number`);
    return values;
  }
}
