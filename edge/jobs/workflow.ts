// What Cloudflare Workflows run: a job, and the delivery of an event. They hold nothing but an id: what is true is in the database, and
// every step can be done again.
import { WorkflowEntrypoint, type WorkflowEvent, type WorkflowStep } from "cloudflare:workers";
import { parseConfig } from "../config.ts";
import { newBackground } from "./background.ts";
import { pollEngine, tryJob } from "./run.ts";
import { WAKE } from "./service.ts";
import { isFinal } from "./store.ts";

/** How long a job that waits for its turn sleeps before it looks itself; it is woken when a place is free. */
const WAITS = ["10 seconds", "1 minute", "5 minutes", "15 minutes"] as const;
/** Tries of a job: a second apart at first, more later. */
const TRIES = 40;
const TRY_AGAIN_S = [1, 1, 2, 3, 5, 8, 13, 21, 30] as const;

/** Steps fail when the database or the engine cannot be reached. */
const LONG = { retries: { limit: 5, delay: "2 seconds", backoff: "linear" }, timeout: "30 minutes" } as const;
const SHORT = { retries: { limit: 20, delay: "5 seconds", backoff: "linear" }, timeout: "1 minute" } as const;

export class JobRun extends WorkflowEntrypoint<Env, { jobId: string }> {
  override async run(event: WorkflowEvent<{ jobId: string }>, step: WorkflowStep): Promise<void> {
    const { jobId } = event.payload;
    const background = newBackground(parseConfig(this.env));
    for (let turn = 0; ; turn++) {
      const state = await step.do(`turn ${turn}`, async () => {
        const job = await background.jobs.get(jobId);
        if (job === undefined || isFinal(job.state)) return "ended";
        if (job.state === "running" || (await background.jobs.admit(jobId))) return "running";
        if (job.cancel_requested_at !== null) {
          await background.service.end(job, { state: "canceled" });
          return "ended";
        }
        return "queued";
      });
      if (state === "ended") return;
      if (state === "running") break;
      await sleepOrWake(step, `wait for turn ${turn}`, WAITS[Math.min(turn, WAITS.length - 1)] ?? "15 minutes");
    }
    const room = { ...background, end: background.service.end };
    for (let n = 0; n < TRIES; n++) {
      const outcome = await step.do(`try ${n}`, LONG, () => tryJob(room, jobId, n === TRIES - 1));
      if (outcome.ended) return;
      if (!outcome.accepted) {
        await step.sleep(`before try ${n + 1}`, `${TRY_AGAIN_S[Math.min(n, TRY_AGAIN_S.length - 1)] ?? 30} seconds`);
        continue;
      }
      // The engine calls back; where it does not, it is asked. One that knows nothing of the job gets it again.
      for (let wait = 0; ; wait++) {
        await sleepOrWake(step, `engine of try ${n}, wait ${wait}`, "5 minutes");
        const left = await step.do(`engine of try ${n}, look ${wait}`, SHORT, async () => {
          const job = await background.jobs.get(jobId);
          if (job === undefined || isFinal(job.state)) return "ended";
          if (job.cancel_requested_at !== null) {
            await background.service.end(job, { state: "canceled" });
            return "ended";
          }
          return (await pollEngine(room, jobId)) ? "working" : "unknown";
        });
        if (left === "ended") return;
        if (left === "unknown") break;
      }
    }
  }
}

export class DeliveryRun extends WorkflowEntrypoint<Env, { deliveryId: string }> {
  override async run(event: WorkflowEvent<{ deliveryId: string }>, step: WorkflowStep): Promise<void> {
    const { deliveryId } = event.payload;
    const background = newBackground(parseConfig(this.env));
    for (let n = 0; ; n++) {
      const next: { done: true } | { retryAt: number } = await step.do(
        `attempt ${n}`,
        { retries: { limit: 5, delay: "5 seconds", backoff: "linear" }, timeout: "1 minute" },
        () => background.attempt(deliveryId),
      );
      if ("done" in next) return;
      await sleepOrWake(step, `before attempt ${n + 1}`, Math.max(1000, next.retryAt - Date.now()));
    }
  }
}

/** Waits for a time, or until somebody says that there is something to see. */
async function sleepOrWake(step: WorkflowStep, name: string, time: WorkflowSleepDuration): Promise<void> {
  try {
    await step.waitForEvent(name, { type: WAKE, timeout: time });
  } catch {
    // The time is over.
  }
}
