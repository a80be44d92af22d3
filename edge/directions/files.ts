// Files of texts that a direction is made of: a text on every line, CSV, JSON and JSONL, in the shapes in which people keep them.
import { CsvError, parse as parseCsv } from "csv-parse/browser/esm/sync";
import { TillerError } from "../../shared/errors.ts";
import { parseBody } from "../body.ts";
import { DeriveTexts } from "./contract.ts";

export interface TextFile {
  /** As sentences name it. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

type Side = "positive" | "negative";
type Format = "text" | "csv" | "json" | "jsonl";

/** One object of a file, and where it stands. */
interface Row {
  readonly where: string;
  readonly cells: Readonly<Record<string, unknown>>;
}

/** The columns that a file with both sides may have. */
const SHAPES = [
  ["text", "label"],
  ["positive", "negative"],
  ["prompt", "positive", "negative"],
] as const;
const COLUMNS = "text and label, or positive and negative, or prompt, positive and negative";
const KNOWN: ReadonlySet<string> = new Set(SHAPES.flat());
const LABELS: ReadonlyMap<string, Side> = new Map([
  ...["positive", "pos", "1", "true", "+"].map((label) => [label, "positive"] as const),
  ...["negative", "neg", "0", "false", "-"].map((label) => [label, "negative"] as const),
]);
const DELIMITERS = [",", "\t", ";"];
const FORMATS: Readonly<Record<string, Format>> = { txt: "text", csv: "csv", tsv: "csv", jsonl: "jsonl", ndjson: "jsonl" };
/** Ends of lines, whichever system wrote them. */
const LINE_ENDS = /\r\n|\n|\r/;

/**
 * The texts of a file that is all of one side: lines, or rows whose one column is `text`.
 * @throws TillerError `invalid_request` naming the file and the line.
 */
export function readSide(file: TextFile): string[] {
  const text = decode(file);
  const format = formatOf(file.name, text);
  if (format === "text") return text.split(LINE_ENDS).filter((line) => line.trim() !== "");
  return rowsOf(file.name, format, text).flatMap((row) => {
    const odd = Object.keys(row.cells).find((column) => column !== "text");
    if (odd !== undefined) throw refuse(`${row.where} has '${short(odd)}': a file of one side has the column text alone.`);
    return textsIn(row, "text");
  });
}

/**
 * The texts of a file that has both sides, or pairs. Texts that are empty are left out, but of pairs.
 * @throws TillerError `invalid_request` naming the file and the line.
 */
export function readBoth(file: TextFile): DeriveTexts {
  const { name } = file;
  const text = decode(file);
  const format = formatOf(name, text);
  if (format === "text") {
    const sentence = `${name} is a plain text, which does not say what is positive: send two of them, as positive and negative.`;
    throw refuse(`${sentence} A file with both has columns: ${COLUMNS}.`);
  }
  if (format === "json") {
    const whole = parseJson(name, text);
    if (isObject(whole)) return readObject(name, whole);
  }
  const rows = rowsOf(name, format, text);
  const shape = shapeOf(name, rows);
  if (shape.includes("prompt"))
    return {
      pairs: rows.map((row) => ({ prompt: oneIn(row, "prompt"), positive: oneIn(row, "positive"), negative: oneIn(row, "negative") })),
    };
  if (!shape.includes("label"))
    return { positive: rows.flatMap((row) => textsIn(row, "positive")), negative: rows.flatMap((row) => textsIn(row, "negative")) };
  const sides: Record<Side, string[]> = { positive: [], negative: [] };
  for (const row of rows) sides[labelOf(row)].push(...textsIn(row, "text"));
  return sides;
}

/** `{"positive": [...], "negative": [...]}` or `{"pairs": [...]}`. */
function readObject(name: string, whole: Readonly<Record<string, unknown>>): DeriveTexts {
  const odd = Object.keys(whole).find((key) => !Object.hasOwn(DeriveTexts.shape, key));
  if (odd === undefined) return parseBody(whole, DeriveTexts);
  throw refuse(`${name} has '${short(odd)}': an object with both sides has positive and negative, or pairs, and a list has objects.`);
}

/** As its name says, or else as it looks. */
function formatOf(name: string, text: string): Format {
  const extension = /\.(\w+)$/.exec(name)?.[1]?.toLowerCase() ?? "";
  const named = FORMATS[extension];
  if (named !== undefined) return named;
  const [first = "", second = ""] = text.split(LINE_ENDS, 2);
  if (/^\s*[[{]/.test(text) || extension === "json") return second !== "" && isJson(first) ? "jsonl" : "json";
  const columns = first.split(delimiterOf(first)).map(columnOf);
  return columns.every((column) => KNOWN.has(column)) ? "csv" : "text";
}

const isJson = (text: string): boolean => {
  try {
    return isObject(JSON.parse(text));
  } catch {
    return false;
  }
};

const delimiterOf = (header: string): string => DELIMITERS.find((each) => header.includes(each)) ?? ",";
const columnOf = (name: string): string =>
  name
    .replace(/^"(.*)"$/, "$1")
    .trim()
    .toLowerCase();

function rowsOf(name: string, format: Exclude<Format, "text">, text: string): Row[] {
  if (format === "csv") return csvRows(name, text);
  if (format === "jsonl") {
    return text.split(LINE_ENDS).flatMap((line, i) => {
      const where = `${name}, line ${i + 1}`;
      return line.trim() === "" ? [] : [toRow(where, parseJson(where, line))];
    });
  }
  const list = parseJson(name, text);
  if (!Array.isArray(list)) throw refuse(`${name} must be a list.`);
  return list.map((value, i) => toRow(`${name}, item ${i + 1}`, value));
}

/** A text alone is the text of its row. */
function toRow(where: string, value: unknown): Row {
  if (typeof value === "string") return { where, cells: { text: value } };
  if (isObject(value)) return { where, cells: value };
  throw refuse(`${where} must be a text, or an object with texts.`);
}

function csvRows(name: string, text: string): Row[] {
  const columns = (header: readonly string[]): string[] => {
    const names = header.map(columnOf);
    const odd = names.find((column, i) => !KNOWN.has(column) || names.indexOf(column) !== i);
    if (odd === undefined) return names;
    throw refuse(
      `${name}, line 1: the column '${short(odd)}' is not known, or there twice. The columns are ${COLUMNS}; of one side's file, text.`,
    );
  };
  try {
    const rows = parseCsv<{ record: Record<string, string>; info: { lines: number } }>(text, {
      ...{ columns, info: true, skip_empty_lines: true, record_delimiter: ["\r\n", "\n", "\r"], max_record_size: 0 },
      delimiter: delimiterOf(text.split(LINE_ENDS, 1)[0] ?? ""),
    });
    return rows.map(({ record, info }) => ({ where: `${name}, line ${info.lines}`, cells: record }));
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    throw refuse(`${name} is no CSV: ${error.message.slice(0, 300)}.`);
  }
}

/** The shape that all rows have together. */
function shapeOf(name: string, rows: readonly Row[]): readonly string[] {
  if (rows.length === 0) throw refuse(`${name} has no texts.`);
  const all = new Set(rows.flatMap(({ cells }) => Object.keys(cells)));
  const shape = SHAPES.find((each) => each.length === all.size && each.every((column) => all.has(column)));
  if (shape !== undefined) return shape;
  const odd = rows.find(
    ({ cells }) => !SHAPES.some((each) => Object.keys(cells).every((column) => each.some((known) => known === column))),
  );
  const { where, cells } = odd ?? (rows[0] as Row);
  throw refuse(`${where} has ${Object.keys(cells).map(short).join(", ") || "nothing"}; every row must have the same of ${COLUMNS}.`);
}

function labelOf({ where, cells }: Row): Side {
  const given = cells.label;
  const side = LABELS.get(
    String(given ?? "")
      .trim()
      .toLowerCase(),
  );
  if (side !== undefined) return side;
  const allowed = [...LABELS.keys()].join(", ");
  throw refuse(`${where}: the label '${short(String(given ?? ""))}' is none of ${allowed}.`);
}

/** The text in a column; none where the cell is empty. */
function textsIn({ where, cells }: Row, column: string): string[] {
  const value = cells[column] ?? "";
  if (typeof value !== "string") throw refuse(`${where}: ${column} must be a text.`);
  return value.trim() === "" ? [] : [value];
}

function oneIn(row: Row, column: string): string {
  const [text] = textsIn(row, column);
  if (text === undefined) throw refuse(`${row.where}: ${column} is empty, and a pair needs all of prompt, positive and negative.`);
  return text;
}

/** The file's text, without a byte order mark. @throws TillerError naming the first line that is no UTF-8. */
function decode({ name, bytes }: TextFile): string {
  const text = fromUtf8(bytes);
  if (text !== undefined) return text;
  let [line, start] = [1, 0];
  for (let end = bytes.indexOf(10); end >= 0 && fromUtf8(bytes.subarray(start, end)) !== undefined; end = bytes.indexOf(10, start))
    [line, start] = [line + 1, end + 1];
  throw refuse(`${name}, line ${line} is not UTF-8: save the file as UTF-8.`);
}

function fromUtf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch {
    return undefined;
  }
}

function parseJson(where: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    // What the runtime says quotes the place, or counts characters to it.
    const { message } = error as SyntaxError;
    const at = /at position (\d+)/.exec(message)?.[1];
    const line = at === undefined ? "" : ` (line ${text.slice(0, Number(at)).split(LINE_ENDS).length})`;
    throw refuse(`${where} is no JSON: ${message.slice(0, 300)}${line}.`);
  }
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const short = (text: string): string => text.slice(0, 40);
const refuse = (sentence: string): TillerError => new TillerError("invalid_request", sentence);
