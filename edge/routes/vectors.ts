// The calls about vectors: new, get, list-owned, delete.
import { createRoute, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { TillerError } from "../../shared/errors.ts";
import { LIMITS as PROTOCOL } from "../../shared/protocol.ts";
import { errorResponses } from "../answers.ts";
import type { App, Room } from "../app.ts";
import { readBody } from "../body.ts";
import { CreatedVector, ListBody, NewVector, parseValues, toCreated, toVector, Vector, VectorAddressBody } from "../vectors/contract.ts";
import { keyOf } from "../vectors/store.ts";

const keys = [{ ApiKey: [] }, { Bearer: [] }];
const json = <Schema extends z.ZodType>(schema: Schema) => ({ content: { "application/json": { schema } } });
const errors = errorResponses(400, 401, 404, 409, 413, 500, 503);

const newRoute = createRoute({
  ...{ method: "post", path: "/api/vector/new", tags: ["Vectors"], summary: "Keep a vector to steer with", security: keys },
  description: "It steers at once: a feature whose `layer` is the answer's `source` and whose `index` is the answer's `index`.",
  request: { body: { required: true, ...json(NewVector) } },
  responses: { 200: { description: "The vector with its address.", ...json(CreatedVector) }, ...errors },
});
const getRoute = createRoute({
  ...{ method: "post", path: "/api/vector/get", tags: ["Vectors"], summary: "Read a vector", security: [{}, ...keys] },
  description: "A private vector is there for its owner alone.",
  request: { body: { required: true, ...json(VectorAddressBody) } },
  responses: {
    200: { description: "Its values are the numbers that were sent, exactly.", ...json(z.object({ vector: Vector })) },
    ...errors,
  },
});
const listRoute = createRoute({
  ...{ method: "post", path: "/api/vector/list-owned", tags: ["Vectors"], summary: "Your vectors, the newest first", security: keys },
  request: { body: { required: false, ...json(ListBody) } },
  responses: { 200: { description: "One page.", ...json(z.object({ vectors: z.array(Vector) })) }, ...errors },
});
const deleteRoute = createRoute({
  ...{ method: "post", path: "/api/vector/delete", tags: ["Vectors"], summary: "Delete a vector of yours", security: keys },
  description: "Saved steers keep their own copy.",
  request: { body: { required: true, ...json(VectorAddressBody) } },
  responses: { 200: { description: "It is gone.", ...json(z.object({ message: z.literal("Success") })) }, ...errors },
});

export function mountVectors({ app, config, gate, models, vectors }: Room): void {
  const identify = (c: Context<App>) => gate.identify(c.req.raw, (work) => c.executionCtx.waitUntil(work));
  const userOf = async (c: Context<App>): Promise<string> => {
    const { userId } = await identify(c);
    if (userId !== undefined) return userId;
    throw new TillerError("unauthorized", "Vectors belong to a user: send an API key in x-api-key or as a Bearer token.");
  };
  for (const route of [newRoute, getRoute, listRoute, deleteRoute]) app.openAPIRegistry.registerPath(route);

  app.post(newRoute.path, async (c) => {
    const userId = await userOf(c);
    const { body } = await readBody(c.req.raw, NewVector);
    const { info } = await models.get(body.modelId);
    if (body.layerNumber >= info.layers)
      throw new TillerError("invalid_request", `layerNumber must be a layer of ${info.id}: 0 to ${info.layers - 1}.`);
    const values = checkValues(body.vector, info.width, info.id);
    const row = await vectors.create({
      ...{ user_id: userId, model_id: info.id, layer: body.layerNumber, values },
      hook: body.hookType === "hook_resid_pre" ? "resid_pre" : "resid_post",
      ...{ label: body.vectorLabel, default_strength: body.vectorDefaultSteerStrength, visibility: body.visibility },
    });
    return c.json(toCreated(row, config.publicUrl ?? new URL(c.req.url).origin));
  });

  app.post(getRoute.path, async (c) => {
    const { userId } = await identify(c);
    const { body } = await readBody(c.req.raw, VectorAddressBody);
    const row = (await vectors.find([body], userId)).get(keyOf(body));
    if (row === undefined) throw missing(body);
    return c.json({ vector: toVector(row) });
  });

  app.post(listRoute.path, async (c) => {
    const userId = await userOf(c);
    const sent = (await c.req.raw.clone().text()).trim();
    const page = sent === "" ? ListBody.parse({}) : (await readBody(c.req.raw, ListBody)).body;
    return c.json({ vectors: (await vectors.owned(userId, page)).map(toVector) });
  });

  app.post(deleteRoute.path, async (c) => {
    const userId = await userOf(c);
    const { body } = await readBody(c.req.raw, VectorAddressBody);
    if (!(await vectors.remove(body, userId))) throw missing(body);
    return c.json({ message: "Success" });
  });
}

/** The same for one that is not there and one that the caller may not see. */
const missing = ({ modelId, source, index }: z.output<typeof VectorAddressBody>): TillerError =>
  new TillerError("not_found", `Vector not found: there is no vector ${index} in '${source}' of '${modelId}' that you may use.`);

function checkValues(given: string | readonly number[], width: number, model: string): Float64Array {
  const values = parseValues(given);
  if (values === undefined)
    throw new TillerError(
      "invalid_request",
      "vector is neither numbers with commas or spaces between, nor base64 of little-endian float32.",
    );
  if (values.length !== width || width > PROTOCOL.vectorWidth)
    throw new TillerError("invalid_request", `vector has ${values.length} values; ${model} needs exactly ${width}.`);
  // As the engine will use it: a value beyond float32 becomes infinite there, and tiny ones become zero.
  const rounded = Float32Array.from(values);
  if (!rounded.every(Number.isFinite)) throw new TillerError("invalid_request", "vector must hold finite float32 values only.");
  if (rounded.every((value) => value === 0)) throw new TillerError("invalid_request", "vector is zero: it has no direction.");
  return values;
}
