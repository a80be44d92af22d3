// What the texts of each cell have in common: success, perplexity, diversity, distance from the unsteered model.
import { distinct, mean, repetition } from "../../shared/text-metrics.ts";
import type { Cell } from "./cells.ts";
import { type Classifier, scoreText, type Verdict, verdictOf } from "./lexicon.ts";
import type { Done } from "./partial.ts";

/** Perplexities above it are dropped, as NeuroSteer does. */
export const MOST_PERPLEXITY = 1e4;

/** One text with its numbers. */
export interface TextResult {
  readonly prompt: number;
  readonly sample: number;
  readonly text: string;
  readonly tokens: number;
  /** The sum of its markers, and the side that is for. */
  readonly score: number;
  readonly side: Verdict;
  readonly perplexity: number | null;
  readonly kl: number | null;
  readonly repetition: number | null;
}

/** Shares and means over the texts of a cell; null where nothing can be said. */
export interface Metrics {
  readonly texts: number;
  /** Share of the texts on the side that the cell steers to; null for the baseline. */
  readonly success: number | null;
  readonly positive: number;
  readonly negative: number;
  readonly perplexity: number | null;
  /** exp of the mean logarithm, of all: one text that is far off does not decide it. And its ratio to the baseline's. */
  readonly perplexity_geometric: number | null;
  readonly perplexity_ratio: number | null;
  /** Texts above MOST_PERPLEXITY, which the mean leaves out; and those without a token. */
  readonly dropped: number;
  readonly empty: number;
  readonly dist1: number | null;
  readonly dist2: number | null;
  readonly dist3: number | null;
  readonly repetition: number | null;
  /** Mean over all tokens. */
  readonly kl: number | null;
  /** Mean size of the edits against the residual stream. */
  readonly change: number;
}

export interface CellResult {
  readonly name: string;
  readonly method: Cell["method"];
  readonly strength: number;
  readonly metrics: Metrics;
  readonly texts: readonly TextResult[];
}

/** Results of all cells, in their order, of units that are all done. */
export function resultsOf(cells: readonly Cell[], units: readonly Done[], classifier: Classifier): CellResult[] {
  const results = cells.map(({ name, method, strength }, cell) => {
    const texts = units.map((unit) => textOf(unit, cell, classifier));
    const changes = units.map((unit) => unit.written[cell]?.change);
    return { ...{ name, method, strength, texts }, metrics: metricsOf(texts, strength, mean(changes) ?? 0) };
  });
  const base = results[0]?.metrics.perplexity_geometric ?? null;
  return results.map((result) => {
    const { perplexity_geometric: own } = result.metrics;
    const ratio = base === null || own === null ? null : own / base;
    return { ...result, metrics: { ...result.metrics, perplexity_ratio: ratio } };
  });
}

function textOf({ prompt, sample, written }: Done, cell: number, classifier: Classifier): TextResult {
  const found = written[cell];
  if (found === undefined) throw new Error(`prompt ${prompt}, sample ${sample} has no text of cell ${cell}`);
  const { text, tokens, perplexity, kl } = found;
  const score = scoreText(text, classifier);
  return { prompt, sample, text, tokens, score, side: verdictOf(score, classifier), perplexity, kl, repetition: repetition(text) ?? null };
}

function metricsOf(texts: readonly TextResult[], strength: number, change: number): Metrics {
  const shareOf = (side: Verdict) => texts.filter((text) => text.side === side).length / texts.length;
  const [positive, negative] = [shareOf(1), shareOf(-1)];
  const known = texts.flatMap(({ perplexity }) => (perplexity === null ? [] : [perplexity]));
  const kept = known.filter((perplexity) => perplexity <= MOST_PERPLEXITY);
  const logarithm = mean(known.map(Math.log));
  const tokens = texts.reduce((sum, text) => sum + text.tokens, 0);
  const diversity = (n: number) => mean(byPrompt(texts).map((each) => distinct(each, n))) ?? null;
  return {
    ...{ texts: texts.length, positive, negative, change },
    success: strength === 0 ? null : strength > 0 ? positive : negative,
    ...{
      perplexity: mean(kept) ?? null,
      perplexity_geometric: logarithm === undefined ? null : Math.exp(logarithm),
      perplexity_ratio: null,
    },
    ...{ dropped: known.length - kept.length, empty: texts.length - known.length },
    ...{ dist1: diversity(1), dist2: diversity(2), dist3: diversity(3) },
    repetition: mean(texts.map((text) => text.repetition)) ?? null,
    kl: tokens === 0 ? null : texts.reduce((sum, text) => sum + (text.kl ?? 0) * text.tokens, 0) / tokens,
  };
}

/** The texts of each prompt together: what dist-n is counted over. */
function byPrompt(texts: readonly TextResult[]): string[][] {
  const lists = new Map<number, string[]>();
  for (const { prompt, text } of texts) lists.set(prompt, [...(lists.get(prompt) ?? []), text]);
  return [...lists.values()];
}
