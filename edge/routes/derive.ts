// POST /api/vector/derive: vectors made of texts. Few texts are answered at once, many become a job.
import { createRoute, z } from "@hono/zod-openapi";
import type { DirectionsRequest } from "../../shared/directions.ts";
import { errorResponses } from "../answers.ts";
import type { Room } from "../app.ts";
import { DeriveBody, Derived, type DeriveSettings } from "../directions/contract.ts";
import { toDerived, vectorsOf } from "../directions/keep.ts";
import { withLabels } from "../directions/latents.ts";
import { countKept, planDerivation, sizeOf } from "../directions/request.ts";
import { FormFields, readDerivation } from "../directions/texts.ts";
import { derive } from "../engine.ts";
import { prefersJob, startJob } from "../jobs/ask.ts";
import { Job } from "../jobs/contract.ts";
import { LIMITS } from "../limits.ts";
import type { ServedModel } from "../models.ts";
import { limitHeaders, steerQuotaOf, withQuota } from "../quota.ts";
import { identify, KEYS, originOf, requireUser } from "../route.ts";

const PATH = "/api/vector/derive";

const file = z.string().optional().openapi({ format: "binary" });

const route = createRoute({
  ...{ method: "post", path: PATH, tags: ["Vectors"], summary: "Make a vector of texts", security: KEYS },
  description:
    "The direction from the negative texts to the positive ones, at one layer or at several that are compared, kept to steer with, and a report of how well it separates texts that it was not made from. " +
    `Up to ${LIMITS.derivedAtOnce} texts (${LIMITS.derivedAtOnceChars} characters) are answered at once; more of them, and with \`webhook\` or the header \`Prefer: respond-async\` any, are a job: 202 with its id. It counts as one steer.`,
  request: {
    body: {
      required: true,
      content: {
        "application/json": { schema: DeriveBody },
        "multipart/form-data": { schema: FormFields.extend({ positive: file, negative: file, file }) },
      },
    },
  },
  responses: {
    200: { description: "The vectors, and the report.", headers: limitHeaders, content: { "application/json": { schema: Derived } } },
    202: { description: "The job that will answer so.", content: { "application/json": { schema: Job } } },
    ...errorResponses(400, 401, 404, 409, 413, 429, 500, 502, 503, 504),
  },
});

export function mountDerive(room: Room): void {
  const { app, models, vectors, labels, limiter, config } = room;
  app.openAPIRegistry.registerPath(route);

  app.post(PATH, async (c) => {
    const caller = requireUser(await identify(room, c));
    const { settings, texts, webhook } = await readDerivation(c.req.raw);
    const { signal } = c.req.raw;
    const served = await models.get(settings.modelId, signal);
    const request = planDerivation(settings, texts, served.info);
    await vectors.checkRoom(caller.userId, countKept(settings, request.layers.length));
    const size = sizeOf(texts);
    if (webhook !== undefined || prefersJob(c) || size.texts > LIMITS.derivedAtOnce || size.chars > LIMITS.derivedAtOnceChars) {
      return startJob(room, c, PATH, caller, {
        ...{ kind: "derive", modelId: served.info.id, webhook, tokensTotal: size.texts },
        ...{ plan: { derivation: { settings } }, input: JSON.stringify(request) },
      });
    }
    const work = () => answer(served, request, settings, caller.userId, signal, originOf(room, c));
    return c.json(await withQuota(steerQuotaOf(limiter, caller), c, PATH, work));
  });

  async function answer(
    { engine }: ServedModel,
    request: DirectionsRequest,
    settings: DeriveSettings,
    userId: string,
    signal: AbortSignal,
    origin: string,
  ): Promise<Derived> {
    const found = await withLabels(await derive(engine, config, request, signal, () => undefined), settings, labels);
    const given = vectorsOf(found, settings, userId);
    return toDerived(found, settings, given.length === 0 ? [] : await vectors.create(given), origin);
  }
}
