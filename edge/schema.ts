// The tables (drizzle): the source of /migrations. What each one is for is written in migrations/README.md.
// Never `onDelete: "cascade"`: a generated table rebuild drops the parent for a moment and D1 would delete the children.
import { customType, index, integer, primaryKey, real, sqliteTable, text } from "drizzle-orm/sqlite-core";
import { decodeFloat64, encodeFloat64 } from "../shared/base64.ts";
import { METHODS } from "../shared/protocol.ts";
import type { UploadedExample, UploadedFeature } from "./features/stored.ts";
import type { StoredTest } from "./read/stored.ts";
import type { StoredRequest, StoredResult } from "./steer/stored.ts";

export const users = sqliteTable("users", {
  id: text().primaryKey(),
  name: text().notNull(),
  /** Epoch milliseconds, as every `_at` column. */
  created_at: integer().notNull(),
  /** Steers an hour; null = the default of limits.ts. */
  hourly_limit: integer(),
  /** Signs webhooks whose address came with a job (`whsec_...`); null until one is needed. It has to be known to sign, so it is no hash. */
  webhook_secret: text(),
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
    /** `discord`: a bot's. It acts for Discord users, and does nothing as its own user. */
    scope: text({ enum: ["user", "discord"] })
      .notNull()
      .default("user"),
    created_at: integer().notNull(),
    /** Within a minute. */
    last_used_at: integer(),
    revoked_at: integer(),
  },
  (table) => [index("api_keys_user").on(table.user_id)],
);

export const VISIBILITIES = ["private", "unlisted", "public"] as const;

/** What its owner decides of something that has a link. */
const shared = {
  title: text(),
  visibility: text({ enum: VISIBILITIES }).notNull().default("unlisted"),
  /** From then on it is as if it were not there. */
  expires_at: integer(),
};

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
    ...shared,
  },
  (table) => [index("steers_user").on(table.user_id, table.created_at), index("steers_public").on(table.visibility, table.created_at)],
);

export const activationTests = sqliteTable(
  "activation_tests",
  {
    id: text().primaryKey(),
    /** null = an anonymous caller. */
    user_id: text().references(() => users.id),
    model_id: text().notNull(),
    test: text({ mode: "json" }).notNull().$type<StoredTest>(),
    created_at: integer().notNull(),
    ...shared,
  },
  (table) => [
    index("activation_tests_user").on(table.user_id, table.created_at),
    index("activation_tests_public").on(table.visibility, table.created_at),
  ],
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
    description: text().notNull().default(""),
    /** 1 when it was made; each edit adds one. */
    version: integer().notNull().default(1),
    created_at: integer().notNull(),
    /** null = never edited. */
    updated_at: integer(),
    /** The row stays, so that its index is never given to another vector. */
    deleted_at: integer(),
  },
  (table) => [index("vectors_user").on(table.user_id, table.created_at)],
);

/** Models that users described, to hang features on; the models that run are the engines' own. */
export const models = sqliteTable("models", {
  id: text().primaryKey(),
  user_id: text()
    .notNull()
    .references(() => users.id),
  display_name: text().notNull(),
  layers: integer().notNull(),
  website: text(),
  created_at: integer().notNull(),
});

/** A set has one source for each layer of its model: `{layer}-{name}`. */
export const sourceSets = sqliteTable(
  "source_sets",
  {
    model_id: text().notNull(),
    name: text().notNull(),
    user_id: text()
      .notNull()
      .references(() => users.id),
    description: text().notNull(),
    url: text(),
    layers: integer().notNull(),
    created_at: integer().notNull(),
  },
  (table) => [primaryKey({ columns: [table.model_id, table.name] })],
);

/** A feature's place: model, source, index. */
const address = {
  model_id: text().notNull(),
  source: text().notNull(),
  index: integer().notNull(),
};

/** Features that users uploaded into their own source sets. */
export const features = sqliteTable(
  "features",
  {
    ...address,
    user_id: text()
      .notNull()
      .references(() => users.id),
    density: real(),
    max_activation: real().notNull(),
    found: text({ mode: "json" }).notNull().$type<UploadedFeature>(),
    created_at: integer().notNull(),
  },
  (table) => [primaryKey({ columns: [table.model_id, table.source, table.index] })],
);

/** Texts with their activations that a vector's owner added to it. */
export const activations = sqliteTable(
  "activations",
  {
    id: text().primaryKey(),
    ...address,
    user_id: text()
      .notNull()
      .references(() => users.id),
    example: text({ mode: "json" }).notNull().$type<UploadedExample>(),
    max_value: real().notNull(),
    created_at: integer().notNull(),
  },
  (table) => [index("activations_feature").on(table.model_id, table.source, table.index)],
);

/** What features are about, in words. The table `labels_fts` (migration 0003) has the same rows for search. */
export const labels = sqliteTable(
  "labels",
  {
    row: integer().primaryKey({ autoIncrement: true }),
    id: text().notNull().unique(),
    ...address,
    description: text().notNull(),
    /** null = came with the model. */
    user_id: text().references(() => users.id),
    method: text().notNull(),
    /** The language model that wrote it; null = none, or nobody said. */
    explainer: text(),
    /** Of a source set that is not listed: found by whoever names the source. */
    unlisted: integer({ mode: "boolean" }).notNull(),
    votes: integer().notNull().default(0),
    created_at: integer().notNull(),
  },
  (table) => [index("labels_feature").on(table.model_id, table.source, table.index)],
);

export const labelVotes = sqliteTable(
  "label_votes",
  {
    label_id: text().notNull(),
    user_id: text().notNull(),
    vote: integer().notNull(),
  },
  (table) => [primaryKey({ columns: [table.label_id, table.user_id] })],
);

/** Which labels of an engine's sources are in `labels`. */
export const labelSyncs = sqliteTable(
  "label_syncs",
  {
    model_id: text().notNull(),
    source: text().notNull(),
    revision: text().notNull(),
  },
  (table) => [primaryKey({ columns: [table.model_id, table.source] })],
);

export const lists = sqliteTable(
  "lists",
  {
    id: text().primaryKey(),
    user_id: text()
      .notNull()
      .references(() => users.id),
    name: text().notNull(),
    description: text().notNull(),
    default_test_text: text(),
    visibility: text({ enum: VISIBILITIES }).notNull(),
    created_at: integer().notNull(),
    updated_at: integer().notNull(),
  },
  (table) => [index("lists_user").on(table.user_id, table.created_at)],
);

export const listItems = sqliteTable(
  "list_items",
  {
    list_id: text()
      .notNull()
      .references(() => lists.id),
    ...address,
    user_id: text().notNull(),
    description: text().notNull(),
    /** null = the item is only noted, and does not steer. */
    strength: real(),
    method: text({ enum: METHODS }),
    added_at: integer().notNull(),
    /** Its place in the list: steering goes in this order. */
    place: integer().notNull(),
  },
  (table) => [primaryKey({ columns: [table.list_id, table.model_id, table.source, table.index] })],
);

export const listComments = sqliteTable(
  "list_comments",
  {
    id: text().primaryKey(),
    list_id: text()
      .notNull()
      .references(() => lists.id),
    user_id: text()
      .notNull()
      .references(() => users.id),
    text: text().notNull(),
    created_at: integer().notNull(),
  },
  (table) => [index("list_comments_list").on(table.list_id, table.created_at)],
);
