// Whether a request is Discord's: https://discord.com/developers/docs/interactions/overview#setting-up-an-endpoint-validating-security-request-headers
import { TillerError } from "../../shared/errors.ts";

/** Older requests are refused, and so are those from the future. */
const WINDOW_S = 300;

/**
 * @param publicKey 32 bytes in hex.
 * @throws TillerError `unauthorized`, with the same sentence whatever is wrong.
 */
export async function verifyDiscord(publicKey: string, headers: Headers, body: string, now: number): Promise<void> {
  const signature = bytesOf(headers.get("x-signature-ed25519"));
  const timestamp = headers.get("x-signature-timestamp") ?? "";
  const recent = /^\d{1,12}$/.test(timestamp) && Math.abs(now / 1000 - Number(timestamp)) <= WINDOW_S;
  if (signature?.length !== 64 || !recent || !(await isSigned(publicKey, signature, timestamp + body)))
    throw new TillerError("unauthorized", "The signature of this request is not Discord's, or it is older than five minutes.");
}

async function isSigned(publicKey: string, signature: Uint8Array<ArrayBuffer>, text: string): Promise<boolean> {
  const key = await crypto.subtle.importKey("raw", bytesOf(publicKey) as Uint8Array<ArrayBuffer>, { name: "Ed25519" }, false, ["verify"]);
  return crypto.subtle.verify("Ed25519", key, signature, new TextEncoder().encode(text));
}

function bytesOf(hex: string | null): Uint8Array<ArrayBuffer> | undefined {
  if (hex === null || !/^(?:[0-9a-f]{2})+$/i.test(hex)) return undefined;
  return Uint8Array.from(hex.match(/../g) as string[], (pair) => Number.parseInt(pair, 16));
}
