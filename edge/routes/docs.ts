// GET /openapi.json from the validators, GET /docs to read it (no request leaves this host), and the files under /assets.
import { TillerError } from "../../shared/errors.ts";
import type { Room } from "../app.ts";
import { docsPage } from "../pages/docs.tsx";

/** Swagger UI runs one script of ours, writes style attributes and draws its icons from data. It may talk to this host only. */
const DOCS_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

export function mountDocs({ app, config }: Room): void {
  app.openAPIRegistry.registerComponent("securitySchemes", "ApiKey", { type: "apiKey", in: "header", name: "x-api-key" });
  app.openAPIRegistry.registerComponent("securitySchemes", "Bearer", { type: "http", scheme: "bearer" });
  app.openAPIRegistry.registerComponent("securitySchemes", "Admin", { type: "apiKey", in: "header", name: "x-admin-secret" });
  app.get("/openapi.json", (c) =>
    c.json(
      app.getOpenAPI31Document({
        openapi: "3.1.0",
        info: {
          title: "Tiller",
          version: "1",
          description:
            "Steer language models along directions of their residual stream. The /api calls are compatible with Neuronpedia's: its fields, defaults and answers; what is ours is behind optional fields. " +
            "Every path also works with a trailing slash. Every error has `error` and `message` (the same sentence), a `code` and a `requestId`. " +
            "Keys go in x-api-key or Authorization: Bearer. Neuronpedia treats a wrong key as no key; here it is a 401.",
        },
        servers: [{ url: config.publicUrl ?? new URL(c.req.url).origin }],
      }),
    ),
  );

  app.get("/docs", (c) => {
    c.header("content-security-policy", DOCS_POLICY);
    return c.html(docsPage());
  });

  app.get("/assets/:file", async (c) => {
    const answer = await config.assets.fetch(new Request(new URL(`/${c.req.param("file")}`, c.req.url)));
    if (!answer.ok || answer.body === null) {
      await answer.body?.cancel();
      throw new TillerError("not_found", `There is no file ${c.req.path.slice(0, 200)}.`);
    }
    return c.body(answer.body, 200, Object.fromEntries(answer.headers));
  });
}
