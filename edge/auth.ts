// Who is calling: a user by API key, or an address without one.
import { and, eq, isNull, lt, or } from "drizzle-orm";
import { TillerError } from "../shared/errors.ts";
import { constantTimeEqual, hashApiKey, looksLikeApiKey } from "../shared/keys.ts";
import type { Config } from "./config.ts";
import { LIMITS } from "./limits.ts";
import { apiKeys, users } from "./schema.ts";

export interface Caller {
  /** undefined = anonymous. */
  readonly userId: string | undefined;
  /** Who the quota counts: `user:<id>` or `ip:<address>`. */
  readonly identifier: string;
  readonly steersPerHour: number;
  /** Sent the administrator's secret: may see, change and delete what is anybody's. */
  readonly admin: boolean;
}

const USED_EVERY_MS = 60_000;
/** A good key is looked up again after this long: so long may a revoked key still be good in an isolate that knows it. */
const TRUSTED_MS = 10_000;
const TRUSTED_KEYS = 1000;

export interface Gate {
  /**
   * Reads `x-api-key`, else `Authorization: Bearer`. No key at all is an anonymous caller. `x-admin-secret` comes on top of either.
   * @param defer keeps work going after the answer (`waitUntil`).
   * @throws TillerError `unauthorized` for a key that is not known or was revoked: a wrong key is never quietly anonymous.
   */
  identify(request: Request, defer: (work: Promise<unknown>) => void): Promise<Caller>;
}

export function newGate(config: Config, now: () => number = Date.now): Gate {
  /** By the hash of the key; oldest first. */
  const trusted = new Map<string, { readonly caller: Caller; readonly until: number }>();
  return {
    async identify(request, defer) {
      if (await isAdmin(request.headers, config)) return { ...(await find(request, defer)), admin: true };
      return find(request, defer);
    },
  };

  async function find(request: Request, defer: (work: Promise<unknown>) => void): Promise<Caller> {
    const key = readKey(request.headers);
    if (key === undefined) {
      const steersPerHour = LIMITS.anonymousSteersPerHour;
      return { userId: undefined, identifier: `ip:${addressOf(request)}`, steersPerHour, admin: false };
    }
    if (!looksLikeApiKey(key)) throw wrongKey();
    const hash = await hashApiKey(key);
    const known = trusted.get(hash);
    if (known !== undefined && known.until > now()) return known.caller;
    trusted.delete(hash);
    const caller = await findCaller(hash, config, now(), defer);
    if (trusted.size >= TRUSTED_KEYS) trusted.delete(trusted.keys().next().value as string);
    trusted.set(hash, { caller, until: now() + TRUSTED_MS });
    return caller;
  }
}

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
    .select({ id: apiKeys.id, hash: apiKeys.hash, used: apiKeys.last_used_at, userId: users.id, limit: users.hourly_limit })
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
  const steersPerHour = row.limit ?? LIMITS.steersPerHour;
  return { userId: row.userId, identifier: `user:${row.userId}`, steersPerHour, admin: false };
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
