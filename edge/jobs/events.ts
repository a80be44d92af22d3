// A job as server-sent events. Every chunk of what it finds is an event with its number as id: whoever comes back with the last one goes on there.
import { formatEvent } from "../../shared/sse.ts";
import { sideOf, toLogprob } from "../steer/answer.ts";
import { toJob, type WholeJob } from "./contract.ts";
import { isFinal, type Jobs, type SavedJob } from "./store.ts";

const LOOK_MS = 400;

export interface JobStream {
  readonly jobs: Jobs;
  readonly whole: (job: SavedJob) => Promise<WholeJob>;
  readonly id: string;
  /** Number of the last chunk that the reader has. */
  readonly after: number;
  readonly gone: AbortSignal;
}

/** The frames, as text, until the job has ended. */
export async function* jobEvents({ jobs, whole, id, after, gone }: JobStream): AsyncGenerator<string> {
  let last = after;
  let told = "";
  while (!gone.aborted) {
    // The job first: what it has generated when it ends is all there when its end is seen.
    const job = await jobs.get(id);
    if (job === undefined) return;
    const { state, progress } = toJob(job);
    // A steer's progress is in its tokens, a sweep's in its cells.
    const news = job.kind === "derive" ? JSON.stringify({ state, progress }) : state;
    if (news !== told) yield formatEvent("state", { state, progress });
    told = news;
    if (job.kind === "sweep") {
      const next = await jobs.items(job, last);
      if (next.last > last) {
        yield `id: ${next.last}\n${formatEvent("cells", { cells: next.items.map(({ cell, rows, error }) => ({ cell, rows, error })) })}`;
        last = next.last;
      }
    } else if (job.kind !== "derive") {
      const next = await jobs.tokens(id, last);
      if (next.last > last) {
        const tokens = next.tokens.map((token) => ({ side: sideOf(token), index: token.index, text: token.text, ...toLogprob(token) }));
        yield `id: ${next.last}\n${formatEvent("tokens", { tokens })}`;
        last = next.last;
      }
    }
    if (isFinal(job.state)) {
      yield formatEvent("done", await whole(job));
      return;
    }
    await scheduler.wait(LOOK_MS);
  }
}
