// Bodies and answers of the calls about vectors, as Neuronpedia documents them, with what we add.
import { z } from "@hono/zod-openapi";
import { formatPoint } from "../../shared/address.ts";
import { decodeFloat32 } from "../../shared/base64.ts";
import { LIMITS as PROTOCOL } from "../../shared/protocol.ts";
import { EXPORTS } from "../../shared/vector-files/index.ts";
import { LIMITS } from "../limits.ts";
import { VISIBILITIES } from "../schema.ts";
import { flag, integer, number, oneOf, optional, text } from "../steer/fields.ts";
import { pointOf, type SavedVector, vectorSource } from "./store.ts";

const modelId = text({ max: 128, example: "tiller-tales" });
const source = text({ max: 128, example: "3-neuronpedia-resid-pre", description: "{layer}-neuronpedia-resid-pre or -resid-post." });
const index = integer({ min: 0, max: 2_147_483_647, example: 142_855_848, description: "Also as digits in a text." });

const valuesRule = `must be a list of up to ${PROTOCOL.vectorWidth} finite numbers, a text of them with commas or spaces between, or base64 of little-endian float32`;

const strength = number({
  ...{ min: -LIMITS.vectorStrength, max: LIMITS.vectorStrength, example: 15 },
  description: "A strength that shows.",
});
const label = text({ max: LIMITS.labelChars, example: "Jedi" });
const description = text({ min: 0, max: LIMITS.descriptionChars, description: "What it is and where it comes from. Not in Neuronpedia." });
const visibility = oneOf(VISIBILITIES, {
  description: "Who may read it and steer with it: only you, whoever has its address, or everybody. Not in Neuronpedia.",
});
const layerNumber = integer({ min: 0, max: 9999, example: 3 });
const hookType = oneOf(["hook_resid_pre", "hook_resid_post"], { description: "Before the layer, or after it." });

export const NewVector = z
  .object({
    modelId,
    layerNumber,
    hookType,
    vector: z
      .union([z.array(z.number(valuesRule), valuesRule).min(1, valuesRule).max(PROTOCOL.vectorWidth, valuesRule), z.string().min(1)], {
        error: valuesRule,
      })
      .openapi({ description: "As many values as the model is wide. A text form is not in Neuronpedia.", example: [0.1, -0.2, 0.3] }),
    vectorDefaultSteerStrength: strength,
    vectorLabel: label,
    description: optional(description, ""),
    visibility: optional(visibility, "unlisted"),
  })
  .openapi("NewVector");

export const VectorAddressBody = z.object({ modelId, source, index }).openapi("VectorAddress");

export const ListBody = z
  .object({
    limit: optional(integer({ min: 1, max: LIMITS.vectorsPerPage }), LIMITS.vectorsPerPage),
    offset: optional(integer({ min: 0, max: 1_000_000 }), 0),
    modelId: modelId.optional(),
    query: text({ max: LIMITS.labelChars, description: "Only those whose label or description has this text." }).optional(),
    values: optional(flag({ description: "false leaves the numbers out." }), true),
  })
  .openapi("VectorPage", { description: "May be left out, as Neuronpedia's clients do." });

export const UpdateBody = VectorAddressBody.extend({
  vectorLabel: label.optional(),
  description: description.optional(),
  vectorDefaultSteerStrength: strength.optional(),
  visibility: visibility.optional(),
  version: integer({ min: 1, max: 2_147_483_647, description: "The version that you read: refused when it is not the newest." }).optional(),
})
  .refine(
    (body) => [body.vectorLabel, body.description, body.vectorDefaultSteerStrength, body.visibility].some((each) => each !== undefined),
    { path: ["vectorLabel"], error: "or description, vectorDefaultSteerStrength or visibility must be given: there is nothing to change" },
  )
  .openapi("VectorUpdate");

/** What is said of a file's vectors, beside the file. */
export const UploadFields = z.object({
  modelId,
  layerNumber: layerNumber
    .optional()
    .openapi({ description: "Left out where the file names layers, as control vectors in GGUF do: then all of them." }),
  hookType: hookType.optional(),
  tensor: text({ max: 256, description: "Which vector, of a file that has several without layers." }).optional(),
  vectorLabel: label.optional().openapi({ description: "The file's name when it is left out." }),
  description: optional(description, ""),
  vectorDefaultSteerStrength: optional(strength, 10),
  visibility: optional(visibility, "unlisted"),
});

export const UploadBody = UploadFields.extend({
  file: z.string("must be the file's bytes in base64").min(1, "must be the file's bytes in base64"),
  fileName: text({ max: 256, example: "jedi.npy" }).optional(),
}).openapi("VectorUpload", { description: "Or the same fields as multipart/form-data, `file` being the file." });

export const ExportBody = z
  .object({
    format: oneOf(EXPORTS, { description: "gguf is a control vector of llama.cpp: float32, one vector for each layer." }),
    vectors: z
      .array(z.object({ modelId, source, index }), "must be a list of addresses: modelId, source and index")
      .min(1, "must name at least one vector")
      .max(LIMITS.vectorsPerFile, `must name at most ${LIMITS.vectorsPerFile} vectors`),
  })
  .openapi("VectorExport");

export const CreatedVector = z
  .object({
    message: z.literal("Success"),
    url: z.string(),
    vector: z.object({
      modelId: z.string(),
      source: z.string(),
      index: z.string(),
      label: z.string(),
      createdAt: z.string(),
      defaultSteerStrength: z.number(),
      hookName: z.string(),
      values: z.array(z.number()),
      visibility: z.enum(VISIBILITIES),
    }),
  })
  .openapi("CreatedVector");

export const Vector = z
  .object({
    modelId: z.string(),
    layer: z.string(),
    index: z.string(),
    vectorLabel: z.string(),
    createdAt: z.string(),
    creatorId: z.string(),
    vectorDefaultSteerStrength: z.number(),
    hookName: z.string(),
    vector: z.array(z.number()),
    visibility: z.enum(VISIBILITIES),
    description: z.string(),
    version: z.int().openapi({ description: "1 when it was made; each edit adds one." }),
    updatedAt: z.string(),
  })
  .openapi("Vector");

/** A row of a source that steers as a vector: what vector/get says of a feature. */
export const FeatureVector = Vector.pick({
  ...{ modelId: true, layer: true, index: true, vectorLabel: true, hookName: true, vector: true, vectorDefaultSteerStrength: true },
}).openapi("FeatureVector");

/** The numbers of a `vector` field; undefined when the text is none of the forms. */
export function parseValues(given: string | readonly number[]): Float64Array | undefined {
  if (typeof given !== "string") return Float64Array.from(given);
  const listed = given.trim().replace(/^\[([^\]]*)\]$/, "$1");
  if (!/[\s,.]/.test(listed)) return decodeFloat32(listed) === undefined ? undefined : Float64Array.from(decodeFloat32(listed) ?? []);
  const values = listed.split(/[\s,]+/).filter((part) => part !== "");
  return values.every((part) => /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(part)) ? Float64Array.from(values, Number) : undefined;
}

export const toCreated = (row: SavedVector, origin: string): z.infer<typeof CreatedVector> => {
  const vectorAt = vectorSource(pointOf(row));
  return {
    message: "Success",
    url: `${origin}/${encodeURIComponent(row.model_id)}/${vectorAt}/${row.index}`,
    vector: {
      modelId: row.model_id,
      source: vectorAt,
      index: String(row.index),
      label: row.label,
      createdAt: new Date(row.created_at).toISOString(),
      defaultSteerStrength: row.default_strength,
      hookName: formatPoint(pointOf(row)),
      values: Array.from(row.values),
      visibility: row.visibility,
    },
  };
};

export const toVector = (row: SavedVector): z.infer<typeof Vector> => ({
  modelId: row.model_id,
  layer: vectorSource(pointOf(row)),
  index: String(row.index),
  vectorLabel: row.label,
  createdAt: new Date(row.created_at).toISOString(),
  creatorId: row.user_id,
  vectorDefaultSteerStrength: row.default_strength,
  hookName: formatPoint(pointOf(row)),
  vector: Array.from(row.values),
  visibility: row.visibility,
  description: row.description,
  version: row.version,
  updatedAt: new Date(row.updated_at ?? row.created_at).toISOString(),
});
