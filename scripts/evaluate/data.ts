// The files of a run, known by what is in them: texts of both sides, and prompts.
import { readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { inflateRawSync } from "node:zlib";
import { CsvError, parse } from "csv-parse/sync";
import { withZip } from "../../gpu-functions/cpu/zip.ts";
import { sidesOf } from "./labels.ts";

export interface Found {
  /** The format, in words. */
  readonly says: string;
  readonly positive: readonly string[];
  readonly negative: readonly string[];
  readonly prompts: readonly string[];
}

const TEXT = ["text", "sentence", "request", "comment_text", "comment", "phrase", "review", "content", "utterance", "tweet"];
const LABEL = ["label", "normalized score", "sentiment", "target", "toxicity", "stance", "politeness", "score", "rating", "stars"];
const ENDINGS = { positive: ".pos", negative: ".neg" } as const;

/** A row of a table or a line of JSON, its keys in lower case. */
type Row = ReadonlyMap<string, unknown>;

/**
 * Texts of both sides or prompts, whichever a file has.
 * @param highIsNegative whether great numbers among labels are of the negative side.
 * @throws Error naming the file, what is wrong with it and what can be read.
 */
export function readData(file: string, highIsNegative: boolean): Found {
  if (isFolder(file)) return readPair(file, membersOfFolder(file));
  const bytes = readBytes(file);
  if (bytes.toString("latin1", 0, 4) === "PK\x03\x04") return readPair(file, membersOfZip(file));
  const text = decode(bytes, file);
  const [first] = text.trimStart();
  if (first === "{") return readRows(file, jsonLines(text, file), "JSONL", highIsNegative);
  if (first === "[") return readList(file, text, highIsNegative);
  return readRows(file, table(text, file), "table", highIsNegative);
}

/** Texts or prompts one a line. @throws Error naming the file. */
export function readLines(file: string): string[] {
  return linesOf(decode(readBytes(file), file));
}

/** Prompts of JSONL, of a JSON list, or one a line. @throws Error naming the file. */
export function readPrompts(file: string): readonly string[] {
  const [first] = decode(readBytes(file), file).trimStart();
  const prompts = first === "{" || first === "[" ? readData(file, false).prompts : readLines(file);
  if (prompts.length === 0) throw new Error(`${file} has no prompts: lines of text, JSONL with a prompt, or a JSON list of texts.`);
  return prompts;
}

function isFolder(file: string): boolean {
  try {
    return statSync(file).isDirectory();
  } catch (cause) {
    throw new Error(`${file} cannot be read: ${(cause as Error).message}.`, { cause });
  }
}

function readBytes(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new Error(`${file} cannot be read: ${(cause as Error).message}.`, { cause });
  }
}

function decode(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new Error(`${file} is no text in UTF-8.`, { cause });
  }
}

const linesOf = (text: string): string[] =>
  text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "");

/** A file of an archive or a folder, read when it is wanted. */
interface Member {
  readonly name: string;
  readonly read: () => Uint8Array;
}

function membersOfFolder(folder: string): Member[] {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return names.map((name) => ({ name, read: () => readBytes(path.join(folder, name)) }));
}

function membersOfZip(file: string): Member[] {
  return withZip(file, null, ({ members, read }) =>
    members
      .filter(({ name }) => Object.values(ENDINGS).some((ending) => name.endsWith(ending)))
      .map(({ name, offset, bytes, deflated }) => {
        const stored = read(offset, bytes);
        return { name, read: () => (deflated ? inflateRawSync(stored) : stored) };
      }),
  );
}

/** NLTK's sentence_polarity: a file for each side, one text a line. */
function readPair(file: string, members: readonly Member[]): Found {
  const side = (ending: string): string[] => {
    const [found, ...others] = members.filter(({ name }) => name.endsWith(ending));
    if (found === undefined || others.length > 0)
      throw new Error(
        `${file} must hold one file that ends in .pos and one that ends in .neg, as NLTK's sentence_polarity does. Give other files themselves.`,
      );
    return linesOf(decode(found.read(), `${file}: ${found.name}`));
  };
  return { says: "one text a line", positive: side(ENDINGS.positive), negative: side(ENDINGS.negative), prompts: [] };
}

function* jsonLines(text: string, file: string): Generator<Row> {
  for (const [i, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === "") continue;
    try {
      yield rowOf(JSON.parse(line) as object);
    } catch (cause) {
      throw new Error(`${file}: line ${i + 1} is no JSON: each line must be one object.`, { cause });
    }
  }
}

function readList(file: string, text: string, highIsNegative: boolean): Found {
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch (cause) {
    throw new Error(`${file} is no JSON: ${(cause as Error).message}.`, { cause });
  }
  const items = list as unknown[];
  if (items.every((item): item is string => typeof item === "string"))
    return { says: "JSON list of prompts", positive: [], negative: [], prompts: items.map((item) => item.trim()).filter(Boolean) };
  if (items.every((item): item is object => typeof item === "object" && item !== null))
    return readRows(file, items.map(rowOf), "JSON list", highIsNegative);
  throw new Error(`${file} must be a list of texts or a list of objects.`);
}

const rowOf = (value: object): Row => new Map(Object.entries(value).map(([key, each]) => [key.trim().toLowerCase(), each as unknown]));

/** Comma-separated, or tab-separated without quoting, as the Stanford Sentiment Treebank comes. */
function table(text: string, file: string): Row[] {
  const tabs = (text.split(/\r?\n/, 1)[0] ?? "").includes("\t");
  try {
    return parse<object>(text, { columns: true, bom: true, skip_empty_lines: true, ...(tabs ? { delimiter: "\t", quote: null } : {}) }).map(
      rowOf,
    );
  } catch (cause) {
    if (!(cause instanceof CsvError)) throw cause;
    throw new Error(`${file} is no table that can be read: ${cause.message}.`, { cause });
  }
}

/** Rows with prompts, or with a text and a label. */
function readRows(file: string, lines: Iterable<Row>, format: string, highIsNegative: boolean): Found {
  const rows = [...lines];
  const [first] = rows;
  if (first === undefined) throw new Error(`${file} has nothing in it but a header.`);
  if (first.has("prompt"))
    return { says: `${format} of prompts`, positive: [], negative: [], prompts: rows.map((row, i) => promptOf(row, i, file)) };
  const column = (names: readonly string[], what: string): string => {
    const found = names.find((name) => first.has(name));
    if (found !== undefined) return found;
    throw new Error(
      `${file} has no column for the ${what}: it has ${[...first.keys()].slice(0, 20).join(", ")}, and one of these is looked for: ${names.join(", ")}. Files of bare texts are given as --positive FILE and --negative FILE.`,
    );
  };
  const [text, label] = [column(TEXT, "text"), column(LABEL, "label")];
  const cell = (row: Row, name: string) => String(row.get(name) ?? "");
  const { says, sides } = sidesOf(
    rows.map((row) => cell(row, label)),
    label,
    file,
    highIsNegative,
  );
  const ofSide = (side: number) => rows.flatMap((row, i) => (sides[i] === side ? [cell(row, text).trim()] : [])).filter(Boolean);
  return { says: `${format} with '${text}' and '${label}' (${says})`, positive: ofSide(1), negative: ofSide(-1), prompts: [] };
}

/** DExperts and RealToxicityPrompts have `{"prompt": {"text": ...}}`. */
function promptOf(row: Row, index: number, file: string): string {
  const prompt = row.get("prompt");
  const text = typeof prompt === "object" && prompt !== null && "text" in prompt ? prompt.text : prompt;
  if (typeof text === "string" && text.trim() !== "") return text.trim();
  throw new Error(`${file}: row ${index + 1} has no prompt: a text, or an object with text.`);
}
