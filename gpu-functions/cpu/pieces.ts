// What bytes a token's piece stands for, as the `decoder` of tokenizer.json says. A text is its tokens' bytes one after another, so
// that it can grow token by token; decoders that look at a token's neighbours are refused.
import { z } from "zod";

/** The bytes a piece adds to a text that has begun already. */
export type PieceBytes = (piece: string) => Uint8Array;

const Step = z.discriminatedUnion(
  "type",
  [
    z.object({ type: z.literal("ByteLevel") }),
    z.object({ type: z.literal("Metaspace"), replacement: z.string().default("▁") }),
    z.object({ type: z.literal("Replace"), pattern: z.object({ String: z.string().min(1) }), content: z.string() }),
    z.object({ type: z.literal("ByteFallback") }),
    z.object({ type: z.literal("Fuse") }),
    // The space that begins a text: a piece that follows a prompt is never at its beginning.
    z.object({ type: z.literal("Strip"), content: z.literal(" "), start: z.int().min(0), stop: z.literal(0) }),
  ],
  {
    error: ({ input }) =>
      `decoder ${JSON.stringify((input as { type?: unknown } | null)?.type)} is not supported; ByteLevel, Metaspace, Replace, ByteFallback, Fuse and Strip are`,
  },
);
const Sequence = z.object({ type: z.literal("Sequence"), decoders: z.array(z.unknown()).min(1) });

const encoder = new TextEncoder();

/** @throws Error naming a decoder that is not supported. */
export function readDecoder(json: unknown): PieceBytes {
  const sequence = Sequence.safeParse(json);
  const steps = (sequence.success ? sequence.data.decoders : [json]).map((step) => {
    const parsed = Step.safeParse(step);
    if (!parsed.success) throw new Error(z.prettifyError(parsed.error));
    return parsed.data;
  });
  const fused = steps.findIndex(({ type }) => type === "Fuse");
  const late = steps.find(({ type }, i) => fused >= 0 && i > fused && type !== "Strip");
  if (late !== undefined) throw new Error(`decoder ${late.type} after Fuse is not supported: it would change text that was shown already`);
  if (steps.length > 1 && steps.some(({ type }) => type === "ByteLevel")) throw new Error("decoder ByteLevel is supported alone only");
  if (steps[0]?.type === "ByteLevel") return byteLevel;
  const replacements = steps.flatMap((step): [string, string][] => {
    if (step.type === "Replace") return [[step.pattern.String, step.content]];
    return step.type === "Metaspace" ? [[step.replacement, " "]] : [];
  });
  const fallback = steps.some(({ type }) => type === "ByteFallback");
  return (piece) => {
    const byte = fallback ? /^<0x([0-9A-F]{2})>$/.exec(piece)?.[1] : undefined;
    if (byte !== undefined) return Uint8Array.of(Number.parseInt(byte, 16));
    return encoder.encode(replacements.reduce((text, [from, to]) => text.replaceAll(from, to), piece));
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

function byteLevel(piece: string): Uint8Array {
  const bytes: number[] = [];
  for (const char of piece) {
    const byte = BYTE_OF_CHAR.get(char);
    // Added tokens that are not special stand for their own text.
    if (byte === undefined) return encoder.encode(piece);
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
