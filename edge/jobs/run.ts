// The work of jobs. A steer is one generation, whose tokens are kept as they come, so that any later try goes on from them.
import { ERRORS, type ErrorCode, TillerError } from "../../shared/errors.ts";
import { type EngineReport, fromEngineError, type GenerateRequest, type GenerateResult, type TokenEvent } from "../../shared/protocol.ts";
import { logFault } from "../answers.ts";
import type { Config } from "../config.ts";
import { runDerivation } from "../directions/job.ts";
import { ACCEPTED, cancelGeneration, findEngine, findGeneration, startGeneration } from "../engine.ts";
import { asCallerError } from "../engine-http.ts";
import { JOB_TIMEOUT_MS } from "../limits.ts";
import { finishSteer, SIDES, Transcript } from "../steer/answer.ts";
import type { SavedSteer } from "../steer/save.ts";
import { runSweep } from "../sweeps/job.ts";
import { type Ending, isFinal, isSteer, type Jobs, type SavedJob, type SteerJob } from "./store.ts";
import type { JobTokens } from "./stored.ts";

/** Tokens are written at most this often. */
const WRITE_MS = 1000;

/** What running a job needs. */
export interface JobRoom {
  readonly config: Config;
  readonly jobs: Jobs;
  /** Ends a job and tells those who wait for it. */
  readonly end: (job: SavedJob, ending: Ending) => Promise<void>;
}

/** How a try went: the job has ended, its engine will call back, or it makes sense to try again. */
export type Try = { readonly ended: true } | { readonly ended: false; readonly accepted: boolean };

/**
 * Tries to bring a running job to its end. What can be tried again is not thrown: it is the answer, and what was generated is kept.
 * @param last whether no other try will come: then a failure ends the job.
 */
export async function tryJob(room: JobRoom, id: string, last: boolean): Promise<Try> {
  const job = await room.jobs.get(id);
  if (job === undefined || isFinal(job.state)) return { ended: true };
  try {
    const ending = job.cancel_requested_at === null ? await work(room, job) : ({ state: "canceled" } as const);
    if (ending === ACCEPTED) return { ended: false, accepted: true };
    if (ending !== undefined) await room.end(job, ending);
    return { ended: true };
  } catch (thrown) {
    const error = TillerError.from(thrown);
    logFault(error, `job ${id}`);
    if (ERRORS[error.code].retry && !last) return { ended: false, accepted: false };
    await room.end(job, { state: "failed", error: inWords(error) });
    return { ended: true };
  }
}

/** What a user reads of a failure that trying again did not mend. */
function inWords(error: TillerError): TillerError {
  if (!ERRORS[error.code].retry) return error;
  const kept = "The place of your quota was given back. Send the job again later; if it fails again, report its id.";
  return new TillerError(error.code, `${error.message} It was tried many times. ${kept}`, { cause: error });
}

/** Undefined when the job has become somebody else's. */
function work(room: JobRoom, job: SavedJob): Promise<Ending | typeof ACCEPTED | undefined> {
  switch (job.kind) {
    case "derive":
      return runDerivation(room, job);
    case "sweep":
      return runSweep(room, job);
    default:
      return generate(room, job);
  }
}

async function generate({ config, jobs }: JobRoom, job: SteerJob): Promise<Ending | typeof ACCEPTED | undefined> {
  const engine = findEngine(config, job.model_id);
  if (engine === undefined) throw new TillerError("model_not_found", `No engine serves '${job.model_id}' any more.`);
  const before = await jobs.tokens(job.id);
  const transcript = new Transcript();
  for (const token of before.tokens) transcript.add(token);
  const gone = new AbortController();
  const request = continued(job, before.tokens);
  const events = await startGeneration(engine, { ...config, engineTimeoutMs: JOB_TIMEOUT_MS }, request, gone.signal);
  if (events === ACCEPTED) return ACCEPTED;
  let number = before.last;
  let unwritten: TokenEvent[] = [];
  let written = Date.now();
  /** Whether to go on. */
  const write = async (): Promise<"go on" | "canceled" | "not ours"> => {
    if (unwritten.length === 0) return "go on";
    const state = await jobs.append(job.id, number + 1, unwritten);
    if (state === undefined) return "not ours";
    number++;
    unwritten = [];
    written = Date.now();
    return state.canceled ? "canceled" : "go on";
  };
  try {
    for await (const next of events) {
      if (next.event === "done") {
        if ((await write()) === "not ours") return undefined;
        return succeed(job, next.data, transcript);
      }
      transcript.add(next.data);
      unwritten.push(next.data);
      if (Date.now() - written < WRITE_MS) continue;
      const state = await write();
      if (state === "go on") continue;
      await cancelGeneration(engine, config, job.id);
      return state === "canceled" ? { state: "canceled" } : undefined;
    }
    throw new TillerError("engine_failed", undefined, { cause: "the events ended without done" });
  } catch (error) {
    // What came is not lost, whatever happened then.
    if ((await write().catch(() => "go on")) === "not ours") return undefined;
    if (!isCode(error, "canceled")) throw error;
    // Canceled by its owner, or taken over by another try, which then is the one that goes on.
    const now = await jobs.get(job.id);
    return now?.cancel_requested_at == null ? undefined : { state: "canceled" };
  } finally {
    gone.abort();
  }
}

const isCode = (error: unknown, code: ErrorCode): boolean => error instanceof TillerError && error.code === code;

/** The job's request, going on after what its rows have generated. */
function continued({ id, plan }: SteerJob, tokens: JobTokens): GenerateRequest {
  const rows = plan.engineRequest.rows.map((row) => {
    const generated = tokens.filter((token) => token.row === row.name).map((token) => token.id);
    return generated.length === 0 ? row : { ...row, generated };
  });
  return { ...plan.engineRequest, id, rows, callback_url: `${plan.origin}/internal/jobs/${id}` };
}

/**
 * Takes what an engine that calls back says of a job: tokens that are new, and its end. What was taken before is passed over, so that the
 * same report can come twice.
 */
export async function takeReport(room: JobRoom, job: SteerJob, report: EngineReport): Promise<void> {
  const { jobs } = room;
  const before = await jobs.tokens(job.id);
  const known = (row: string) => before.tokens.filter((token) => token.row === row).length;
  const counts = new Map(job.plan.engineRequest.rows.map(({ name }) => [name, known(name)]));
  const fresh = report.tokens.filter((token) => token.index >= (counts.get(token.row) ?? 0));
  const transcript = new Transcript();
  for (const token of [...before.tokens, ...fresh]) transcript.add(token);
  if (fresh.length > 0) {
    const written = await jobs.append(job.id, before.last + 1, fresh);
    // Another report came in between: the engine sends this one again.
    if (written === undefined) throw new TillerError("conflict", "This job has other tokens by now: send the report again.");
    if (written.canceled) return room.end(job, { state: "canceled" });
  }
  if (report.done !== undefined) return room.end(job, succeed(job, report.done, transcript));
  if (report.error === undefined) return;
  const error = asCallerError(fromEngineError({ error: report.error }));
  // One that may go better is tried again by the job's workflow, which is woken now.
  if (!ERRORS[error.code].retry) await room.end(job, { state: "failed", error });
}

/** Asks an engine that did not call back. @returns whether it knows the job. */
export async function pollEngine(room: JobRoom, id: string): Promise<boolean> {
  const job = await room.jobs.get(id);
  const engine = job === undefined ? undefined : findEngine(room.config, job.model_id);
  if (job === undefined || engine === undefined || isFinal(job.state) || !isSteer(job)) return false;
  const report = await findGeneration(engine, room.config, id);
  if (report === undefined) return false;
  await takeReport(room, job, report);
  return report.error === undefined;
}

function succeed(job: SteerJob, done: GenerateResult, transcript: Transcript): Ending {
  const result = finishSteer(job.plan.engineRequest, done, transcript);
  for (const side of SIDES) {
    const text = transcript.textOf(side) ?? "";
    // Held back text of a stop string is no part of the answer: what was streamed is the beginning of it or all of it.
    if (!text.startsWith(result[side].text) && !result[side].text.startsWith(text))
      throw new TillerError("engine_failed", undefined, { cause: `the end of job ${job.id} is not the end of what it generated` });
  }
  const tokens = SIDES.reduce((sum, side) => sum + transcript.tokensOf(side).length, 0);
  if (tokens !== done.usage.completion_tokens) {
    const cause = `job ${job.id} has ${tokens} tokens of ${done.usage.completion_tokens}`;
    throw new TillerError("engine_failed", undefined, { cause });
  }
  const steer: SavedSteer = {
    ...{ id: job.id, user_id: job.user_id, model_id: job.model_id, request: job.plan.stored, result, created_at: Date.now() },
    ...{ title: null, visibility: "unlisted", expires_at: null },
  };
  return { state: "succeeded", result: { usage: done.usage, timing: done.timing }, steer };
}
