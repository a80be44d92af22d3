// The body of a derivation, whichever way it comes: JSON, or a form with files of texts.
import { DIRECTION_LIMITS } from "../../shared/directions.ts";
import { TillerError } from "../../shared/errors.ts";
import { parseBody, readBody } from "../body.ts";
import { DeriveBody, type DeriveSettings, DeriveTexts } from "./contract.ts";
import { readBoth, readSide, type TextFile } from "./files.ts";

export interface AskedDerivation {
  readonly settings: DeriveSettings;
  readonly texts: DeriveTexts;
  readonly webhook: { readonly url: string } | undefined;
}

/** What a form has besides its files. */
export const FormFields = DeriveBody.omit({ positive: true, negative: true, pairs: true });
const FILES = ["positive", "negative", "file"] as const;

/** @throws TillerError `invalid_request` naming the field, or the file and its line; `too_large`. */
export async function readDerivation(request: Request): Promise<AskedDerivation> {
  const isForm = /^multipart\/form-data\b/i.test(request.headers.get("content-type") ?? "");
  const { webhook, ...body } = isForm ? await readForm(request) : (await readBody(request, DeriveBody)).body;
  const { positive, negative, pairs, ...settings } = body;
  const texts = parseBody({ positive, negative, pairs }, DeriveTexts);
  checkSize(texts);
  return { settings, texts, webhook };
}

async function readForm(request: Request): Promise<DeriveBody> {
  let form: FormData;
  try {
    form = await request.formData();
  } catch {
    throw new TillerError("invalid_request", "The body is no multipart/form-data: its boundary or its parts are damaged.");
  }
  const fields: Record<string, unknown> = {};
  const files: Partial<Record<(typeof FILES)[number], TextFile>> = {};
  for (const [name, value] of form) {
    if (Object.hasOwn(fields, name) || Object.hasOwn(files, name))
      throw new TillerError("invalid_request", `${name.slice(0, 64)} came twice: send it once.`);
    const file = FILES.find((each) => each === name);
    if (file !== undefined) files[file] = await toFile(file, value);
    else fields[name] = typeof value === "string" ? fieldOf(name, value) : "a file";
  }
  // What is said of them first: it is short, and wrong more often.
  const said = parseBody(fields, FormFields);
  return { ...said, ...readFiles(files) };
}

/** Fields that are no plain values in JSON: layers as 3,4,5 and a webhook as its address. */
function fieldOf(name: string, value: string): unknown {
  if (name === "layers") return value.split(/[\s,[\]]+/).filter(Boolean);
  return name === "webhook" ? { url: value } : value;
}

/** A field with a text is a file without a name. */
const toFile = async (name: string, value: File | string): Promise<TextFile> =>
  typeof value === "string"
    ? { name, bytes: new TextEncoder().encode(value) }
    : { name: value.name.slice(0, 100) || name, bytes: new Uint8Array(await value.arrayBuffer()) };

function readFiles({ positive, negative, file }: Partial<Record<(typeof FILES)[number], TextFile>>): DeriveTexts {
  if (file !== undefined && positive === undefined && negative === undefined) return readBoth(file);
  if (file === undefined && positive !== undefined && negative !== undefined)
    return { positive: readSide(positive), negative: readSide(negative) };
  throw new TillerError("invalid_request", "The form must have two files, positive and negative, or one with both, file.");
}

function checkSize({ positive = [], negative = [], pairs = [] }: DeriveTexts): void {
  const texts = [...positive, ...negative, ...pairs.flatMap((pair) => [pair.prompt, pair.positive, pair.negative])];
  const encoder = new TextEncoder();
  const bytes = texts.reduce((sum, text) => sum + encoder.encode(text).length, 0);
  if (bytes <= DIRECTION_LIMITS.bytes) return;
  throw new TillerError("too_large", `The texts have ${bytes} bytes together; the limit is ${DIRECTION_LIMITS.bytes}.`);
}
