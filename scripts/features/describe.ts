// What is written of every feature: what was counted on texts, and what its decoder row says without any.
import { appendFileSync, writeFileSync } from "node:fs";
import type { FeatureLine, FeaturesHeader } from "../../gpu-functions/cpu/feature-file.ts";
import type { OpenModel } from "../../gpu-functions/cpu/open-model.ts";
import type { Tokenizer } from "../../gpu-functions/cpu/tokenizer.ts";
import { Unembedding } from "../../gpu-functions/cpu/unembed.ts";
import type { UnitRows } from "../../gpu-functions/cpu/unit-rows.ts";
import { automaticLabel } from "./label.ts";
import type { Tally } from "./tally.ts";

/** Neighbours of a feature, and tokens at each end of its logits. */
export const LISTED = 10;
const DIGITS = 4;

const rounded = (value: number): number => Number(value.toPrecision(DIGITS));

/**
 * Writes the header and a line for every feature to `file`.
 * @param model idle: its session computes the logits.
 * @param each called with the number of features that were written.
 * @returns false when the signal came first, and the file is not whole.
 */
export async function writeFeatures(
  file: string,
  header: FeaturesHeader,
  {
    model,
    tally,
    rows,
    signal,
    each,
  }: { model: OpenModel; tally: Tally; rows: UnitRows; signal: AbortSignal; each: (count: number) => void },
): Promise<boolean> {
  const unembedding = await Unembedding.open(model);
  const { tokenizer } = model;
  writeFileSync(file, `${JSON.stringify(header)}\n`);
  for (let start = 0; start < tally.latents; start += rows.block) {
    if (signal.aborted) return false;
    const count = Math.min(rows.block, tally.latents - start);
    const nearest = await rows.nearest(start, count);
    const lines: string[] = [];
    await unembedding.read(rows.rows(start, count), (row, logits) => {
      const index = start + row;
      const directed = rows.row(index).some((value) => value !== 0);
      const [top, bottom] = directed ? extremes(logits) : [[], []];
      const named = (ids: readonly number[]) =>
        ids.map((id) => ({ token: tokenizer.tokenString(id), value: rounded(logits[id] as number) }));
      const near = (nearest[row] ?? []).map(({ index, cosine }) => ({ index, cosine: rounded(cosine) }));
      const line: FeatureLine = {
        ...counted(tally, index, header.tokens, tokenizer),
        ...{ top_logits: named(top), bottom_logits: named(bottom), nearest: near },
      };
      lines.push(`${JSON.stringify(line)}\n`);
    });
    appendFileSync(file, lines.join(""));
    each(count);
  }
  return true;
}

function counted(
  tally: Tally,
  index: number,
  tokens: number,
  tokenizer: Tokenizer,
): Omit<FeatureLine, "top_logits" | "bottom_logits" | "nearest"> {
  const examples = tally.examplesOf(index).map(({ ids, values }) => ({
    peak: tokenizer.tokenString(ids[values.indexOf(Math.max(...values))] as number),
    tokens: Array.from(ids, (id) => tokenizer.tokenString(id)),
    values: Array.from(values, rounded),
  }));
  return {
    index,
    label: automaticLabel(examples.map(({ peak }) => peak)),
    density: rounded((tally.state.active[index] as number) / Math.max(1, tokens)),
    max_activation: rounded(tally.state.greatest[index] as number),
    histogram: tally.histogramOf(index),
    examples: examples.map(({ tokens, values }) => ({ tokens, values })),
  };
}

/** Ids of the greatest logits, the greatest first, and of the least, the least first; the lower id first among equals. */
export function extremes(logits: Float32Array): [top: number[], bottom: number[]] {
  const count = Math.min(LISTED, logits.length);
  const [top, bottom]: [number[], number[]] = [[], []];
  let [high, low] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let id = 0; id < logits.length; id++) {
    const value = logits[id] as number;
    if (value > high) {
      insert(top, id, count, (other) => (logits[other] as number) < value);
      if (top.length === count) high = logits[top[count - 1] as number] as number;
    }
    if (value < low) {
      insert(bottom, id, count, (other) => (logits[other] as number) > value);
      if (bottom.length === count) low = logits[bottom[count - 1] as number] as number;
    }
  }
  return [top, bottom];
}

function insert(list: number[], id: number, count: number, after: (other: number) => boolean): void {
  let at = list.length;
  while (at > 0 && after(list[at - 1] as number)) at--;
  list.splice(at, 0, id);
  if (list.length > count) list.pop();
}
