// One file from the hub to the disk: goes on where it stopped, tries again, and is only there when its bytes are the right ones.
import { createHash, type Hash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { authorization, explain, fileUrl, type HubFile, type HubSettings } from "./hub.ts";

/** How often a transfer that brings nothing is tried again. */
const ATTEMPTS = 6;
/** A connection that brings nothing for so long is given up. */
const STALLED_MS = 60_000;
const LONGEST_WAIT_MS = 60_000;

export interface DownloadOptions {
  /** Receives the number of bytes that are new on the disk; negative when some turn out to be wrong. */
  readonly onBytes: (count: number) => void;
  /** Waits between attempts. */
  readonly sleep: (ms: number) => Promise<void>;
}

/** A refusal that trying again does not change. */
class Refused extends Error {}

/** @throws Error that says what to do: gone, refused, interrupted too often, or bytes that are not those the hub lists. */
export async function download(settings: HubSettings, file: HubFile, target: string, options: DownloadOptions): Promise<void> {
  await mkdir(path.dirname(target), { recursive: true });
  const part = `${target}.part`;
  let written = existsSync(part) ? (await stat(part)).size : 0;
  if (written > file.bytes) {
    await rm(part);
    written = 0;
  }
  options.onBytes(written);
  for (let failures = 0; written < file.bytes || !existsSync(part); ) {
    const before = written;
    try {
      written = await transfer(settings, file, part, written, options);
    } catch (error) {
      if (error instanceof Refused) throw error;
      written = existsSync(part) ? (await stat(part)).size : 0;
      failures = written > before ? 0 : failures + 1;
      if (failures >= ATTEMPTS) {
        throw new Error(`${file.repo}/${file.path} could not be fetched: ${reason(error)}. What came is kept; run the command again.`, {
          cause: error,
        });
      }
      const wanted = error instanceof Busy ? error.waitMs : undefined;
      await options.sleep(Math.min(LONGEST_WAIT_MS, wanted ?? 1000 * 2 ** failures));
    }
  }
  const found = await hashOf(part, file);
  if (found !== file.hash.hex) {
    await rm(part);
    options.onBytes(-file.bytes);
    throw new Error(`${file.repo}/${file.path} arrived damaged (its checksum differs) and was deleted: run the command again.`);
  }
  await rename(part, target);
}

/** The hub's answer to come back later. */
class Busy extends Error {
  readonly waitMs: number | undefined;
  constructor(status: number, retryAfter: string | null) {
    super(`the hub answered ${status}`);
    const seconds = Number(retryAfter ?? Number.NaN);
    this.waitMs = Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : undefined;
  }
}

const reason = (error: unknown): string => {
  const { message, cause } = error as Error;
  return cause instanceof Error ? `${message} (${cause.message})` : message;
};

/** Appends what is missing. @returns the size of the part. */
async function transfer(settings: HubSettings, file: HubFile, part: string, from: number, { onBytes }: DownloadOptions): Promise<number> {
  const controller = new AbortController();
  const stalled = setTimeout(() => controller.abort(new Error("nothing came for a minute")), STALLED_MS);
  try {
    // fetch leaves the token behind when it is sent on to another host.
    const response = await fetch(fileUrl(settings, file), {
      // Ranges and sizes are those of the file itself.
      headers: { ...authorization(settings), "accept-encoding": "identity", ...(from > 0 ? { range: `bytes=${from}-` } : {}) },
      signal: controller.signal,
    });
    if (response.status === 429 || response.status >= 500) throw new Busy(response.status, response.headers.get("retry-after"));
    if (!response.ok || response.body === null) throw new Refused(explain(settings, file.repo, file.revision, response.status).message);
    const resumed = response.status === 206 && response.headers.get("content-range")?.startsWith(`bytes ${from}-`) === true;
    if (!resumed) onBytes(-from);
    let size = resumed ? from : 0;
    const out = await open(part, resumed ? "a" : "w");
    try {
      for await (const chunk of response.body) {
        stalled.refresh();
        if (size + chunk.length > file.bytes) throw new Refused(`${file.repo}/${file.path} is larger than the hub lists it.`);
        await out.write(chunk);
        size += chunk.length;
        onBytes(chunk.length);
      }
    } finally {
      await out.close();
    }
    if (size < file.bytes) throw new Error(`the connection ended after ${size} of ${file.bytes} bytes`);
    return size;
  } finally {
    clearTimeout(stalled);
  }
}

async function hashOf(name: string, { bytes, hash }: HubFile): Promise<string> {
  // https://git-scm.com/book/en/v2/Git-Internals-Git-Objects: a blob's name is the hash of a header and its content.
  const sum: Hash = hash.kind === "sha256" ? createHash("sha256") : createHash("sha1").update(`blob ${bytes}\0`);
  for await (const chunk of createReadStream(name)) sum.update(chunk as Uint8Array);
  return sum.digest("hex");
}
