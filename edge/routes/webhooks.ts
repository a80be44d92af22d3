// The calls about webhooks: endpoints, what was delivered to them, and the account's secret.
import { createRoute, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { TillerError } from "../../shared/errors.ts";
import { errorResponses } from "../answers.ts";
import type { App, Room } from "../app.ts";
import { parseBody } from "../body.ts";
import { DONE, Done, identify, KEYS, mountGet, mountPost, requireOwner } from "../route.ts";
import * as contract from "../webhooks/contract.ts";
import { REPLAYED, type Webhooks } from "../webhooks/store.ts";

const tag = "Webhooks";
const params = z.object({ id: z.string() });
/** Ids only, so that no word of another path is taken for one. */
const ID = ":id{cm[0-9a-z]+}";

const removeRoute = createRoute({
  ...{ method: "delete", path: "/api/webhooks/{id}", tags: [tag], summary: "Remove an endpoint", security: KEYS, request: { params } },
  description: "What waits for it fails. What was delivered can still be read.",
  responses: { 200: { description: "It is gone.", content: { "application/json": { schema: Done } } }, ...errorResponses(401, 404, 500) },
});

/** @param startDelivery makes somebody attempt the delivery, now and until it ends. */
export function mountWebhooks(room: Room, webhooks: Webhooks, startDelivery: (deliveryId: string) => Promise<void>): void {
  const { app } = room;
  const idOf = (c: Context<App>): string => c.req.param("id") ?? "";
  const found = <Row>(row: Row | undefined, c: Context<App>, what = "webhook"): Row => {
    if (row === undefined) throw new TillerError("not_found", `You have no ${what} '${idOf(c).slice(0, 64)}'.`);
    return row;
  };
  const user = { tag, access: "owner" } as const;

  mountPost(
    room,
    {
      ...{ ...user, path: "/api/webhooks", summary: "Register an endpoint for the events of your jobs" },
      ...{ body: contract.NewEndpoint, answer: contract.EndpointWithSecret },
      description:
        "It gets `job.succeeded`, `job.failed` and `job.canceled`, each with the whole job, signed as Standard Webhooks say. Answer with 2xx within 15 seconds; redirects are not followed. A failed delivery is tried 10 times within 4 days, 410 disables the endpoint, Retry-After is honoured.",
    },
    async (body, { userId }) => contract.toEndpointWithSecret(await webhooks.create(userId, body)),
  );

  mountGet(
    room,
    {
      ...{ ...user, path: "/api/webhooks", summary: "Your endpoints, the newest first" },
      answer: z.object({ webhooks: z.array(contract.Endpoint) }),
    },
    async ({ userId }) => ({ webhooks: (await webhooks.list(userId)).map(contract.toEndpoint) }),
  );

  mountGet(
    room,
    {
      ...{ ...user, path: "/api/webhooks/account-secret", summary: "The secret that signs deliveries to addresses given with a job" },
      answer: contract.AccountSecret,
    },
    async ({ userId }) => ({ secret: await webhooks.accountSecret(userId) }),
  );

  mountPost(
    room,
    {
      ...{ ...user, path: "/api/webhooks/account-secret/rotate", summary: "Replace the account's secret" },
      ...{ body: contract.Nothing, answer: contract.AccountSecret },
      description: "At once: the old one signs nothing any more. Endpoints have secrets of their own, whose rotation can overlap.",
    },
    async (_, { userId }) => ({ secret: await webhooks.rotateAccountSecret(userId) }),
  );

  mountGet(
    room,
    {
      ...{ ...user, path: "/api/webhooks/deliveries", summary: "What was and will be delivered, the newest first" },
      answer: z.object({ deliveries: z.array(contract.Delivery), nextCursor: z.string().nullable() }),
      query: contract.DeliveryQuery,
    },
    async ({ userId }, c) => {
      const { cursor, ...page } = parseBody(c.req.query(), contract.DeliveryQuery);
      const before = cursor === undefined ? undefined : readCursor(cursor);
      const rows = await webhooks.deliveries(userId, { ...page, limit: page.limit + 1, before });
      const shown = rows.slice(0, page.limit);
      const last = shown.at(-1);
      const nextCursor = rows.length > page.limit && last !== undefined ? `${last.created_at}-${last.id}` : null;
      return { deliveries: shown.map(contract.toDelivery), nextCursor };
    },
  );

  mountGet(
    room,
    {
      ...{ ...user, path: `/api/webhooks/deliveries/${ID}`, summary: "A delivery with its attempts" },
      ...{ answer: contract.WholeDelivery, params },
    },
    async ({ userId }, c) => {
      const { row, attempts } = found(await webhooks.delivery(userId, idOf(c)), c, "delivery");
      return contract.toWholeDelivery(row, attempts);
    },
  );

  /** A POST about the thing whose id is in the path. */
  const post = <Body extends z.ZodType, Answer extends z.ZodType>(
    call: { path: string; summary: string; description?: string; body: Body; answer: Answer },
    answer: (userId: string, c: Context<App>, body: z.output<Body>) => Promise<z.input<Answer>>,
  ): void => mountPost(room, { ...user, ...call }, (body, { userId }, c) => answer(userId, c, body));

  post(
    {
      ...{ path: `/api/webhooks/deliveries/${ID}/replay`, summary: "Deliver again, from the beginning of the schedule" },
      ...{ body: contract.Nothing, answer: contract.Delivery },
    },
    async (userId, c) => {
      const row = found(await webhooks.replay(userId, idOf(c)), c, "delivery");
      await startDelivery(row.id);
      return contract.toDelivery(row);
    },
  );

  mountGet(
    room,
    { ...{ ...user, path: `/api/webhooks/${ID}`, summary: "An endpoint" }, answer: contract.Endpoint, params },
    async ({ userId }, c) => contract.toEndpoint(found(await webhooks.get(userId, idOf(c)), c)),
  );

  post(
    {
      ...{ path: `/api/webhooks/${ID}/rotate-secret`, summary: "Give an endpoint a new secret" },
      ...{ body: contract.Rotation, answer: contract.EndpointWithSecret },
    },
    async (userId, c, { overlapSeconds }) =>
      contract.toEndpointWithSecret(found(await webhooks.rotate(userId, idOf(c), overlapSeconds), c)),
  );

  post(
    {
      ...{ path: `/api/webhooks/${ID}/disable`, summary: "Send nothing to an endpoint" },
      ...{ body: contract.Nothing, answer: contract.Endpoint, description: "What waits for it fails, and can be replayed later." },
    },
    async (userId, c) => contract.toEndpoint(found(await webhooks.disable(userId, idOf(c)), c)),
  );

  post(
    {
      ...{ path: `/api/webhooks/${ID}/enable`, summary: "Send to an endpoint again" },
      ...{ body: contract.Nothing, answer: contract.Endpoint, description: "What failed meanwhile is not sent by itself: replay it." },
    },
    async (userId, c) => contract.toEndpoint(found(await webhooks.enable(userId, idOf(c)), c)),
  );

  post(
    {
      ...{ path: `/api/webhooks/${ID}/test`, summary: "Send a test event (webhook.test) to an endpoint" },
      ...{ body: contract.Nothing, answer: contract.Delivery },
    },
    async (userId, c) => {
      const row = found(await webhooks.test(userId, idOf(c)), c);
      await startDelivery(row.id);
      return contract.toDelivery(row);
    },
  );

  post(
    {
      ...{ path: `/api/webhooks/${ID}/replay-failed`, summary: "Deliver again what failed to reach an endpoint" },
      ...{ body: contract.ReplayFailed, answer: z.object({ replayed: z.int(), more: z.boolean() }) },
      description: `The oldest first, ${REPLAYED} a call: call again while \`more\` is true.`,
    },
    async (userId, c, { since }) => {
      const { ids, more } = found(await webhooks.replayFailed(userId, idOf(c), since === undefined ? 0 : Date.parse(since)), c);
      for (const id of ids) await startDelivery(id);
      return { replayed: ids.length, more };
    },
  );

  app.openAPIRegistry.registerPath(removeRoute);
  app.delete(`/api/webhooks/${ID}`, async (c) => {
    const { userId } = requireOwner(await identify(room, c));
    found((await webhooks.remove(userId, c.req.param("id") ?? "")) || undefined, c);
    return c.json(DONE);
  });
}

function readCursor(cursor: string): { at: number; id: string } {
  const [, at, id] = /^(\d{1,16})-(cm[0-9a-z]{23})$/.exec(cursor) ?? [];
  if (at !== undefined && id !== undefined) return { at: Number(at), id };
  throw new TillerError("invalid_request", "cursor must be the nextCursor of an earlier answer.");
}
