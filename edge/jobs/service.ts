// Jobs and the workflows that run them: starting, waking, ending, and finding what a crash left behind.
import type { TillerError } from "../../shared/errors.ts";
import { ERRORS } from "../../shared/errors.ts";
import type { Config } from "../config.ts";
import type { RateLimiter } from "../rate-limit.ts";
import type { Steers } from "../steer/save.ts";
import type { Webhooks } from "../webhooks/store.ts";
import { jobEvent } from "./event.ts";
import type { Ending, Jobs, NewJob, SavedJob } from "./store.ts";

/** The name of the event that makes a waiting workflow look again. */
export const WAKE = "wake";
/** Work found by one sweep. */
const SWEPT = 200;

export interface JobService {
  /** Makes a job, or finds the one of the same id, and starts it. */
  start(job: NewJob): Promise<SavedJob>;
  /** Ends a job if it has not ended: with its webhooks, and what its failure owes to its user. */
  end(job: SavedJob, ending: Ending): Promise<void>;
  /** Makes the job's workflow go on, whether it sleeps or was never made. */
  wake(id: string): Promise<void>;
  startDelivery(id: string): Promise<void>;
  /** Starts or wakes everything that has not ended: after a crash nothing else does. */
  sweep(): Promise<void>;
}

export function newJobService(
  config: Config,
  { jobs, limiter, webhooks }: { readonly jobs: Jobs; readonly limiter: RateLimiter; readonly steers: Steers; readonly webhooks: Webhooks },
): JobService {
  const { workflows } = config;

  const wake = (id: string) => startOrWake(workflows.jobs, id, { jobId: id });
  const startDelivery = (id: string) => startOrWake(workflows.deliveries, id, { deliveryId: id });

  /** Those whose turn has come: places are free. */
  async function wakeNext(): Promise<void> {
    for (const id of await jobs.next()) await wake(id);
  }

  return {
    async start(job) {
      const saved = await jobs.create(job);
      await wake(saved.id);
      return saved;
    },
    async end(job, ending) {
      const { body, event } = await jobEvent(job, ending, jobs);
      const ended = await jobs.end(job.id, ending, (now) => webhooks.eventStatements(now, event, body(now)));
      if (ended && ending.state === "failed" && isOurs(ending.error)) {
        const { identifier, limit, places } = job.plan.quota;
        await limiter.giveBack(identifier, limit, places);
      }
      // Also when another try ended it and was killed right after: everything here can be done twice.
      for (const id of await webhooks.deliveriesOf(job.id)) await startDelivery(id);
      await wakeNext();
    },
    wake,
    startDelivery,
    async sweep() {
      for (const id of await jobs.unfinished(SWEPT)) await wake(id);
      for (const id of await webhooks.due(Date.now(), SWEPT)) await startDelivery(id);
    },
  };
}

const isOurs = (error: TillerError): boolean => ERRORS[error.code].retry;

const OVER: ReadonlySet<string> = new Set(["complete", "errored", "terminated"]);

/**
 * Making an instance of an id that exists fails. One that sleeps since its process was killed is woken by any event; one that has ended,
 * and has something to do again (a replayed delivery, a job whose steps all failed), begins anew.
 */
async function startOrWake<Params>(workflow: Workflow<Params>, id: string, params: Params): Promise<void> {
  try {
    await workflow.create({ id, params });
  } catch {
    try {
      const instance = await workflow.get(id);
      if (OVER.has((await instance.status()).status)) await instance.restart();
      else await instance.sendEvent({ type: WAKE, payload: {} });
    } catch (error) {
      // It has ended in this moment, or the platform forgot it: the next sweep looks again at what has not ended.
      console.error(JSON.stringify({ level: "warning", cause: `workflow ${id} was not woken: ${(error as Error).name}` }));
    }
  }
}
