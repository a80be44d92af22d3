// POST /api/steer-load: a saved steer again, by the id of its share link.
import { createRoute, z } from "@hono/zod-openapi";
import { TillerError } from "../../shared/errors.ts";
import { METHODS, Receipt } from "../../shared/protocol.ts";
import { errorResponses } from "../answers.ts";
import type { Room } from "../app.ts";
import { readBody } from "../body.ts";
import { identify, KEYS } from "../route.ts";
import { VISIBILITIES } from "../schema.ts";
import type { SideName } from "../steer/answer.ts";
import { toChatSide } from "../steer/chat.ts";
import { TokenLogprob } from "../steer/contract.ts";
import { text } from "../steer/fields.ts";
import { type SavedSteer, shareUrl } from "../steer/save.ts";

const SteerLoadRequest = z
  .object({ steerOutputId: text({ max: 64, example: "cmf3k2x9p0001abcd7z1q8w2e", description: "The `id` of a SteerResult." }) })
  .openapi("SteerLoadRequest");

const LoadedSide = z.object({
  raw: z
    .string()
    .openapi({ description: "The generated text, without the prompt; of a conversation all of it, as the template writes it." }),
  chatTemplate: z
    .array(z.object({ content: z.string(), role: z.string() }))
    .nullable()
    .openapi({ description: "Conversations only." }),
  logprobs: z.array(TokenLogprob),
});

const LoadedSteer = z
  .object({
    STEERED: LoadedSide,
    DEFAULT: LoadedSide,
    inputText: z.string(),
    outputTextIncludesPrompt: z.literal(false),
    id: z.string(),
    shareUrl: z.string(),
    limit: z.literal("0").openapi({ description: "Always 0, as Neuronpedia answers: this call is not limited." }),
    modelId: z.string(),
    settings: z.object({
      temperature: z.number(),
      n_tokens: z.int(),
      freq_penalty: z.number(),
      seed: z.int(),
      strength_multiplier: z.number(),
      steer_special_tokens: z.boolean(),
      steer_method: z.enum(METHODS),
    }),
    features: z.array(
      z.object({
        modelId: z.string(),
        layer: z.string(),
        index: z.string(),
        strength: z.number(),
        steerOutputId: z.string(),
        neuron: z.object({
          explanations: z.array(z.object({ description: z.string() })),
          vector: z.array(z.number()),
          vectorLabel: z.null(),
        }),
      }),
    ),
    vectors: z
      .array(
        z.object({
          vector: z.string().openapi({ description: "base64 of little-endian float32" }),
          hookName: z.string().nullable().openapi({ description: "null: every layer" }),
          strength: z.number().openapi({ description: "strength_multiplier included" }),
          method: z.enum(METHODS),
        }),
      )
      .openapi({ description: "Not in Neuronpedia." }),
    receipts: z.array(Receipt),
    createdAt: z.string().openapi({ format: "date-time" }),
    title: z.string().nullable().openapi({ description: "Not in Neuronpedia." }),
    visibility: z.enum(VISIBILITIES).openapi({ description: "Not in Neuronpedia." }),
    expiresAt: z.string().nullable().openapi({ description: "Not in Neuronpedia." }),
  })
  .openapi("LoadedSteer");

const route = createRoute({
  method: "post",
  path: "/api/steer-load",
  tags: ["Steering"],
  summary: "Load a saved steer",
  security: [{}, ...KEYS],
  description: "Whoever has the id may read it, unless its owner made it private or it has expired. Not limited.",
  request: { body: { required: true, content: { "application/json": { schema: SteerLoadRequest } } } },
  responses: {
    200: { description: "The texts, the settings and the edits.", content: { "application/json": { schema: LoadedSteer } } },
    ...errorResponses(400, 401, 404, 413, 500),
  },
});

export function mountSteerLoad(room: Room): void {
  const { app, config, steers } = room;
  app.openAPIRegistry.registerPath(route);
  app.post(route.path, async (c) => {
    const caller = await identify(room, c);
    const { body } = await readBody(c.req.raw, SteerLoadRequest);
    const saved = await steers.find(body.steerOutputId, caller);
    if (saved === undefined) {
      throw new TillerError("not_found", `There is no saved steer '${body.steerOutputId}'. Use the id that /api/steer answered with.`);
    }
    return c.json(toLoadedSteer(saved, shareUrl(config, c.req.raw, saved.id)));
  });
}

function toLoadedSteer(saved: SavedSteer, url: string): z.infer<typeof LoadedSteer> {
  const { request, result } = saved;
  const side = (name: SideName) => {
    const { text, logprobs } = result[name];
    const chat = request.chat?.[name];
    const texts = chat === undefined ? { raw: text, chatTemplate: null } : toChatSide(chat, text);
    return { ...texts, logprobs: logprobs as z.infer<typeof TokenLogprob>[] };
  };
  return {
    STEERED: side("STEERED"),
    DEFAULT: side("DEFAULT"),
    inputText: request.prompt,
    outputTextIncludesPrompt: false,
    id: saved.id,
    shareUrl: url,
    limit: "0",
    modelId: saved.model_id,
    settings: request.settings,
    features: request.features.map(({ modelId, layer, index, strength, label }) => ({
      modelId,
      layer,
      index: String(index),
      strength,
      steerOutputId: saved.id,
      neuron: { explanations: label === undefined ? [] : [{ description: label }], vector: [], vectorLabel: null },
    })),
    // Inline ones only: the values of a kept vector are read at its address, by whom its owner lets.
    vectors: request.edits
      .slice(request.features.length)
      .flatMap(({ vector, point, strength, method }) =>
        vector === undefined ? [] : [{ vector, hookName: point ?? null, strength, method }],
      ),
    receipts: [...result.receipts],
    createdAt: new Date(saved.created_at).toISOString(),
    title: saved.title,
    visibility: saved.visibility,
    expiresAt: saved.expires_at === null ? null : new Date(saved.expires_at).toISOString(),
  };
}
