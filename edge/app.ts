// The application: middleware in order, routes mounted, what happens to everything else.
import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { methodNotAllowed } from "hono/method-not-allowed";
import { requestId } from "hono/request-id";
import { secureHeaders } from "hono/secure-headers";
import { TillerError } from "../shared/errors.ts";
import { answerError } from "./answers.ts";
import { type Gate, newGate } from "./auth.ts";
import type { Config } from "./config.ts";
import { LIMITS } from "./limits.ts";
import { type Models, newModels } from "./models.ts";
import { newRateLimiter, type RateLimiter } from "./rate-limit.ts";
import { mountDocs } from "./routes/docs.ts";
import { mountHealth } from "./routes/health.ts";
import { mountModels } from "./routes/models.ts";
import { mountPages } from "./routes/pages.tsx";
import { mountReadings } from "./routes/read.ts";
import { mountSteer } from "./routes/steer.ts";
import { mountSteerChat } from "./routes/steer-chat.ts";
import { mountSteerLoad } from "./routes/steer-load.ts";
import { mountVectors } from "./routes/vectors.ts";
import { newSteers, type Steers } from "./steer/save.ts";
import { newVectors, type Vectors } from "./vectors/store.ts";

export interface App {
  Variables: { requestId: string };
}

/** What a route needs besides the request. */
export interface Room {
  readonly app: OpenAPIHono<App>;
  readonly config: Config;
  readonly gate: Gate;
  readonly models: Models;
  readonly limiter: RateLimiter;
  readonly steers: Steers;
  readonly vectors: Vectors;
}

/** Headers a browser's script may read. */
const EXPOSED = [
  "x-request-id",
  "x-limit-remaining",
  "RateLimit-Limit",
  "RateLimit-Remaining",
  "RateLimit-Reset",
  "RateLimit-Policy",
  "Retry-After",
];

/** What a page of ours may load: its own style sheet and icon, no script at all. */
const PAGE_POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** The edge as one fetch function. */
export function newApp(config: Config): OpenAPIHono<App> {
  // Not strict: /api/steer/ is /api/steer, as the Python clients write it.
  const app = new OpenAPIHono<App>({ strict: false });
  app.onError(answerError);
  app.use(requestId({ limitLength: 64 }));
  // Browsers of other sites may call the API, hence no resource policy; what a page may do is said by its content policy.
  app.use(secureHeaders({ crossOriginResourcePolicy: false, xFrameOptions: "DENY", referrerPolicy: "no-referrer" }));
  app.use(async (c, next) => {
    await next();
    if (!c.res.headers.has("content-security-policy")) c.res.headers.set("content-security-policy", PAGE_POLICY);
  });
  const openToAll = cors({
    origin: "*",
    allowMethods: ["GET", "POST", "OPTIONS"],
    allowHeaders: ["content-type", "x-api-key", "authorization", "x-request-id"],
    exposeHeaders: EXPOSED,
    maxAge: 86_400,
  });
  for (const path of ["/api/*", "/openapi.json", "/health"]) app.use(path, openToAll);
  app.use("/api/*", bodyLimit({ maxSize: LIMITS.bodyBytes, onError: refuseLargeBody }));
  app.use(methodNotAllowed({ app, onMethodNotAllowed: refuseMethod }));

  const room: Room = {
    app,
    config,
    gate: newGate(config),
    models: newModels(config),
    limiter: newRateLimiter(config),
    steers: newSteers(config),
    vectors: newVectors(config),
  };
  mountSteer(room);
  mountSteerChat(room);
  mountSteerLoad(room);
  mountVectors(room);
  mountReadings(room);
  mountModels(room);
  mountHealth(room);
  mountPages(room);
  mountDocs(room);

  app.notFound((c) =>
    answerError(new TillerError("not_found", `There is nothing at ${c.req.path.slice(0, 200)}. The calls are listed at /docs.`), c),
  );
  return app;
}

function refuseLargeBody(c: Context): Response {
  return answerError(new TillerError("too_large", `The request body is too large: the limit is ${LIMITS.bodyBytes} bytes.`), c);
}

function refuseMethod(c: Context, methods: string[]): Response {
  c.header("allow", methods.join(", "));
  return answerError(
    new TillerError("method_not_allowed", `${c.req.path.slice(0, 200)} takes ${methods.join(" or ")}, not ${c.req.method}.`),
    c,
  );
}
