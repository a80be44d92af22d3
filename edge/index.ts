// What the runtime calls; nothing else.
import type { OpenAPIHono } from "@hono/zod-openapi";
import { type App, newApp } from "./app.ts";
import { ConfigError, parseConfig } from "./config.ts";
import { newBackground } from "./jobs/background.ts";

export { DeliveryRun, JobRun } from "./jobs/workflow.ts";
export { RateWindow } from "./rate-window.ts";

let app: OpenAPIHono<App> | undefined;

export default {
  fetch(request, env, ctx): Response | Promise<Response> {
    try {
      app ??= newApp(parseConfig(env));
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      console.error(`Configuration: ${error.message}`);
      const message = `The service is not set up: ${error.message}`;
      return Response.json({ error: message, message, code: "internal", requestId: crypto.randomUUID() }, { status: 500 });
    }
    return app.fetch(request, env, ctx);
  },
  /** Every minute: what a crash left behind goes on. */
  async scheduled(_controller, env): Promise<void> {
    await newBackground(parseConfig(env)).service.sweep();
  },
} satisfies ExportedHandler<Env>;
