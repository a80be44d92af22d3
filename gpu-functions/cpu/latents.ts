// What POST /latents answers: the latents of an autoencoder that are active on texts, token by token and ranked for the whole text.
import type { LatentsRequest, LatentsResult } from "../../shared/readings.ts";
import type { Model } from "./model.ts";
import { planTexts, type ReadText, readText, remaining } from "./read-text.ts";
import { ENCODED, type LatentEncoder, type Sae } from "./sae.ts";

type Item = LatentsResult["items"][number];

/**
 * @param densities of all latents; needed where `max_density` is given.
 * @throws TillerError `feature_not_found` for an unknown source, `invalid_request` for one without an encoder.
 */
export async function readLatents(
  model: Model,
  request: LatentsRequest,
  densities: Float64Array | undefined,
  signal: AbortSignal,
): Promise<LatentsResult> {
  const began = performance.now();
  const { max_density = 1 } = request;
  const listed = (index: number) => (densities?.[index] ?? 0) <= max_density;
  const sae = model.sources.sae(request.source);
  const items: Item[] = [];
  // One text after another: the residuals of many long ones would take gigabytes.
  for (const ids of planTexts(model, request.texts)) {
    const text = await readText(model, ids, [sae.point], signal, remaining(request.deadline_ms, began));
    items.push(await model.encoders.use(sae, (encoder) => findLatents(sae, encoder, text, request, listed)));
  }
  return { items };
}

async function findLatents(
  sae: Sae,
  encoder: LatentEncoder,
  { tokens, residuals, bos }: ReadText,
  { top_k, rank, rank_by, ignore_bos }: LatentsRequest,
  listed: (index: number) => boolean,
): Promise<Item> {
  const first = ignore_bos && bos ? 1 : 0;
  const top: Item["top"] = tokens.map(() => []);
  const score = new Float64Array(encoder.latents);
  const stream = residuals[0] as Float32Array;
  /** Calls `each` with every piece that is encoded: its first position and its activations. */
  const visit = async (each: (start: number, count: number, found: Awaited<ReturnType<LatentEncoder["encode"]>>) => void) => {
    for (let start = first; start < tokens.length; start += ENCODED) {
      const count = Math.min(ENCODED, tokens.length - start);
      each(start, count, await encoder.encode(stream.subarray(start * sae.width, (start + count) * sae.width)));
    }
  };
  await visit((start, count, found) => {
    for (let t = 0; t < count; t++) {
      const active = found.top(t).filter(({ index }) => listed(index));
      top[start + t] = active.slice(0, top_k);
    }
    if (rank === 0) return;
    if (rank_by === undefined) {
      found.greatest.forEach((value, i) => {
        if (value > (score[i] as number)) score[i] = value;
      });
      return;
    }
    for (const position of new Set(rank_by)) {
      if (position < start || position >= start + count) continue;
      const row = found.activations.subarray((position - start) * encoder.latents, (position - start + 1) * encoder.latents);
      row.forEach((value, i) => {
        score[i] = (score[i] as number) + value;
      });
    }
  });
  const ranked = rank === 0 ? [] : greatest(score, rank, listed);
  const values = ranked.map(() => new Array<number>(tokens.length).fill(0));
  if (ranked.length > 0) {
    await visit((start, count, { activations }) => {
      for (let t = 0; t < count; t++)
        for (const [i, index] of ranked.entries()) (values[i] as number[])[start + t] = activations[t * encoder.latents + index] as number;
    });
  }
  const ranking = ranked.map((index, i) => {
    const each = values[i] as number[];
    const max = each.reduce((a, b) => Math.max(a, b), 0);
    return { index, max, max_position: each.indexOf(max), values: each };
  });
  return { tokens, top, ranking };
}

/** Indices of the greatest values above 0, the greatest first, the lower index first among equals. */
function greatest(values: Float64Array, count: number, listed: (index: number) => boolean): number[] {
  const active: number[] = [];
  values.forEach((value, i) => {
    if (value > 0 && listed(i)) active.push(i);
  });
  return active.sort((a, b) => (values[b] as number) - (values[a] as number) || a - b).slice(0, count);
}
