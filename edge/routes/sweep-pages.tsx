// What a sweep looks like to whoever has its link: the page, the plot as a picture, the texts as CSV.
import { createRoute, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { TillerError } from "../../shared/errors.ts";
import { errorResponses } from "../answers.ts";
import type { App, Room } from "../app.ts";
import { isFinal } from "../jobs/store.ts";
import { MissingPage } from "../pages/share.tsx";
import { originOf } from "../route.ts";
import type { SweepResult } from "../sweeps/contract.ts";
import { toCsv } from "../sweeps/csv.ts";
import { nameOfSweep, type SweepJob, SweepPage, summaryOf } from "../sweeps/page.tsx";
import { DosePlot } from "../sweeps/plot-dose.tsx";
import { picture } from "../sweeps/plot-parts.tsx";
import { FONT_FAMILY, toPng } from "../sweeps/png.ts";
import { oembedUrl } from "./oembed.ts";
import { EMBED_POLICY } from "./pages.tsx";

const DOCTYPE = "<!doctype html>";
const DESCRIPTION_CHARS = 300;
/** Pixels, in the shape that previews of links have; letters are drawn for two thirds of it. */
const PICTURE = { width: 1200, height: 675 };
const SCALE = 1.5;
/** A result never changes. */
const CACHED = "public, max-age=86400";

const csvRoute = createRoute({
  ...{ method: "get", path: "/api/sweeps/{id}/csv", tags: ["Sweeps"], summary: "The texts of a sweep as CSV" },
  description:
    "A line for each text, with the numbers of its cell; the baseline's come first. A cell that failed has one line with its error. A text that begins with =, +, -, @, a tab or a carriage return has an apostrophe in front, so that no spreadsheet takes it for a formula. Whoever knows the id may read it. 409 while the sweep has no result.",
  request: { params: z.object({ id: z.string() }) },
  responses: { 200: { description: "The file.", content: { "text/csv": { schema: z.string() } } }, ...errorResponses(404, 409, 500) },
});

export function mountSweepPages(room: Room): void {
  const { app, jobs } = room;
  app.openAPIRegistry.registerPath(csvRoute);

  const find = async (c: Context<App>): Promise<SweepJob | undefined> => {
    const job = await jobs.get(c.req.param("id") ?? "");
    return job?.kind === "sweep" ? job : undefined;
  };
  const finished = async (c: Context<App>): Promise<{ job: SweepJob; result: SweepResult }> => {
    const job = await find(c);
    if (job === undefined) throw new TillerError("not_found", `There is no sweep '${c.req.param("id")?.slice(0, 64)}'.`);
    if (job.result !== null) return { job, result: job.result };
    throw new TillerError("conflict", `This sweep is ${job.state}: it has no result${isFinal(job.state) ? "" : " yet. Ask again later"}.`);
  };

  app.get("/sweep/:id", async (c) => {
    const job = await find(c);
    if (job === undefined) return c.html(DOCTYPE + <MissingPage what="sweep" />, 404);
    const embed = c.req.query("embed") === "true";
    if (embed) c.header("content-security-policy", EMBED_POLICY);
    const origin = originOf(room, c);
    const url = `${origin}/sweep/${job.id}`;
    const preview = {
      ...{ url, description: summaryOf(job).slice(0, DESCRIPTION_CHARS), oembed: oembedUrl(origin, url) },
      ...(job.result === null ? {} : { image: { url: `${url}/plot.png`, ...PICTURE } }),
    };
    const { items: found } = job.result === null ? await jobs.items(job) : { items: [] };
    return c.html(DOCTYPE + <SweepPage {...{ job, origin, preview, embed, found }} />);
  });

  app.get("/sweep/:id/plot.png", async (c) => {
    const { job, result } = await finished(c);
    const [width, height] = [PICTURE.width / SCALE, PICTURE.height / SCALE];
    const svg = String(<DosePlot {...{ result, theme: picture(FONT_FAMILY), width, height, title: nameOfSweep(job) }} />);
    c.header("content-type", "image/png");
    c.header("cache-control", CACHED);
    return c.body(await toPng(svg, PICTURE.width));
  });

  app.get("/api/sweeps/:id/csv", async (c) => {
    const { job, result } = await finished(c);
    c.header("content-type", "text/csv; charset=utf-8; header=present");
    c.header("content-disposition", `attachment; filename="sweep-${job.id}.csv"`);
    return c.body(toCsv(result));
  });
}
