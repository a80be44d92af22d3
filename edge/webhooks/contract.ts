// Bodies and answers of the calls about webhooks.
import { z } from "@hono/zod-openapi";
import { DELIVERY_STATES } from "../jobs-schema.ts";
import { integer, oneOf, optional, text } from "../steer/fields.ts";
import type { SavedAttempt, SavedDelivery, SavedEndpoint } from "./store.ts";

export const DELIVERIES_PER_PAGE = 50;
const DAY_S = 86_400;
const time = z.iso.datetime();

export const NewEndpoint = z
  .strictObject({
    url: text({ max: 2000, example: "https://example.com/hooks/tiller", description: "http(s), of a host on the public internet." }),
    description: optional(text({ min: 0, max: 200 }), ""),
  })
  .openapi("NewWebhook");

export const Rotation = z.strictObject({
  overlapSeconds: optional(
    integer({ min: 0, max: 7 * DAY_S, description: "For so long the old secret signs too: a request then has two signatures." }),
    DAY_S,
  ),
});

export const Nothing = z.strictObject({});

const since = "must be a time as 2026-01-31T12:00:00Z";
export const ReplayFailed = z.strictObject({
  since: z.iso.datetime({ offset: true, error: since }).optional().openapi({ description: "Only events from then on." }),
});

export const DeliveryQuery = z.object({
  endpoint: text({ max: 64 }).optional(),
  state: oneOf(DELIVERY_STATES).optional(),
  job: text({ max: 64 }).optional(),
  limit: optional(integer({ min: 1, max: DELIVERIES_PER_PAGE }), DELIVERIES_PER_PAGE),
  cursor: text({ max: 200, description: "nextCursor of the page before." }).optional(),
});

export const Endpoint = z
  .object({
    id: z.string(),
    url: z.string(),
    description: z.string(),
    enabled: z.boolean(),
    disabledAt: time.nullable(),
    disabledReason: z.string().nullable(),
    failingSince: time.nullable().openapi({ description: "Every attempt since then has failed; null: the last one succeeded." }),
    previousSecretUntil: time.nullable().openapi({ description: "Until then the secret before the last rotation signs too." }),
    createdAt: time,
  })
  .openapi("Webhook");

export const EndpointWithSecret = Endpoint.extend({
  secret: z.string().openapi({ description: "Shown once: keep it. Standard Webhooks libraries take it as it is.", example: "whsec_..." }),
}).openapi("WebhookWithSecret");

export const Delivery = z
  .object({
    id: z.string().openapi({ description: "The webhook-id header of every attempt." }),
    endpointId: z.string().nullable().openapi({ description: "null: the address came with the job." }),
    url: z.string(),
    jobId: z.string().nullable(),
    event: z.string(),
    state: z.enum(DELIVERY_STATES),
    attempts: z.int(),
    nextAttemptAt: time.nullable(),
    createdAt: time,
    finishedAt: time.nullable(),
  })
  .openapi("WebhookDelivery");

export const WholeDelivery = Delivery.extend({
  payload: z.string().openapi({ description: "The body, as it is sent and signed." }),
  tried: z.array(
    z.object({
      number: z.int(),
      at: time,
      status: z.int().nullable().openapi({ description: "null: no answer came." }),
      durationMs: z.int(),
      answer: z.string().openapi({ description: "The first kilobyte." }),
      error: z.string().nullable(),
    }),
  ),
}).openapi("WholeWebhookDelivery");

export const AccountSecret = z.object({ secret: z.string() }).openapi("WebhookAccountSecret");

const iso = (ms: number): string => new Date(ms).toISOString();
const isoOrNull = (ms: number | null): string | null => (ms === null ? null : iso(ms));

export const toEndpoint = (row: SavedEndpoint): z.input<typeof Endpoint> => ({
  ...{ id: row.id, url: row.url, description: row.description, enabled: row.disabled_at === null },
  ...{ disabledAt: isoOrNull(row.disabled_at), disabledReason: row.disabled_reason, failingSince: isoOrNull(row.failing_since) },
  ...{ previousSecretUntil: isoOrNull(row.previous_until), createdAt: iso(row.created_at) },
});

export const toEndpointWithSecret = (row: SavedEndpoint): z.input<typeof EndpointWithSecret> => ({
  ...toEndpoint(row),
  secret: row.secret,
});

export const toDelivery = (row: SavedDelivery): z.input<typeof Delivery> => ({
  ...{ id: row.id, endpointId: row.endpoint_id, url: row.url, jobId: row.job_id, event: row.event, state: row.state },
  ...{ attempts: row.attempts, nextAttemptAt: isoOrNull(row.next_attempt_at) },
  ...{ createdAt: iso(row.created_at), finishedAt: isoOrNull(row.finished_at) },
});

export const toWholeDelivery = (row: SavedDelivery, tried: readonly SavedAttempt[]): z.input<typeof WholeDelivery> => ({
  ...{ ...toDelivery(row), payload: row.payload },
  tried: tried.map(({ number, at, status, duration_ms, answer, error }) => ({
    ...{ number, at: iso(at), status, durationMs: duration_ms, answer, error },
  })),
});
