// A sweep's texts as CSV (RFC 4180): a line for each, with the numbers of its cell.
import type { CellMetrics, SweepResult, SweepRow } from "./contract.ts";

const METRICS = [
  ...(["success", "perplexity", "perplexityRatio", "kl", "dist1", "dist2", "dist3", "repetition", "activation"] as const),
  ...(["change", "tokens"] as const),
];

const HEADER = [
  ...["label", "layer", "hookName", "method", "strength", "promptIndex", "prompt", "seed", "text", "tokens", "perplexity", "kl"],
  ...["activation", "score", "success", ...METRICS.map((name) => `cell_${name}`), "error"],
];

type Value = string | number | boolean | null;

/**
 * The baseline's texts come first, with the label `baseline`, strength 0 and no layer; then those of the cells, in their order. A cell that
 * failed has one line, without a text and with its error.
 */
export function toCsv({ columns, prompts, baseline, cells }: SweepResult): string {
  const line = (place: readonly Value[], row: SweepRow | undefined, metrics: CellMetrics | null, error: string | null): Value[] => [
    ...place,
    ...(row === undefined
      ? Array.from({ length: 10 }, () => null)
      : [
          row.prompt,
          prompts[row.prompt] ?? "",
          row.seed,
          row.text,
          row.tokens,
          row.perplexity,
          row.kl,
          row.activation,
          row.score,
          row.success,
        ]),
    ...METRICS.map((name) => metrics?.[name] ?? null),
    error,
  ];
  const lines: (readonly Value[])[] = [
    HEADER,
    ...baseline.rows.map((row) => line(["baseline", null, null, null, 0], row, baseline.metrics, null)),
  ];
  for (const { column, method, strength, metrics, rows, error } of cells) {
    const at = columns[column];
    const place = [at?.label ?? null, at?.layer ?? null, at?.hookName ?? null, method, strength];
    for (const row of rows) lines.push(line(place, row, metrics, error));
    if (rows.length === 0) lines.push(line(place, undefined, metrics, error));
  }
  return lines.map((values) => `${values.map(toField).join(",")}\r\n`).join("");
}

/** Texts that a spreadsheet would take for a formula get an apostrophe in front, by which it knows that they are none. */
function toField(value: Value): string {
  if (value === null) return "";
  if (typeof value !== "string") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
