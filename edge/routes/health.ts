// GET /health: whether a steer would work now.
import { createRoute, z } from "@hono/zod-openapi";
import { sql } from "drizzle-orm";
import type { Room } from "../app.ts";
import { isHealthy } from "../engine.ts";

const Health = z
  .object({
    status: z.enum(["ok", "degraded"]),
    edge: z.literal("ok"),
    database: z.boolean(),
    engines: z.array(z.object({ models: z.string().openapi({ example: "*" }), ok: z.boolean() })),
  })
  .openapi("Health");

const route = createRoute({
  method: "get",
  path: "/health",
  tags: ["Service"],
  summary: "Whether the edge, its database and its engines answer",
  responses: {
    200: { description: "All of them do.", content: { "application/json": { schema: Health } } },
    503: { description: "Something does not.", content: { "application/json": { schema: Health } } },
  },
});

export function mountHealth({ app, config }: Room): void {
  app.openapi(route, async (c) => {
    const database = config.db
      .run(sql`SELECT 1 FROM users LIMIT 1`)
      .then(() => true)
      .catch(() => false);
    const engines = await Promise.all(config.engines.map(async (engine) => ({ models: engine.models, ok: await isHealthy(engine) })));
    const ok = (await database) && engines.every((engine) => engine.ok);
    return c.json(
      { status: ok ? ("ok" as const) : ("degraded" as const), edge: "ok" as const, database: await database, engines },
      ok ? 200 : 503,
    );
  });
}
