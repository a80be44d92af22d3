// What the runtime calls; nothing else.
import type { OpenAPIHono } from "@hono/zod-openapi";
import { type App, newApp } from "./app.ts";
import { ConfigError, parseConfig } from "./config.ts";
import { newHttpBot } from "./discord/bot.ts";
import { newBackground } from "./jobs/background.ts";
import { newNotes } from "./people/notes.ts";

export { DeliveryRun, JobRun } from "./jobs/workflow.ts";
export { RateWindow } from "./rate-window.ts";

let app: OpenAPIHono<App> | undefined;

/** Where the cron's own requests seem to go, in a service that does not say where it is. */
const LOCAL = "http://127.0.0.1:8787";

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
  /** Every minute: what a crash left behind goes on, and what was promised in Discord is posted. */
  async scheduled(_controller, env, ctx): Promise<void> {
    const config = parseConfig(env);
    await newBackground(config).service.sweep();
    await newNotes(config).deleteExpired();
    if (config.discord?.publicKey === undefined) return;
    app ??= newApp(config);
    await newHttpBot(app, config.discord, config.publicUrl ?? LOCAL, env, ctx).promises.resume();
  },
} satisfies ExportedHandler<Env>;
