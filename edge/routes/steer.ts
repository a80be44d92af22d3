// POST /api/steer: one prompt, plain and steered.
import { createRoute, z } from "@hono/zod-openapi";
import { errorResponses } from "../answers.ts";
import type { Room } from "../app.ts";
import { parseBody, readRaw } from "../body.ts";
import type { ColdStart } from "../cold-start.ts";
import { answerJob, wantsJob } from "../jobs/ask.ts";
import { Job } from "../jobs/contract.ts";
import { toSteerResult } from "../steer/answer.ts";
import { ignoredFields, jobTokens, SteerRequest, SteerResult } from "../steer/contract.ts";
import { planSteer } from "../steer/edits.ts";
import { answerSteer, steerHeaders } from "../steer/run.ts";

const PATH = "/api/steer";

const route = createRoute({
  method: "post",
  path: PATH,
  tags: ["Steering"],
  summary: "Generate text plain and steered",
  description:
    "Neuronpedia's call: the same body gets the same answer. Works without a key (a smaller hourly quota, counted per address); a key that is sent must be valid. " +
    "With `stream: true` the answer is server-sent events: in the cumulative mode every `data:` frame is a SteerResult so far (log probabilities and receipts are in the last one, which also has `id` and `shareUrl`); " +
    "in the delta mode there are `token` events ({side, index, text, token, logprob, topLogprobs, kl}) and one `done` event. A failure in mid-stream is an `error` event with the body of an Error. Comments (`: ping`) keep a silent stream alive. " +
    "An engine that is not running is started first. A stream says so in a comment (`: the model is starting (cold start)`), and whatever goes wrong from then on is an `error` event; another answer has the milliseconds waited in the header x-tiller-cold-start. " +
    "With `webhook: {url}` or the header `Prefer: respond-async` it becomes a job (needs a key): the answer is 202 with its id, and n_tokens may be as large as the model has room for.",
  security: [{}, { ApiKey: [] }, { Bearer: [] }],
  request: { body: { required: true, content: { "application/json": { schema: SteerRequest } } } },
  responses: {
    200: {
      description: "Both texts.",
      headers: steerHeaders,
      content: { "application/json": { schema: SteerResult }, "text/event-stream": { schema: z.string() } },
    },
    202: { description: "With `webhook` or Prefer: respond-async: the job.", content: { "application/json": { schema: Job } } },
    ...errorResponses(400, 401, 404, 409, 413, 422, 429, 500, 502, 503, 504),
  },
});

/** As a job may be asked for: with as many tokens as the model has room for. */
const SteerJob = SteerRequest.extend({ n_tokens: jobTokens });

export function mountSteer(room: Room): void {
  room.app.openAPIRegistry.registerPath(route);
  room.app.post(PATH, async (c) => {
    // What is no JSON is refused where a steer is: its answer tells the state of the quota.
    const coming = readRaw(c.req.raw);
    const raw = await coming.catch(() => undefined);
    const planned = async (body: SteerRequest, userId: string | undefined, signal: AbortSignal, cold?: ColdStart) => {
      const served = await room.models.get(body.modelId, signal, cold);
      return {
        served,
        plan: await planSteer(body, served.info, room, userId),
        stream: body.stream,
        ignored: ignoredFields(raw, SteerRequest.shape),
      };
    };
    if (wantsJob(c, raw))
      return answerJob(room, c, PATH, "steer", raw, (userId) => planned(parseBody(raw, SteerJob), userId, c.req.raw.signal));
    return answerSteer(room, c, PATH, async ({ userId }) => {
      const body = parseBody(await coming, SteerRequest);
      return {
        stream: body.stream,
        plan: async (signal, cold) => ({
          ...(await planned(body, userId, signal, cold)),
          mode: body.stream_mode,
          answer: toSteerResult,
          frame: (transcript, limit) => transcript.frame(limit),
        }),
      };
    });
  });
}
