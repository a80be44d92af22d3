// The hourly quota of one caller: the Ratelimit class of @upstash/ratelimit, over Upstash Redis when it is configured and over a
// Durable Object otherwise. A Redis that fails or is slow neither stops the service nor lifts the limit: the Durable Object counts.
import { Ratelimit, type RatelimitConfig } from "@upstash/ratelimit";
import { Redis } from "@upstash/redis/cloudflare";
import type { Config } from "./config.ts";
import { WINDOW_MS } from "./limits.ts";
import type { RateWindow } from "./rate-window.ts";

export interface QuotaState {
  readonly success: boolean;
  readonly limit: number;
  readonly remaining: number;
  /** Epoch milliseconds at which a place becomes free. */
  readonly reset: number;
}

export interface Quota {
  /** Uses one place, or so many at once, if they are there. */
  take(places?: number): Promise<QuotaState>;
  /** Gives back what `take` used; twice does nothing more. Never fails. */
  refund(): Promise<void>;
  /** What the caller has, without using any. After `take` or `refund`: the state they left. */
  state(): Promise<QuotaState>;
}

export interface RateLimiter {
  /** @param identifier who is counted, such as `user:cm...`; @param limit places in an hour. */
  quotaOf(identifier: string, limit: number): Quota;
  /** Gives back what another request took: one place, or so many. Never fails. */
  giveBack(identifier: string, limit: number, places?: number): Promise<void>;
}

type Algorithm = RatelimitConfig["limiter"];

const PREFIX = "tiller:steer";
const REDIS_TIMEOUT_MS = 1500;
/** After a failure Redis is left alone for this long, so that its time-out is not added to every request. */
const REDIS_REST_MS = 10_000;

export function newRateLimiter(config: Config, now: () => number = Date.now): RateLimiter {
  const redis =
    config.upstash === undefined
      ? undefined
      : new Redis({
          ...config.upstash,
          retry: false,
          enableTelemetry: false,
          // It would put commands of several requests into one call, and a Worker may not wait on another request's I/O.
          enableAutoPipelining: false,
          signal: () => AbortSignal.timeout(REDIS_TIMEOUT_MS),
        });
  let redisRestsUntil = 0;

  // `timeout: 0`: the class's own time-out lets requests pass. No ephemeral cache: it would not notice a refund.
  const options = { prefix: PREFIX, timeout: 0, ephemeralCache: false, enableTelemetry: false } as const;
  const overWindows = (limit: number) => new Ratelimit({ ...options, redis: NO_REDIS, limiter: slidingLog(config.rateWindows, limit) });
  const overRedis = (limit: number) =>
    redis === undefined ? undefined : new Ratelimit({ ...options, redis, limiter: Ratelimit.slidingWindow(limit, `${WINDOW_MS} ms`) });

  /** Asks Redis if it is there and well, else the Durable Object; says which one answered. */
  async function ask<T>(
    limit: number,
    question: (limiter: Ratelimit) => Promise<T>,
  ): Promise<{ readonly answer: T; readonly limiter: Ratelimit }> {
    const limiter = now() < redisRestsUntil ? undefined : overRedis(limit);
    if (limiter !== undefined) {
      try {
        return { answer: await question(limiter), limiter };
      } catch (error) {
        redisRestsUntil = now() + REDIS_REST_MS;
        console.error(`Rate limits fall back to the Durable Object: Redis failed (${error instanceof Error ? error.name : "unknown"}).`);
      }
    }
    const fallback = overWindows(limit);
    return { answer: await question(fallback), limiter: fallback };
  }

  function quotaOf(identifier: string, limit: number): Quota {
    let current: QuotaState | undefined;
    let taken: { readonly limiter: Ratelimit; readonly places: number } | undefined;
    return {
      async take(places = 1) {
        // Redis would count what does not fit as well.
        const { answer: before } = places === 1 ? { answer: undefined } : await ask(limit, (limiter) => limiter.getRemaining(identifier));
        if (before !== undefined && before.remaining < places) {
          current = { success: false, limit: before.limit, remaining: Math.max(0, before.remaining), reset: before.reset };
          return current;
        }
        const { answer, limiter } = await ask(limit, (limiter) => limiter.limit(identifier, { rate: places }));
        if (answer.success) taken = { limiter, places };
        current = { success: answer.success, limit: answer.limit, remaining: Math.max(0, answer.remaining), reset: answer.reset };
        return current;
      },
      async refund() {
        if (taken === undefined) return;
        const { limiter, places } = taken;
        taken = undefined;
        try {
          const answer = await limiter.limit(identifier, { rate: -places });
          current = { success: true, limit: answer.limit, remaining: Math.max(0, answer.remaining), reset: answer.reset };
        } catch (error) {
          console.error(`A place of the quota was not given back (${error instanceof Error ? error.name : "unknown"}).`);
        }
      },
      async state() {
        if (current === undefined) {
          const { answer } = await ask(limit, (limiter) => limiter.getRemaining(identifier));
          current = { success: true, limit: answer.limit, remaining: Math.max(0, answer.remaining), reset: answer.reset };
        }
        return current;
      },
    };
  }

  async function giveBack(identifier: string, limit: number, places = 1): Promise<void> {
    try {
      await ask(limit, (limiter) => limiter.limit(identifier, { rate: -places }));
    } catch (error) {
      console.error(`A place of the quota was not given back (${error instanceof Error ? error.name : "unknown"}).`);
    }
  }

  return { quotaOf, giveBack };
}

/** The class's `Algorithm` over one Durable Object per identifier. */
function slidingLog(windows: DurableObjectNamespace<RateWindow>, limit: number): Algorithm {
  const windowOf = (identifier: string) => windows.get(windows.idFromName(identifier));
  return () => ({
    async limit(_ctx, identifier, rate = 1) {
      const { success, remaining, reset } = await windowOf(identifier).take(rate, limit, WINDOW_MS);
      return { success, limit, remaining, reset, pending: Promise.resolve() };
    },
    async getRemaining(_ctx, identifier) {
      const { remaining, reset } = await windowOf(identifier).take(0, limit, WINDOW_MS);
      return { remaining, reset, limit };
    },
    async resetTokens(_ctx, identifier) {
      await windowOf(identifier).clear();
    },
  });
}

const unused = (): never => {
  throw new Error("The Durable Object algorithm uses no Redis.");
};
/** The class asks for a Redis client even when its algorithm has another store. */
const NO_REDIS: RatelimitConfig["redis"] = { evalsha: unused, get: unused, set: unused };
