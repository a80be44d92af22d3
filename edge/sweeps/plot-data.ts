// What the plots of a sweep show, before it is drawn: which lines there are, what they are called, what a cell says when it is pointed at.
import type { CellMetrics, SweepCell, SweepColumn, SweepResult } from "./contract.ts";
import { formatNumber } from "./scale.ts";

/** Lines with a colour of their own; further ones are grey. */
export const COLOURED = 6;
const TEXTS_SHOWN = 2;
const TEXT_CHARS = 160;

/** What a sweep is judged by: success, or the direction's activation where nothing was scored. */
export interface Measure {
  readonly name: "success" | "activation";
  readonly unit: string;
  /** In percent, for success; null where there is none. */
  of(metrics: CellMetrics | null): number | null;
}

export function measureOf({ baseline, cells }: SweepResult): Measure {
  const scored = [baseline, ...cells].some(({ metrics }) => (metrics?.success ?? null) !== null);
  if (!scored) return { name: "activation", unit: "", of: (metrics) => metrics?.activation ?? null };
  return { name: "success", unit: "%", of: (metrics) => (metrics === null || metrics.success === null ? null : 100 * metrics.success) };
}

/** Names of the columns: the label, and as much more as tells them apart. */
export function columnNames(columns: readonly SweepColumn[]): readonly string[] {
  const isClear = (names: readonly string[]) => new Set(names).size === names.length;
  const ways: ((column: SweepColumn) => string)[] = [
    ({ label }) => label,
    ({ label, layer }) => `${label}, layer ${layer}`,
    ({ label, hookName }) => `${label}, ${hookName}`,
  ];
  for (const way of ways) {
    const names = columns.map(way).map(clean);
    if (isClear(names)) return names;
  }
  return columns.map(({ label, hookName }, place) => clean(`${label}, ${hookName} (${place + 1})`));
}

/** Names of cells, but for their strengths: the column's, and the method where there are several. */
export function namerOf({ columns, methods }: SweepResult): (cell: SweepCell) => string {
  const names = columnNames(columns);
  return ({ column, method }) => `${names[column]}${methods.length > 1 ? `, ${method}` : ""}`;
}

/** The cells of one column and method, by strength: a line of the plot. */
export interface Series {
  readonly name: string;
  /** Place among those with a colour of their own; undefined for the others. */
  readonly place: number | undefined;
  readonly cells: readonly { readonly index: number; readonly cell: SweepCell }[];
}

/** The lines of a sweep, in its order. The best ones have a place: the suggested one, then those with the most of what is measured. */
export function seriesOf(result: SweepResult): readonly Series[] {
  const nameOf = namerOf(result);
  const measure = measureOf(result);
  const groups = new Map<string, { index: number; cell: SweepCell }[]>();
  for (const [index, cell] of result.cells.entries()) {
    const name = nameOf(cell);
    groups.set(name, [...(groups.get(name) ?? []), { index, cell }]);
  }
  const all = [...groups].map(([name, cells]) => ({ name, cells: cells.sort((a, b) => a.cell.strength - b.cell.strength) }));
  const merit = ({ cells }: (typeof all)[number]) =>
    cells.some(({ index }) => index === result.suggested?.cell)
      ? Number.POSITIVE_INFINITY
      : Math.max(
          ...cells.map(({ cell: { metrics } }) => (isOver(result, metrics) ? null : measure.of(metrics)) ?? Number.NEGATIVE_INFINITY),
        );
  const best = new Set([...all].sort((a, b) => merit(b) - merit(a)).slice(0, COLOURED));
  let place = 0;
  return all.map((series) => ({ ...series, place: best.has(series) ? place++ : undefined }));
}

/** Whether a cell's texts are less likely than the sweep's bound allows. */
export const isOver = ({ maxPerplexityRatio }: SweepResult, metrics: CellMetrics | null): boolean =>
  (metrics?.perplexityRatio ?? 0) > maxPerplexityRatio;

/** What is shown where a cell is pointed at: its place, its numbers, its first texts. */
export function describeCell(result: SweepResult, cell: SweepCell): string {
  const place = `${columnNames(result.columns)[cell.column]}, ${cell.method}, strength ${formatNumber(cell.strength)}`;
  if (cell.metrics === null) return clean(`${place}\nFailed: ${cell.error ?? "there are no texts."}`);
  return describe(result, place, cell.metrics, cell.rows);
}

export const describeBaseline = (result: SweepResult): string =>
  describe(result, "Baseline: no steering", result.baseline.metrics, result.baseline.rows);

function describe(result: SweepResult, place: string, metrics: CellMetrics, rows: SweepCell["rows"]): string {
  const measure = measureOf(result);
  const value = measure.of(metrics);
  const numbers = [
    value === null ? undefined : `${measure.name} ${short(value)}${measure.unit}`,
    metrics.perplexity === null ? undefined : `perplexity ${short(metrics.perplexity)}`,
    metrics.perplexityRatio === null ? undefined : `${short(metrics.perplexityRatio)} times the baseline's`,
    metrics.kl === null ? undefined : `KL ${short(metrics.kl)}`,
  ].filter((part) => part !== undefined);
  const texts = rows.slice(0, TEXTS_SHOWN).map(({ text }) => `“${cut(text.trim(), TEXT_CHARS)}”`);
  return clean([place, numbers.join(", "), ...texts].join("\n"));
}

/** Three digits, and no more zeros than it takes. */
export const short = (value: number): string => formatNumber(Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(3)));

/** A text of so many characters at most, surrogate pairs whole. */
export function cut(text: string, most: number): string {
  const chars = [...text.slice(0, 2 * most + 2)];
  return chars.length <= most ? text : `${chars.slice(0, most - 1).join("")}…`;
}

/** Without what XML cannot hold: half surrogate pairs and control characters, but for tabs and line ends. */
export const clean = (text: string): string =>
  text.toWellFormed().replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "\ufffd");
