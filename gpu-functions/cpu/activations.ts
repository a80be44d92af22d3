// What POST /activations answers: what chosen latents, named directions and vectors do on every token of texts.
import { boundaryOf, parsePoint } from "../../shared/address.ts";
import { TillerError } from "../../shared/errors.ts";
import type { ActivationsRequest, ActivationsResult } from "../../shared/readings.ts";
import { inlineDirection } from "./edits.ts";
import type { KnownModel, Model } from "./model.ts";
import { planTexts, readText, remaining } from "./read-text.ts";
import { ENCODED, notScalar, type Sae } from "./sae.ts";

/** How a target's values are found: from the residual of each token alone, or from all latents of its autoencoder. */
export type Probe = { readonly point: string } & (
  | { readonly value: (h: Float32Array) => number }
  | { readonly value: undefined; readonly sae: Sae; readonly index: number }
);

/** @throws TillerError as the lookup of features does, and `invalid_request` for a vector that does not fit the model. */
export async function readActivations(
  model: Model,
  request: ActivationsRequest,
  modelOf: (id: string) => KnownModel,
  signal: AbortSignal,
): Promise<ActivationsResult> {
  const began = performance.now();
  const probes = request.targets.map((target, i) => planProbe(model, target, i, modelOf));
  const points = [...new Set(probes.map(({ point }) => point))];
  const items: ActivationsResult["items"] = [];
  for (const ids of planTexts(model, request.texts)) {
    const text = await readText(model, ids, points.map(parsePoint), signal, remaining(request.deadline_ms, began));
    const values: number[][] = [];
    for (const probe of probes) values.push(await probeStream(model, probe, text.residuals[points.indexOf(probe.point)] as Float32Array));
    items.push({ tokens: text.tokens, values });
  }
  return { items };
}

/** @throws TillerError naming the target: see `readActivations`. */
export function planProbe(
  model: KnownModel,
  { feature, vector, point }: ActivationsRequest["targets"][number],
  i: number,
  modelOf: (id: string) => KnownModel,
): Probe {
  const { width, layers } = model.shape;
  if (feature === undefined) {
    const found = inlineDirection({ vector: vector as string, point: point as string }, width);
    boundaryOf(parsePoint(found.point), layers);
    if (found.direction.length !== width)
      throw new TillerError(
        "invalid_request",
        `targets.${i}.vector has ${found.direction.length} values; this model needs exactly ${width}.`,
      );
    if (!found.direction.every(Number.isFinite))
      throw new TillerError("invalid_request", `targets.${i}.vector has a value that is not a finite number.`);
    return { point: found.point, value: (h) => dot(h, found.direction) };
  }
  const { sources, info } = modelOf(feature.model);
  const { direction, point: at } = sources.direction(feature);
  if (direction.length !== width) {
    throw new TillerError(
      "invalid_request",
      `targets.${i}: source '${feature.source}' of model '${info.id}' has directions of ${direction.length} values; this model's residual stream has ${width}.`,
    );
  }
  boundaryOf(parsePoint(at), layers);
  if (info.sources.find(({ id }) => id === feature.source)?.architecture === "directions")
    return { point: at, value: (h) => dot(h, direction) };
  const sae = sources.sae(feature.source);
  if (notScalar(sae) !== undefined) return { point: at, value: undefined, sae, index: feature.index };
  const { read, edge, zero } = sources.latent(feature).latent;
  return {
    point: at,
    value: (h) => {
      const s = dot(h, read);
      return s > edge ? s - zero : 0;
    },
  };
}

/** What a target does at every token of a stream [T, width]. */
export async function probeStream(model: Model, probe: Probe, stream: Float32Array): Promise<number[]> {
  const { width } = model.shape;
  const tokens = stream.length / width;
  if (probe.value !== undefined) return Array.from({ length: tokens }, (_, t) => probe.value(stream.subarray(t * width, (t + 1) * width)));
  const { sae, index } = probe;
  return model.encoders.use(sae, async (encoder) => {
    const values: number[] = [];
    for (let start = 0; start < tokens; start += ENCODED) {
      const count = Math.min(ENCODED, tokens - start);
      const { activations } = await encoder.encode(stream.subarray(start * width, (start + count) * width));
      for (let t = 0; t < count; t++) values.push(activations[t * encoder.latents + index] as number);
    }
    return values;
  });
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}
