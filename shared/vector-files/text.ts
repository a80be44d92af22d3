// Vectors as text: JSON (https://www.rfc-editor.org/rfc/rfc8259), or numbers with commas, spaces or lines between them.
import { formatPoint } from "../address.ts";
import { type FileVector, Found, type OutVector, placeOf, placeOfName, refuse, shown } from "./direction.ts";

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** Numbers with commas, semicolons, spaces or lines between them: one vector. @throws TillerError `invalid_request`. */
export function readNumbers(text: string): readonly FileVector[] {
  const words = text.split(/[\s,;]+/).filter((word) => word !== "");
  const wrong = words.findIndex((word) => !NUMBER.test(word));
  if (wrong >= 0) {
    const word = shown((words[wrong] as string).slice(0, 40));
    refuse(
      `Value ${wrong} of the text (the first is 0) is ${word}, not a finite number; numbers with commas, spaces or lines between them are read.`,
    );
  }
  const found = new Found();
  found.add("vector", [words.length], () => Float64Array.from(words, Number));
  return found.vectors;
}

/**
 * An array of numbers; an array of such arrays; an object with `vector` or `values` (and `name`, `layer`, `hookName` if it likes); an
 * object `vectors` with an array of such objects; or an object of arrays by their names.
 * @throws TillerError `invalid_request`: what is wrong, what is allowed.
 */
export function readJson(text: string): readonly FileVector[] {
  const found = new Found();
  const value = parse(text);
  if (Array.isArray(value)) addArray(found, "vector", value, {}, (row) => `row ${row}`);
  else if (!isObject(value)) refuse("The JSON file holds no array; it must be an array of numbers, or an object with one.");
  else if (Array.isArray(value.vectors) && value.vectors.every(isObject)) {
    for (const [i, each] of (value.vectors as Record<string, unknown>[]).entries()) addObject(found, `vector ${i}`, each);
  } else if (Object.hasOwn(value, "vector") || Object.hasOwn(value, "values")) addObject(found, "vector", value);
  else for (const [name, each] of Object.entries(value)) addArray(found, name, each, placeOfName(name));
  if (found.vectors.length === 0) refuse("The JSON file holds no vectors; it must have at least one array of numbers.");
  return found.vectors;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    const at = text.search(/[-\s,[:](NaN|Infinity)\b/);
    if (at >= 0) refuse(`The JSON file has NaN or Infinity at character ${at + 1}; every value of a vector must be finite.`);
    return refuse("The file begins like JSON and is not valid JSON: it may be truncated. Write it with a JSON library.");
  }
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null && !Array.isArray(value);

function addObject(found: Found, fallback: string, value: Record<string, unknown>): void {
  const { vector, values = vector, layer, hookName } = value;
  if (vector !== undefined && values !== vector) refuse(`${shown(fallback)} has both vector and values; it must have one of them.`);
  const name = [value.name, value.label].find((each) => typeof each === "string" && each !== "") ?? fallback;
  addArray(found, name as string, values, placeOf(name as string, layer, hookName));
}

function addArray(
  found: Found,
  name: string,
  value: unknown,
  place: Omit<FileVector, "name" | "values">,
  rowName?: (row: number) => string,
): void {
  if (!Array.isArray(value) || value.length === 0) refuse(`${shown(name)} must be an array of at least one number.`);
  const nested = Array.isArray(value[0]);
  const width = nested ? (value[0] as unknown[]).length : value.length;
  const rows: unknown[] = nested ? value : [value];
  const decode = (first: number, count: number) => Float64Array.from({ length: count }, (_, i) => at(rows, first + i));
  const at = (all: unknown[], i: number): number => {
    const each = (all[Math.floor(i / width)] as unknown[])[i % width];
    return typeof each === "number"
      ? each
      : refuse(`Value ${i} of ${shown(name)} (the first is 0) is not a number; every value of a vector must be one.`);
  };
  const odd = rows.findIndex((row) => !Array.isArray(row) || row.length !== width);
  if (odd >= 0) refuse(`Row ${odd} of ${shown(name)} is not an array of ${width} values, as the first one is; all rows must have as many.`);
  found.add(name, nested ? [rows.length, width] : [width], decode, { place, ...(rowName === undefined ? {} : { rowName }) });
}

/** One vector as an object, several as `{ "vectors": [...] }`. Every number reads back as it was. */
export function writeJson(vectors: readonly OutVector[]): Uint8Array<ArrayBuffer> {
  const objects = vectors.map(({ name, modelId, layer, hook, label, strength, values }) => {
    const about = JSON.stringify({ name, modelId, layer, hookName: formatPoint({ layer, kind: hook }), label, strength });
    return `${about.slice(0, -1)},"vector":[${Array.from(values, digits).join(",")}]}`;
  });
  return new Uint8Array(new TextEncoder().encode(objects.length === 1 ? objects[0] : `{"vectors":[${objects.join(",")}]}`));
}

/** The shortest digits that read back as the number. JSON.stringify would lose the sign of zero. */
const digits = (value: number): string => (Object.is(value, -0) ? "-0.0" : String(value));
