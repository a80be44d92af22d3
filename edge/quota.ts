// What a call's quota means for its answer: the headers that tell the state, the 429, and giving back what a failure of ours cost.
import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { ERRORS, TillerError } from "../shared/errors.ts";
import { RateLimitedError } from "./answers.ts";
import type { App } from "./app.ts";
import type { Caller } from "./auth.ts";
import { LIMITS, WINDOW_MS, WINDOW_NAME } from "./limits.ts";
import type { Quota, QuotaState, RateLimiter } from "./rate-limit.ts";

/** Places for calls that generate. */
export const steerQuotaOf = (limiter: RateLimiter, caller: Pick<Caller, "identifier" | "steersPerHour">): Quota =>
  limiter.quotaOf(caller.identifier, caller.steersPerHour);

/** Places for calls that read texts. They are counted by themselves: who looks around does not use up steers. */
export const readingQuotaOf = (limiter: RateLimiter, caller: Caller): Quota =>
  limiter.quotaOf(
    `read:${caller.identifier}`,
    caller.userId === undefined ? LIMITS.anonymousReadingsPerHour : Math.max(LIMITS.readingsPerHour, caller.steersPerHour),
  );

/** Places for calls that look something up. */
export const lookupQuotaOf = (limiter: RateLimiter, caller: Caller): Quota =>
  limiter.quotaOf(`look:${caller.identifier}`, caller.userId === undefined ? LIMITS.anonymousLookupsPerHour : LIMITS.lookupsPerHour);

/** For the OpenAPI document. */
export const limitHeaders = z.object({
  "x-limit-remaining": z.string().openapi({ description: "Calls left in this hour." }),
  "RateLimit-Limit": z.string().openapi({ description: "Calls allowed an hour." }),
  "RateLimit-Remaining": z.string(),
  "RateLimit-Reset": z.string().openapi({ description: "Seconds until a used place becomes free." }),
  "RateLimit-Policy": z.string().openapi({ example: "100;w=3600" }),
});

/** nginx's status for a caller that left, seen in logs only. */
export const CLIENT_GONE = 499;

/** A failure on our side costs the caller nothing. */
export async function giveBack(quota: Quota, error: TillerError): Promise<void> {
  if (ERRORS[error.code].retry) await quota.refund();
}

export function setLimitHeaders(c: Context<App>, state: QuotaState | undefined): void {
  if (state === undefined) return;
  c.header("x-limit-remaining", String(state.remaining));
  c.header("RateLimit-Limit", String(state.limit));
  c.header("RateLimit-Remaining", String(state.remaining));
  c.header("RateLimit-Reset", String(secondsUntil(state.reset)));
  c.header("RateLimit-Policy", `${state.limit};w=${WINDOW_MS / 1000}`);
}

const secondsUntil = (time: number): number => Math.max(0, Math.ceil((time - Date.now()) / 1000));

/** The refusal of a call that has no place left, or too few: 429 with Neuronpedia's keys and ours. */
export function newLimited(state: QuotaState, path: string, places = 1): RateLimitedError {
  const wait = Math.max(1, secondsUntil(state.reset));
  const few = places === 1 ? "" : ` This request counts as ${places}, and ${state.remaining} are left.`;
  const sentence = `Rate limit exceeded for this endpoint. The limit for this endpoint (${path}) is ${state.limit} requests per ${WINDOW_NAME}.${few} Try again in ${wait} seconds.`;
  return new RateLimitedError(sentence, wait, {
    ...{ endpoint: path, limitPerWindow: state.limit, requestWindow: WINDOW_NAME, remainingRequests: places === 1 ? 0 : state.remaining },
  });
}

/**
 * Does work that costs a place.
 * @throws TillerError `rate_limited`; and as `work` does, with the place given back when the fault is ours.
 */
export async function withQuota<T>(quota: Quota, c: Context<App>, path: string, work: () => Promise<T>): Promise<T> {
  const state = await quota.take();
  setLimitHeaders(c, state);
  if (!state.success) throw newLimited(state, path);
  try {
    return await work();
  } catch (error) {
    // Leaving early is no reason to get the place back.
    if (!c.req.raw.signal.aborted) {
      await giveBack(quota, TillerError.from(error));
      setLimitHeaders(c, await quota.state().catch(() => undefined));
    }
    throw error;
  }
}
