// The tables of background work and of what is told about it (drizzle): the source of /migrations, with schema.ts.
import { index, integer, primaryKey, sqliteTable, text, uniqueIndex } from "drizzle-orm/sqlite-core";
import type { JobItem, JobPlan, JobResult } from "./jobs/stored.ts";
import { users } from "./schema.ts";

export const JOB_KINDS = ["steer", "steer-chat", "derive", "sweep"] as const;
export const JOB_STATES = ["queued", "running", "succeeded", "failed", "canceled"] as const;
export const FINAL_STATES = ["succeeded", "failed", "canceled"] as const;

const owner = text()
  .notNull()
  .references(() => users.id);

/** The truth about a job: the workflow that runs it holds nothing that is not here. */
export const jobs = sqliteTable(
  "jobs",
  {
    id: text().primaryKey(),
    user_id: owner,
    kind: text({ enum: JOB_KINDS }).notNull(),
    model_id: text().notNull(),
    state: text({ enum: JOB_STATES }).notNull(),
    plan: text({ mode: "json" }).notNull().$type<JobPlan>(),
    /** Tokens of a steer, texts of a derivation, texts of a sweep. */
    tokens_done: integer().notNull().default(0),
    tokens_total: integer().notNull(),
    /** Counts writes of progress and state: the id of an event. */
    revision: integer().notNull().default(0),
    result: text({ mode: "json" }).$type<JobResult>(),
    error_code: text(),
    error_message: text(),
    /** Where the answer is sent besides the user's endpoints; null = nowhere else. */
    webhook_url: text(),
    cancel_requested_at: integer(),
    created_at: integer().notNull(),
    started_at: integer(),
    finished_at: integer(),
    updated_at: integer().notNull(),
  },
  (table) => [index("jobs_user").on(table.user_id, table.created_at), index("jobs_state").on(table.state, table.created_at)],
);

/** What a job has found so far, a row for every second or so of it: nothing is written twice, and whoever runs it goes on from here. */
export const jobChunks = sqliteTable(
  "job_chunks",
  {
    job_id: text()
      .notNull()
      .references(() => jobs.id),
    /** 1 for the first. */
    number: integer().notNull(),
    /** Tokens of a steer, cells of a sweep. */
    tokens: text({ mode: "json" }).notNull().$type<readonly JobItem[]>(),
  },
  (table) => [primaryKey({ columns: [table.job_id, table.number] })],
);

/** What a job is made of and is too large for its row: texts, in pieces. They are deleted when it ends. */
export const jobInputs = sqliteTable(
  "job_inputs",
  {
    job_id: text()
      .notNull()
      .references(() => jobs.id),
    /** 0 for the first. */
    number: integer().notNull(),
    part: text().notNull(),
  },
  (table) => [primaryKey({ columns: [table.job_id, table.number] })],
);

/** Addresses that users registered for events. */
export const endpoints = sqliteTable(
  "webhook_endpoints",
  {
    id: text().primaryKey(),
    user_id: owner,
    url: text().notNull(),
    description: text().notNull(),
    /** `whsec_` and base64. */
    secret: text().notNull(),
    /** Signs too until `previous_until`. */
    previous_secret: text(),
    previous_until: integer(),
    /** Since then every attempt has failed; null = the last one succeeded. */
    failing_since: integer(),
    disabled_at: integer(),
    /** In words for its owner. */
    disabled_reason: text(),
    created_at: integer().notNull(),
  },
  (table) => [index("webhook_endpoints_user").on(table.user_id, table.created_at)],
);

export const DELIVERY_STATES = ["pending", "succeeded", "failed"] as const;

/** One event for one address. Its id is the webhook-id of every attempt. */
export const deliveries = sqliteTable(
  "webhook_deliveries",
  {
    id: text().primaryKey(),
    user_id: owner,
    /** null = the address came with the job. */
    endpoint_id: text(),
    url: text().notNull(),
    /** null = a test event. */
    job_id: text(),
    /** `job.succeeded`, ... */
    event: text().notNull(),
    /** The body, exactly as it is sent and signed. */
    payload: text().notNull(),
    state: text({ enum: DELIVERY_STATES }).notNull(),
    attempts: integer().notNull().default(0),
    /** Attempts since it was made or replayed: the place in the schedule. */
    tries: integer().notNull().default(0),
    next_attempt_at: integer(),
    created_at: integer().notNull(),
    finished_at: integer(),
  },
  (table) => [
    index("webhook_deliveries_user").on(table.user_id, table.created_at),
    index("webhook_deliveries_due").on(table.state, table.next_attempt_at),
    // A job's event goes to an address once, however often its end is worked on.
    uniqueIndex("webhook_deliveries_once").on(table.job_id, table.event, table.url),
  ],
);

export const attempts = sqliteTable(
  "webhook_attempts",
  {
    delivery_id: text()
      .notNull()
      .references(() => deliveries.id),
    /** 1 for the first. */
    number: integer().notNull(),
    at: integer().notNull(),
    /** HTTP status; null = no answer. */
    status: integer(),
    duration_ms: integer().notNull(),
    /** The first bytes of the answer as text. */
    answer: text().notNull(),
    /** Why it failed, in words; null = it succeeded. */
    error: text(),
  },
  (table) => [primaryKey({ columns: [table.delivery_id, table.number] })],
);

/** What a POST with an Idempotency-Key answered. */
export const idempotency = sqliteTable(
  "idempotency_keys",
  {
    user_id: text().notNull(),
    key: text().notNull(),
    /** SHA-256 of path and body, hex. */
    request_hash: text().notNull(),
    /** null = it is being worked on. */
    status: integer(),
    answer: text(),
    created_at: integer().notNull(),
  },
  (table) => [primaryKey({ columns: [table.user_id, table.key] }), index("idempotency_keys_age").on(table.created_at)],
);
