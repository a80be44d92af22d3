// What a call's quota means for its answer: the headers that tell the state, the 429, and giving back what a failure of ours cost.
import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { ERRORS, TillerError } from "../shared/errors.ts";
import { type RateLimited, toErrorBody } from "./answers.ts";
import type { App } from "./app.ts";
import { WINDOW_MS, WINDOW_NAME } from "./limits.ts";
import type { Quota, QuotaState } from "./rate-limit.ts";

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

/** 429 with Neuronpedia's keys and ours. */
export function refuseLimited(c: Context<App>, state: QuotaState, path: string): Response {
  const wait = Math.max(1, secondsUntil(state.reset));
  c.header("retry-after", String(wait));
  const error = new TillerError(
    "rate_limited",
    `Rate limit exceeded for this endpoint. The limit for this endpoint (${path}) is ${state.limit} requests per ${WINDOW_NAME}. Try again in ${wait} seconds.`,
  );
  const body: z.infer<typeof RateLimited> = {
    endpoint: path,
    limitPerWindow: state.limit,
    requestWindow: WINDOW_NAME,
    remainingRequests: 0,
    ...toErrorBody(error, c.get("requestId")),
  };
  return c.json(body, error.status);
}
