// POST /api/steer-chat: a conversation, plain and steered.
import { createRoute, z } from "@hono/zod-openapi";
import { errorResponses } from "../answers.ts";
import type { Room } from "../app.ts";
import { parseBody, readRaw } from "../body.ts";
import type { ColdStart } from "../cold-start.ts";
import { answerJob, wantsJob } from "../jobs/ask.ts";
import { Job } from "../jobs/contract.ts";
import { chatFrame, planChat, toChatResult } from "../steer/chat.ts";
import { SteerChatRequest, SteerChatResult } from "../steer/chat-contract.ts";
import { ignoredFields, jobTokens } from "../steer/contract.ts";
import { answerSteer, steerHeaders } from "../steer/run.ts";

const PATH = "/api/steer-chat";

const route = createRoute({
  method: "post",
  path: PATH,
  tags: ["Steering"],
  summary: "Continue a conversation plain and steered",
  description:
    "Neuronpedia's call, for models with a chat template (`chatTemplate` of /api/models). Counted with /api/steer, and streamed as it is; the frames are SteerChatResults.",
  security: [{}, { ApiKey: [] }, { Bearer: [] }],
  request: { body: { required: true, content: { "application/json": { schema: SteerChatRequest } } } },
  responses: {
    200: {
      description: "Both conversations with their answers.",
      headers: steerHeaders,
      content: { "application/json": { schema: SteerChatResult }, "text/event-stream": { schema: z.string() } },
    },
    202: { description: "With `webhook` or Prefer: respond-async: the job.", content: { "application/json": { schema: Job } } },
    ...errorResponses(400, 401, 404, 409, 413, 422, 429, 500, 502, 503, 504),
  },
});

/** As a job may be asked for: with as many tokens as the model has room for. */
const SteerChatJob = SteerChatRequest.extend({ n_tokens: jobTokens });

export function mountSteerChat(room: Room): void {
  room.app.openAPIRegistry.registerPath(route);
  room.app.post(PATH, async (c) => {
    // What is no JSON is refused where a steer is: its answer tells the state of the quota.
    const coming = readRaw(c.req.raw);
    const raw = await coming.catch(() => undefined);
    const planned = async (body: SteerChatRequest, userId: string | undefined, signal: AbortSignal, cold?: ColdStart) => {
      const served = await room.models.get(body.modelId, signal, cold);
      const plan = await planChat(body, served, room, userId, room.config, signal);
      return { served, plan, stream: body.stream, ignored: ignoredFields(raw, SteerChatRequest.shape) };
    };
    if (wantsJob(c, raw))
      return answerJob(room, c, PATH, "steer-chat", raw, (userId) => planned(parseBody(raw, SteerChatJob), userId, c.req.raw.signal));
    return answerSteer(room, c, PATH, async ({ userId }) => {
      const body = parseBody(await coming, SteerChatRequest);
      return {
        stream: body.stream,
        plan: async (signal, cold) => {
          const ready = await planned(body, userId, signal, cold);
          return {
            ...ready,
            mode: body.stream_mode,
            answer: (result, done, saved) => toChatResult(ready.plan.stored, result, done, saved),
            frame: (transcript, limit) => chatFrame(ready.plan.stored, transcript, limit),
          };
        },
      };
    });
  });
}
