// The calls about jobs: one, a page of them, cancel, and the events of one as a stream.
import { createRoute, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { TillerError } from "../../shared/errors.ts";
import { errorResponses } from "../answers.ts";
import type { App, Room } from "../app.ts";
import { parseBody } from "../body.ts";
import { cancelGeneration, findEngine } from "../engine.ts";
import { Job, toJob, toWholeJob, WholeJob } from "../jobs/contract.ts";
import { jobEvents } from "../jobs/events.ts";
import { isFinal, isSteer, type SavedJob } from "../jobs/store.ts";
import { JOB_STATES } from "../jobs-schema.ts";
import { LIMITS } from "../limits.ts";
import { identify, KEYS, mountGet, requireUser } from "../route.ts";
import { integer, oneOf, optional, text } from "../steer/fields.ts";
import { streamBody } from "../steer/stream.ts";

const tag = "Jobs";
const params = z.object({ id: z.string() });

const Page = z.object({
  state: oneOf(JOB_STATES).optional(),
  limit: optional(integer({ min: 1, max: LIMITS.jobsPerPage }), LIMITS.jobsPerPage),
  cursor: text({ max: 200, description: "nextCursor of the page before." }).optional(),
});

const cancelRoute = createRoute({
  ...{ method: "delete", path: "/api/jobs/{id}", tags: [tag], summary: "Cancel a job", security: KEYS, request: { params } },
  description:
    "A waiting job is canceled at once, a running one within a step of its engine. What it has generated stays readable. A job that has ended stays as it is.",
  responses: { 200: { description: "The job.", content: { "application/json": { schema: Job } } }, ...errorResponses(401, 404, 500) },
});

const eventsRoute = createRoute({
  ...{
    method: "get",
    path: "/api/jobs/{id}/events",
    tags: [tag],
    summary: "What a job finds, as it comes",
    security: KEYS,
    request: { params },
  },
  description:
    "Server-sent events: `state` ({state, progress}), `done` with the whole job at the end, and between them, with an id, `tokens` of a steer ({tokens: [{side, index, text, token, logprob, topLogprobs}]}) or `cells` of a sweep ({cells: [{cell, rows, error}]}, -1 being the baseline). Send the last id you saw as Last-Event-ID, and you miss nothing.",
  responses: {
    200: { description: "The stream.", content: { "text/event-stream": { schema: z.string() } } },
    ...errorResponses(400, 401, 404, 500),
  },
});

export function mountJobs(room: Room): void {
  const { app, jobs, service, steers, config } = room;
  app.openAPIRegistry.registerPath(cancelRoute);
  app.openAPIRegistry.registerPath(eventsRoute);

  const find = async (c: Context<App>, userId: string): Promise<SavedJob> => {
    const id = c.req.param("id") ?? "";
    const job = await jobs.get(id);
    if (job === undefined || job.user_id !== userId) throw new TillerError("not_found", `You have no job '${id.slice(0, 64)}'.`);
    return job;
  };
  const whole = async (job: SavedJob): Promise<WholeJob> => {
    if (!isSteer(job)) return toWholeJob(job, [], undefined);
    const steer = job.state === "succeeded" ? await steers.find(job.id, { userId: job.user_id, admin: false }) : undefined;
    return toWholeJob(job, steer === undefined ? (await jobs.tokens(job.id)).tokens : [], steer);
  };

  mountGet(
    room,
    {
      ...{
        path: "/api/jobs/:id",
        tag,
        summary: "A job: its state, what it has generated, its result",
        access: "user",
        answer: WholeJob,
        params,
      },
    },
    async ({ userId }, c) => whole(await find(c, userId)),
  );

  mountGet(
    room,
    {
      ...{ path: "/api/jobs", tag, summary: "Your jobs, the newest first", access: "user" },
      answer: z.object({ jobs: z.array(Job), nextCursor: z.string().nullable() }),
      query: Page,
    },
    async ({ userId }, c) => {
      const { state, limit, cursor } = parseBody(c.req.query(), Page);
      const rows = await jobs.list(userId, { state, limit: limit + 1, before: cursor === undefined ? undefined : readCursor(cursor) });
      const shown = rows.slice(0, limit);
      const last = shown.at(-1);
      return { jobs: shown.map(toJob), nextCursor: rows.length > limit && last !== undefined ? `${last.created_at}-${last.id}` : null };
    },
  );

  app.delete("/api/jobs/:id", async (c) => {
    const { userId } = requireUser(await identify(room, c));
    const { id } = await find(c, userId);
    const job = (await jobs.requestCancel(id, userId)) as SavedJob;
    if (job.state === "queued") await service.end(job, { state: "canceled" });
    else if (!isFinal(job.state)) {
      const engine = findEngine(config, job.model_id);
      if (engine !== undefined) await cancelGeneration(engine, config, id);
      // A runner that waits between two tries sees it now.
      await service.wake(id);
    }
    return c.json(toJob((await jobs.get(id)) ?? job));
  });

  app.get("/api/jobs/:id/events", async (c) => {
    const { userId } = requireUser(await identify(room, c));
    const job = await find(c, userId);
    const after = parseLastId(c.req.header("last-event-id"));
    const gone = new AbortController();
    c.req.raw.signal.addEventListener("abort", () => gone.abort());
    const frames = jobEvents({ jobs, whole, id: job.id, after, gone: gone.signal });
    c.header("content-type", "text/event-stream");
    c.header("cache-control", "no-cache, no-transform");
    return c.body(streamBody(frames, config.pingMs, () => gone.abort()));
  });
}

/** The number of a chunk. After the end there is only the end again. */
function parseLastId(id: string | undefined): number {
  if (id === undefined || id === "") return 0;
  if (/^\d{1,9}$/.test(id)) return Number(id);
  throw new TillerError("invalid_request", "Last-Event-ID must be the id of an event of this job's stream.");
}

function readCursor(cursor: string): { at: number; id: string } {
  const [, at, id] = /^(\d{1,16})-(cm[0-9a-z]{23})$/.exec(cursor) ?? [];
  if (at !== undefined && id !== undefined) return { at: Number(at), id };
  throw new TillerError("invalid_request", "cursor must be the nextCursor of an earlier answer.");
}
