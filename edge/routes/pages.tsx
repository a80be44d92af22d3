// The pages: GET / and the share page GET /steer/:id.
import { TillerError } from "../../shared/errors.ts";
import { logFault } from "../answers.ts";
import type { Room } from "../app.ts";
import { LandingPage } from "../pages/landing.tsx";
import { MissingPage, SharePage } from "../pages/share.tsx";

const DOCTYPE = "<!doctype html>";

export function mountPages({ app, config, models, steers }: Room): void {
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
    if (saved === undefined) return c.html(DOCTYPE + <MissingPage />, 404);
    return c.html(DOCTYPE + <SharePage steer={saved} />);
  });
}
