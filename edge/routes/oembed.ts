// What can be embedded, and how a site learns it: https://oembed.com
import { createRoute, z } from "@hono/zod-openapi";
import { TillerError } from "../../shared/errors.ts";
import { errorResponses } from "../answers.ts";
import type { Room } from "../app.ts";
import { originOf } from "../route.ts";

/** Sizes of a frame, in CSS pixels. */
const WIDTH = 640;
const HEIGHT = { steer: 520, test: 320, list: 400, feature: 480, sweep: 640 } as const;
export type Embeddable = keyof typeof HEIGHT;

/** Where a page's oEmbed answer is. */
export const oembedUrl = (origin: string, url: string): string => `${origin}/oembed?format=json&url=${encodeURIComponent(url)}`;

/** Finds the title of the page at a path of ours that anybody may see; undefined when there is none. */
export type FindPage = (path: string) => Promise<{ readonly kind: Embeddable; readonly title: string } | undefined>;

const OEmbed = z
  .object({
    version: z.literal("1.0"),
    type: z.literal("rich"),
    provider_name: z.string(),
    provider_url: z.string(),
    title: z.string(),
    html: z.string(),
    width: z.int(),
    height: z.int(),
    cache_age: z.int(),
  })
  .openapi("OEmbed");

const route = createRoute({
  ...{ method: "get", path: "/oembed", tags: ["Shares"], summary: "How to embed a page (oEmbed 1.0)" },
  description: "Pages of steers, activation tests, lists, features, vectors and sweeps that anybody may see.",
  request: {
    query: z.object({ url: z.string(), format: z.string().optional(), maxwidth: z.string().optional(), maxheight: z.string().optional() }),
  },
  responses: { 200: { description: "A frame.", content: { "application/json": { schema: OEmbed } } }, ...errorResponses(400, 404, 500) },
});

export function mountOEmbed(room: Room, find: FindPage): void {
  room.app.openAPIRegistry.registerPath(route);
  room.app.get(route.path, async (c) => {
    const { url, format = "json", maxwidth, maxheight } = c.req.query();
    if (format !== "json") return c.json({ error: "format must be json.", message: "format must be json." }, 501);
    const origin = originOf(room, c);
    if (url === undefined || !URL.canParse(url))
      throw new TillerError("invalid_request", "url must be the address of a page of this service.");
    const { pathname, origin: asked } = new URL(url);
    const page = asked === new URL(origin).origin ? await find(pathname) : undefined;
    if (page === undefined) throw new TillerError("not_found", "There is no page at this address that can be embedded.");
    const width = Math.min(WIDTH, sizeOf("maxwidth", maxwidth));
    const height = Math.min(HEIGHT[page.kind], sizeOf("maxheight", maxheight));
    const source = `${origin}${pathname}?embed=true`;
    return c.json({
      ...{ version: "1.0", type: "rich", provider_name: "Tiller", provider_url: origin, title: page.title },
      html: `<iframe src="${escaped(source)}" title="${escaped(page.title)}" width="${width}" height="${height}" style="border:0" loading="lazy"></iframe>`,
      ...{ width, height, cache_age: 3600 },
    } satisfies z.input<typeof OEmbed>);
  });
}

function sizeOf(name: string, given: string | undefined): number {
  if (given === undefined) return Number.POSITIVE_INFINITY;
  if (/^[1-9]\d{0,4}$/.test(given)) return Number(given);
  throw new TillerError("invalid_request", `${name} must be a whole number of pixels from 1 to 99999.`);
}

const escaped = (text: string): string =>
  text.replace(/[&<>"']/g, (char) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[char] ?? char);
