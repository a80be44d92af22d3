// What texts are like on the whole, and which cell is the one to take.
import { distinct, mean, repetition } from "../../shared/text-metrics.ts";
import type { CellMetrics, SweepCell, SweepColumn, SweepResult, SweepRow } from "./contract.ts";

/** A mean in which each text counts as often as it has tokens; null where no text has any. */
export function meanOverTokens(rows: readonly SweepRow[], of: (row: SweepRow) => number | null): number | null {
  let [sum, tokens] = [0, 0];
  for (const row of rows) {
    const value = of(row);
    if (value === null) continue;
    sum += value * row.tokens;
    tokens += row.tokens;
  }
  return tokens === 0 ? null : sum / tokens;
}

/**
 * @param change mean size of the edits against the residual stream.
 * @param baseline perplexity of the baseline; undefined for the baseline's own metrics.
 */
export function metricsOf(rows: readonly SweepRow[], change: number, baseline?: number | null): CellMetrics {
  const prompts = [...new Set(rows.map(({ prompt }) => prompt))];
  const perPrompt = prompts.map((prompt) => rows.filter((row) => row.prompt === prompt).map(({ text }) => text));
  const dist = (n: number) => mean(perPrompt.map((texts) => distinct(texts, n))) ?? null;
  // exp of all nats over all tokens: a long text counts for more than a short one.
  const nats = meanOverTokens(rows, ({ perplexity }) => (perplexity === null ? null : Math.log(perplexity)));
  const perplexity = nats === null ? null : Math.exp(nats);
  const known = baseline === undefined ? perplexity : baseline;
  return {
    success: mean(rows.map(({ success }) => (success === null ? null : Number(success)))) ?? null,
    perplexity,
    perplexityRatio: perplexity === null || known === null ? null : perplexity / known,
    kl: meanOverTokens(rows, ({ kl }) => kl),
    activation: meanOverTokens(rows, ({ activation }) => activation),
    ...{ dist1: dist(1), dist2: dist(2), dist3: dist(3) },
    repetition: mean(rows.map(({ text }) => repetition(text))) ?? null,
    ...{ change, tokens: rows.reduce((sum, { tokens }) => sum + tokens, 0) },
  };
}

/**
 * The cell with the most success among those that have more than the baseline and whose perplexity is at most `bound` times its; of equals
 * the one with the lower perplexity, then the smaller strength.
 */
export function suggest(
  cells: readonly SweepCell[],
  columns: readonly SweepColumn[],
  baseline: CellMetrics,
  bound: number,
): SweepResult["suggested"] {
  const fit = cells.flatMap(({ metrics, column, method, strength }, cell) => {
    const { success, perplexity, perplexityRatio } = metrics ?? {};
    if (success == null || perplexity == null || perplexityRatio == null) return [];
    return success > (baseline.success ?? 0) && perplexityRatio <= bound
      ? [{ cell, column, method, strength, success, perplexity, perplexityRatio }]
      : [];
  });
  const [best] = fit.sort((a, b) => b.success - a.success || a.perplexity - b.perplexity || Math.abs(a.strength) - Math.abs(b.strength));
  const at = columns[best?.column ?? -1];
  if (best === undefined || at === undefined) return null;
  const { success, perplexityRatio, strength, method, cell } = best;
  return {
    cell,
    sentence: `${method} with strength ${strength} along '${at.label}' at ${at.hookName}: ${percent(success)} of its texts are a success (baseline: ${percent(baseline.success ?? 0)}), and their perplexity is ${perplexityRatio.toFixed(2)} times the baseline's.`,
  };
}

const percent = (share: number): string => `${Math.round(share * 100)}%`;
