// The calls of the engine protocol (design 5) about features themselves: their directions, those that lie near one, and what
// `npm run features` found out about them on texts.
import { z } from "zod";
import { Edit, LIMITS } from "./protocol.ts";

/** Numbers both sides enforce. */
export const FEATURE_LIMITS = {
  /** Features of one call. */
  indexes: 64,
  /** Features of one page without their examples. */
  page: 5000,
  nearest: 128,
} as const;

const model = z.string().min(1).max(128);
const source = z.string().min(1).max(128);
const index = z
  .int()
  .min(0)
  .max(2 ** 31 - 1);
const deadline_ms = z.int().min(1).max(LIMITS.deadlineMs).optional();

/** Decoder rows as they steer: of length one for an autoencoder whose norms are folded, as they are for named directions. */
export const RowsRequest = z.strictObject({ model, source, indexes: z.array(index).min(1).max(FEATURE_LIMITS.indexes), deadline_ms });
export type RowsRequest = z.infer<typeof RowsRequest>;

export const RowsResult = z.object({
  point: z.string(),
  /** base64 of little-endian float32 [width], one per index. */
  rows: z.array(z.string()),
});
export type RowsResult = z.infer<typeof RowsResult>;

/** The rows of a source whose cosine with a vector is greatest. */
export const SimilarRequest = z.strictObject({
  model,
  source,
  vector: Edit.shape.vector.unwrap(),
  top_k: z.int().min(1).max(FEATURE_LIMITS.nearest),
  deadline_ms,
});
export type SimilarRequest = z.infer<typeof SimilarRequest>;

const Nearby = z.object({ index: z.int(), cosine: z.number() });

/** The greatest first; rows that are zero are left out. */
export const SimilarResult = z.object({ items: z.array(Nearby) });
export type SimilarResult = z.infer<typeof SimilarResult>;

const Logit = z.object({ token: z.string(), value: z.number() });

/** What is known of one feature from texts. */
export const FeatureStats = z.object({
  /** Share of the tokens (BOS left out) it is active on. */
  density: z.number().min(0).max(1),
  /** 0: it was active nowhere. */
  max_activation: z.number(),
  /** How often its activations above 0 fell into each of equally wide bins, the first of which begins at 0. */
  histogram: z.object({ width: z.number(), counts: z.array(z.int()) }),
  /** Tokens whose logits its decoder row raises and lowers most, read by the model's own final norm and unembedding. */
  top_logits: z.array(Logit),
  bottom_logits: z.array(Logit),
  /** Features of the same source, the nearest first, without itself. */
  nearest: z.array(Nearby),
  /** Texts it is most active on, the most active first: its activation on every token. */
  examples: z.array(z.object({ tokens: z.array(z.string()), values: z.array(z.number()) })),
});
export type FeatureStats = z.infer<typeof FeatureStats>;

export const FeatureRecord = z.object({
  index: z.int(),
  /** From the source's labels, else made of the tokens it is most active on; null when neither is there. */
  label: z.string().nullable(),
  /** A strength that shows, where the source's labels give one. */
  strength: z.number().nullable(),
  /** null where nobody has run the source on texts, and in brief lists. */
  stats: FeatureStats.nullable(),
  /** As in `stats`, and in brief lists too. */
  density: z.number().nullable(),
  max_activation: z.number().nullable(),
});
export type FeatureRecord = z.infer<typeof FeatureRecord>;

/**
 * Chosen features whole (`indexes`), or a page of those that have a label or were active on some text, by index (`from` and `limit`), in
 * brief.
 */
export const FeaturesRequest = z
  .strictObject({
    model,
    source,
    indexes: z.array(index).min(1).max(FEATURE_LIMITS.indexes).optional(),
    from: z.int().min(0).optional(),
    limit: z.int().min(1).max(FEATURE_LIMITS.page).default(FEATURE_LIMITS.page),
  })
  .refine(({ indexes, from }) => (indexes === undefined) !== (from === undefined), "give exactly one of indexes and from");
export type FeaturesRequest = z.infer<typeof FeaturesRequest>;

export const FeaturesResult = z.object({
  features: z.array(FeatureRecord),
  /** Where the next page begins; null when this was the last. */
  next: z.int().nullable(),
});
export type FeaturesResult = z.infer<typeof FeaturesResult>;
