// The calls of bots: service keys for administrators to make, what a bot remembers, and the address that connects a person with an account.
import { z } from "@hono/zod-openapi";
import { TillerError } from "../../shared/errors.ts";
import type { Room } from "../app.ts";
import { LIMITS } from "../limits.ts";
import type { Note } from "../people/notes.ts";
import { DONE, Done, mountPost, originOf } from "../route.ts";
import { flag, integer, optional, text } from "../steer/fields.ts";

const when = (time: number): string => new Date(time).toISOString();
const key = text({ max: LIMITS.noteKeyChars, example: "guild:1234567890" });
const NoteKey = z.object({ key }).openapi("NoteKey");
const NoteAnswer = z.object({ key: z.string(), value: z.unknown(), updatedAt: z.string() }).openapi("Note");
const toNote = ({ key, value, updatedAt }: Note): z.infer<typeof NoteAnswer> => ({ key, value, updatedAt: when(updatedAt) });
const ServiceKey = z.object({
  ...{ id: z.string(), name: z.string(), prefix: z.string(), createdAt: z.string() },
  ...{ lastUsedAt: z.string().nullable(), revokedAt: z.string().nullable() },
});

export function mountPeople(room: Room): void {
  mountServiceKeys(room);
  mountNotes(room);
  const { people } = room;
  mountPost(
    room,
    {
      ...{ path: "/api/link/new", tag: "Bots", summary: "A one-time address that connects a person with an account", access: "user" },
      ...{ body: z.object({}), answer: z.object({ url: z.string(), expiresAt: z.string() }) },
      description: "For a bot that acts for somebody: only that person may see the address. It is good for ten minutes.",
    },
    async (_, { userId, acting }, c) => {
      const link = acting ? await people.newLink(userId) : undefined;
      if (link === undefined) throw new TillerError("forbidden", "This call is for a bot that acts for a Discord user.");
      return { url: `${originOf(room, c)}/link/${link.code}`, expiresAt: when(link.expiresAt) };
    },
  );
}

function mountServiceKeys(room: Room): void {
  const { accounts } = room;
  const call = { tag: "Administration", access: "admin" } as const;

  mountPost(
    room,
    {
      ...{ ...call, path: "/api/admin/service-key/new", summary: "Make the credential of a Discord bot" },
      body: z.object({ name: text({ max: 100, example: "discord bot" }) }).openapi("NewServiceKey"),
      answer: z.object({ id: z.string(), key: z.string(), prefix: z.string() }),
      description: "It may act for Discord users, and nothing else. Shown this once: only its hash is stored.",
    },
    async ({ name }) => {
      const { key, row } = await accounts.newServiceKey(name);
      return { id: row.id, key, prefix: row.prefix };
    },
  );

  mountPost(
    room,
    {
      ...{ ...call, path: "/api/admin/service-key/list", summary: "Credentials of bots, the newest first" },
      ...{ body: z.object({}), answer: z.object({ keys: z.array(ServiceKey) }) },
    },
    async () => ({
      keys: (await accounts.serviceKeys()).map(({ id, name, prefix, created_at, last_used_at, revoked_at }) => ({
        ...{ id, name, prefix, createdAt: when(created_at) },
        lastUsedAt: last_used_at === null ? null : when(last_used_at),
        revokedAt: revoked_at === null ? null : when(revoked_at),
      })),
    }),
  );

  mountPost(
    room,
    {
      ...{ ...call, path: "/api/admin/service-key/revoke", summary: "Revoke the credential of a bot" },
      ...{
        body: z.object({ id: text({ max: 64 }) }).openapi("ServiceKeyAddress"),
        answer: Done,
        description: "It is felt within ten seconds.",
      },
    },
    async ({ id }) => {
      if (!(await accounts.revokeServiceKey(id))) throw new TillerError("not_found", `There is no service key '${id}' that works.`);
      return DONE;
    },
  );
}

function mountNotes(room: Room): void {
  const { notes } = room;
  const call = { tag: "Bots", access: "service" } as const;

  mountPost(
    room,
    {
      ...{ ...call, path: "/api/bot/notes/put", summary: "Remember something" },
      body: NoteKey.extend({
        value: z.unknown().openapi({ description: `Any JSON of at most ${LIMITS.noteChars} characters.` }),
        ttlSeconds: integer({ min: 1, max: LIMITS.noteSeconds, description: "Left out: until it is taken." }).optional(),
        ifAbsent: optional(flag({ description: "Only where nothing is remembered under the key." }), false),
      }).openapi("NewNote"),
      answer: z.object({ written: z.boolean() }),
    },
    async ({ key, value = null, ttlSeconds, ifAbsent }) => {
      if (JSON.stringify(value).length > LIMITS.noteChars)
        throw new TillerError("too_large", `value must have at most ${LIMITS.noteChars} characters as JSON.`);
      return { written: await notes.put(key, value, { ttlSeconds, ifAbsent }) };
    },
  );
  const answer = z.object({ note: NoteAnswer.nullable() });
  mountPost(room, { ...call, path: "/api/bot/notes/get", summary: "What is remembered", body: NoteKey, answer }, async ({ key }) => {
    const note = await notes.get(key);
    return { note: note === undefined ? null : toNote(note) };
  });
  mountPost(room, { ...call, path: "/api/bot/notes/take", summary: "What is remembered, once", body: NoteKey, answer }, async ({ key }) => {
    const note = await notes.take(key);
    return { note: note === undefined ? null : toNote(note) };
  });
  mountPost(
    room,
    {
      ...{ ...call, path: "/api/bot/notes/list", summary: "What is remembered under keys that begin alike" },
      body: z
        .object({
          prefix: text({ max: LIMITS.noteKeyChars }),
          limit: optional(integer({ min: 1, max: LIMITS.notesPerPage }), LIMITS.notesPerPage),
          after: key.optional(),
        })
        .openapi("NotePage"),
      answer: z.object({ notes: z.array(NoteAnswer) }),
    },
    async ({ prefix, limit, after }) => ({ notes: (await notes.list(prefix, limit, after)).map(toNote) }),
  );
}
