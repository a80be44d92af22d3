// Sweeps: POST /api/sweeps makes one a job, GET /api/sweeps/{id} has its result.
import { createRoute, z } from "@hono/zod-openapi";
import { TillerError } from "../../shared/errors.ts";
import { errorResponses } from "../answers.ts";
import type { Room } from "../app.ts";
import { readBody } from "../body.ts";
import { startJob } from "../jobs/ask.ts";
import { Job, toJob } from "../jobs/contract.ts";
import { isFinal } from "../jobs/store.ts";
import { identify, KEYS, requireUser } from "../route.ts";
import { SweepBody, SweepResult } from "../sweeps/contract.ts";
import { planSweep } from "../sweeps/request.ts";

const PATH = "/api/sweeps";
const tag = "Sweeps";
/** Texts that count as one steer. */
const TEXTS_PER_PLACE = 8;

const startRoute = createRoute({
  ...{ method: "post", path: PATH, tags: [tag], summary: "Find out how hard to steer, and where", security: KEYS },
  description: `A grid of directions, layers, methods and strengths. Each cell writes a text for every prompt and seed; each text is read by the model without edits. Always a job; at its end GET /api/sweeps/{id} has the result, and a page shows it. Every ${TEXTS_PER_PLACE} texts count as one steer, all together at most as an hour's.`,
  request: { body: { required: true, content: { "application/json": { schema: SweepBody } } } },
  responses: {
    202: { description: "The job.", content: { "application/json": { schema: Job } } },
    ...errorResponses(400, 401, 403, 404, 409, 413, 429, 500, 502, 503, 504),
  },
});

const resultRoute = createRoute({
  ...{ method: "get", path: `${PATH}/{id}`, tags: [tag], summary: "The result of a sweep", security: KEYS },
  description:
    "409 while it runs, and when it failed or was canceled: /api/jobs/{id} says how far it is, /api/jobs/{id}/events has its texts as they come.",
  request: { params: z.object({ id: z.string() }) },
  responses: {
    200: { description: "The result.", content: { "application/json": { schema: SweepResult } } },
    ...errorResponses(401, 403, 404, 409, 500),
  },
});

export function mountSweeps(room: Room): void {
  const { app, jobs } = room;
  app.openAPIRegistry.registerPath(startRoute);
  app.openAPIRegistry.registerPath(resultRoute);

  app.post(PATH, async (c) => {
    const caller = requireUser(await identify(room, c));
    const { body } = await readBody(c.req.raw, SweepBody);
    const { signal } = c.req.raw;
    const served = await room.models.get(body.modelId, signal);
    const { sweep, input, texts } = await planSweep(body, served, room, caller.userId, room.config, signal);
    return startJob(room, c, PATH, caller, {
      ...{ kind: "sweep", modelId: served.info.id, webhook: body.webhook, tokensTotal: texts, plan: { sweep } },
      input: JSON.stringify(input),
      places: Math.min(Math.ceil(texts / TEXTS_PER_PLACE), caller.steersPerHour),
    });
  });

  app.get(`${PATH}/:id`, async (c) => {
    const { userId } = requireUser(await identify(room, c));
    const id = c.req.param("id");
    const job = await jobs.get(id);
    if (job === undefined || job.user_id !== userId || job.kind !== "sweep")
      throw new TillerError("not_found", `You have no sweep '${id.slice(0, 64)}'.`);
    if (job.result !== null) return c.json(job.result satisfies SweepResult);
    const { progress, error } = toJob(job);
    if (!isFinal(job.state))
      throw new TillerError("conflict", `This sweep is ${job.state}: it has ${progress.texts} of ${progress.of} texts. Ask again later.`);
    throw new TillerError("conflict", error === null ? "This sweep was canceled." : `This sweep failed: ${error.message}`);
  });
}
