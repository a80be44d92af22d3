// Standard Webhooks: secrets, and the headers by which a receiver knows who sent what.
import { Webhook } from "standardwebhooks";

const SECRET_BYTES = 24;

/** A new random secret: `whsec_` and base64. */
export const newSecret = (): string => `whsec_${btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(SECRET_BYTES))))}`;

/**
 * The headers of one request.
 * @param secrets each makes a signature: the receiver needs to know one of them.
 * @param at epoch milliseconds.
 */
export function signedHeaders(secrets: readonly string[], id: string, at: number, payload: string): Record<string, string> {
  return {
    "webhook-id": id,
    "webhook-timestamp": String(Math.floor(at / 1000)),
    "webhook-signature": secrets.map((secret) => new Webhook(secret).sign(id, new Date(at), payload)).join(" "),
  };
}
