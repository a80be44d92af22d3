// Where in a text its tokens lie. The tokenizer normalises a text before it splits it and gives ids only, so the characters that the
// tokens write are laid along the text again: inserted spaces, rewritten and dropped characters find their place on the way.

/** Half-open range of UTF-16 code units, as `String.slice` takes it. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** The bytes a token writes, or that it stands for characters which the vocabulary lacks, however many they are. */
export type Written = Uint8Array | "unknown";

/** A decomposed character and where it comes from: code units of the text, or the first and last token that hold its bytes. */
interface Piece {
  readonly char: string;
  readonly from: number;
  readonly to: number;
}

/** How many characters in a row a normalizer is believed to drop, and how many may be unknown. */
const DROPPED = 16;
const UNKNOWN = 4096;

/**
 * The span of every token of a text. Tokens that share the bytes of a character all have the span of that character. A token that
 * writes nothing of the text (a space that the tokenizer puts before it) has an empty span where it stands.
 */
export function tokenSpans(text: string, tokens: readonly Written[]): Span[] {
  const source = textPieces(text);
  const found: (Span | undefined)[] = tokens.map(() => undefined);
  let cursor = 0;
  let unknown: number[] = [];
  const placeUnknown = (end: number) => {
    unknown.forEach((token, i) => {
      const first = source[cursor + i];
      const last = i === unknown.length - 1 ? source[end - 1] : first;
      if (first !== undefined && last !== undefined && cursor + i < end) found[token] = { start: first.from, end: last.to };
    });
    unknown = [];
  };
  const written = [...tokenPieces(tokens)];
  for (const [i, { char, from, to }] of written.entries()) {
    if (char === "") {
      unknown.push(from);
      continue;
    }
    const at = findPiece(source, cursor, char, written[i + 1]?.char, unknown.length > 0);
    if (at === undefined) continue;
    placeUnknown(at);
    cursor = at + 1;
    const { from: start, to: end } = source[at] as Piece;
    for (let token = from; token <= to; token++) found[token] = { start: found[token]?.start ?? start, end };
  }
  placeUnknown(source.length);
  let end = 0;
  return found.map((span) => {
    end = span?.end ?? end;
    return span ?? { start: end, end };
  });
}

const isSpace = (char: string): boolean => /^\s$/.test(char);

/** Decomposed, so that a normalizer that composes (NFC) or replaces (NFKC) characters changes nothing that is compared. */
const decompose = (char: string): Iterable<string> => (char < "\u0080" || isSpace(char) ? char : char.normalize("NFKD"));

function textPieces(text: string): Piece[] {
  const pieces: Piece[] = [];
  let from = 0;
  for (const whole of text.toWellFormed()) {
    const to = from + whole.length;
    for (const char of decompose(whole)) pieces.push({ char, from, to });
    from = to;
  }
  return pieces;
}

/** What the tokens write, character by character; "" for an unknown token. */
function* tokenPieces(tokens: readonly Written[]): Generator<Piece> {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let bytes: number[] = [];
  let from = 0;
  for (const [to, written] of tokens.entries()) {
    if (written === "unknown") {
      yield { char: "", from: to, to };
      continue;
    }
    for (const byte of written) {
      if (bytes.length === 0) from = to;
      bytes.push(byte);
      if (bytes.length < utf8Length(bytes[0] as number)) continue;
      for (const char of decompose(decoder.decode(Uint8Array.from(bytes)))) yield { char, from, to };
      bytes = [];
    }
  }
}

const utf8Length = (first: number): number => (first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4);

/**
 * Where a character that a token writes is in the text, from `cursor` on; undefined when the tokenizer put it there itself.
 * @param next What the tokens write after it.
 */
function findPiece(
  source: readonly Piece[],
  cursor: number,
  char: string,
  next: string | undefined,
  afterUnknown: boolean,
): number | undefined {
  const space = isSpace(char);
  let left = afterUnknown ? UNKNOWN : DROPPED;
  for (let at = cursor; at < source.length && left > 0; at++) {
    const candidate = (source[at] as Piece).char;
    const candidateIsSpace = isSpace(candidate);
    // A normalizer may have made a plain space of another one, unless that comes next.
    if (candidate === char || (space && candidateIsSpace && next !== candidate)) return at;
    // An inserted space must not be taken for the next one that the text has.
    if (space && !afterUnknown) return undefined;
    if (!candidateIsSpace) left--;
  }
  return undefined;
}
