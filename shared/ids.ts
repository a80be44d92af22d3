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
