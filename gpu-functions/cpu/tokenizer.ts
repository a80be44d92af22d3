// A model's tokenizer: text to ids with exactly one BOS, ids to bytes. The work is @huggingface/tokenizers'; this file knows which
// tokens are special and what a token's own bytes are.
import { readFileSync } from "node:fs";
import path from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";

export interface Tokenizer {
  /**
   * Ids of a prompt, BOS first exactly once (also when the prompt already begins with its text). Special tokens written out in the
   * text are read as special tokens, as transformers does.
   */
  encodePrompt(text: string): number[];
  /** The token's own text for display; bytes that are no whole character show as U+FFFD. */
  tokenString(id: number): string;
  /** The bytes a token adds to a text; none for special tokens. */
  tokenBytes(id: number): Uint8Array;
  readonly specialIds: ReadonlySet<number>;
  /** Tokens that end a text. */
  readonly eosIds: ReadonlySet<number>;
  readonly bosId: number | undefined;
}

interface TokenConfig {
  bos_token?: string | { content: string } | null;
  add_bos_token?: boolean;
  bos_token_id?: number | null;
  eos_token_id?: number | number[] | null;
}

function readJson(directory: string, name: string, required: boolean): Record<string, unknown> {
  const file = path.join(directory, name);
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    if (!required) return {};
    throw new Error(`${file} cannot be read: a model directory needs its tokenizer`, { cause });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new Error(`${file} is not JSON`, { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error(`${file} is not a JSON object`);
  return value as Record<string, unknown>;
}

/**
 * Loads tokenizer.json (and tokenizer_config.json, generation_config.json, config.json for BOS and EOS) of a model directory.
 * @throws Error with the file and the reason.
 */
export function loadTokenizer(directory: string): Tokenizer {
  const json = readJson(directory, "tokenizer.json", true);
  const settings: TokenConfig = readJson(directory, "tokenizer_config.json", false);
  const model: TokenConfig = readJson(directory, "config.json", true);
  const generation: TokenConfig = readJson(directory, "generation_config.json", false);
  const decoder = json.decoder as { type?: string } | null | undefined;
  if (decoder?.type !== "ByteLevel") {
    throw new Error(`${path.join(directory, "tokenizer.json")}: decoder ${JSON.stringify(decoder?.type)} is not supported; ByteLevel is`);
  }
  let inner: HuggingFaceTokenizer;
  try {
    inner = new HuggingFaceTokenizer(json, settings);
  } catch (cause) {
    throw new Error(`${path.join(directory, "tokenizer.json")}: ${(cause as Error).message}`, { cause });
  }
  const added = (json.added_tokens ?? []) as { id: number; content: string; special?: boolean }[];
  const specialIds = new Set(added.filter((token) => token.special === true).map((token) => token.id));
  const eos = generation.eos_token_id ?? model.eos_token_id ?? [];
  const eosIds = new Set(typeof eos === "number" ? [eos] : eos);
  const bosText = typeof settings.bos_token === "object" ? settings.bos_token?.content : settings.bos_token;
  const bosId =
    generation.bos_token_id ?? model.bos_token_id ?? (bosText === undefined ? undefined : inner.token_to_id(bosText)) ?? undefined;
  const addsBos = bosId !== undefined && settings.add_bos_token !== false;
  for (const id of [...eosIds, ...(bosId === undefined ? [] : [bosId])]) specialIds.add(id);

  const bytesOf = new Map<number, Uint8Array>();
  const tokenBytes = (id: number): Uint8Array => {
    let bytes = bytesOf.get(id);
    if (bytes === undefined) {
      bytes = specialIds.has(id) ? new Uint8Array() : byteLevel(inner.id_to_token(id) ?? "");
      bytesOf.set(id, bytes);
    }
    return bytes;
  };
  const display = new TextDecoder();
  return {
    specialIds,
    eosIds,
    bosId,
    tokenBytes,
    tokenString: (id) => (specialIds.has(id) ? (inner.id_to_token(id) ?? "") : display.decode(tokenBytes(id))),
    encodePrompt(text) {
      const ids = inner.encode(text, { add_special_tokens: false }).ids;
      return addsBos && ids[0] !== bosId ? [bosId, ...ids] : ids;
    },
  };
}

/** GPT-2's alphabet of 256 printable characters, one per byte (openai/gpt-2 encoder.py, `bytes_to_unicode`). */
const BYTE_OF_CHAR: ReadonlyMap<string, number> = (() => {
  const printable = (byte: number) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  const map = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) map.set(String.fromCodePoint(printable(byte) ? byte : next++), byte);
  return map;
})();

function byteLevel(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const char of token) {
    const byte = BYTE_OF_CHAR.get(char);
    // Added tokens that are not special stand for their own text.
    if (byte === undefined) return new TextEncoder().encode(token);
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
