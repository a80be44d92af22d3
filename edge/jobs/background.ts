// What background work is made of, for whoever does it: the Worker's routes, its workflows, its cron.
import type { Config } from "../config.ts";
import { newRateLimiter, type RateLimiter } from "../rate-limit.ts";
import { newSteers, type Steers } from "../steer/save.ts";
import { attemptDelivery } from "../webhooks/deliver.ts";
import { newWebhooks, type Webhooks } from "../webhooks/store.ts";
import { type JobService, newJobService } from "./service.ts";
import { type Jobs, newJobs } from "./store.ts";

export interface Background {
  readonly config: Config;
  readonly jobs: Jobs;
  readonly steers: Steers;
  readonly limiter: RateLimiter;
  readonly webhooks: Webhooks;
  readonly service: JobService;
  /** One attempt at a delivery. */
  attempt(deliveryId: string): ReturnType<typeof attemptDelivery>;
}

export function newBackground(config: Config): Background {
  const parts = { jobs: newJobs(config), steers: newSteers(config), limiter: newRateLimiter(config), webhooks: newWebhooks(config) };
  return {
    ...parts,
    config,
    service: newJobService(config, parts),
    attempt: (id) => attemptDelivery({ config, fetch: (input, init) => fetch(input, init) }, id, Date.now, Math.random),
  };
}
