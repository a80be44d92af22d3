// A model's tokenizer: text to ids with exactly one BOS, ids to bytes. The work is @huggingface/tokenizers'; this file knows which
// tokens are special and which begin and end texts.
import { readFileSync } from "node:fs";
import path from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { type Span, tokenSpans } from "./offsets.ts";
import { type PieceBytes, readDecoder } from "./pieces.ts";

export interface Tokenizer {
  /**
   * Ids of a prompt, BOS first exactly once (also when the prompt already begins with its text). Special tokens written out in the
   * text are read as special tokens, as transformers does.
   */
  encodePrompt(text: string): number[];
  /** Ids of a text as it is, without BOS. */
  encode(text: string): number[];
  /** The ids with BOS before them, unless it is there already or texts of this model have none. */
  withBos(ids: number[]): number[];
  /** Where in a text the ids that `encode` gives for it lie. */
  spans(text: string, ids: readonly number[]): Span[];
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
  const file = path.join(directory, "tokenizer.json");
  const vocabulary = json.model as
    | { type?: string; byte_fallback?: boolean; unk_token?: string | null; unk_id?: number | null }
    | null
    | undefined;
  if (vocabulary?.type === "Unigram" && vocabulary.byte_fallback === true) {
    throw new Error(`${file}: a Unigram model with byte_fallback is not supported; Unigram without it and BPE are`);
  }
  let pieceBytes: PieceBytes;
  let inner: HuggingFaceTokenizer;
  try {
    pieceBytes = readDecoder(json.decoder);
    inner = new HuggingFaceTokenizer(json, settings);
  } catch (cause) {
    throw new Error(`${file}: ${(cause as Error).message}`, { cause });
  }
  const added = (json.added_tokens ?? []) as { id: number; content: string; special?: boolean }[];
  const specialIds = new Set(added.filter((token) => token.special === true).map((token) => token.id));
  const unknownId = vocabulary?.unk_id ?? inner.token_to_id(vocabulary?.unk_token ?? "");
  const eos = generation.eos_token_id ?? model.eos_token_id ?? [];
  const eosIds = new Set(typeof eos === "number" ? [eos] : eos);
  const bosText = typeof settings.bos_token === "object" ? settings.bos_token?.content : settings.bos_token;
  const ownBos = typeof bosText === "string" ? inner.token_to_id(bosText) : undefined;
  const bosId = ownBos ?? generation.bos_token_id ?? model.bos_token_id ?? undefined;
  // Qwen's configuration has a bos_token_id that its tokenizer never uses: there bos_token is null.
  const addsBos = bosId !== undefined && settings.add_bos_token !== false && settings.bos_token !== null;
  for (const id of [...eosIds, ...(bosId === undefined ? [] : [bosId])]) specialIds.add(id);

  const bytesOf = new Map<number, Uint8Array>();
  const tokenBytes = (id: number): Uint8Array => {
    let bytes = bytesOf.get(id);
    if (bytes === undefined) {
      bytes = specialIds.has(id) ? new Uint8Array() : pieceBytes(inner.id_to_token(id) ?? "");
      bytesOf.set(id, bytes);
    }
    return bytes;
  };
  const display = new TextDecoder();
  const encoder = new TextEncoder();
  const encode = (text: string): number[] => inner.encode(text, { add_special_tokens: false }).ids;
  const withBos = (ids: number[]): number[] => (addsBos && ids[0] !== bosId ? [bosId, ...ids] : ids);
  return {
    specialIds,
    eosIds,
    bosId,
    tokenBytes,
    tokenString: (id) => (specialIds.has(id) ? (inner.id_to_token(id) ?? "") : display.decode(tokenBytes(id))),
    encode,
    withBos,
    encodePrompt: (text) => withBos(encode(text)),
    spans(text, ids) {
      const written = (id: number) => (specialIds.has(id) ? encoder.encode(inner.id_to_token(id)) : tokenBytes(id));
      return tokenSpans(
        text,
        ids.map((id) => (id === unknownId ? "unknown" : written(id))),
      );
    },
  };
}
