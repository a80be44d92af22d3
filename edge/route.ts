// One way to declare a JSON call: its contract goes into /openapi.json, its body is checked, its caller is known.
import { createRoute, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { TillerError } from "../shared/errors.ts";
import { errorResponses } from "./answers.ts";
import type { App, Room } from "./app.ts";
import type { Caller } from "./auth.ts";
import { readBody } from "./body.ts";
import { limitHeaders, lookupQuotaOf, withQuota } from "./quota.ts";

export interface Call<Body extends z.ZodType, Answer extends z.ZodType, Who extends Access> {
  readonly path: string;
  readonly tag: string;
  readonly summary: string;
  readonly description?: string;
  readonly body: Body;
  readonly answer: Answer;
  readonly access: Who;
  /** Whether it counts as a look-up: what asks an engine, or searches, is not free. */
  readonly counted?: boolean;
  /** Of the path, for the OpenAPI document. */
  readonly params?: z.ZodObject;
}

/** A path of Hono as OpenAPI writes it. */
const documented = (path: string): string => path.replace(/:(\w+)(\{[^}]*\})?/g, "{$1}");

/**
 * Who may call: anybody, a user, a user with a key of their own (what is secret, no bot may ask for), a bot for itself, or whoever knows the
 * administrator's secret.
 */
export type Access = "anyone" | "user" | "owner" | "service" | "admin";

/** A caller who is a user. */
export type User = Caller & { readonly userId: string };
type CallerOf<Who extends Access> = Who extends "user" | "owner" ? User : Caller;

/** The answer of a call that has nothing else to say. */
export const Done = z.object({ message: z.literal("Success") });
export const DONE = { message: "Success" } as const;

const securityOf = (access: Access) => (access === "admin" ? [{ Admin: [] }] : access === "anyone" ? [{}, ...KEYS] : KEYS);

const json = <Schema extends z.ZodType>(schema: Schema) => ({ content: { "application/json": { schema } } });
export const KEYS = [{ ApiKey: [] }, { Bearer: [] }];

/** @throws TillerError `unauthorized` when nobody is signed in, `forbidden` when a bot acts for somebody. */
export function requireOwner(caller: Caller): User {
  const user = requireUser(caller);
  if (user.acting) throw new TillerError("forbidden", "A bot may not do this for somebody: it needs an API key of their own.");
  return user;
}

function requireService(caller: Caller): Caller {
  if (caller.service) return caller;
  throw new TillerError("forbidden", "This call is for bots: it needs a service key, and no X-Acting-For.");
}

/** @throws TillerError `unauthorized` when nobody is signed in. */
export function requireUser(caller: Caller): User {
  if (caller.userId !== undefined) return { ...caller, userId: caller.userId };
  throw new TillerError("unauthorized", "This endpoint requires authorization: send an API key in x-api-key or as a Bearer token.");
}

/** Who calls. @throws TillerError as the gate does, and `forbidden` for a bot that acts for nobody. */
export async function identify(room: Pick<Room, "gate">, c: Context<App>): Promise<Caller> {
  const caller = await identifyAny(room, c);
  if (caller.service)
    throw new TillerError("forbidden", "This key acts for Discord users only: send X-Acting-For: discord:<id of the user>.");
  return caller;
}

/** Who calls, a bot for nobody too. */
export const identifyAny = ({ gate }: Pick<Room, "gate">, c: Context<App>): Promise<Caller> =>
  gate.identify(c.req.raw, (work) => c.executionCtx.waitUntil(work), c.env);

/** Where links of this service begin. */
export const originOf = ({ config }: Pick<Room, "config">, c: Context<App>): string => config.publicUrl ?? new URL(c.req.url).origin;

async function callerOf<Who extends Access>(room: Room, c: Context<App>, access: Who): Promise<CallerOf<Who>> {
  if (access === "service") return requireService(await identifyAny(room, c)) as CallerOf<Who>;
  const caller = await identify(room, c);
  if (access === "user") return requireUser(caller) as CallerOf<Who>;
  if (access === "owner") return requireOwner(caller) as CallerOf<Who>;
  if (access === "admin" && !caller.admin)
    throw new TillerError("unauthorized", "This endpoint requires the administrator's secret in x-admin-secret.");
  return caller as CallerOf<Who>;
}

/**
 * Mounts a POST.
 * @param answer gets the checked body; what it returns is the JSON answer.
 */
export function mountPost<Body extends z.ZodType, Answer extends z.ZodType, Who extends Access>(
  room: Room,
  call: Call<Body, Answer, Who>,
  answer: (body: z.output<Body>, caller: CallerOf<Who>, c: Context<App>) => Promise<z.input<Answer>>,
): void {
  const { path, tag, summary, description, body, access, params } = call;
  // A body that may be left out is one that an empty object is.
  const required = !body.safeParse({}).success;
  room.app.openAPIRegistry.registerPath(
    createRoute({
      ...{ method: "post", path: documented(path), tags: [tag], summary },
      ...(description === undefined ? {} : { description }),
      security: securityOf(access),
      request: { body: { required, ...json(body) }, ...(params === undefined ? {} : { params }) },
      responses: {
        200: { description: summary, ...json(call.answer), ...(call.counted ? { headers: limitHeaders } : {}) },
        ...errorResponses(400, 401, 403, 404, 409, 413, ...(call.counted ? ([429] as const) : []), 500, 502, 503),
      },
    }),
  );
  room.app.post(path, async (c) => {
    const caller = await callerOf(room, c, access);
    const read = await readBody(c.req.raw, body, { optional: !required });
    const work = () => answer(read.body, caller, c);
    return c.json((await (call.counted ? withQuota(lookupQuotaOf(room.limiter, caller), c, path, work) : work())) as object);
  });
}

/** Mounts a GET. */
export function mountGet<Answer extends z.ZodType, Who extends Access>(
  room: Room,
  call: Omit<Call<z.ZodType, Answer, Who>, "body"> & { readonly query?: z.ZodObject },
  answer: (caller: CallerOf<Who>, c: Context<App>) => Promise<z.input<Answer>>,
): void {
  const { path, tag, summary, description, access, params, query } = call;
  room.app.openAPIRegistry.registerPath(
    createRoute({
      ...{ method: "get", path: documented(path), tags: [tag], summary },
      ...(description === undefined ? {} : { description }),
      security: securityOf(access),
      request: { ...(params === undefined ? {} : { params }), ...(query === undefined ? {} : { query }) },
      responses: {
        200: { description: summary, ...json(call.answer), ...(call.counted ? { headers: limitHeaders } : {}) },
        ...errorResponses(400, 401, 404, ...(call.counted ? ([429] as const) : []), 500, 502, 503),
      },
    }),
  );
  room.app.get(path, async (c) => {
    const caller = await callerOf(room, c, access);
    const work = () => answer(caller, c);
    return c.json((await (call.counted ? withQuota(lookupQuotaOf(room.limiter, caller), c, c.req.path, work) : work())) as object);
  });
}
