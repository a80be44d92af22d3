// The calls about vectors: new, get, list-owned, update, delete.
import { z } from "@hono/zod-openapi";
import { decodeFloat32 } from "../../shared/base64.ts";
import { TillerError } from "../../shared/errors.ts";
import type { Room } from "../app.ts";
import { read } from "../engine.ts";
import { findSource } from "../read/answers.ts";
import { DONE, Done, mountPost, originOf } from "../route.ts";
import {
  CreatedVector,
  FeatureVector,
  ListBody,
  NewVector,
  parseValues,
  toCreated,
  toVector,
  UpdateBody,
  Vector,
  VectorAddressBody,
} from "../vectors/contract.ts";
import { checkLayer, checkValues } from "../vectors/files.ts";
import { keyOf, type VectorAddress, vectorPoint } from "../vectors/store.ts";

const tag = "Vectors";

export function mountVectors(room: Room): void {
  const { models, vectors, config } = room;

  mountPost(
    room,
    {
      ...{ path: "/api/vector/new", tag, summary: "Keep a vector to steer with", access: "user", body: NewVector, answer: CreatedVector },
      description:
        "It steers at once: a feature whose `layer` is the answer's `source` and whose `index` is the answer's `index`. Files: /api/vector/upload.",
    },
    async (body, { userId }, c) => {
      const { info } = await models.get(body.modelId);
      const layer = checkLayer(body.layerNumber, info);
      const given = parseValues(body.vector);
      if (given === undefined) {
        const sentence = "vector is neither numbers with commas or spaces between, nor base64 of little-endian float32.";
        throw new TillerError("invalid_request", sentence);
      }
      const [row] = await vectors.create([
        {
          ...{ user_id: userId, model_id: info.id, layer, values: checkValues(given, info) },
          ...{ hook: body.hookType === "hook_resid_pre" ? "resid_pre" : "resid_post", label: body.vectorLabel },
          ...{ description: body.description, default_strength: body.vectorDefaultSteerStrength, visibility: body.visibility },
        },
      ]);
      if (row === undefined) throw new Error("no vector was written");
      return toCreated(row, originOf(room, c));
    },
  );

  mountPost(
    room,
    {
      ...{ path: "/api/vector/get", tag, summary: "Read a vector, or a feature's direction", access: "anyone", counted: true },
      ...{ body: VectorAddressBody, answer: z.object({ vector: Vector.or(FeatureVector) }) },
      description:
        "The numbers of a kept vector are those that were sent, exactly; a private one is there for its owner alone. Of a feature it is the decoder row that steers (Neuronpedia answers its encoder's column, which steers differently).",
    },
    async (body, { userId }, c) => {
      if (vectorPoint(body.source) === undefined) return { vector: await readRow(body, c.req.raw.signal) };
      const row = (await vectors.find([body], userId)).get(keyOf(body));
      if (row === undefined) throw missing(body);
      return { vector: toVector(row) };
    },
  );

  async function readRow({ modelId, source, index }: VectorAddress, signal: AbortSignal): Promise<z.input<typeof FeatureVector>> {
    const { info, engine } = await models.get(modelId);
    const { labelled_features } = findSource(info, source);
    const { point, rows } = await read(engine, config, "/rows", { model: modelId, source, indexes: [index] }, signal);
    const label = labelled_features.find((known) => known.index === index);
    return {
      ...{ modelId, layer: source, index: String(index), vectorLabel: label?.label ?? "", hookName: point },
      vector: Array.from(decodeFloat32(rows[0] ?? "") ?? []),
      vectorDefaultSteerStrength: label?.strength ?? 10,
    };
  }

  mountPost(
    room,
    {
      ...{ path: "/api/vector/list-owned", tag, summary: "Your vectors, the newest first", access: "user", body: ListBody },
      answer: z.object({
        vectors: z.array(Vector),
        total: z.int().openapi({ description: "On all pages. Not in Neuronpedia." }),
      }),
    },
    async (page, { userId }) => {
      const { rows, total } = await vectors.owned(userId, page);
      return { vectors: rows.map((row) => ({ ...toVector(row), ...(page.values ? {} : { vector: [] }) })), total };
    },
  );

  mountPost(
    room,
    {
      ...{
        path: "/api/vector/update",
        tag,
        summary: "Change a vector's label, description, default strength or visibility",
        access: "user",
      },
      ...{ body: UpdateBody, answer: Done.extend({ vector: Vector }) },
      description: "Its values stay as they are: other values are another vector. Saved steers keep their own copy.",
    },
    async ({ modelId, source, index, version, ...body }, { userId }) => {
      const changes = {
        ...(body.vectorLabel === undefined ? {} : { label: body.vectorLabel }),
        ...(body.description === undefined ? {} : { description: body.description }),
        ...(body.vectorDefaultSteerStrength === undefined ? {} : { default_strength: body.vectorDefaultSteerStrength }),
        ...(body.visibility === undefined ? {} : { visibility: body.visibility }),
      };
      const row = await vectors.update({ modelId, source, index }, userId, changes, version);
      if (row === undefined) throw missing({ modelId, source, index });
      return { ...DONE, vector: toVector(row) };
    },
  );

  mountPost(
    room,
    {
      ...{ path: "/api/vector/delete", tag, summary: "Delete a vector of yours", access: "user" },
      ...{ body: VectorAddressBody, answer: Done },
      description: "Saved steers keep their own copy.",
    },
    async (body, { userId }) => {
      if (!(await vectors.remove(body, userId))) throw missing(body);
      return DONE;
    },
  );
}

/** The same for one that is not there and one that the caller may not see. */
export const missing = ({ modelId, source, index }: VectorAddress): TillerError =>
  new TillerError("not_found", `Vector not found: there is no vector ${index} in '${source}' of '${modelId}' that you may use.`);
