// Who is calling: a user by API key, or an address without one.
import { and, eq, isNull, lt, or } from "drizzle-orm";
import { TillerError } from "../shared/errors.ts";
import { constantTimeEqual, hashApiKey, looksLikeApiKey } from "../shared/keys.ts";
import type { Config } from "./config.ts";
import { LIMITS } from "./limits.ts";
import { type Person, readActing, readInProcess } from "./people/acting.ts";
import { newPeople } from "./people/store.ts";
import { apiKeys, users } from "./schema.ts";

export interface Caller {
  /** undefined = anonymous. */
  readonly userId: string | undefined;
  /** Who the quota counts: `user:<id>` or `ip:<address>`. */
  readonly identifier: string;
  readonly steersPerHour: number;
  /** Sent the administrator's secret: may see, change and delete what is anybody's. */
  readonly admin: boolean;
  /** A bot calls, for this user: what is secret stays the user's own. */
  readonly acting: boolean;
  /** A bot calls, for nobody: only the calls of bots are for it. */
  readonly service: boolean;
}

const USED_EVERY_MS = 60_000;
/** A good key is looked up again after this long: so long may a revoked key still be good in an isolate that knows it. */
const TRUSTED_MS = 10_000;
const TRUSTED_KEYS = 1000;

export interface Gate {
  /**
   * Reads `x-api-key`, else `Authorization: Bearer`. No key at all is an anonymous caller. `x-admin-secret` comes on top of either.
   * A service key comes with `x-acting-for`, and then the caller is that person; so does a request from inside this Worker (`actAs`).
   * @param defer keeps work going after the answer (`waitUntil`).
   * @param env of the request.
   * @throws TillerError `unauthorized` for a key that is not known or was revoked: a wrong key is never quietly anonymous; `forbidden` for
   * a key that may not act for others, and for a service key that would do anything else.
   */
  identify(request: Request, defer: (work: Promise<unknown>) => void, env?: object): Promise<Caller>;
}

/** The bot itself, acting for nobody. */
const SERVICE: Caller = { userId: undefined, identifier: "service", steersPerHour: 0, admin: false, acting: false, service: true };

type Known = { readonly caller: Caller; readonly until: number };

export function newGate(config: Config, now: () => number = Date.now): Gate {
  const people = newPeople(config);
  /** By the hash of the key, and by the person acted for; oldest first. */
  const trusted = new Map<string, Known>();

  async function trust(key: string, find: () => Promise<Caller>): Promise<Caller> {
    const known = trusted.get(key);
    if (known !== undefined && known.until > now()) return known.caller;
    trusted.delete(key);
    const caller = await find();
    if (trusted.size >= TRUSTED_KEYS) trusted.delete(trusted.keys().next().value as string);
    trusted.set(key, { caller, until: now() + TRUSTED_MS });
    return caller;
  }

  const personOf = (person: Person): Promise<Caller> =>
    trust(`discord:${person.id}\n${person.name}`, async () => {
      const { userId, hourlyLimit } = await people.userOf(person);
      const steersPerHour = hourlyLimit ?? LIMITS.steersPerHour;
      return { userId, identifier: `user:${userId}`, steersPerHour, admin: false, acting: true, service: false };
    });

  async function find(request: Request, defer: (work: Promise<unknown>) => void): Promise<Caller> {
    const key = readKey(request.headers);
    const person = readActing(request.headers);
    if (key === undefined) {
      if (person !== undefined) throw notForOthers();
      const identifier = `ip:${addressOf(request)}`;
      return { userId: undefined, identifier, steersPerHour: LIMITS.anonymousSteersPerHour, admin: false, acting: false, service: false };
    }
    if (!looksLikeApiKey(key)) throw wrongKey();
    const hash = await hashApiKey(key);
    const caller = await trust(hash, () => findCaller(hash, config, now(), defer));
    if (person === undefined) return caller;
    if (!caller.service) throw notForOthers();
    return personOf(person);
  }

  return {
    async identify(request, defer, env) {
      const inside = readInProcess(env);
      if (inside !== undefined) {
        if (readKey(request.headers) !== undefined) throw new TillerError("forbidden", "A request from inside has no key of its own.");
        return inside === "service" ? SERVICE : personOf(inside);
      }
      const caller = await find(request, defer);
      if (!(await isAdmin(request.headers, config))) return caller;
      if (caller.service || caller.acting)
        throw new TillerError("forbidden", "A service key acts for Discord users, and administers nothing.");
      return { ...caller, admin: true };
    },
  };
}

const notForOthers = (): TillerError =>
  new TillerError("forbidden", "X-Acting-For needs a service key: call without it, and the key's own user is meant.");

/** @throws TillerError `unauthorized` when the secret that was sent is wrong, or the deployment has none. */
async function isAdmin(headers: Headers, { adminSecret }: Config): Promise<boolean> {
  const sent = headers.get("x-admin-secret");
  if (sent === null) return false;
  // Hashes are compared, so that not even the secret's length shows.
  if (adminSecret !== undefined && constantTimeEqual(await hashApiKey(sent.trim()), await hashApiKey(adminSecret))) return true;
  throw new TillerError("unauthorized", "The administrator's secret in x-admin-secret is not valid.");
}

async function findCaller(hash: string, config: Config, now: number, defer: (work: Promise<unknown>) => void): Promise<Caller> {
  const [row] = await config.db
    .select({
      id: apiKeys.id,
      hash: apiKeys.hash,
      used: apiKeys.last_used_at,
      userId: users.id,
      limit: users.hourly_limit,
      scope: apiKeys.scope,
    })
    .from(apiKeys)
    .innerJoin(users, eq(users.id, apiKeys.user_id))
    .where(and(eq(apiKeys.hash, hash), isNull(apiKeys.revoked_at)))
    .limit(1);
  if (row === undefined || !constantTimeEqual(row.hash, hash)) throw wrongKey();
  if (row.used === null || row.used < now - USED_EVERY_MS) {
    const stale = or(isNull(apiKeys.last_used_at), lt(apiKeys.last_used_at, now - USED_EVERY_MS));
    defer(
      config.db
        .update(apiKeys)
        .set({ last_used_at: now })
        .where(and(eq(apiKeys.id, row.id), stale))
        .run(),
    );
  }
  if (row.scope === "discord") return SERVICE;
  const steersPerHour = row.limit ?? LIMITS.steersPerHour;
  return { userId: row.userId, identifier: `user:${row.userId}`, steersPerHour, admin: false, acting: false, service: false };
}

/** The key of a request; undefined when it has none. */
export function readKey(headers: Headers): string | undefined {
  const own = headers.get("x-api-key");
  if (own !== null) return own.trim();
  const authorization = headers.get("authorization");
  if (authorization === null) return undefined;
  return /^Bearer\s+(\S+)\s*$/i.exec(authorization)?.[1] ?? "";
}

/** The caller's address as Cloudflare saw it. An IPv6 caller owns a whole /64, so that much of the address is one caller. */
function addressOf(request: Request): string {
  const address = request.headers.get("cf-connecting-ip") ?? "127.0.0.1";
  if (!address.includes(":") || address.includes(".")) return address;
  const [head = "", tail] = address.toLowerCase().split("::");
  const groups = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? [] : tail.split(":");
  const missing = tail === undefined ? 0 : Math.max(0, 8 - groups.length - after.length);
  const full = [...groups, ...Array<string>(missing).fill("0"), ...after];
  return `${full
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ""))
    .join(":")}::/64`;
}

const wrongKey = (): TillerError =>
  new TillerError(
    "unauthorized",
    "The API key is not valid: it is unknown or was revoked. Send a key in x-api-key or as a Bearer token, or send none to call anonymously.",
  );
