// API keys: how one is made, hashed and compared. Only WebCrypto, so that Node scripts and the Worker share it.

const PREFIX = "sk-til-";
const KEY = /^sk-til-[A-Za-z0-9_-]{43}$/;

export interface NewApiKey {
  /** The secret: shown once, stored nowhere. */
  readonly key: string;
  /** What is stored and looked up. */
  readonly hash: string;
  /** The first characters, to recognise the key in a list. */
  readonly prefix: string;
}

/** Makes a key: `sk-til-` and 32 random bytes in base64url. */
export async function newApiKey(): Promise<NewApiKey> {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  const secret = btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
  const key = PREFIX + secret;
  return { key, hash: await hashApiKey(key), prefix: key.slice(0, PREFIX.length + 5) };
}

/** Whether a text has the form of a key at all; asked before any look-up. */
export const looksLikeApiKey = (text: string): boolean => KEY.test(text);

/** SHA-256 of the key, 64 hex digits. A key has 256 random bits, so it needs no salt and no slow hash. */
export async function hashApiKey(key: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(key));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Compares two texts in a time that depends on their lengths only. */
export function constantTimeEqual(a: string, b: string): boolean {
  let difference = a.length ^ b.length;
  for (let i = 0; i < a.length; i++) difference |= a.charCodeAt(i) ^ b.charCodeAt(i % Math.max(b.length, 1));
  return difference === 0;
}
