// The work of a job of the kind `sweep`: group after group, each kept when it is written, then the result.
import { type ErrorCode, TillerError } from "../../shared/errors.ts";
import { findEngine, generate } from "../engine.ts";
import type { JobRoom } from "../jobs/run.ts";
import type { Ending, JobOf } from "../jobs/store.ts";
import { JOB_TIMEOUT_MS } from "../limits.ts";
import { accountSecret } from "../webhooks/store.ts";
import { groupsOf } from "./cells.ts";
import { classify } from "./classifier.ts";
import { toResult } from "./result.ts";
import type { SweepInput } from "./stored.ts";
import { type SweepEngine, writeGroup } from "./write.ts";

/** After so long a try ends and the next goes on: a step of a workflow has half an hour. */
const TRY_MS = 15 * 60_000;

/** Goes on after the groups that are kept. @returns undefined when the job has become somebody else's. */
export async function runSweep({ config, jobs }: JobRoom, job: JobOf<"sweep">): Promise<Ending | undefined> {
  const address = findEngine(config, job.model_id);
  if (address === undefined) throw new TillerError("model_not_found", `No engine serves '${job.model_id}' any more.`);
  const { sweep, origin } = job.plan;
  const kept = await jobs.input(job.id);
  // It is deleted when the job ends.
  if (kept === "") return undefined;
  const input = JSON.parse(kept) as SweepInput;
  const before = await jobs.items(job);
  const found = [...before.items];
  const failed = new Set(found.filter(({ error }) => error !== null).map(({ cell }) => cell));

  const patient = { ...config, engineTimeoutMs: JOB_TIMEOUT_MS };
  const { signal } = new AbortController();
  const engine: SweepEngine = {
    generate: (request) => generate(address, patient, { ...request, id: job.id, model: job.model_id }, signal),
  };
  const until = Date.now() + TRY_MS;
  for (const [i, group] of groupsOf(sweep).entries()) {
    // One chunk for each group.
    if (i < before.last) continue;
    if (Date.now() > until) throw new TillerError("engine_timeout", "The sweep takes long: it goes on from what it has.");
    try {
      const cells = await writeGroup(engine, sweep, input, group, failed);
      const written = await jobs.append(job.id, i + 1, cells, group.cells.length);
      if (written === undefined) return undefined;
      if (written.canceled) return { state: "canceled" };
      found.push(...cells);
      for (const { cell, error } of cells) if (error !== null) failed.add(cell);
    } catch (error) {
      if (!isCode(error, "canceled")) throw error;
      // Canceled by its owner, or taken over by another try, which then is the one that goes on.
      const now = await jobs.get(job.id);
      return now?.cancel_requested_at == null ? undefined : { state: "canceled" };
    }
  }

  const { scorer } = input;
  const ask = async (texts: readonly string[]): Promise<readonly number[]> => {
    if (scorer?.kind !== "webhook") return [];
    const secret = await accountSecret(config.db, job.user_id);
    return classify({ config, fetch: (...args) => fetch(...args), url: scorer.url, secret, id: job.id }, texts);
  };
  const totalMs = Date.now() - (job.started_at ?? job.created_at);
  const result = await toResult({ id: job.id, origin, modelId: job.model_id, totalMs }, sweep, scorer, found, ask);
  return { state: "succeeded", result };
}

const isCode = (error: unknown, code: ErrorCode): boolean => error instanceof TillerError && error.code === code;
