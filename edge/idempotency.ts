// Idempotency-Key: a POST that is sent twice with one key is done once, and answered twice with the same.
import { and, eq, isNull, lt } from "drizzle-orm";
import type { MiddlewareHandler } from "hono";
import { TillerError } from "../shared/errors.ts";
import type { App } from "./app.ts";
import type { Gate } from "./auth.ts";
import type { Config } from "./config.ts";
import { idempotency } from "./jobs-schema.ts";

/** For so long an answer is kept. */
const KEPT_MS = 24 * 3_600_000;
/** While a request is worked on its row is touched this often; one that was not touched for so long was killed, and its key is free. */
const BEAT_MS = 4000;
const STALE_MS = 12_000;
/** Larger answers are not kept. */
const LARGEST = 1_000_000;
const RETRY_SECONDS = 2;

/** For every POST that has the header; the others pass. Keys are a user's own. */
export function idempotent(config: Config, gate: Gate): MiddlewareHandler<App> {
  const { db } = config;
  return async (c, next) => {
    const key = c.req.header("idempotency-key");
    if (key === undefined || c.req.method !== "POST") return next();
    if (!/^[\x21-\x7e]{1,255}$/.test(key))
      throw new TillerError("invalid_request", "Idempotency-Key must be 1 to 255 visible ASCII characters.");
    const { userId } = await gate.identify(c.req.raw, (work) => c.executionCtx.waitUntil(work), c.env);
    if (userId === undefined) throw new TillerError("unauthorized", "Idempotency-Key needs an API key: keys are kept for their user.");
    const body = await c.req.raw.clone().arrayBuffer();
    if (wantsStream(body))
      throw new TillerError(
        "invalid_request",
        "Idempotency-Key and stream exclude each other: a stream cannot be answered again. Leave one out.",
      );
    const hash = await hashOf(c.req.path.replace(/\/+$/, ""), body);
    const mine = and(eq(idempotency.user_id, userId), eq(idempotency.key, key));
    const now = Date.now();
    // What is too old goes first, so that the key is free.
    await db.batch([
      db.delete(idempotency).where(and(mine, lt(idempotency.created_at, now - KEPT_MS))),
      db.delete(idempotency).where(and(mine, isNull(idempotency.status), lt(idempotency.created_at, now - STALE_MS))),
    ]);
    const row = { user_id: userId, key, request_hash: hash, status: null, answer: null, created_at: now };
    const claimed = await db.insert(idempotency).values(row).onConflictDoNothing().returning({ key: idempotency.key });
    if (claimed.length === 0) {
      const [kept] = await db.select().from(idempotency).where(mine);
      if (kept === undefined) throw busy();
      if (kept.request_hash !== hash)
        throw new TillerError("conflict", "This Idempotency-Key was used for another request: use a new key for a new request.");
      if (kept.status === null || kept.answer === null) throw busy();
      c.header("idempotent-replayed", "true");
      c.header("content-type", "application/json");
      return c.body(kept.answer, kept.status as 200);
    }
    const forget = () => db.delete(idempotency).where(mine).run();
    const touch = () => db.update(idempotency).set({ created_at: Date.now() }).where(mine).run();
    const beat = setInterval(() => void touch().catch(() => undefined), BEAT_MS);
    try {
      await next();
    } catch (error) {
      await forget();
      throw error;
    } finally {
      clearInterval(beat);
    }
    const { status, headers } = c.res;
    const kept = headers.get("content-type")?.startsWith("application/json") === true && status < 500 && status !== 429;
    const answer = kept ? withoutSecrets(c.req.path, await c.res.clone().text()) : undefined;
    // After a failure of ours or a full quota the same request may do better; a file was read, and nothing made.
    if (answer === undefined || answer.length > LARGEST) await forget();
    else await db.update(idempotency).set({ status, answer }).where(mine).run();
  };
}

/** Calls that answer with a secret, which is shown once and stored nowhere. */
const SECRET = /^\/api\/(user\/(keys\/new|api-key)|admin\/user\/new|webhooks(\/.*)?)\/?$/;
const SHOWN_ONCE = "shown once, in the first answer";

const withoutSecrets = (path: string, answer: string): string =>
  SECRET.test(path)
    ? JSON.stringify(JSON.parse(answer, (name, value: unknown) => (["key", "secret", "value"].includes(name) ? SHOWN_ONCE : value)))
    : answer;

function wantsStream(body: ArrayBuffer): boolean {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(body));
    return typeof value === "object" && value !== null && "stream" in value && (value.stream === true || value.stream === "true");
  } catch {
    return false;
  }
}

const busy = (): TillerError =>
  new TillerError("conflict", "A request with this Idempotency-Key is being worked on: ask again in a moment.", {
    retryAfterSeconds: RETRY_SECONDS,
  });

async function hashOf(path: string, body: ArrayBuffer): Promise<string> {
  const name = new TextEncoder().encode(`${path}\n`);
  const bytes = new Uint8Array(name.length + body.byteLength);
  bytes.set(name);
  bytes.set(new Uint8Array(body), name.length);
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
