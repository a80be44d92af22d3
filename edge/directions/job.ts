// The work of a job of the kind `derive`: its engine reads the texts, then the vectors are kept with the job's ending, all or none.
import { sql } from "drizzle-orm";
import type { DirectionsRequest, DirectionsResult } from "../../shared/directions.ts";
import { TillerError } from "../../shared/errors.ts";
import { derive, findEngine } from "../engine.ts";
import { newLabels } from "../features/labels.ts";
import type { JobRoom } from "../jobs/run.ts";
import type { Ending, JobOf } from "../jobs/store.ts";
import { JOB_TIMEOUT_MS } from "../limits.ts";
import { newModels } from "../models.ts";
import { insertWhere, newVectors } from "../vectors/store.ts";
import { toDerived, vectorsOf } from "./keep.ts";
import { withLabels } from "./latents.ts";

/** Progress is noted this often, and whether the job is still wanted is seen then. */
const NOTED_MS = 1000;

/**
 * @returns undefined when the job has become somebody else's.
 * @throws TillerError of the engine, and `conflict` when its user has no room for its vectors any more.
 */
export async function runDerivation(room: JobRoom, job: JobOf<"derive">): Promise<Ending | undefined> {
  const input = await room.jobs.input(job.id);
  // It has ended in this moment.
  if (input === "") return undefined;
  const found = await ask(room, job, JSON.parse(input) as DirectionsRequest);
  return found === "canceled" ? { state: "canceled" } : found === "not ours" ? undefined : keep(room, job, found);
}

async function ask(
  { config, jobs }: JobRoom,
  job: JobOf<"derive">,
  request: DirectionsRequest,
): Promise<DirectionsResult | "canceled" | "not ours"> {
  const engine = findEngine(config, job.model_id);
  if (engine === undefined) throw new TillerError("model_not_found", `No engine serves '${job.model_id}' any more.`);
  const [gone, over] = [new AbortController(), new AbortController()];
  let read = 0;
  let stopped: "canceled" | "not ours" | undefined;
  const look = async (): Promise<void> => {
    const state = await jobs.progress(job.id, read);
    stopped = state === undefined ? "not ours" : state.canceled ? "canceled" : undefined;
    if (stopped !== undefined) gone.abort();
  };
  // By the clock, not by what the engine says: one that is silent can be canceled too.
  const watch = async (): Promise<void> => {
    while (stopped === undefined && (await isStillGoing(NOTED_MS, over.signal))) await look().catch(() => undefined);
  };
  const watching = watch();
  let found: DirectionsResult;
  try {
    found = await derive(engine, { ...config, engineTimeoutMs: JOB_TIMEOUT_MS }, request, gone.signal, ({ texts }) => {
      read = texts;
    });
  } catch (error) {
    if (stopped !== undefined) return stopped;
    throw error;
  } finally {
    over.abort();
    await watching;
  }
  read = job.tokens_total;
  await look();
  return stopped ?? found;
}

/** Waits. @returns false at once when the signal is aborted. */
async function isStillGoing(ms: number, over: AbortSignal): Promise<boolean> {
  try {
    await scheduler.wait(ms, { signal: over });
    return !over.aborted;
  } catch {
    return false;
  }
}

/**
 * The ending with its vectors. Two tries of a job may both come to here: a vector is written only where the job's result has it in its place,
 * so that only those of the try that ended the job are.
 */
async function keep({ config }: JobRoom, { id, user_id, plan }: JobOf<"derive">, bare: DirectionsResult): Promise<Ending> {
  const vectors = newVectors(config);
  const { settings } = plan.derivation;
  const found = await withLabels(bare, settings, newLabels(config, newModels(config)));
  const given = vectorsOf(found, settings, user_id);
  if (given.length > 0) await vectors.checkRoom(user_id, given.length);
  const rows = await vectors.draw(given);
  return {
    ...{ state: "succeeded", result: toDerived(found, settings, rows, plan.origin) },
    statements: rows.map((row, i) => {
      const place = `$.vectors[${i}].index`;
      const listed = sql`EXISTS (SELECT 1 FROM jobs WHERE id = ${id} AND json_extract(result, ${place}) = ${String(row.index)})`;
      return insertWhere(config.db, row, listed);
    }),
  };
}
