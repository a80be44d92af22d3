// Vectors as files: /api/vector/upload reads them, /api/vector/export writes them.
import { createRoute, z } from "@hono/zod-openapi";
import { TillerError } from "../../shared/errors.ts";
import { writeVectorFile } from "../../shared/vector-files/index.ts";
import { errorResponses } from "../answers.ts";
import type { Room } from "../app.ts";
import { parseBody, readBody } from "../body.ts";
import { identify, KEYS, originOf, requireUser } from "../route.ts";
import { CreatedVector, ExportBody, toCreated, UploadBody, UploadFields } from "../vectors/contract.ts";
import { type UploadedFile, vectorsOfFile } from "../vectors/files.ts";
import { keyOf } from "../vectors/store.ts";
import { missing } from "./vectors.ts";

const UPLOAD = "/api/vector/upload";
const EXPORT = "/api/vector/export";

const Uploaded = z
  .object({ message: z.literal("Success"), vectors: z.array(CreatedVector.omit({ message: true })) })
  .openapi("UploadedVectors");

const uploadRoute = createRoute({
  ...{ method: "post", path: UPLOAD, tags: ["Vectors"], summary: "Keep the vectors of a file", security: KEYS },
  description:
    "NumPy (.npy), safetensors, llama.cpp control vectors (.gguf, one vector for each layer), PyTorch tensors (.pt, read without running anything), JSON or a text of numbers. As multipart/form-data, or as JSON with the file in base64.",
  request: {
    body: {
      required: true,
      content: {
        "application/json": { schema: UploadBody },
        "multipart/form-data": { schema: UploadFields.extend({ file: z.string().openapi({ format: "binary" }) }) },
      },
    },
  },
  responses: {
    200: { description: "The vectors with their addresses.", content: { "application/json": { schema: Uploaded } } },
    ...errorResponses(400, 401, 404, 409, 413, 500, 503),
  },
});

const exportRoute = createRoute({
  ...{ method: "post", path: EXPORT, tags: ["Vectors"], summary: "Vectors as a file", security: [{}, ...KEYS] },
  description:
    "Reading the file again gives the same vectors: exactly, but for gguf, which holds float32. llama.cpp itself takes no vector that acts after layer 0 or before it.",
  request: { body: { required: true, content: { "application/json": { schema: ExportBody } } } },
  responses: {
    200: { description: "The file.", content: { "application/octet-stream": { schema: z.string().openapi({ format: "binary" }) } } },
    ...errorResponses(400, 401, 404, 413, 500),
  },
});

export function mountVectorFiles(room: Room): void {
  const { app, models, vectors } = room;
  for (const route of [uploadRoute, exportRoute]) app.openAPIRegistry.registerPath(route);

  app.post(UPLOAD, async (c) => {
    const { userId } = requireUser(await identify(room, c));
    const { file, fields } = await readUpload(c.req.raw);
    const { info } = await models.get(fields.modelId);
    const rows = await vectors.create(vectorsOfFile(file, fields, info, userId));
    return c.json({
      message: "Success",
      vectors: rows.map((row) => {
        const { url, vector } = toCreated(row, originOf(room, c));
        return { url, vector };
      }),
    } satisfies z.input<typeof Uploaded>);
  });

  app.post(EXPORT, async (c) => {
    const { userId } = await identify(room, c);
    const { body } = await readBody(c.req.raw, ExportBody);
    const found = await vectors.find(body.vectors, userId);
    const rows = body.vectors.map((address) => {
      const row = found.get(keyOf(address));
      if (row === undefined) throw missing(address);
      return row;
    });
    const file = writeVectorFile(
      body.format,
      rows.map((row) => ({
        ...{ name: `${row.model_id}-${row.index}`, layer: row.layer, hook: row.hook, values: row.values },
        ...{ label: row.label, modelId: row.model_id, strength: row.default_strength },
      })),
    );
    c.header("content-type", file.contentType);
    const name = rows.length === 1 ? `vector-${rows[0]?.index}` : "vectors";
    c.header("content-disposition", `attachment; filename="${name}.${file.extension}"`);
    return c.body(file.bytes);
  });
}

/** The file and what is said of it, whichever way they came. */
async function readUpload(request: Request): Promise<{ file: UploadedFile; fields: z.output<typeof UploadFields> }> {
  if (!/^multipart\/form-data\b/i.test(request.headers.get("content-type") ?? "")) {
    const { body } = await readBody(request, UploadBody);
    return { file: { bytes: decodeFile(body.file), name: body.fileName }, fields: body };
  }
  let form: FormData;
  try {
    form = await request.formData();
  } catch {
    throw new TillerError("invalid_request", "The body is no multipart/form-data: its boundary or its parts are damaged.");
  }
  const file: unknown = form.get("file");
  if (!(file instanceof File)) throw new TillerError("invalid_request", "file is a required field: it must be the file of vectors.");
  const texts = Object.fromEntries([...form].filter(([name, value]) => name !== "file" && typeof value === "string"));
  return {
    file: { bytes: new Uint8Array(await file.arrayBuffer()), name: file.name || undefined },
    fields: parseBody(texts, UploadFields),
  };
}

function decodeFile(base64: string): Uint8Array {
  try {
    return Uint8Array.from(atob(base64.replace(/^data:[^,]*,/, "")), (char) => char.charCodeAt(0));
  } catch {
    throw new TillerError("invalid_request", "file must be the file's bytes in base64.");
  }
}
