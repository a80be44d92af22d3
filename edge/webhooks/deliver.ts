// One attempt at a delivery: claimed, checked, signed, sent, and written down with what follows from it.
import { and, eq, isNull, lte, type SQL, sql } from "drizzle-orm";
import type { BatchItem } from "drizzle-orm/batch";
import { TillerError } from "../../shared/errors.ts";
import type { Config } from "../config.ts";
import { attempts, deliveries, endpoints } from "../jobs-schema.ts";
import { checkAddress } from "./address.ts";
import { nextAttempt } from "./schedule.ts";
import { signedHeaders } from "./sign.ts";
import { accountSecret, failPending, type SavedDelivery, type SavedEndpoint } from "./store.ts";

const TIMEOUT_MS = 15_000;
/** An attempt that was not written down for so long was killed: longer than one takes, with its look-up of a name. */
const LEASE_MS = 60_000;
const READ_BYTES = 65_536;
const KEPT_BYTES = 1024;
/** An endpoint that has only failed, for so long and so often, is disabled. */
const FAILING_MS = 5 * 24 * 3_600_000;
const FAILING_ATTEMPTS = 10;

export interface Sender {
  readonly config: Pick<Config, "db" | "webhooks">;
  readonly fetch: typeof fetch;
  /** For the whole answer; 15 seconds where nothing else is said. */
  readonly timeoutMs?: number;
  /** Bytes of an answer that are kept; 1024 where nothing else is said. */
  readonly keptBytes?: number;
}

export type AttemptEnd = { readonly done: true } | { readonly retryAt: number };

export interface Outcome {
  readonly status: number | null;
  readonly answer: string;
  /** In words; null = it succeeded. */
  readonly error: string | null;
  readonly retryAfter: string | null;
}

/**
 * Tries a delivery once, if its time has come and nobody else is at it.
 * @param now epoch milliseconds.
 * @param random from 0 to 1.
 * @returns when to call again, epoch milliseconds, or that there is nothing left to do.
 */
export async function attemptDelivery(sender: Sender, id: string, now: () => number, random: () => number): Promise<AttemptEnd> {
  const { db } = sender.config;
  const start = now();
  const lease = start + LEASE_MS;
  const pending = and(eq(deliveries.id, id), eq(deliveries.state, "pending"));
  const [claimed] = await db
    .update(deliveries)
    .set({ next_attempt_at: lease })
    .where(and(pending, lte(deliveries.next_attempt_at, start)))
    .returning();
  if (claimed === undefined) return look(db, id);

  const endpoint = claimed.endpoint_id === null ? undefined : await endpointOf(db, claimed.endpoint_id);
  if (claimed.endpoint_id !== null && (endpoint === undefined || endpoint.disabled_at !== null)) {
    const reason = endpoint === undefined ? "The endpoint was removed." : (endpoint.disabled_reason ?? "The endpoint is disabled.");
    await db.batch(failPending(db, eq(deliveries.id, id), reason, start));
    return { done: true };
  }
  const outcome = await sendSigned(sender, claimed, await secretsOf(db, claimed, endpoint, start), start);
  const end = now();
  await write(db, claimed, { outcome, start, end, lease, random: random() });
  return look(db, id);
}

type Db = Config["db"];

async function look(db: Db, id: string): Promise<AttemptEnd> {
  const [row] = await db
    .select({ at: deliveries.next_attempt_at })
    .from(deliveries)
    .where(and(eq(deliveries.id, id), eq(deliveries.state, "pending")));
  return row?.at == null ? { done: true } : { retryAt: row.at };
}

const endpointOf = async (db: Db, id: string) => (await db.select().from(endpoints).where(eq(endpoints.id, id)))[0];

async function secretsOf(db: Db, delivery: SavedDelivery, endpoint: SavedEndpoint | undefined, now: number): Promise<string[]> {
  if (endpoint === undefined) return [await accountSecret(db, delivery.user_id)];
  const { secret, previous_secret, previous_until } = endpoint;
  return previous_secret !== null && (previous_until ?? 0) > now ? [secret, previous_secret] : [secret];
}

/**
 * Posts a text once: to an address that is checked now, signed, following no redirect, for so long and no longer. Never fails.
 * @param at epoch milliseconds.
 */
export async function sendSigned(
  sender: Pick<Sender, "fetch" | "timeoutMs" | "keptBytes"> & { readonly config: Pick<Config, "webhooks"> },
  { id, url, payload }: Pick<SavedDelivery, "id" | "url" | "payload">,
  secrets: readonly string[],
  at: number,
): Promise<Outcome> {
  let status: number | null = null;
  let answer = "";
  let retryAfter: string | null = null;
  const { fetch: ask, timeoutMs = TIMEOUT_MS, keptBytes = KEPT_BYTES } = sender;
  try {
    const { href } = await checkAddress(url, sender.config.webhooks, ask);
    const signal = AbortSignal.timeout(timeoutMs);
    const headers = {
      ...{ "content-type": "application/json", "user-agent": "Tiller-Webhooks/1" },
      ...signedHeaders(secrets, id, at, payload),
    };
    const init = { method: "POST", headers, body: payload, redirect: "manual", signal } as const;
    const response = await unless(signal, ask(href, init));
    status = response.status;
    retryAfter = response.headers.get("retry-after");
    answer = await readAnswer(response, signal, keptBytes);
    return { status, answer, retryAfter, error: response.ok ? null : describe(status) };
  } catch (error) {
    return { status, answer, retryAfter, error: inWords(error, timeoutMs) };
  }
}

/** The work's result, or the signal's error as soon as it is aborted. */
async function unless<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  let stop: () => void = () => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop);
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** The first bytes as text. The rest is read so far that an honest answer ends, and no further. */
async function readAnswer(response: Response, signal: AbortSignal, keptBytes: number): Promise<string> {
  if (response.body === null) return "";
  const reader: ReadableStreamDefaultReader<Uint8Array> = response.body.getReader();
  const kept = new Uint8Array(keptBytes);
  let size = 0;
  try {
    while (size < READ_BYTES) {
      const { done, value } = await unless(signal, reader.read());
      if (done) break;
      if (size < keptBytes) kept.set(value.subarray(0, keptBytes - size), size);
      size += value.byteLength;
    }
  } finally {
    // Not waited for: a receiver that hangs may hang here too.
    reader.cancel().catch(() => undefined);
  }
  return new TextDecoder().decode(kept.subarray(0, Math.min(size, keptBytes)));
}

function describe(status: number): string {
  if (status >= 300 && status < 400) return `The receiver answered ${status}: redirects are not followed.`;
  if (status === 410) return "The receiver answered 410: it wants no more.";
  return `The receiver answered ${status}; a status from 200 to 299 is a success.`;
}

function inWords(error: unknown, timeoutMs: number): string {
  if (error instanceof TillerError) return error.message;
  if (error instanceof Error && error.name === "TimeoutError") return `The receiver did not answer within ${timeoutMs / 1000} seconds.`;
  return "The receiver could not be reached, or broke off.";
}

interface Written {
  readonly outcome: Outcome;
  readonly start: number;
  readonly end: number;
  readonly lease: number;
  readonly random: number;
}

/** All or nothing: the attempt, the delivery's state, and what the endpoint's owner should know. */
async function write(db: Db, delivery: SavedDelivery, { outcome, start, end, lease, random }: Written): Promise<void> {
  const { id, endpoint_id: endpointId } = delivery;
  const { status, answer, error } = outcome;
  const mine = eq(deliveries.id, id);
  const tries = delivery.tries + 1;
  const next = error === null || status === 410 ? undefined : nextAttempt(tries, end, outcome.retryAfter, random);
  const number = sql`(SELECT coalesce(max(${attempts.number}), 0) + 1 FROM ${attempts} WHERE ${attempts.delivery_id} = ${id})`;
  const over = { next_attempt_at: null, finished_at: end };
  const statements: [BatchItem<"sqlite">, ...BatchItem<"sqlite">[]] = [
    db.insert(attempts).values({ delivery_id: id, number, at: start, status, duration_ms: end - start, answer, error }),
    db
      .update(deliveries)
      .set({ attempts: sql`${deliveries.attempts} + 1` })
      .where(mine),
    error === null
      ? db
          .update(deliveries)
          .set({ state: "succeeded", tries, ...over })
          .where(mine)
      : // Somebody may have asked for a replay meanwhile, or disabled the endpoint: then theirs counts.
        db
          .update(deliveries)
          .set(next === undefined ? { state: "failed", tries, ...over } : { tries, next_attempt_at: next })
          .where(and(mine, eq(deliveries.state, "pending"), eq(deliveries.next_attempt_at, lease))),
  ];
  if (endpointId !== null) statements.push(...judge(db, delivery, endpointId, outcome, start, end));
  await db.batch(statements);
}

function judge(
  db: Db,
  delivery: SavedDelivery,
  endpointId: string,
  { status, error }: Outcome,
  start: number,
  end: number,
): BatchItem<"sqlite">[] {
  const endpoint = eq(endpoints.id, endpointId);
  if (error === null) return [db.update(endpoints).set({ failing_since: null }).where(endpoint)];
  const disable = (reason: string, when?: SQL) =>
    db
      .update(endpoints)
      .set({ disabled_at: end, disabled_reason: reason })
      .where(and(endpoint, isNull(endpoints.disabled_at), when));
  const note = db
    .update(endpoints)
    .set({ failing_since: sql`coalesce(${endpoints.failing_since}, ${start})` })
    .where(endpoint);
  const disabled = sql`EXISTS (SELECT 1 FROM ${endpoints} WHERE ${endpoint} AND ${endpoints.disabled_at} IS NOT NULL)`;
  const waiting = and(eq(deliveries.user_id, delivery.user_id), eq(deliveries.endpoint_id, endpointId), disabled) as SQL;
  if (status === 410) {
    const reason = "The receiver answered 410 Gone, which means that it wants no more events.";
    return [note, disable(reason), ...failPending(db, waiting, reason, end)];
  }
  const reason = `Every attempt has failed for ${FAILING_MS / 86_400_000} days, the last one so: ${error}`;
  const failures = sql`(SELECT count(*) FROM ${attempts} JOIN ${deliveries} ON ${deliveries.id} = ${attempts.delivery_id}
    WHERE ${deliveries.user_id} = ${delivery.user_id} AND ${deliveries.endpoint_id} = ${endpointId}
      AND ${attempts.at} >= ${endpoints.failing_since})`;
  const hopeless = sql`${endpoints.failing_since} <= ${end - FAILING_MS} AND ${failures} >= ${FAILING_ATTEMPTS}`;
  return [note, disable(reason, hopeless), ...failPending(db, waiting, reason, end)];
}
