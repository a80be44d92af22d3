// The tables (drizzle): the source of /migrations. What each one is for is written in migrations/README.md.
// Never `onDelete: "cascade"`: a generated table rebuild drops the parent for a moment and D1 would delete the children.
import { customType, index, integer, real, sqliteTable, text } from "drizzle-orm/sqlite-core";
import { decodeFloat64, encodeFloat64 } from "../shared/base64.ts";
import type { StoredRequest, StoredResult } from "./steer/stored.ts";

export const users = sqliteTable("users", {
  id: text().primaryKey(),
  name: text().notNull(),
  /** Epoch milliseconds, as every `_at` column. */
  created_at: integer().notNull(),
  /** Steers an hour; null = the default of limits.ts. */
  hourly_limit: integer(),
});

export const apiKeys = sqliteTable(
  "api_keys",
  {
    id: text().primaryKey(),
    user_id: text()
      .notNull()
      .references(() => users.id),
    /** SHA-256 of the whole key, hex. The key itself is stored nowhere. */
    hash: text().notNull().unique(),
    /** The first characters of the key, to recognise it in a list. */
    prefix: text().notNull(),
    name: text().notNull(),
    created_at: integer().notNull(),
    /** Within a minute. */
    last_used_at: integer(),
    revoked_at: integer(),
  },
  (table) => [index("api_keys_user").on(table.user_id)],
);

export const steers = sqliteTable(
  "steers",
  {
    id: text().primaryKey(),
    /** null = an anonymous caller. */
    user_id: text().references(() => users.id),
    model_id: text().notNull(),
    request: text({ mode: "json" }).notNull().$type<StoredRequest>(),
    result: text({ mode: "json" }).notNull().$type<StoredResult>(),
    created_at: integer().notNull(),
  },
  (table) => [index("steers_user").on(table.user_id, table.created_at)],
);

/** Numbers as base64 of float64: D1 reads and writes text ten times as fast as blobs. */
const float64s = customType<{ data: Float64Array; driverData: string }>({
  dataType: () => "text",
  toDriver: encodeFloat64,
  fromDriver(stored) {
    const values = decodeFloat64(stored);
    if (values === undefined) throw new Error("a stored vector is damaged");
    return values;
  },
});

export const VISIBILITIES = ["private", "unlisted", "public"] as const;

export const vectors = sqliteTable(
  "vectors",
  {
    /** The vector's address in its source, as Neuronpedia's: random, from 90,000,000 to 179,999,999. */
    index: integer().primaryKey(),
    user_id: text()
      .notNull()
      .references(() => users.id),
    model_id: text().notNull(),
    layer: integer().notNull(),
    hook: text({ enum: ["resid_pre", "resid_post"] }).notNull(),
    label: text().notNull(),
    default_strength: real().notNull(),
    visibility: text({ enum: VISIBILITIES }).notNull(),
    values: float64s().notNull(),
    created_at: integer().notNull(),
    /** The row stays, so that its index is never given to another vector. */
    deleted_at: integer(),
  },
  (table) => [index("vectors_user").on(table.user_id, table.created_at)],
);
