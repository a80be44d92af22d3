// Bodies and answers of the calls about users, their keys and their quota.
import { z } from "@hono/zod-openapi";
import { LIMITS } from "../limits.ts";
import { integer, optional, text } from "../steer/fields.ts";

const id = text({ max: 64, description: "An id that this service gave." });

export const SECRETS = ["NEURONPEDIA", "OPENAI", "GOOGLE", "ANTHROPIC", "OPENROUTER"] as const;

export const SecretBody = z
  .object({ type: z.enum(SECRETS, `must be one of the following values: ${SECRETS.join(", ")}`) })
  .openapi("SecretRequest");

export const Secret = z
  .object({
    id: z.string(),
    username: z.string(),
    type: z.literal("NEURONPEDIA"),
    value: z.string().openapi({ description: "The key that the call was made with: keys are stored as hashes only." }),
    createdAt: z.string(),
    updatedAt: z.string(),
  })
  .openapi("Secret");

export const NewKeyBody = z.object({ name: text({ max: 100, example: "laptop" }) }).openapi("NewKey");

export const Key = z
  .object({
    id: z.string(),
    name: z.string(),
    prefix: z.string().openapi({ description: "The key's first characters." }),
    createdAt: z.string(),
    lastUsedAt: z.string().nullable().openapi({ description: "Within a minute." }),
    revokedAt: z.string().nullable(),
    current: z.boolean().openapi({ description: "Whether this call was made with it." }),
  })
  .openapi("Key");

export const CreatedKey = z
  .object({
    key: z.string().openapi({ description: "Shown this once." }),
    id: z.string(),
    name: z.string(),
    prefix: z.string(),
    createdAt: z.string(),
  })
  .openapi("CreatedKey");

export const KeyBody = z.object({ id }).openapi("KeyAddress");

const Window = z.object({
  limit: z.int().openapi({ description: "Calls allowed an hour." }),
  used: z.int(),
  remaining: z.int(),
  resetSeconds: z.int().openapi({ description: "Until a used place becomes free." }),
});

export const Usage = z
  .object({
    user: z.object({ id: z.string(), name: z.string(), createdAt: z.string() }).nullable().openapi({ description: "null without a key." }),
    steers: Window.openapi({ description: "Calls that generate." }),
    readings: Window.openapi({ description: "Calls that read texts and generate nothing." }),
    lookups: Window.openapi({ description: "Calls that look up features, labels and vectors." }),
    kept: z
      .object({ vectors: z.int(), steers: z.int(), lists: z.int(), keys: z.int() })
      .nullable()
      .openapi({ description: "What the user has here; null without a key." }),
  })
  .openapi("Usage");

const hourlyLimit = integer({ min: 0, max: LIMITS.largestHourlyLimit, description: "Steers an hour." }).nullable();

export const NewUserBody = z
  .object({ name: text({ max: 100 }), hourlyLimit: optional(hourlyLimit, null).openapi({ description: "null = the default." }) })
  .openapi("NewUser");

export const UserBody = z
  .object({ userId: id, name: text({ max: 100 }).optional(), hourlyLimit: hourlyLimit.optional() })
  .openapi("UserUpdate");

export const UserListBody = z
  .object({
    query: text({ max: 100, description: "Only those whose name or id has this text." }).optional(),
    limit: optional(integer({ min: 1, max: 100 }), 100),
    offset: optional(integer({ min: 0, max: 1_000_000_000 }), 0),
  })
  .openapi("UserPage");

export const User = z.object({ id: z.string(), name: z.string(), hourlyLimit: z.int().nullable(), createdAt: z.string() }).openapi("User");
