// Files that people attach: read from Discord's own hosts only, and never more than is allowed.
import { refusal } from "./failure.ts";

const HOSTS: ReadonlySet<string> = new Set(["cdn.discordapp.com", "media.discordapp.net"]);
/** As much as `POST /api/vector/upload` takes. */
const MAX_BYTES = 8_000_000;
const TIMEOUT_MS = 15_000;

/** @param maxBytes of the file; what a vector file may have, when it is left out. */
export type ReadAttachment = (url: string, maxBytes?: number) => Promise<Uint8Array<ArrayBuffer>>;

/** @param api Discord's API: a host of its own that is not discord.com serves its attachments too. */
export function newAttachmentReader(api: string): ReadAttachment {
  const own = new URL(api);
  const isOwn = (url: URL) => own.hostname !== "discord.com" && url.origin === own.origin;
  return async (address, maxBytes = MAX_BYTES) => {
    const url = new URL(address);
    if (!isOwn(url) && !(url.protocol === "https:" && HOSTS.has(url.hostname)))
      throw refusal("This file is not at Discord: attach it to the command.");
    // A redirect is no success, and is not followed. (A Worker knows no `redirect: "error"`.)
    const response = await fetch(url, { redirect: "manual", signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!response.ok || response.body === null) throw refusal("Discord no longer has this file: attach it again.");
    const chunks: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      size += chunk.byteLength;
      if (size > maxBytes) throw refusal(`The file has more than ${maxBytes / 1e6} MB: attach a smaller one.`);
      chunks.push(chunk);
    }
    const bytes = new Uint8Array(size);
    let at = 0;
    for (const chunk of chunks) {
      bytes.set(chunk, at);
      at += chunk.byteLength;
    }
    return bytes;
  };
}
