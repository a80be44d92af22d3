// Files of vectors: what of a file becomes which vector of a model.
import type { z } from "@hono/zod-openapi";
import { TillerError } from "../../shared/errors.ts";
import { type ModelInfo, LIMITS as PROTOCOL } from "../../shared/protocol.ts";
import { type FileVector, readVectorFile } from "../../shared/vector-files/index.ts";
import { LIMITS } from "../limits.ts";
import type { UploadFields } from "./contract.ts";
import type { NewVector, SavedVector } from "./store.ts";

export interface UploadedFile {
  readonly bytes: Uint8Array;
  readonly name: string | undefined;
}

/**
 * Checks a direction: as many values as the model is wide, finite and not zero as float32.
 * @throws TillerError `invalid_request`.
 */
export function checkValues(values: Float64Array, { width, id }: Pick<ModelInfo, "width" | "id">, name = "vector"): Float64Array {
  if (values.length !== width || width > PROTOCOL.vectorWidth)
    throw new TillerError("invalid_request", `${name} has ${values.length} values; ${id} needs exactly ${width}.`);
  // As the engine will use it: a value beyond float32 becomes infinite there, and tiny ones become zero.
  const rounded = Float32Array.from(values);
  if (!rounded.every(Number.isFinite)) throw new TillerError("invalid_request", `${name} must hold finite float32 values only.`);
  if (rounded.every((value) => value === 0)) throw new TillerError("invalid_request", `${name} is zero: it has no direction.`);
  return values;
}

export function checkLayer(layer: number, { id, layers }: Pick<ModelInfo, "layers" | "id">): number {
  if (layer >= layers) throw new TillerError("invalid_request", `layerNumber must be a layer of ${id}: 0 to ${layers - 1}.`);
  return layer;
}

/** The vectors that an upload asks to keep. @throws TillerError naming what the file has and what must be said. */
export function vectorsOfFile(
  { bytes, name }: UploadedFile,
  fields: z.output<typeof UploadFields>,
  model: ModelInfo,
  userId: string,
): NewVector[] {
  const chosen = choose(readVectorFile(bytes, name), fields);
  if (chosen.length > LIMITS.vectorsPerFile) {
    throw new TillerError(
      "invalid_request",
      `The file has ${chosen.length} vectors, and ${LIMITS.vectorsPerFile} can be kept at once: choose one with tensor or layerNumber.`,
    );
  }
  const label = fields.vectorLabel ?? (name === undefined ? undefined : name.replace(/\.[^.]*$/, "").slice(0, LIMITS.labelChars));
  return chosen.map((vector) => ({
    ...placeOf(vector, fields, model),
    ...{ user_id: userId, model_id: model.id, values: checkValues(vector.values, model, vector.name) },
    ...{ label: label || vector.name.slice(0, LIMITS.labelChars) || "vector", description: fields.description },
    ...{ default_strength: fields.vectorDefaultSteerStrength, visibility: fields.visibility },
  }));
}

function choose(found: readonly FileVector[], { tensor, layerNumber }: z.output<typeof UploadFields>): readonly FileVector[] {
  const names = found
    .map(({ name }) => name)
    .join(", ")
    .slice(0, 500);
  if (tensor !== undefined) {
    const named = found.filter(({ name }) => name === tensor);
    if (named.length > 0) return named;
    throw new TillerError("invalid_request", `The file has no vector '${tensor}'; it has ${names}.`);
  }
  if (found.length === 1) return found;
  if (!found.every(({ layer }) => layer !== undefined))
    throw new TillerError("invalid_request", `The file has ${found.length} vectors: choose one with tensor. They are ${names}.`);
  if (layerNumber === undefined) return found;
  const there = found.filter(({ layer }) => layer === layerNumber);
  if (there.length > 0) return there;
  throw new TillerError("invalid_request", `The file has no vector for layer ${layerNumber}; it has ${names}.`);
}

/** Where a vector acts: as the file says, or else as the caller does. */
function placeOf(vector: FileVector, fields: z.output<typeof UploadFields>, model: ModelInfo): Pick<SavedVector, "layer" | "hook"> {
  const asked = fields.hookType === undefined ? undefined : fields.hookType === "hook_resid_pre" ? "resid_pre" : "resid_post";
  const hook = vector.hook ?? asked;
  const layer = vector.layer ?? fields.layerNumber;
  if (layer === undefined || hook === undefined) {
    throw new TillerError(
      "invalid_request",
      "layerNumber and hookType are required fields here: the file does not say where its vector acts.",
    );
  }
  if ((asked !== undefined && asked !== hook) || (fields.layerNumber !== undefined && fields.layerNumber !== layer)) {
    throw new TillerError(
      "invalid_request",
      `The file says that '${vector.name}' acts at blocks.${layer}.hook_${hook}: leave layerNumber and hookType out, or say the same.`,
    );
  }
  return { layer: checkLayer(layer, model), hook };
}
