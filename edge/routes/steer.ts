// POST /api/steer: one prompt, plain and steered.
import { createRoute, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { TillerError } from "../../shared/errors.ts";
import { errorResponses, logFault } from "../answers.ts";
import type { App, Room } from "../app.ts";
import type { Caller } from "../auth.ts";
import { readBody } from "../body.ts";
import { generate, openGeneration } from "../engine.ts";
import { CLIENT_GONE, giveBack, limitHeaders, refuseLimited, setLimitHeaders } from "../quota.ts";
import type { Quota } from "../rate-limit.ts";
import { finishSteer, toSteerResult } from "../steer/answer.ts";
import { ignoredFields, SteerRequest, SteerResult } from "../steer/contract.ts";
import { planSteer } from "../steer/edits.ts";
import { shareUrl } from "../steer/save.ts";
import { steerFrames, streamBody } from "../steer/stream.ts";

const PATH = "/api/steer";

const route = createRoute({
  method: "post",
  path: PATH,
  tags: ["Steering"],
  summary: "Generate text plain and steered",
  description:
    "Neuronpedia's call: the same body gets the same answer. Works without a key (a smaller hourly quota, counted per address); a key that is sent must be valid. " +
    "With `stream: true` the answer is server-sent events: in the cumulative mode every `data:` frame is a SteerResult so far (log probabilities and receipts are in the last one, which also has `id` and `shareUrl`); " +
    "in the delta mode there are `token` events ({side, index, text, token, logprob, topLogprobs, kl}) and one `done` event. A failure in mid-stream is an `error` event with the body of an Error. Comments (`: ping`) keep a silent stream alive.",
  security: [{}, { ApiKey: [] }, { Bearer: [] }],
  request: { body: { required: true, content: { "application/json": { schema: SteerRequest } } } },
  responses: {
    200: {
      description: "Both texts.",
      headers: limitHeaders,
      content: { "application/json": { schema: SteerResult }, "text/event-stream": { schema: z.string() } },
    },
    ...errorResponses(400, 401, 404, 413, 422, 429, 500, 502, 503, 504),
  },
});

export function mountSteer(room: Room): void {
  room.app.openAPIRegistry.registerPath(route);
  room.app.post(PATH, async (c) => {
    const caller = await room.gate.identify(c.req.raw, (work) => c.executionCtx.waitUntil(work));
    const quota = room.limiter.quotaOf(caller.identifier, caller.steersPerHour);
    try {
      return await steer(room, c, caller, quota);
    } catch (error) {
      // Nobody reads the answer, and leaving early is no reason to get the quota back.
      if (c.req.raw.signal.aborted) return new Response(null, { status: CLIENT_GONE });
      await giveBack(quota, TillerError.from(error));
      setLimitHeaders(c, await quota.state().catch(() => undefined));
      throw error;
    }
  });
}

async function steer(room: Room, c: Context<App>, caller: Caller, quota: Quota): Promise<Response> {
  const { config } = room;
  const { body, raw } = await readBody(c.req.raw, SteerRequest);
  const { info, engine } = await room.models.get(body.modelId);
  const plan = await planSteer(body, info, room, caller.userId);
  // Last of the checks: a request that is refused uses no quota.
  const state = await quota.take();
  setLimitHeaders(c, state);
  if (!state.success) return refuseLimited(c, state, PATH);

  const ignored = ignoredFields(raw);
  const gone = new AbortController();
  c.req.raw.signal.addEventListener("abort", () => gone.abort());
  const save = (result: ReturnType<typeof finishSteer>) => {
    const steer = { userId: caller.userId, modelId: info.id, request: plan.stored, result };
    const id = room.steers.save(steer, (work) => c.executionCtx.waitUntil(work));
    return { id, shareUrl: shareUrl(config, c.req.raw, id), limit: String(state.remaining), ignored };
  };

  if (!body.stream) {
    const done = await generate(engine, config, plan.engineRequest, gone.signal);
    const result = finishSteer(plan.engineRequest, done);
    return c.json(toSteerResult(result, done, save(result)));
  }
  const frames = steerFrames({
    events: await openGeneration(engine, config, plan.engineRequest, gone.signal),
    mode: body.stream_mode,
    limit: String(state.remaining),
    requestId: c.get("requestId"),
    gone: gone.signal,
    finish: (done, transcript) => {
      const result = finishSteer(plan.engineRequest, done, transcript);
      return toSteerResult(result, done, save(result));
    },
    fail: async (error) => {
      logFault(error, c.get("requestId"));
      await giveBack(quota, error);
    },
  });
  c.header("content-type", "text/event-stream");
  c.header("cache-control", "no-cache, no-transform");
  return c.body(streamBody(frames, config.pingMs, () => gone.abort()));
}
