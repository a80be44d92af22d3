// Reads a JSON body whatever its content type says (Neuronpedia does so too) and turns the first problem into one sentence.
import type { z } from "zod";
import { TillerError } from "../shared/errors.ts";

/**
 * The parsed body.
 * @param options.optional no body at all is an empty object.
 * @throws TillerError `invalid_request` when it is not JSON or does not fit: the sentence names the field and what is allowed.
 */
export async function readBody<Schema extends z.ZodType>(
  request: Request,
  schema: Schema,
  options: { readonly optional?: boolean } = {},
): Promise<{ body: z.output<Schema>; raw: unknown }> {
  const text = await request.text();
  const raw = options.optional && text.trim() === "" ? {} : parseJson(text);
  return { body: parseBody(raw, schema), raw };
}

/** The body as JSON, unchecked. @throws TillerError `invalid_request` when it is none. */
export const readRaw = async (request: Request): Promise<unknown> => parseJson(await request.text());

/** A value that came from a caller, checked. @throws TillerError as `readBody`. */
export function parseBody<Schema extends z.ZodType>(raw: unknown, schema: Schema): z.output<Schema> {
  const parsed = schema.safeParse(raw);
  if (parsed.success) return parsed.data;
  throw new TillerError("invalid_request", describeIssue(parsed.error.issues[0]));
}

/** @throws TillerError `invalid_request`. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new TillerError("invalid_request", "Invalid JSON body: the request's body must be one JSON object.");
  }
}

function describeIssue(issue: z.core.$ZodIssue | undefined): string {
  if (issue === undefined) return "The request is not valid.";
  const where = issue.path.map((part, i) => (typeof part === "number" ? `[${part}]` : `${i === 0 ? "" : "."}${String(part)}`)).join("");
  if (issue.code === "unrecognized_keys") return `${where || "The body"} has a field that is not known: ${issue.keys.join(", ")}.`;
  if (where === "") return "The body must be one JSON object.";
  return `${where} ${issue.message}.`;
}
