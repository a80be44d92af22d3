// What is asked for as a job: checked like any other request, then kept and answered with 202.
import type { Context } from "hono";
import { z } from "zod";
import { TillerError } from "../../shared/errors.ts";
import { idOf, newId } from "../../shared/ids.ts";
import type { App, Room } from "../app.ts";
import { parseBody } from "../body.ts";
import { read } from "../engine.ts";
import { LIMITS } from "../limits.ts";
import type { ServedModel } from "../models.ts";
import { giveBack, newLimited, setLimitHeaders, steerQuotaOf } from "../quota.ts";
import { identify, originOf, requireUser, type User } from "../route.ts";
import type { Plan } from "../steer/edits.ts";
import { checkAddress } from "../webhooks/address.ts";
import { jobUrl, toJob } from "./contract.ts";
import type { SteerJob } from "./store.ts";
import type { CommonPlan, JobKinds } from "./stored.ts";

/** A steer that was checked and can become a job. */
export interface PlannedJob {
  readonly served: ServedModel;
  readonly plan: Plan;
  readonly stream: boolean;
  readonly ignored: readonly string[];
}

const Webhook = z.object({ webhook: z.object({ url: z.string("must be a text") }, "must be an object with a url").optional() });

/** Whether a request wants to be a job: `Prefer: respond-async` (RFC 7240), or a webhook to be told. */
export const wantsJob = (c: Context<App>, raw: unknown): boolean =>
  prefersJob(c) || (typeof raw === "object" && raw !== null && Object.hasOwn(raw, "webhook"));

/** Whether a request has the header alone. */
export const prefersJob = (c: Context<App>): boolean =>
  (c.req.header("prefer") ?? "").split(",").some((each) => /^respond-async\b/i.test(each.trim()));

/** @param plan reads and checks the request: one that is refused uses no quota. */
export async function answerJob(
  room: Room,
  c: Context<App>,
  path: string,
  kind: SteerJob["kind"],
  raw: unknown,
  plan: (userId: string) => Promise<PlannedJob>,
): Promise<Response> {
  const caller = requireUser(await identify(room, c));
  const { webhook } = parseBody(raw, Webhook);
  const { served, plan: planned, stream, ignored } = await plan(caller.userId);
  if (stream) {
    const sentence = "stream and a job exclude each other: leave stream out, and read the job's eventsUrl.";
    throw new TillerError("invalid_request", sentence);
  }
  await checkRoom(room, planned, served, c.req.raw.signal);
  const { engineRequest, stored } = planned;
  return startJob(room, c, path, caller, {
    ...{ kind, modelId: served.info.id, webhook },
    tokensTotal: engineRequest.max_tokens * engineRequest.rows.length,
    plan: { engineRequest, stored, ignored },
  });
}

/** A job that was checked: what is its own. Its plan is without what every plan has. */
type AskedJob = {
  readonly [Kind in keyof JobKinds]: {
    readonly kind: Kind;
    readonly modelId: string;
    readonly tokensTotal: number;
    readonly plan: Omit<JobKinds[Kind]["plan"], keyof CommonPlan>;
    readonly input?: string;
    readonly webhook: { readonly url: string } | undefined;
    /** Of the quota; one where nothing is said. */
    readonly places?: number;
  };
}[keyof JobKinds];

/**
 * Makes the job, or finds the one that the same Idempotency-Key made, and answers with 202.
 * @throws TillerError `invalid_request` for a webhook's address, `rate_limited`, `conflict`.
 */
export async function startJob(room: Room, c: Context<App>, path: string, caller: User, asked: AskedJob): Promise<Response> {
  const { webhook, plan, places = 1, ...job } = asked;
  if (webhook !== undefined) await checkAddress(webhook.url, room.config.webhooks);
  const key = c.req.header("idempotency-key");
  // The same key makes the same id: whatever is interrupted, there is one job.
  const id = key === undefined ? newId() : await idOf(`${caller.userId}\n${key}`);
  const quota = steerQuotaOf(room.limiter, caller);
  const existing = key === undefined ? undefined : await room.jobs.get(id);
  if (existing === undefined) {
    const state = await quota.take(places);
    setLimitHeaders(c, state);
    if (!state.success) throw newLimited(state, path, places);
  }
  try {
    const common: CommonPlan = { origin: originOf(room, c), quota: { identifier: caller.identifier, limit: caller.steersPerHour, places } };
    const started =
      existing ??
      (await room.service.start({
        ...job,
        ...{ id, userId: caller.userId, webhookUrl: webhook?.url, plan: { ...plan, ...common } },
      }));
    c.header("location", jobUrl(originOf(room, c), started.id));
    if (prefersJob(c) || webhook !== undefined) c.header("preference-applied", "respond-async");
    return c.json(toJob(started), 202);
  } catch (error) {
    await giveBack(quota, TillerError.from(error));
    throw error;
  }
}

/** @throws TillerError when prompt and generation do not fit into the model's context, or the answer would be too large to keep. */
async function checkRoom(room: Room, { engineRequest }: Plan, { info, engine }: ServedModel, signal: AbortSignal): Promise<void> {
  const { prompt, max_tokens, sampling, rows } = engineRequest;
  const most = Math.floor(LIMITS.jobLogprobs / (rows.length * (1 + sampling.logprobs)));
  if (max_tokens > most) {
    throw new TillerError(
      "invalid_request",
      `n_tokens must be at most ${most} with n_logprobs ${sampling.logprobs}: ask for fewer tokens, or for fewer alternatives of each.`,
    );
  }
  // A conversation's room was looked at when its template was filled in.
  if (prompt === undefined) return;
  const { ids } = await read(engine, room.config, "/tokenize", { model: info.id, text: prompt }, signal);
  const left = info.context - ids.length;
  if (max_tokens <= left) return;
  throw new TillerError(
    "prompt_too_long",
    `The prompt is ${ids.length} tokens long and ${max_tokens} more are asked for; ${info.id} has room for ${info.context} together. ${left > 0 ? `Ask for at most ${left}, or shorten it.` : "Shorten it."}`,
  );
}
