// POST /api/steer: one prompt, plain and steered.
import { createRoute, z } from "@hono/zod-openapi";
import { errorResponses } from "../answers.ts";
import type { Room } from "../app.ts";
import { readBody } from "../body.ts";
import { limitHeaders } from "../quota.ts";
import { toSteerResult } from "../steer/answer.ts";
import { ignoredFields, SteerRequest, SteerResult } from "../steer/contract.ts";
import { planSteer } from "../steer/edits.ts";
import { answerSteer } from "../steer/run.ts";

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
  room.app.post(PATH, (c) =>
    answerSteer(room, c, PATH, async ({ userId }) => {
      const { body, raw } = await readBody(c.req.raw, SteerRequest);
      const served = await room.models.get(body.modelId);
      return {
        served,
        plan: await planSteer(body, served.info, room, userId),
        ...{ stream: body.stream, mode: body.stream_mode, ignored: ignoredFields(raw, SteerRequest.shape) },
        answer: toSteerResult,
        frame: (transcript, limit) => transcript.frame(limit),
      };
    }),
  );
}
