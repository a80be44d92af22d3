// A steer from its caller to its answer, whatever it continues: the quota, the engine, the stream, the saved row.
import type { Context } from "hono";
import { TillerError } from "../../shared/errors.ts";
import type { GenerateResult } from "../../shared/protocol.ts";
import { logFault } from "../answers.ts";
import type { App, Room } from "../app.ts";
import type { Caller } from "../auth.ts";
import { generate, openGeneration } from "../engine.ts";
import type { ServedModel } from "../models.ts";
import { CLIENT_GONE, giveBack, newLimited, setLimitHeaders, steerQuotaOf } from "../quota.ts";
import type { Quota } from "../rate-limit.ts";
import { identify } from "../route.ts";
import { finishSteer, type Transcript } from "./answer.ts";
import type { STREAM_MODES } from "./contract.ts";
import type { Plan } from "./edits.ts";
import { shareUrl } from "./save.ts";
import type { StoredResult } from "./stored.ts";
import { steerFrames, streamBody } from "./stream.ts";

/** What an answer says of the steer it belongs to. */
export interface Saved {
  readonly id: string;
  readonly shareUrl: string;
  readonly limit: string;
  readonly ignored: readonly string[];
}

/** A steer that was checked and can run. */
export interface Planned {
  readonly served: ServedModel;
  readonly plan: Plan;
  readonly stream: boolean;
  readonly mode: (typeof STREAM_MODES)[number];
  readonly ignored: readonly string[];
  /** The answer, and the last frame of a stream. */
  answer(result: StoredResult, done: GenerateResult, saved: Saved): object;
  /** A cumulative frame. */
  frame(transcript: Transcript, limit: string): object;
}

/** @param plan reads and checks the request: one that is refused uses no quota. */
export async function answerSteer(
  room: Room,
  c: Context<App>,
  path: string,
  plan: (caller: Caller) => Promise<Planned>,
): Promise<Response> {
  const caller = await identify(room, c);
  const quota = steerQuotaOf(room.limiter, caller);
  try {
    return await run(room, c, path, caller, quota, await plan(caller));
  } catch (error) {
    // Nobody reads the answer, and leaving early is no reason to get the quota back.
    if (c.req.raw.signal.aborted) return new Response(null, { status: CLIENT_GONE });
    await giveBack(quota, TillerError.from(error));
    setLimitHeaders(c, await quota.state().catch(() => undefined));
    throw error;
  }
}

async function run(room: Room, c: Context<App>, path: string, caller: Caller, quota: Quota, planned: Planned): Promise<Response> {
  const { config } = room;
  const { served, plan, ignored } = planned;
  const { info, engine } = served;
  const state = await quota.take();
  setLimitHeaders(c, state);
  if (!state.success) throw newLimited(state, path);

  const limit = String(state.remaining);
  const gone = new AbortController();
  c.req.raw.signal.addEventListener("abort", () => gone.abort());
  const finish = (done: GenerateResult, transcript?: Transcript): object => {
    const result = finishSteer(plan.engineRequest, done, transcript);
    const steer = { userId: caller.userId, modelId: info.id, request: plan.stored, result };
    const id = room.steers.save(steer, (work) => c.executionCtx.waitUntil(work));
    return planned.answer(result, done, { id, shareUrl: shareUrl(config, c.req.raw, id), limit, ignored });
  };

  if (!planned.stream) return c.json(finish(await generate(engine, config, plan.engineRequest, gone.signal)));
  const frames = steerFrames({
    events: await openGeneration(engine, config, plan.engineRequest, gone.signal),
    mode: planned.mode,
    frame: (transcript) => planned.frame(transcript, limit),
    requestId: c.get("requestId"),
    gone: gone.signal,
    finish,
    fail: async (error) => {
      logFault(error, c.get("requestId"));
      await giveBack(quota, error);
    },
  });
  c.header("content-type", "text/event-stream");
  c.header("cache-control", "no-cache, no-transform");
  return c.body(streamBody(frames, config.pingMs, () => gone.abort()));
}
