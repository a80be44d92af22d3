// What a webhook says of a job that has ended: the same as GET /api/jobs/{id}, result included.
import { toWholeJob, type WholeJob } from "./contract.ts";
import { type Ending, isSteer, type Jobs, type SavedJob } from "./store.ts";

export interface JobEvent {
  readonly type: string;
  readonly timestamp: string;
  readonly data: WholeJob;
}

/** @returns the event's name, and its body once the job is as it ended. */
export async function jobEvent(
  job: SavedJob,
  ending: Ending,
  jobs: Jobs,
): Promise<{ readonly event: string; readonly body: (ended: SavedJob) => string }> {
  const event = `job.${ending.state}`;
  const tokens = ending.state === "succeeded" || !isSteer(job) ? [] : (await jobs.tokens(job.id)).tokens;
  return {
    event,
    body: (ended) =>
      JSON.stringify({
        type: event,
        timestamp: new Date(ended.finished_at ?? ended.updated_at).toISOString(),
        data: toWholeJob(ended, tokens, ending.state === "succeeded" ? ending.steer : undefined),
      } satisfies JobEvent),
  };
}
