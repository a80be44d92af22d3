// A steer from its caller to its answer, whatever it continues: the quota, the engine, the stream, the saved row.
import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { TillerError } from "../../shared/errors.ts";
import type { GenerateResult } from "../../shared/protocol.ts";
import { logFault } from "../answers.ts";
import type { App, Room } from "../app.ts";
import type { Caller } from "../auth.ts";
import { ColdStart } from "../cold-start.ts";
import { generate, openGeneration } from "../engine.ts";
import type { ServedModel } from "../models.ts";
import { CLIENT_GONE, giveBack, limitHeaders, newLimited, setLimitHeaders, steerQuotaOf } from "../quota.ts";
import { identify } from "../route.ts";
import { finishSteer, type Transcript } from "./answer.ts";
import type { STREAM_MODES } from "./contract.ts";
import type { Plan } from "./edits.ts";
import { shareUrl } from "./save.ts";
import type { StoredResult } from "./stored.ts";
import { afterColdStart, steerFrames, streamBody } from "./stream.ts";

/** What an answer says of the steer it belongs to. */
export interface Saved {
  readonly id: string;
  readonly shareUrl: string;
  readonly limit: string;
  readonly ignored: readonly string[];
}

/** For the OpenAPI document. */
export const steerHeaders = limitHeaders.extend({
  "x-tiller-cold-start": z.string().optional().openapi({ description: "Milliseconds waited for the engine to start, if it had to." }),
});

/** A steer that was checked and can run. */
export interface Planned {
  readonly served: ServedModel;
  readonly plan: Plan;
  readonly mode: (typeof STREAM_MODES)[number];
  readonly ignored: readonly string[];
  /** The answer, and the last frame of a stream. */
  answer(result: StoredResult, done: GenerateResult, saved: Saved): object;
  /** A cumulative frame. */
  frame(transcript: Transcript, limit: string): object;
}

/** A steer as it was asked for. */
export interface Asked {
  readonly stream: boolean;
  /** Checks it against its model, whose engine may have to start: aborting `signal` ends the wait, `cold` is told of it. */
  plan(signal: AbortSignal, cold: ColdStart): Promise<Planned>;
}

/** @param ask reads the request; one that is refused then, or planned in vain, uses no quota. */
export async function answerSteer(room: Room, c: Context<App>, path: string, ask: (caller: Caller) => Promise<Asked>): Promise<Response> {
  const { config } = room;
  const requestId = c.get("requestId");
  const caller = await identify(room, c);
  const quota = steerQuotaOf(room.limiter, caller);
  const gone = new AbortController();
  c.req.raw.signal.addEventListener("abort", () => gone.abort());
  const cold = new ColdStart();

  const start = async (asked: Asked) => {
    const planned = await asked.plan(gone.signal, cold);
    const state = await quota.take();
    // A stream that had to wait for its engine has begun.
    if (!c.finalized) setLimitHeaders(c, state);
    if (!state.success) throw newLimited(state, path);
    const { served, plan, ignored } = planned;
    const limit = String(state.remaining);
    const finish = (done: GenerateResult, transcript?: Transcript): object => {
      const result = finishSteer(plan.engineRequest, done, transcript);
      const steer = { userId: caller.userId, modelId: served.info.id, request: plan.stored, result };
      const id = room.steers.save(steer, (work) => c.executionCtx.waitUntil(work));
      return planned.answer(result, done, { id, shareUrl: shareUrl(config, c.req.raw, id), limit, ignored });
    };
    return { planned, limit, finish };
  };
  const whole = async (asked: Asked): Promise<object> => {
    const { planned, finish } = await start(asked);
    return finish(await generate(planned.served.engine, config, planned.plan.engineRequest, gone.signal, cold));
  };
  const stream = {
    ...{ requestId, gone: gone.signal },
    fail: async (error: TillerError) => {
      logFault(error, requestId);
      await giveBack(quota, error);
    },
  };
  const open = async (asked: Asked): Promise<AsyncGenerator<string>> => {
    const { planned, limit, finish } = await start(asked);
    const events = await openGeneration(planned.served.engine, config, planned.plan.engineRequest, gone.signal, cold);
    return steerFrames({ ...stream, events, mode: planned.mode, frame: (transcript) => planned.frame(transcript, limit), finish });
  };

  try {
    const asked = await ask(caller);
    if (!asked.stream) {
      const answer = await whole(asked);
      if (cold.waitedMs !== undefined) c.header("x-tiller-cold-start", String(cold.waitedMs));
      return c.json(answer);
    }
    const opening = open(asked);
    // Whoever has to wait for an engine to start hears of it at once; what comes of it, a refusal too, is in the stream then.
    const frames = await Promise.race([opening, cold.noticed.then(() => afterColdStart(opening, stream))]);
    c.header("content-type", "text/event-stream");
    c.header("cache-control", "no-cache, no-transform");
    return c.body(streamBody(frames, config.pingMs, () => gone.abort()));
  } catch (error) {
    // Nobody reads the answer, and leaving early is no reason to get the quota back.
    if (c.req.raw.signal.aborted) return new Response(null, { status: CLIENT_GONE });
    await giveBack(quota, TillerError.from(error));
    setLimitHeaders(c, await quota.state().catch(() => undefined));
    throw error;
  }
}
