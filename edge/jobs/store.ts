// Jobs in D1: made, admitted in turn, fed with what they find, ended once.
import { and, asc, desc, eq, getTableColumns, gt, inArray, lt, notInArray, or, type SQL, sql } from "drizzle-orm";
import type { BatchItem } from "drizzle-orm/batch";
import { TillerError } from "../../shared/errors.ts";
import type { Config } from "../config.ts";
import { FINAL_STATES, jobChunks, jobInputs, jobs } from "../jobs-schema.ts";
import { LIMITS } from "../limits.ts";
import { steers } from "../schema.ts";
import type { SavedSteer } from "../steer/save.ts";
import type { JobItem, JobKinds, JobPlan, JobResult, JobTokens } from "./stored.ts";

type Row = typeof jobs.$inferSelect;
/** A job of some kinds. */
export type JobOf<Kind extends keyof JobKinds> = Kind extends keyof JobKinds
  ? Omit<Row, "kind" | "plan" | "result"> & {
      readonly kind: Kind;
      readonly plan: JobKinds[Kind]["plan"];
      readonly result: JobKinds[Kind]["result"] | null;
    }
  : never;
export type SavedJob = JobOf<keyof JobKinds>;
export type SteerJob = JobOf<"steer" | "steer-chat">;
export type JobState = Row["state"];
export const isSteer = (job: SavedJob): job is SteerJob => job.kind === "steer" || job.kind === "steer-chat";
export const isFinal = (state: JobState): boolean => (FINAL_STATES as readonly string[]).includes(state);

export interface NewJob {
  readonly id: string;
  readonly userId: string;
  readonly kind: SavedJob["kind"];
  readonly modelId: string;
  readonly plan: JobPlan;
  readonly tokensTotal: number;
  readonly webhookUrl: string | undefined;
  /** What is too large for the plan; deleted when the job ends. */
  readonly input?: string;
}

/** How a job ends. */
export type Ending =
  | {
      readonly state: "succeeded";
      readonly result: JobResult;
      /** Of a steer: what is kept under the job's id. */
      readonly steer?: SavedSteer;
      /** Written with the ending. They have to do nothing unless the job has this very `result`: then another try ended it. */
      readonly statements?: readonly BatchItem<"sqlite">[];
    }
  | { readonly state: "failed"; readonly error: TillerError }
  | { readonly state: "canceled" };

/**
 * Statements that go with an ending, all or none: what tells others of it. They come after the one that ends the job, and have to do
 * nothing when the job is not in the state it is told to be in: then another call ended it otherwise.
 */
export type Telling = (job: SavedJob) => readonly BatchItem<"sqlite">[];

export interface Jobs {
  /** The job with this id, which may be there already. @throws TillerError `conflict` when too many of the user's wait. */
  create(job: NewJob): Promise<SavedJob>;
  get(id: string): Promise<SavedJob | undefined>;
  /** The newest first, without their results, `before` being the last of the page before. */
  list(
    userId: string,
    page: {
      readonly state?: JobState | undefined;
      readonly limit: number;
      readonly before?: { readonly at: number; readonly id: string } | undefined;
    },
  ): Promise<SavedJob[]>;
  /**
   * Makes a queued job a running one if it is its turn: so many run at once, so many of one user, and who has fewest running is next.
   * @returns whether it runs now.
   */
  admit(id: string): Promise<boolean>;
  /** Queued jobs whose turn it is. */
  next(): Promise<string[]>;
  /**
   * Writes what was found as the next chunk.
   * @param done by how much the job's progress grows: one for each item when absent.
   * @returns whether the job is to be canceled; undefined when it is no longer this runner's: another wrote this chunk, or it has ended.
   */
  append(id: string, number: number, items: readonly JobItem[], done?: number): Promise<{ readonly canceled: boolean } | undefined>;
  /** Everything that a job of the kind has found, and the number of the last chunk; 0 before the first. */
  items<Kind extends keyof JobKinds>(
    job: { readonly id: string; readonly kind: Kind },
    after?: number,
  ): Promise<{ readonly items: readonly JobKinds[Kind]["item"][]; readonly last: number }>;
  /** The tokens of a steer. */
  tokens(id: string, after?: number): Promise<{ readonly tokens: JobTokens; readonly last: number }>;
  /** Notes how far a running job is. @returns as `append`. */
  progress(id: string, done: number): Promise<{ readonly canceled: boolean } | undefined>;
  /** What a job was made of; empty when it has ended. */
  input(id: string): Promise<string>;
  /** Ends a job that has not ended; what `tell` gives is written with it. @returns whether this call ended it. */
  end(id: string, ending: Ending, tell: Telling): Promise<boolean>;
  /** Notes that the owner wants it to end. @returns the job as it is then; undefined when there is none. */
  requestCancel(id: string, userId: string): Promise<SavedJob | undefined>;
  /** Ids of jobs that have not ended, the oldest first. */
  unfinished(limit: number): Promise<string[]>;
}

/** Results can be large, and lists have none. */
const LISTED = { ...getTableColumns(jobs), result: sql<null>`NULL` };

/** Queued jobs in the order of their turns, with `place` from 1: a user's n-th waiting job stands behind n - 1 + running ones of others. */
const TURNS = sql`
  SELECT q.id, q.load, row_number() OVER (ORDER BY q.load, q.created_at, q.id) AS place FROM (
    SELECT id, created_at,
      row_number() OVER (PARTITION BY user_id ORDER BY created_at, id)
        + (SELECT count(*) FROM jobs r WHERE r.state = 'running' AND r.user_id = jobs.user_id) AS load
    FROM jobs WHERE state = 'queued' AND cancel_requested_at IS NULL
  ) q WHERE q.load <= ${LIMITS.jobsRunningPerUser}`;
const FREE = sql`${LIMITS.jobsRunning} - (SELECT count(*) FROM jobs WHERE state = 'running')`;

export function newJobs({ db }: Config): Jobs {
  const notEnded = notInArray(jobs.state, [...FINAL_STATES]);
  const get = async (id: string) => (await db.select().from(jobs).where(eq(jobs.id, id)))[0] as SavedJob | undefined;
  const chunksOf = async (id: string, after: number) => {
    const rows = await db
      .select({ number: jobChunks.number, items: jobChunks.tokens })
      .from(jobChunks)
      .where(and(eq(jobChunks.job_id, id), gt(jobChunks.number, after)))
      .orderBy(asc(jobChunks.number));
    return { items: rows.flatMap((row) => row.items), last: rows.at(-1)?.number ?? after };
  };

  return {
    async create({ id, userId, kind, modelId, plan, tokensTotal, webhookUrl, input = "" }) {
      const now = Date.now();
      const row: Row = {
        ...{ id, user_id: userId, kind, model_id: modelId, state: "queued", plan, tokens_done: 0, tokens_total: tokensTotal, revision: 0 },
        ...{ result: null, error_code: null, error_message: null, webhook_url: webhookUrl ?? null, cancel_requested_at: null },
        ...{ created_at: now, started_at: null, finished_at: null, updated_at: now },
      };
      const waiting = await db
        .select({ n: sql<number>`count(*)` })
        .from(jobs)
        .where(and(eq(jobs.user_id, userId), eq(jobs.state, "queued")));
      if ((waiting[0]?.n ?? 0) >= LIMITS.jobsQueuedPerUser) {
        const sentence = `${LIMITS.jobsQueuedPerUser} jobs of yours wait already, which is the limit: wait for some, or cancel them.`;
        throw new TillerError("conflict", sentence);
      }
      const parts = Array.from({ length: Math.ceil(input.length / LIMITS.inputPartChars) }, (_, number) => ({
        ...{ job_id: id, number },
        part: input.slice(number * LIMITS.inputPartChars, (number + 1) * LIMITS.inputPartChars),
      }));
      await db.batch([
        db.insert(jobs).values(row).onConflictDoNothing(),
        ...parts.map((part) => db.insert(jobInputs).values(part).onConflictDoNothing()),
      ]);
      const job = await get(id);
      if (job === undefined) throw new Error("a job was not written");
      return job;
    },
    get,
    list: async (userId, { state, limit, before }) =>
      (await db
        .select(LISTED)
        .from(jobs)
        .where(
          and(
            eq(jobs.user_id, userId),
            state === undefined ? undefined : eq(jobs.state, state),
            before === undefined
              ? undefined
              : or(lt(jobs.created_at, before.at), and(eq(jobs.created_at, before.at), lt(jobs.id, before.id))),
          ),
        )
        .orderBy(desc(jobs.created_at), desc(jobs.id))
        .limit(limit)) as SavedJob[],
    async admit(id) {
      const now = Date.now();
      const turn = sql`${jobs.id} IN (SELECT id FROM (${TURNS}) WHERE place <= ${FREE})`;
      const admitted = await db
        .update(jobs)
        .set({ state: "running", started_at: now, updated_at: now, revision: sql`${jobs.revision} + 1` })
        .where(and(eq(jobs.id, id), eq(jobs.state, "queued"), turn))
        .returning({ id: jobs.id });
      return admitted.length > 0;
    },
    next: async () =>
      (await db.all<{ id: string }>(sql`SELECT id FROM (${TURNS}) WHERE place <= ${FREE} ORDER BY place`)).map(({ id }) => id),
    async append(id, number, items, done = items.length) {
      const now = Date.now();
      const rows = JSON.stringify(items);
      const d1 = db.$client;
      // One batch: a chunk is there if and only if it is counted.
      const [chunk, job] = await d1.batch<{ cancel_requested_at: number | null }>([
        d1
          .prepare(
            `INSERT OR IGNORE INTO job_chunks (job_id, number, tokens)
             SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM jobs WHERE id = ?1 AND state = 'running')
               AND (SELECT coalesce(max(number), 0) FROM job_chunks WHERE job_id = ?1) = ?2 - 1`,
          )
          .bind(id, number, rows),
        d1
          .prepare(
            `UPDATE jobs SET tokens_done = tokens_done + ?2 * changes(), revision = revision + changes(), updated_at = ?3
             WHERE id = ?1 RETURNING cancel_requested_at`,
          )
          .bind(id, done, now),
      ]);
      if (chunk?.meta.changes !== 1) return undefined;
      return { canceled: job?.results[0]?.cancel_requested_at != null };
    },
    async items({ id }, after = 0) {
      const { items, last } = await chunksOf(id, after);
      return { items: items as never[], last };
    },
    async tokens(id, after = 0) {
      const { items, last } = await chunksOf(id, after);
      return { tokens: items as JobTokens, last };
    },
    async progress(id, done) {
      const [job] = await db
        .update(jobs)
        .set({ tokens_done: done, updated_at: Date.now() })
        .where(and(eq(jobs.id, id), eq(jobs.state, "running")))
        .returning({ canceled: jobs.cancel_requested_at });
      return job === undefined ? undefined : { canceled: job.canceled !== null };
    },
    async input(id) {
      const rows = await db.select({ part: jobInputs.part }).from(jobInputs).where(eq(jobInputs.job_id, id)).orderBy(asc(jobInputs.number));
      return rows.map(({ part }) => part).join("");
    },
    async end(id, ending, tell) {
      const job = await get(id);
      if (job === undefined || isFinal(job.state)) return false;
      const now = Date.now();
      const failed = ending.state === "failed" ? ending.error : undefined;
      const succeeded = ending.state === "succeeded" ? ending : undefined;
      const changes = {
        ...{ state: ending.state, finished_at: now, updated_at: now },
        ...(ending.state === "succeeded" ? { result: ending.result } : {}),
        ...(failed === undefined ? {} : { error_code: failed.code, error_message: failed.message }),
      };
      const stillGoing: SQL = and(eq(jobs.id, id), notEnded) as SQL;
      const [ended] = await db.batch([
        db
          .update(jobs)
          .set({ ...changes, revision: sql`${jobs.revision} + 1` })
          .where(stillGoing)
          .returning({ id: jobs.id }),
        ...(succeeded?.steer === undefined ? [] : [db.insert(steers).values(succeeded.steer).onConflictDoNothing()]),
        ...(succeeded?.statements ?? []),
        db.delete(jobInputs).where(eq(jobInputs.job_id, id)),
        ...tell({ ...job, ...changes, revision: job.revision + 1 } as SavedJob),
      ] as [BatchItem<"sqlite">, ...BatchItem<"sqlite">[]]);
      return (ended as { id: string }[]).length > 0;
    },
    async requestCancel(id, userId) {
      const mine = and(eq(jobs.id, id), eq(jobs.user_id, userId));
      await db
        .update(jobs)
        .set({ cancel_requested_at: Date.now() })
        .where(and(mine, notEnded, sql`${jobs.cancel_requested_at} IS NULL`));
      return (await db.select().from(jobs).where(mine))[0] as SavedJob | undefined;
    },
    unfinished: async (limit) =>
      (
        await db
          .select({ id: jobs.id })
          .from(jobs)
          .where(inArray(jobs.state, ["queued", "running"]))
          .orderBy(asc(jobs.created_at))
          .limit(limit)
      ).map(({ id }) => id),
  };
}
