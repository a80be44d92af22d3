// Endpoints and deliveries in D1.
import { and, asc, count, desc, eq, gte, isNull, lt, lte, or, type SQL, sql } from "drizzle-orm";
import type { BatchItem } from "drizzle-orm/batch";
import { TillerError } from "../../shared/errors.ts";
import { newId } from "../../shared/ids.ts";
import type { Config } from "../config.ts";
import { attempts, type DELIVERY_STATES, deliveries, endpoints, type jobs } from "../jobs-schema.ts";
import { users } from "../schema.ts";
import { checkAddress } from "./address.ts";
import { newSecret } from "./sign.ts";

export type SavedEndpoint = typeof endpoints.$inferSelect;
export type SavedDelivery = typeof deliveries.$inferSelect;
export type SavedAttempt = typeof attempts.$inferSelect;
export type DeliveryState = (typeof DELIVERY_STATES)[number];

export const ENDPOINTS_PER_USER = 20;
/** Deliveries that one call replays. */
export const REPLAYED = 200;

export interface DeliveryPage {
  readonly endpoint?: string | undefined;
  readonly state?: DeliveryState | undefined;
  readonly job?: string | undefined;
  readonly limit: number;
  /** The last of the page before. */
  readonly before?: { readonly at: number; readonly id: string } | undefined;
}

/** What is another user's is as if it were not there. */
export interface Webhooks {
  /** @throws TillerError `invalid_request` for an address that may not be reached, `conflict` for one too many and for one again. */
  create(userId: string, endpoint: { readonly url: string; readonly description: string }): Promise<SavedEndpoint>;
  list(userId: string): Promise<SavedEndpoint[]>;
  get(userId: string, id: string): Promise<SavedEndpoint | undefined>;
  /** A new secret; the old one signs too for so long. */
  rotate(userId: string, id: string, overlapSeconds: number): Promise<SavedEndpoint | undefined>;
  /** What waits for the endpoint fails. */
  disable(userId: string, id: string): Promise<SavedEndpoint | undefined>;
  enable(userId: string, id: string): Promise<SavedEndpoint | undefined>;
  /** Its deliveries can still be read. @returns whether there was one. */
  remove(userId: string, id: string): Promise<boolean>;
  /** Makes a delivery of the event `webhook.test`. @throws TillerError `conflict` when the endpoint is disabled. */
  test(userId: string, id: string): Promise<SavedDelivery | undefined>;
  /**
   * Statements that make the deliveries of a job's event: for every enabled endpoint and for the job's own address, once however often
   * they run, and none when the job is not in the state that it has here.
   */
  eventStatements(job: typeof jobs.$inferSelect, event: string, payload: string): readonly BatchItem<"sqlite">[];
  /** Ids of a job's deliveries that have not ended. */
  deliveriesOf(jobId: string): Promise<string[]>;
  /** The newest first. */
  deliveries(userId: string, page: DeliveryPage): Promise<SavedDelivery[]>;
  delivery(userId: string, id: string): Promise<{ readonly row: SavedDelivery; readonly attempts: SavedAttempt[] } | undefined>;
  /** Delivers again, from the beginning of the schedule. @throws TillerError `conflict` when the endpoint is disabled or gone. */
  replay(userId: string, id: string): Promise<SavedDelivery | undefined>;
  /**
   * Replays an endpoint's failed deliveries made since a time (epoch milliseconds), the oldest first, so many at once.
   * @returns their ids, and whether there are more; undefined when there is no such endpoint.
   * @throws TillerError `conflict` when it is disabled.
   */
  replayFailed(userId: string, endpointId: string, since: number): Promise<{ readonly ids: string[]; readonly more: boolean } | undefined>;
  /** Ids of deliveries whose time has come, the longest waiting first. */
  due(now: number, limit: number): Promise<string[]>;
  /** What signs deliveries to addresses that came with a job. */
  accountSecret(userId: string): Promise<string>;
  /** A new one, at once: the old one signs nothing any more. */
  rotateAccountSecret(userId: string): Promise<string>;
}

type Db = Config["db"];

/** The user's own secret, made when it is first needed: of two at once one is kept. */
export async function accountSecret(db: Db, userId: string): Promise<string> {
  const mine = eq(users.id, userId);
  const secretOf = async () => (await db.select({ secret: users.webhook_secret }).from(users).where(mine))[0]?.secret;
  const known = await secretOf();
  if (known != null) return known;
  await db
    .update(users)
    .set({ webhook_secret: newSecret() })
    .where(and(mine, isNull(users.webhook_secret)));
  const secret = await secretOf();
  if (secret == null) throw new Error("a user without a secret");
  return secret;
}

/** Ends pending deliveries that shall not be sent, each with a row that says why. */
export function failPending(db: Db, which: SQL, reason: string, now: number): [BatchItem<"sqlite">, BatchItem<"sqlite">] {
  const waiting = and(which, eq(deliveries.state, "pending"));
  const next = sql`(SELECT coalesce(max(a.number), 0) + 1 FROM ${attempts} a WHERE a.delivery_id = ${deliveries.id})`;
  return [
    db
      .insert(attempts)
      .select(sql`SELECT ${deliveries.id}, ${next}, ${now}, NULL, 0, '', ${`Not sent. ${reason}`} FROM ${deliveries} WHERE ${waiting}`),
    db.update(deliveries).set({ state: "failed", next_attempt_at: null, finished_at: now }).where(waiting),
  ];
}

const disabledError = (): TillerError =>
  new TillerError("conflict", "The endpoint is disabled or was removed, so nothing is sent to it: enable it first.");

export function newWebhooks({ db, webhooks: settings }: Pick<Config, "db" | "webhooks">): Webhooks {
  const own = (userId: string, id: string) => and(eq(endpoints.id, id), eq(endpoints.user_id, userId));
  const get = async (userId: string, id: string) => (await db.select().from(endpoints).where(own(userId, id)))[0];
  const pendingOf = (userId: string, id: string) => and(eq(deliveries.user_id, userId), eq(deliveries.endpoint_id, id)) as SQL;
  const again = (now: number) => ({ state: "pending", tries: 0, next_attempt_at: now, finished_at: null }) as const;

  return {
    async create(userId, { url, description }) {
      const { href } = await checkAddress(url, settings);
      const mine = await db.select({ url: endpoints.url }).from(endpoints).where(eq(endpoints.user_id, userId));
      if (mine.some((known) => known.url === href)) throw new TillerError("conflict", "You have an endpoint with this url already.");
      const row: SavedEndpoint = {
        ...{ id: newId(), user_id: userId, url: href, description, secret: newSecret(), previous_secret: null, previous_until: null },
        ...{ failing_since: null, disabled_at: null, disabled_reason: null, created_at: Date.now() },
      };
      const [{ n } = { n: 0 }] = await db.select({ n: count() }).from(endpoints).where(eq(endpoints.user_id, userId));
      if (n >= ENDPOINTS_PER_USER)
        throw new TillerError("conflict", `You have ${n} endpoints, and ${ENDPOINTS_PER_USER} is the limit: delete one first.`);
      await db.insert(endpoints).values(row);
      return row;
    },
    list: (userId) =>
      db.select().from(endpoints).where(eq(endpoints.user_id, userId)).orderBy(desc(endpoints.created_at), desc(endpoints.id)),
    get,
    async rotate(userId, id, overlapSeconds) {
      const until = overlapSeconds === 0 ? null : Date.now() + overlapSeconds * 1000;
      const [row] = await db
        .update(endpoints)
        .set({ secret: newSecret(), previous_secret: until === null ? null : sql`${endpoints.secret}`, previous_until: until })
        .where(own(userId, id))
        .returning();
      return row;
    },
    async disable(userId, id) {
      if ((await get(userId, id)) === undefined) return undefined;
      const now = Date.now();
      const reason = "Its owner disabled the endpoint.";
      await db.batch([
        db
          .update(endpoints)
          .set({ disabled_at: now, disabled_reason: reason })
          .where(and(own(userId, id), isNull(endpoints.disabled_at))),
        ...failPending(db, pendingOf(userId, id), reason, now),
      ]);
      return get(userId, id);
    },
    async enable(userId, id) {
      const changes = { disabled_at: null, disabled_reason: null, failing_since: null };
      return (await db.update(endpoints).set(changes).where(own(userId, id)).returning())[0];
    },
    async remove(userId, id) {
      if ((await get(userId, id)) === undefined) return false;
      await db.batch([
        db.delete(endpoints).where(own(userId, id)),
        ...failPending(db, pendingOf(userId, id), "Its owner removed the endpoint.", Date.now()),
      ]);
      return true;
    },
    async test(userId, id) {
      const endpoint = await get(userId, id);
      if (endpoint === undefined) return undefined;
      if (endpoint.disabled_at !== null) throw disabledError();
      const now = Date.now();
      const event = "webhook.test";
      const data = { endpointId: id, message: "This is a test event. Nothing happened." };
      const row: SavedDelivery = {
        ...{ id: newId(), user_id: userId, endpoint_id: id, url: endpoint.url, job_id: null, event },
        ...{ payload: JSON.stringify({ type: event, timestamp: new Date(now).toISOString(), data }), state: "pending" },
        ...{ attempts: 0, tries: 0, next_attempt_at: now, created_at: now, finished_at: null },
      };
      await db.insert(deliveries).values(row);
      return row;
    },
    eventStatements(job, event, payload) {
      const now = Date.now();
      const inState = sql`EXISTS (SELECT 1 FROM jobs WHERE jobs.id = ${job.id} AND jobs.state = ${job.state})`;
      // In the form that newId gives, made by the database: one statement serves all endpoints.
      const id = sql`'cm' || substr(lower(hex(randomblob(12))), 1, 23)`;
      const rest = sql`${job.id}, ${event}, ${payload}, 'pending', 0, 0, ${now}, ${now}, NULL`;
      const toEndpoints = sql`SELECT ${id}, ${job.user_id}, ${endpoints.id}, ${endpoints.url}, ${rest} FROM ${endpoints}
        WHERE ${endpoints.user_id} = ${job.user_id} AND ${endpoints.disabled_at} IS NULL AND ${inState}`;
      const insert = (rows: SQL) => db.insert(deliveries).select(rows).onConflictDoNothing();
      if (job.webhook_url === null) return [insert(toEndpoints)];
      const url = new URL(job.webhook_url).href;
      return [insert(toEndpoints), insert(sql`SELECT ${id}, ${job.user_id}, NULL, ${url}, ${rest} WHERE ${inState}`)];
    },
    deliveriesOf: async (jobId) =>
      (
        await db
          .select({ id: deliveries.id })
          .from(deliveries)
          .where(and(eq(deliveries.job_id, jobId), eq(deliveries.state, "pending")))
      ).map(({ id }) => id),
    deliveries: (userId, { endpoint, state, job, limit, before }) =>
      db
        .select()
        .from(deliveries)
        .where(
          and(
            eq(deliveries.user_id, userId),
            endpoint === undefined ? undefined : eq(deliveries.endpoint_id, endpoint),
            state === undefined ? undefined : eq(deliveries.state, state),
            job === undefined ? undefined : eq(deliveries.job_id, job),
            before === undefined
              ? undefined
              : or(lt(deliveries.created_at, before.at), and(eq(deliveries.created_at, before.at), lt(deliveries.id, before.id))),
          ),
        )
        .orderBy(desc(deliveries.created_at), desc(deliveries.id))
        .limit(limit),
    async delivery(userId, id) {
      const [rows, tried] = await db.batch([
        db
          .select()
          .from(deliveries)
          .where(and(eq(deliveries.id, id), eq(deliveries.user_id, userId))),
        db.select().from(attempts).where(eq(attempts.delivery_id, id)).orderBy(asc(attempts.number)),
      ]);
      return rows[0] === undefined ? undefined : { row: rows[0], attempts: tried };
    },
    async replay(userId, id) {
      const mine = and(eq(deliveries.id, id), eq(deliveries.user_id, userId));
      const [row] = await db.select().from(deliveries).where(mine);
      if (row === undefined) return undefined;
      if (row.endpoint_id !== null && (await get(userId, row.endpoint_id))?.disabled_at !== null) throw disabledError();
      return (await db.update(deliveries).set(again(Date.now())).where(mine).returning())[0];
    },
    async replayFailed(userId, endpointId, since) {
      const endpoint = await get(userId, endpointId);
      if (endpoint === undefined) return undefined;
      if (endpoint.disabled_at !== null) throw disabledError();
      const failed = and(pendingOf(userId, endpointId), eq(deliveries.state, "failed"), gte(deliveries.created_at, since));
      const oldest = db.select({ id: deliveries.id }).from(deliveries).where(failed).orderBy(asc(deliveries.created_at)).limit(REPLAYED);
      const rows = await db
        .update(deliveries)
        .set(again(Date.now()))
        .where(sql`${deliveries.id} IN ${oldest}`)
        .returning({ id: deliveries.id });
      const left = await db.select({ n: count() }).from(deliveries).where(failed);
      return { ids: rows.map(({ id }) => id), more: (left[0]?.n ?? 0) > 0 };
    },
    due: async (now, limit) =>
      (
        await db
          .select({ id: deliveries.id })
          .from(deliveries)
          .where(and(eq(deliveries.state, "pending"), lte(deliveries.next_attempt_at, now)))
          .orderBy(asc(deliveries.next_attempt_at))
          .limit(limit)
      ).map(({ id }) => id),
    accountSecret: (userId) => accountSecret(db, userId),
    async rotateAccountSecret(userId) {
      const secret = newSecret();
      await db.update(users).set({ webhook_secret: secret }).where(eq(users.id, userId));
      return secret;
    },
  };
}
