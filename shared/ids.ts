// Identifiers: 25 characters that look like a cuid ("cm" and 23 of base 36), about 119 random bits: not guessable, so that an
// id can be the whole of a share link.

const ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz";
const LENGTH = 23;

/** What `newId` makes. */
export const ID_PATTERN = /^cm[0-9a-z]{23}$/;

/** A new random identifier. */
export function newId(): string {
  let id = "cm";
  while (id.length < LENGTH + 2) {
    for (const byte of crypto.getRandomValues(new Uint8Array(LENGTH))) {
      // 252 = 7 x 36: taking the bytes above it too would favour the first four letters.
      if (byte < 252 && id.length < LENGTH + 2) id += ALPHABET[byte % 36];
    }
  }
  return id;
}

/** An identifier that a text decides: the same text, the same id. */
export async function idOf(text: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  let value = digest.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  let id = "";
  for (let i = 0; i < LENGTH; i++) {
    id += ALPHABET[Number(value % 36n)];
    value /= 36n;
  }
  return `cm${id}`;
}
