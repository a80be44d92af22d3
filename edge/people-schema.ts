// The tables of people as other services know them, and of the bot that acts for them (drizzle): the source of /migrations, with schema.ts.
import { index, integer, primaryKey, sqliteTable, text } from "drizzle-orm/sqlite-core";
import { users } from "./schema.ts";

export const PROVIDERS = ["discord"] as const;

const owner = text()
  .notNull()
  .references(() => users.id);

/** Who somebody of another service is here. */
export const identities = sqliteTable(
  "identities",
  {
    provider: text({ enum: PROVIDERS }).notNull(),
    /** The other service's id. */
    subject: text().notNull(),
    user_id: owner,
    /** What the other service calls them. */
    name: text().notNull(),
    created_at: integer().notNull(),
  },
  (table) => [primaryKey({ columns: [table.provider, table.subject] }), index("identities_user").on(table.user_id)],
);

/** Who is signed in to the pages. */
export const sessions = sqliteTable("sessions", {
  /** SHA-256 of the cookie, hex. */
  hash: text().primaryKey(),
  user_id: owner,
  created_at: integer().notNull(),
  expires_at: integer().notNull(),
});

/** One-time addresses that connect an identity with another user. */
export const linkCodes = sqliteTable("link_codes", {
  /** SHA-256 of the code, hex. */
  hash: text().primaryKey(),
  provider: text({ enum: PROVIDERS }).notNull(),
  subject: text().notNull(),
  expires_at: integer().notNull(),
});

/** What a bot remembers. */
export const botNotes = sqliteTable(
  "bot_notes",
  {
    key: text().primaryKey(),
    value: text({ mode: "json" }).notNull().$type<unknown>(),
    updated_at: integer().notNull(),
    /** null = until it is taken. */
    expires_at: integer(),
  },
  (table) => [index("bot_notes_expires").on(table.expires_at)],
);
