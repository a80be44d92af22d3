// What owners do with their links: title, expiry, visibility, deletion; lists of them; activation tests by their id.
import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { TillerError } from "../../shared/errors.ts";
import type { App, Room } from "../app.ts";
import { LIMITS } from "../limits.ts";
import { DONE, Done, mountPost, originOf } from "../route.ts";
import { VISIBILITIES } from "../schema.ts";
import type { SavedTest, Share } from "../share/store.ts";
import { integer, oneOf, optional, text } from "../steer/fields.ts";

const tag = "Shares";
const id = text({ max: 64, example: "cmf3k2x9p0001abcd7z1q8w2e" });

const ShareAnswer = z
  .object({
    id: z.string(),
    kind: z.enum(["steer", "test"]),
    modelId: z.string(),
    title: z.string().nullable(),
    visibility: z.enum(VISIBILITIES),
    expiresAt: z.string().nullable(),
    createdAt: z.string(),
    url: z.string(),
  })
  .openapi("Share");

const expiryRule = "must be a time such as 2027-01-31T12:00:00Z, or null for never";
const expiry = z
  .string(expiryRule)
  .refine((time) => z.iso.datetime({ offset: true }).safeParse(time).success, expiryRule)
  .nullable()
  .openapi({ description: "From then on the link is as if it had never been; null = never.", example: "2027-01-31T12:00:00Z" });

const UpdateBody = z
  .object({
    id,
    title: text({ min: 0, max: LIMITS.labelChars }).nullish(),
    visibility: oneOf(VISIBILITIES, {
      description: "private: only you. unlisted: whoever has the link. public: also on the list of public shares.",
    }).optional(),
    expiresAt: expiry.optional(),
  })
  .openapi("ShareUpdate", { description: "What is left out stays as it is." });

const page = {
  limit: optional(integer({ min: 1, max: LIMITS.sharesPerPage }), LIMITS.sharesPerPage),
  offset: optional(integer({ min: 0, max: 1_000_000 }), 0),
  modelId: text({ max: 128 }).optional(),
};

export const TestAnswer = z
  .object({
    id: z.string(),
    shareUrl: z.string(),
    modelId: z.string(),
    layer: z.string(),
    index: z.string(),
    title: z.string().nullable(),
    createdAt: z.string(),
    results: z.array(z.object({ tokens: z.array(z.string()), values: z.array(z.number()) })),
  })
  .openapi("ActivationTest");

export const testUrl = (origin: string, id: string): string => `${origin}/test/${id}`;

export function mountShares(room: Room): void {
  const { shares } = room;
  const answer = (c: Context<App>) => (row: Share) => toShare(row, originOf(room, c));
  const missing = (id: string) => new TillerError("not_found", `You have no share '${id}'.`);

  mountPost(
    room,
    {
      ...{ path: "/api/share/update", tag, summary: "Title, visibility and expiry of a link of yours", access: "user", body: UpdateBody },
      ...{ answer: ShareAnswer, description: "Of a steer or an activation test that was made with your key." },
    },
    async ({ id, title, visibility, expiresAt }, caller, c) => {
      const share = await shares.update(id, caller, {
        ...(title === undefined ? {} : { title: title === "" ? null : title }),
        ...(visibility === undefined ? {} : { visibility }),
        ...(expiresAt === undefined ? {} : { expires_at: expiresAt === null ? null : Date.parse(expiresAt) }),
      });
      if (share === undefined) throw missing(id);
      return answer(c)(share);
    },
  );

  mountPost(
    room,
    {
      ...{ path: "/api/share/delete", tag, summary: "Delete a steer or an activation test of yours", access: "user" },
      ...{ body: z.object({ id }).openapi("ShareAddress"), answer: Done, description: "It is gone for good, and so is its link." },
    },
    async ({ id }, caller) => {
      if (!(await shares.remove(id, caller))) throw missing(id);
      return DONE;
    },
  );

  mountPost(
    room,
    {
      ...{ path: "/api/share/list-owned", tag, summary: "Your steers and activation tests, the newest first", access: "user" },
      ...{ body: z.object(page), answer: z.object({ shares: z.array(ShareAnswer) }) },
    },
    async (asked, { userId }, c) => ({ shares: (await shares.owned(userId, asked)).map(answer(c)) }),
  );

  mountPost(
    room,
    {
      ...{ path: "/api/share/list", tag, summary: "Public shares, the newest first", access: "anyone" },
      ...{ body: z.object(page), answer: z.object({ shares: z.array(ShareAnswer) }) },
    },
    async (asked, _, c) => ({ shares: (await shares.listed(asked)).map(answer(c)) }),
  );

  mountPost(
    room,
    {
      ...{ path: "/api/activation/load", tag, summary: "A saved activation test", access: "anyone", answer: TestAnswer },
      ...{ body: z.object({ id }).openapi("ActivationTestAddress"), description: "Saved by /api/activation/new with share: true." },
    },
    async ({ id }, caller, c) => {
      const test = await shares.test(id, caller);
      if (test === undefined) throw new TillerError("not_found", `There is no activation test '${id}'.`);
      return toTest(test, originOf(room, c));
    },
  );
}

export const toShare = (row: Share, origin: string): z.infer<typeof ShareAnswer> => ({
  ...{ id: row.id, kind: row.kind, modelId: row.model_id, title: row.title, visibility: row.visibility },
  expiresAt: row.expires_at === null ? null : new Date(row.expires_at).toISOString(),
  createdAt: new Date(row.created_at).toISOString(),
  url: row.kind === "test" ? testUrl(origin, row.id) : `${origin}/steer/${row.id}`,
});

const toTest = ({ id, model_id, test, title, created_at }: SavedTest, origin: string): z.infer<typeof TestAnswer> => ({
  ...{ id, shareUrl: testUrl(origin, id), modelId: model_id, layer: test.source, index: String(test.index), title },
  createdAt: new Date(created_at).toISOString(),
  results: test.results.map(({ tokens, values }) => ({ tokens: [...tokens], values: [...values] })),
});
