// What a job looks like to its owner.
import { z } from "@hono/zod-openapi";
import { ERRORS, type ErrorCode } from "../../shared/errors.ts";
import type { GenerateResult } from "../../shared/protocol.ts";
import { Derived } from "../directions/contract.ts";
import { JOB_KINDS, JOB_STATES } from "../jobs-schema.ts";
import { Transcript, toSteerResult } from "../steer/answer.ts";
import { toChatResult } from "../steer/chat.ts";
import { SteerChatResult } from "../steer/chat-contract.ts";
import { SteerResult } from "../steer/contract.ts";
import type { SavedSteer } from "../steer/save.ts";
import { SweepResult } from "../sweeps/contract.ts";
import { isSteer, type SavedJob, type SteerJob } from "./store.ts";
import type { JobTokens } from "./stored.ts";

export const Job = z
  .object({
    id: z.string(),
    kind: z.enum(JOB_KINDS),
    modelId: z.string(),
    state: z.enum(JOB_STATES),
    url: z.string(),
    eventsUrl: z.string(),
    progress: z.object({
      tokens: z.int().optional().openapi({ description: "Of a steer: of both sides together." }),
      texts: z.int().optional().openapi({ description: "Of a derivation: texts that were read. Of a sweep: texts that were written." }),
      of: z.int().openapi({ description: "As many at most." }),
    }),
    cancelRequested: z.boolean(),
    webhookUrl: z.string().nullable(),
    createdAt: z.string(),
    startedAt: z.string().nullable(),
    finishedAt: z.string().nullable(),
    error: z.object({ code: z.enum(Object.keys(ERRORS) as [ErrorCode, ...ErrorCode[]]), message: z.string() }).nullable(),
  })
  .openapi("Job");
export type Job = z.infer<typeof Job>;

export const WholeJob = Job.extend({
  partial: z
    .object({ STEERED: z.string(), DEFAULT: z.string() })
    .nullable()
    .openapi({ description: "Of a steer: what was generated until now; null once there is a result." }),
  result: z
    .union([SteerResult, SteerChatResult, Derived, SweepResult])
    .nullable()
    .openapi({ description: "What the call would have answered without a job; a steer's is also at its share link." }),
}).openapi("WholeJob");
export type WholeJob = z.infer<typeof WholeJob>;

const when = (time: number | null): string | null => (time === null ? null : new Date(time).toISOString());

export const jobUrl = (origin: string, id: string): string => `${origin}/api/jobs/${id}`;

export function toJob(job: SavedJob): Job {
  const url = jobUrl(job.plan.origin, job.id);
  return {
    ...{ id: job.id, kind: job.kind, modelId: job.model_id, state: job.state, url, eventsUrl: `${url}/events` },
    progress: { [isSteer(job) ? "tokens" : "texts"]: job.tokens_done, of: job.tokens_total },
    ...{ cancelRequested: job.cancel_requested_at !== null, webhookUrl: job.webhook_url },
    ...{ createdAt: new Date(job.created_at).toISOString(), startedAt: when(job.started_at), finishedAt: when(job.finished_at) },
    error: job.error_code === null ? null : { code: job.error_code as ErrorCode, message: job.error_message ?? "" },
  };
}

/** @param tokens what a steer generated; @param steer the saved one of a steer that succeeded. */
export function toWholeJob(job: SavedJob, tokens: JobTokens, steer: SavedSteer | undefined): WholeJob {
  if (!isSteer(job)) return { ...toJob(job), partial: null, result: job.result };
  const result = toResult(job, steer);
  if (result !== null) return { ...toJob(job), partial: null, result };
  const transcript = new Transcript();
  for (const token of tokens) transcript.add(token);
  return {
    ...toJob(job),
    partial: { STEERED: transcript.textOf("STEERED") ?? "", DEFAULT: transcript.textOf("DEFAULT") ?? "" },
    result: null,
  };
}

function toResult({ id, plan, result, kind }: SteerJob, steer: SavedSteer | undefined): WholeJob["result"] {
  if (result === null || steer === undefined) return null;
  const saved = { id, shareUrl: `${plan.origin}/steer/${id}`, limit: "0", ignored: plan.ignored };
  const done = { ...result, rows: [] } satisfies GenerateResult;
  return kind === "steer" ? toSteerResult(steer.result, done, saved) : toChatResult(plan.stored, steer.result, done, saved);
}
