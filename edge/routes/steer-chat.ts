// POST /api/steer-chat: a conversation, plain and steered.
import { createRoute, z } from "@hono/zod-openapi";
import { errorResponses } from "../answers.ts";
import type { Room } from "../app.ts";
import { readBody } from "../body.ts";
import { limitHeaders } from "../quota.ts";
import { chatFrame, planChat, toChatResult } from "../steer/chat.ts";
import { SteerChatRequest, SteerChatResult } from "../steer/chat-contract.ts";
import { ignoredFields } from "../steer/contract.ts";
import { answerSteer } from "../steer/run.ts";

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
      headers: limitHeaders,
      content: { "application/json": { schema: SteerChatResult }, "text/event-stream": { schema: z.string() } },
    },
    ...errorResponses(400, 401, 404, 413, 422, 429, 500, 502, 503, 504),
  },
});

export function mountSteerChat(room: Room): void {
  room.app.openAPIRegistry.registerPath(route);
  room.app.post(PATH, (c) =>
    answerSteer(room, c, PATH, async ({ userId }) => {
      const { body, raw } = await readBody(c.req.raw, SteerChatRequest);
      const served = await room.models.get(body.modelId);
      const plan = await planChat(body, served, room, userId, room.config, c.req.raw.signal);
      return {
        ...{ served, plan, stream: body.stream, mode: body.stream_mode },
        ignored: ignoredFields(raw, SteerChatRequest.shape),
        answer: (result, done, saved) => toChatResult(plan.stored, result, done, saved),
        frame: (transcript, limit) => chatFrame(plan.stored, transcript, limit),
      };
    }),
  );
}
