// A model directory in Hugging Face layout: which family its configuration names, its weights, and how they are to be held.
import { readFileSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import type { Storage } from "./blocks.ts";
import { type Checkpoint, openCheckpoint } from "./checkpoint.ts";
import { FAMILIES, type Family, type FamilyModel } from "./family.ts";

/** How a model's matrices are held: by the number of its parameters, as float32, or as 8-bit blocks of 32. */
export type Quantise = "auto" | "none" | "q8";
export const QUANTISE: readonly [Quantise, ...Quantise[]] = ["auto", "none", "q8"];

/** Models with more parameters are held in 8 bits unless told otherwise: in float32 they are slow and need 8 bytes a weight. */
const LARGEST_FLOAT = 200e6;

export interface ModelDirectory {
  readonly family: Family;
  readonly model: FamilyModel;
  readonly checkpoint: Checkpoint;
}

function readJson(file: string): unknown {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new Error(`${file} cannot be read: a model directory holds config.json, model.safetensors and tokenizer.json`, { cause });
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new Error(`${file} is not JSON`, { cause });
  }
}

/**
 * Opens a model directory and reads no weights.
 * @throws Error with the file and the reason when anything is missing, corrupt or unsupported.
 */
export function openDirectory(directory: string): ModelDirectory {
  const configFile = path.join(directory, "config.json");
  const config = readJson(configFile) as { model_type?: unknown };
  const family = FAMILIES.find((known) => known.id === config.model_type);
  if (family === undefined) {
    throw new Error(
      `${configFile}: model_type ${JSON.stringify(config.model_type)} is not supported; known: ${FAMILIES.map((f) => f.id).join(", ")}`,
    );
  }
  const checkpoint = openCheckpoint(directory);
  try {
    return { family, checkpoint, model: family.load(config, new Set(checkpoint.tensors.keys()), checkpoint.firstFile) };
  } catch (cause) {
    const reason = cause instanceof z.ZodError ? z.prettifyError(cause) : (cause as Error).message;
    throw new Error(`${configFile}: ${reason}`, { cause });
  }
}

export function chooseStorage(parameters: number, quantise: Quantise): Storage {
  if (quantise === "auto") return parameters > LARGEST_FLOAT ? "q8" : "float32";
  return quantise === "q8" ? "q8" : "float32";
}
