// Field types that read what Neuronpedia's validator reads: numbers may come as digits in a text, texts as numbers, booleans as
// "true" and "false". Every message says what is allowed.
import { z } from "@hono/zod-openapi";

const toNumber = (value: unknown): unknown => {
  if (typeof value !== "string" || value.trim() === "") return value;
  const number = Number(value);
  return Number.isNaN(number) ? value : number;
};
const toText = (value: unknown): unknown => (typeof value === "number" ? String(value) : value);
const toBoolean = (value: unknown): unknown => (value === "true" ? true : value === "false" ? false : value);

const rule = (sentence: string) => ({
  error: (issue: { input?: unknown }) => (issue.input === undefined ? `is a required field: it ${sentence}` : sentence),
});

export interface NumberField {
  readonly min: number;
  readonly max: number;
  readonly example?: number;
  readonly description?: string;
}

/** A number from min to max. */
export function number(field: NumberField) {
  const error = rule(`must be a number from ${field.min} to ${field.max}`);
  return z.preprocess(toNumber, z.number(error).min(field.min, error).max(field.max, error)).openapi({
    type: "number",
    minimum: field.min,
    maximum: field.max,
    ...documented(field),
  });
}

/** A whole number from min to max. */
export function integer(field: NumberField) {
  const error = rule(`must be a whole number from ${field.min} to ${field.max}`);
  return z.preprocess(toNumber, z.number(error).int(error).min(field.min, error).max(field.max, error)).openapi({
    type: "integer",
    minimum: field.min,
    maximum: field.max,
    ...documented(field),
  });
}

/** Any finite number. */
export function finite(field: Omit<NumberField, "min" | "max"> = {}) {
  const error = rule("must be a finite number");
  return z.preprocess(toNumber, z.number(error)).openapi({ type: "number", ...documented(field) });
}

/** A text of min to max characters. */
export function text(field: { readonly min?: number; readonly max: number; readonly example?: string; readonly description?: string }) {
  const { min = 1, max } = field;
  const error = rule(`must be a text of ${min} to ${max} characters`);
  return z.preprocess(toText, z.string(error).min(min, error).max(max, error)).openapi({
    type: "string",
    minLength: min,
    maxLength: max,
    ...documented(field),
  });
}

export function flag(field: { readonly description: string }) {
  return z.preprocess(toBoolean, z.boolean(rule("must be true or false"))).openapi({ type: "boolean", description: field.description });
}

/** One of a few words. */
export function oneOf<const Words extends readonly string[]>(words: Words, field: { readonly description?: string } = {}) {
  return z.enum(words, rule(`must be one of the following values: ${words.join(", ")}`)).openapi(documented(field));
}

/** The value of a field that was left out, also in the OpenAPI document (which cannot see through a preprocessing step). */
export function optional<Field extends z.ZodType<unknown>>(field: Field, value: z.util.NoUndefined<z.output<Field>>) {
  return field.default(value).openapi({ default: value });
}

function documented(field: { readonly example?: unknown; readonly description?: string }) {
  return {
    ...(field.example === undefined ? {} : { example: field.example }),
    ...(field.description === undefined ? {} : { description: field.description }),
  };
}
