// The texts of a run: files cut into documents, documents into windows of tokens. Files are read piece by piece.
import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";

/** What ends a document in files that have it. */
export const MARK = "<|endoftext|>";
/** Between documents of the other files. */
const BLANK_LINES = /\r?\n[ \t]*(?:\r?\n[ \t]*)+/;
/** Characters of the longest document: more are cut, so that memory stays bounded whatever the files hold. */
const LONGEST = 2 ** 16;

export interface TextFile {
  readonly path: string;
  /** Of its bytes. */
  readonly sha256: string;
  /** Whether documents end at MARK, not at blank lines. */
  readonly marked: boolean;
}

/** @throws Error naming the file when it cannot be read or is no UTF-8. */
export async function openText(path: string): Promise<TextFile> {
  const hash = createHash("sha256");
  let marked = false;
  let before = "";
  for await (const piece of readPieces(path, hash)) {
    marked ||= `${before}${piece}`.includes(MARK);
    before = piece.slice(-MARK.length);
  }
  return { path, sha256: hash.digest("hex"), marked };
}

/** Documents without the white space around them; none that are empty. */
export async function* readDocuments({ path, marked }: Pick<TextFile, "path" | "marked">): AsyncGenerator<string> {
  let rest = "";
  for await (const piece of readPieces(path)) {
    const parts = (rest + piece).split(marked ? MARK : BLANK_LINES);
    rest = parts.pop() ?? "";
    for (const part of parts) yield* cut(part);
    while (rest.length > 2 * LONGEST) {
      const end = cutAt(rest);
      yield* cut(rest.slice(0, end));
      rest = rest.slice(end);
    }
  }
  yield* cut(rest);
}

function* cut(text: string): Generator<string> {
  for (let rest = text.trim(); rest !== ""; ) {
    const end = rest.length > LONGEST ? cutAt(rest) : rest.length;
    yield rest.slice(0, end).trimEnd();
    rest = rest.slice(end).trimStart();
  }
}

/** Before a space where there is one, so that no word is cut. */
function cutAt(text: string): number {
  const space = text.lastIndexOf(" ", LONGEST);
  return space > 0 ? space : LONGEST;
}

async function* readPieces(path: string, hash?: Hash): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  try {
    for await (const bytes of createReadStream(path) as AsyncIterable<Uint8Array>) {
      hash?.update(bytes);
      yield decoder.decode(bytes, { stream: true });
    }
    yield decoder.decode();
  } catch (cause) {
    const utf8 = (cause as { code?: string }).code === "ERR_ENCODING_INVALID_ENCODED_DATA";
    throw new Error(utf8 ? `${path} is no text in UTF-8.` : `${path} cannot be read: ${(cause as Error).message}.`, { cause });
  }
}

export interface Window {
  readonly ids: readonly number[];
  /** Of the document it is of, from 0. */
  readonly document: number;
}

/**
 * Windows of at most `context` tokens, in the order of the files; `limit` tokens in all.
 * @param encode ids of a document, without BOS.
 */
export async function* readWindows(
  files: readonly TextFile[],
  encode: (text: string) => readonly number[],
  { context, limit }: { readonly context: number; readonly limit: number },
): AsyncGenerator<Window> {
  let left = limit;
  let document = 0;
  for (const file of files) {
    for await (const text of readDocuments(file)) {
      const ids = encode(text);
      for (let start = 0; start < ids.length && left > 0; start += context) {
        const window = ids.slice(start, start + Math.min(context, left));
        left -= window.length;
        yield { ids: window, document };
      }
      if (left <= 0) return;
      document++;
    }
  }
}
