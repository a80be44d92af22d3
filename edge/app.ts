// The application: middleware in order, routes mounted, what happens to everything else.
import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { methodNotAllowed } from "hono/method-not-allowed";
import { requestId } from "hono/request-id";
import { secureHeaders } from "hono/secure-headers";
import { TillerError } from "../shared/errors.ts";
import { type Accounts, newAccounts } from "./account/store.ts";
import { answerError } from "./answers.ts";
import { type Gate, newGate } from "./auth.ts";
import { type Catalogue, newCatalogue } from "./catalogue/store.ts";
import type { Config } from "./config.ts";
import { type Labels, newLabels } from "./features/labels.ts";
import { newUploads, type Uploads } from "./features/store.ts";
import { idempotent } from "./idempotency.ts";
import { newBackground } from "./jobs/background.ts";
import type { JobService } from "./jobs/service.ts";
import type { Jobs } from "./jobs/store.ts";
import { LIMITS } from "./limits.ts";
import { type Lists, newLists } from "./lists/store.ts";
import { type Models, newModels } from "./models.ts";
import { type Notes, newNotes } from "./people/notes.ts";
import { newPeople, type People } from "./people/store.ts";
import type { RateLimiter } from "./rate-limit.ts";
import { mountAccount } from "./routes/account.ts";
import { mountCatalogue } from "./routes/catalogue.ts";
import { mountCombine } from "./routes/combine.ts";
import { mountDerive } from "./routes/derive.ts";
import { mountDiscord } from "./routes/discord.ts";
import { mountDocs } from "./routes/docs.ts";
import { mountExplanations } from "./routes/explanations.ts";
import { mountFeatures } from "./routes/features.ts";
import { mountHealth } from "./routes/health.ts";
import { mountInternal } from "./routes/internal.ts";
import { mountJobs } from "./routes/jobs.ts";
import { mountLists } from "./routes/lists.ts";
import { mountMixer } from "./routes/mix.tsx";
import { mountModels } from "./routes/models.ts";
import { EMBED_POLICY, mountPages } from "./routes/pages.tsx";
import { mountPeople } from "./routes/people.ts";
import { mountPresets } from "./routes/presets.ts";
import { mountReadings } from "./routes/read.ts";
import { mountShares } from "./routes/shares.ts";
import { mountSignIn } from "./routes/sign-in.tsx";
import { mountSteer } from "./routes/steer.ts";
import { mountSteerChat } from "./routes/steer-chat.ts";
import { mountSteerLoad } from "./routes/steer-load.ts";
import { mountSweepPages } from "./routes/sweep-pages.tsx";
import { mountSweeps } from "./routes/sweeps.ts";
import { mountVectorFiles } from "./routes/vector-files.ts";
import { mountVectors } from "./routes/vectors.ts";
import { mountWebhooks } from "./routes/webhooks.ts";
import { newShares, type Shares } from "./share/store.ts";
import { newRecipes, type Recipes } from "./steer/recipe.ts";
import type { Steers } from "./steer/save.ts";
import { newVectors, type Vectors } from "./vectors/store.ts";

export interface App {
  Bindings: Env;
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
  readonly accounts: Accounts;
  readonly catalogue: Catalogue;
  readonly uploads: Uploads;
  readonly labels: Labels;
  readonly lists: Lists;
  readonly recipes: Recipes;
  readonly shares: Shares;
  readonly jobs: Jobs;
  readonly service: JobService;
  readonly people: People;
  readonly notes: Notes;
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
  "Location",
  "Preference-Applied",
  "Idempotent-Replayed",
  "x-tiller-cold-start",
];

/** Calls whose bodies are files. */
const UPLOADS = /^\/api\/(vector\/(upload|derive)|feature\/upload-batch)\/?$/;

/** What a page of ours may load: its own style sheet and icon, no script at all. */
const PAGE_POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** The edge as one fetch function. */
export function newApp(config: Config): OpenAPIHono<App> {
  // Not strict: /api/steer/ is /api/steer, as the Python clients write it.
  const app = new OpenAPIHono<App>({ strict: false });
  app.onError(answerError);
  app.use(requestId({ limitLength: 64 }));
  // Browsers of other sites may call the API, hence no resource policy; what a page may do is said by its content policy. Other sites learn
  // no address of ours; our own forms say where they come from.
  app.use(secureHeaders({ crossOriginResourcePolicy: false, xFrameOptions: false, referrerPolicy: "same-origin" }));
  app.use(async (c, next) => {
    await next();
    const { headers } = c.res;
    if (!headers.has("content-security-policy")) headers.set("content-security-policy", PAGE_POLICY);
    if (headers.get("content-security-policy") !== EMBED_POLICY) headers.set("x-frame-options", "DENY");
  });
  const openToAll = cors({
    origin: "*",
    allowMethods: ["GET", "POST", "DELETE", "OPTIONS"],
    allowHeaders: [
      "content-type",
      "x-api-key",
      "authorization",
      "x-admin-secret",
      "x-request-id",
      "idempotency-key",
      "prefer",
      "last-event-id",
    ],
    exposeHeaders: EXPOSED,
    maxAge: 86_400,
  });
  for (const path of ["/api/*", "/openapi.json", "/health"]) app.use(path, openToAll);
  const limited = (maxSize: number) => bodyLimit({ maxSize, onError: (c) => refuseLargeBody(c, maxSize) });
  const [small, large] = [limited(LIMITS.bodyBytes), limited(LIMITS.uploadBytes)];
  app.use("/api/*", (c, next) => (UPLOADS.test(c.req.path) ? large : small)(c, next));
  app.use("/internal/*", large);
  for (const path of ["/discord/*", "/account/*", "/link/*", "/mix"]) app.use(path, small);
  const gate = newGate(config);
  app.use("/api/*", idempotent(config, gate));
  app.use(methodNotAllowed({ app, onMethodNotAllowed: refuseMethod }));

  const models = newModels(config);
  const { steers, limiter, jobs, service, webhooks } = newBackground(config);
  const room: Room = {
    app,
    config,
    gate,
    models,
    limiter,
    steers,
    jobs,
    service,
    vectors: newVectors(config),
    accounts: newAccounts(config),
    catalogue: newCatalogue(config, models),
    uploads: newUploads(config),
    labels: newLabels(config, models),
    lists: newLists(config),
    recipes: newRecipes(config),
    shares: newShares(config),
    people: newPeople(config),
    notes: newNotes(config),
  };
  mountSteer(room);
  mountSteerChat(room);
  mountSteerLoad(room);
  mountJobs(room);
  mountSweeps(room);
  mountWebhooks(room, webhooks, service.startDelivery);
  mountVectors(room);
  mountVectorFiles(room);
  mountDerive(room);
  mountCombine(room);
  mountAccount(room);
  mountCatalogue(room);
  mountFeatures(room);
  mountExplanations(room);
  mountLists(room);
  mountPresets(room);
  mountShares(room);
  mountReadings(room);
  mountModels(room);
  mountInternal(room);
  mountPeople(room);
  mountDiscord(room);
  mountSignIn(room);
  mountMixer(room);
  mountHealth(room);
  mountPages(room);
  mountSweepPages(room);
  mountDocs(room);

  app.notFound((c) =>
    answerError(new TillerError("not_found", `There is nothing at ${c.req.path.slice(0, 200)}. The calls are listed at /docs.`), c),
  );
  return app;
}

function refuseLargeBody(c: Context, limit: number): Response {
  return answerError(new TillerError("too_large", `The request body is too large: the limit is ${limit} bytes.`), c);
}

function refuseMethod(c: Context, methods: string[]): Response {
  c.header("allow", methods.join(", "));
  return answerError(
    new TillerError("method_not_allowed", `${c.req.path.slice(0, 200)} takes ${methods.join(" or ")}, not ${c.req.method}.`),
    c,
  );
}
