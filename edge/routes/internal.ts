// What engines call: POST /internal/jobs/{id}, from one that accepted a job and works on it without a connection. Signed as webhooks are
// (Standard Webhooks), with the engine's own token as the secret; a report that is old is refused, and one that comes twice does nothing.
import { Webhook } from "standardwebhooks";
import { TillerError } from "../../shared/errors.ts";
import { EngineReport } from "../../shared/protocol.ts";
import type { Room } from "../app.ts";
import { parseBody, parseJson } from "../body.ts";
import { findEngine } from "../engine.ts";
import { takeReport } from "../jobs/run.ts";
import { isFinal, isSteer } from "../jobs/store.ts";

export function mountInternal(room: Room): void {
  const { app, config, jobs, service } = room;
  app.post("/internal/jobs/:id", async (c) => {
    const body = await c.req.text();
    const id = c.req.param("id");
    const job = await jobs.get(id);
    const engine = job === undefined ? undefined : findEngine(config, job.model_id);
    // The same for a job that is not there and for a wrong signature: nobody learns which ids there are.
    if (job === undefined || !isSteer(job) || engine?.token === undefined || !isSigned(engine.token, body, c.req.raw.headers))
      throw new TillerError("unauthorized", "The signature of this report is not valid, or it is older than five minutes.");
    if (isFinal(job.state)) return c.json({ state: job.state });
    await takeReport({ config, jobs, end: service.end }, job, parseBody(parseJson(body), EngineReport));
    await service.wake(id);
    return c.json({ state: (await jobs.get(id))?.state });
  });
}

function isSigned(token: string, body: string, headers: Headers): boolean {
  try {
    new Webhook(btoa(token)).verify(body, Object.fromEntries(headers));
    return true;
  } catch {
    return false;
  }
}
