// The pages: GET /, the share page GET /steer/:id and a vector's page GET /:model/:source/:index.
import { TillerError } from "../../shared/errors.ts";
import { logFault } from "../answers.ts";
import type { Room } from "../app.ts";
import { LandingPage } from "../pages/landing.tsx";
import { MissingPage, SharePage } from "../pages/share.tsx";
import { VectorPage } from "../pages/vector.tsx";
import { keyOf } from "../vectors/store.ts";

const DOCTYPE = "<!doctype html>";

export function mountPages({ app, config, models, steers, vectors }: Room): void {
  app.get("/", async (c) => {
    // The page also shows without an engine.
    const list = await models.list().catch((error: unknown) => {
      logFault(TillerError.from(error), c.get("requestId"));
      return undefined;
    });
    const origin = config.publicUrl ?? new URL(c.req.url).origin;
    return c.html(DOCTYPE + <LandingPage origin={origin} models={list} />);
  });

  app.get("/steer/:id", async (c) => {
    const saved = await steers.find(c.req.param("id"));
    if (saved === undefined) return c.html(DOCTYPE + <MissingPage what="steer" />, 404);
    return c.html(DOCTYPE + <SharePage steer={saved} />);
  });

  app.get("/:model/:source{[0-9]+-neuronpedia-resid-(?:pre|post)}/:index{[0-9]{1,10}}", async (c) => {
    const address = { modelId: c.req.param("model"), source: c.req.param("source"), index: Number(c.req.param("index")) };
    // Nobody is signed in to a page: private vectors are on none.
    const vector = (await vectors.find([address], undefined)).get(keyOf(address));
    if (vector === undefined) return c.html(DOCTYPE + <MissingPage what="vector" />, 404);
    return c.html(DOCTYPE + <VectorPage vector={vector} origin={config.publicUrl ?? new URL(c.req.url).origin} />);
  });
}
