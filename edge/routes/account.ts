// The calls of a user about himself: keys, usage; and those of an administrator about users.
import { z } from "@hono/zod-openapi";
import { TillerError } from "../../shared/errors.ts";
import { hashApiKey } from "../../shared/keys.ts";
import {
  CreatedKey,
  Key,
  KeyBody,
  NewKeyBody,
  NewUserBody,
  Secret,
  SecretBody,
  Usage,
  User,
  UserBody,
  UserListBody,
} from "../account/contract.ts";
import type { SavedKey, SavedUser } from "../account/store.ts";
import type { Room } from "../app.ts";
import { readKey } from "../auth.ts";
import { lookupQuotaOf, readingQuotaOf, steerQuotaOf } from "../quota.ts";
import type { QuotaState } from "../rate-limit.ts";
import { DONE, Done, mountGet, mountPost } from "../route.ts";

const when = (time: number): string => new Date(time).toISOString();
const whenever = (time: number | null): string | null => (time === null ? null : when(time));

export function mountAccount(room: Room): void {
  const { accounts } = room;
  const tag = "Account";
  const hashOf = async (request: Request): Promise<string> => hashApiKey(readKey(request.headers) ?? "");
  const nameOf = async (userId: string): Promise<string> => (await accounts.user(userId))?.name ?? "";

  mountPost(
    room,
    {
      ...{ path: "/api/user/api-key", tag, summary: "Your API key, as Neuronpedia answers it", access: "owner" },
      ...{ body: SecretBody, answer: Secret },
    },
    async ({ type }, { userId }, c) => {
      if (type !== "NEURONPEDIA") throw new TillerError("not_found", "Secret not found: this service keeps no keys of other services.");
      const hash = await hashOf(c.req.raw);
      const [username, keys] = await Promise.all([nameOf(userId), accounts.keys(userId)]);
      const current = keys.find((key) => key.hash === hash);
      if (current === undefined) throw new TillerError("not_found", "Secret not found.");
      const created = when(current.created_at);
      return { id: current.id, username, type, value: readKey(c.req.raw.headers) ?? "", createdAt: created, updatedAt: created };
    },
  );

  mountPost(
    room,
    {
      ...{ path: "/api/user/keys/new", tag, summary: "Make another API key", access: "owner", body: NewKeyBody, answer: CreatedKey },
      description: "The key is shown this once: only its hash is stored.",
    },
    async ({ name }, { userId }) => {
      const { key, row } = await accounts.newKey(userId, name);
      return { key, id: row.id, name, prefix: row.prefix, createdAt: when(row.created_at) };
    },
  );

  mountPost(
    room,
    {
      ...{ path: "/api/user/keys/list", tag, summary: "Your API keys, the newest first", access: "owner" },
      ...{ body: z.object({}), answer: z.object({ keys: z.array(Key) }) },
    },
    async (_, { userId }, c) => {
      const [rows, hash] = await Promise.all([accounts.keys(userId), hashOf(c.req.raw)]);
      return { keys: rows.map((row) => toKey(row, hash)) };
    },
  );

  mountPost(
    room,
    {
      ...{ path: "/api/user/keys/revoke", tag, summary: "Revoke an API key of yours", access: "owner", body: KeyBody, answer: Done },
      description: "It is felt within ten seconds. The last key that works stays.",
    },
    async ({ id }, { userId }) => {
      if (!(await accounts.revoke(userId, id))) throw new TillerError("not_found", `You have no key '${id}' that works.`);
      return DONE;
    },
  );

  mountGet(
    room,
    {
      ...{ path: "/api/user/usage", tag, summary: "What is left of your quota, and what you have here", access: "anyone", answer: Usage },
      description: "Uses nothing. Without a key: what is left to your address.",
    },
    async (caller) => {
      const { userId } = caller;
      const [steers, readings, lookups, user, kept] = await Promise.all([
        steerQuotaOf(room.limiter, caller).state(),
        readingQuotaOf(room.limiter, caller).state(),
        lookupQuotaOf(room.limiter, caller).state(),
        userId === undefined ? undefined : accounts.user(userId),
        userId === undefined ? null : accounts.kept(userId),
      ]);
      return {
        user: user === undefined ? null : { id: user.id, name: user.name, createdAt: when(user.created_at) },
        ...{ steers: toWindow(steers), readings: toWindow(readings), lookups: toWindow(lookups), kept },
      };
    },
  );

  mountAdmin(room);
}

function mountAdmin(room: Room): void {
  const { accounts } = room;
  const tag = "Administration";
  const access = "admin";
  const missing = (id: string) => new TillerError("not_found", `There is no user '${id}'.`);

  mountPost(
    room,
    {
      ...{ path: "/api/admin/user/new", tag, summary: "Make a user, with a first key", access, body: NewUserBody },
      answer: z.object({ user: User, key: z.string() }),
    },
    async ({ name, hourlyLimit }) => {
      const user = await accounts.newUser(name, hourlyLimit);
      return { user: toUser(user), key: (await accounts.newKey(user.id, "first")).key };
    },
  );

  mountPost(
    room,
    {
      ...{ path: "/api/admin/user/list", tag, summary: "Users, the newest first", access, body: UserListBody },
      answer: z.object({ users: z.array(User) }),
    },
    async (page) => ({ users: (await accounts.list(page)).map(toUser) }),
  );

  mountPost(
    room,
    {
      ...{ path: "/api/admin/user/update", tag, summary: "Change a user's name or hourly limit", access, body: UserBody },
      answer: z.object({ user: User }),
    },
    async ({ userId, name, hourlyLimit }) => {
      const user = await accounts.update(userId, {
        ...(name === undefined ? {} : { name }),
        ...(hourlyLimit === undefined ? {} : { hourly_limit: hourlyLimit }),
      });
      if (user === undefined) throw missing(userId);
      return { user: toUser(user) };
    },
  );

  mountPost(
    room,
    {
      ...{ path: "/api/admin/user/revoke-keys", tag, summary: "Revoke all keys of a user", access, body: UserBody.pick({ userId: true }) },
      answer: z.object({ revoked: z.int() }),
    },
    async ({ userId }) => {
      if ((await accounts.user(userId)) === undefined) throw missing(userId);
      return { revoked: await accounts.revokeAll(userId) };
    },
  );
}

const toKey = (row: SavedKey, hash: string): z.infer<typeof Key> => ({
  ...{ id: row.id, name: row.name, prefix: row.prefix, createdAt: when(row.created_at) },
  ...{ lastUsedAt: whenever(row.last_used_at), revokedAt: whenever(row.revoked_at), current: row.hash === hash },
});

const toUser = (row: SavedUser): z.infer<typeof User> => ({
  ...{ id: row.id, name: row.name, hourlyLimit: row.hourly_limit, createdAt: when(row.created_at) },
});

const toWindow = ({ limit, remaining, reset }: QuotaState): z.infer<typeof Usage>["steers"] => ({
  ...{ limit, remaining, used: limit - remaining },
  resetSeconds: Math.max(0, Math.ceil((reset - Date.now()) / 1000)),
});
