// What a sweep found -> its result: scored, counted, and small enough to keep.
import type { SweptCell } from "../jobs/stored.ts";
import { BASELINE, cellAt, countCells } from "./cells.ts";
import type { Scorer, SweepCell, SweepResult, SweepRow } from "./contract.ts";
import { meanOverTokens, metricsOf, suggest } from "./metrics.ts";
import { judgeActivation, judgeProbability, newMatcher, newWordCounter, type Verdict } from "./scorers.ts";
import type { StoredSweep } from "./stored.ts";

/** Characters of all texts of a result: a row of the database has 2 MB at most. */
const TEXT_CHARS = 600_000;

export interface Finished {
  readonly id: string;
  readonly origin: string;
  readonly modelId: string;
  readonly totalMs: number;
}

/**
 * @param found all that was found, in whatever order of cells.
 * @param classify the probabilities of texts, for the scorer `webhook`.
 */
export async function toResult(
  { id, origin, modelId, totalMs }: Finished,
  sweep: StoredSweep,
  scorer: Scorer | undefined,
  found: readonly SweptCell[],
  classify: (texts: readonly string[]) => Promise<readonly number[]>,
): Promise<SweepResult> {
  const { body, columns } = sweep;
  const whole = gather(found);
  const baseline = whole.get(BASELINE) ?? { rows: [], change: 0, error: null };
  const judge = scorer === undefined ? () => NO_VERDICT : await newJudge(scorer, [...whole.values()], baseline.rows, classify);
  const judged = (rows: readonly SweepRow[]) => rows.map((row) => ({ ...row, ...judge(row) }));

  const plain = judged(baseline.rows);
  const metrics = metricsOf(plain, 0);
  const cells = Array.from({ length: countCells(sweep) }, (_, number): SweepCell => {
    const { rows, change, error } = whole.get(number) ?? { rows: [], change: 0, error: null };
    const own = judged(rows);
    return { ...cellAt(sweep, number), metrics: error === null ? metricsOf(own, change, metrics.perplexity) : null, rows: own, error };
  });

  const texts = plain.length + cells.reduce((sum, { rows }) => sum + rows.length, 0);
  const cut = (rows: readonly SweepRow[]) => rows.map((row) => ({ ...row, text: shorten(row.text, Math.floor(TEXT_CHARS / texts)) }));
  return {
    ...{
      id,
      url: `${origin}/sweep/${id}`,
      csvUrl: `${origin}/api/sweeps/${id}/csv`,
      modelId,
      prompts: body.prompts,
      columns: [...columns],
    },
    ...{ strengths: body.strengths, methods: body.methods, seeds: body.seeds, maxPerplexityRatio: body.maxPerplexityRatio },
    baseline: { metrics, rows: cut(plain) },
    cells: cells.map((cell) => ({ ...cell, rows: cut(cell.rows) })),
    suggested: suggest(cells, columns, metrics, body.maxPerplexityRatio),
    timing: { totalMs },
  };
}

const NO_VERDICT: Verdict = { score: null, success: null };

type Whole = Omit<SweptCell, "cell">;

/** Everything of each cell together. One that failed for some text has no texts at all. */
function gather(found: readonly SweptCell[]): ReadonlyMap<number, Whole> {
  const cells = new Map<number, SweptCell[]>();
  for (const part of found) cells.set(part.cell, [...(cells.get(part.cell) ?? []), part]);
  return new Map(
    [...cells].map(([cell, parts]): [number, Whole] => {
      const error = parts.find((part) => part.error !== null)?.error ?? null;
      const change = parts.reduce((sum, part) => sum + part.change, 0) / parts.length;
      return [cell, error === null ? { rows: parts.flatMap(({ rows }) => rows), change, error } : { rows: [], change: 0, error }];
    }),
  );
}

async function newJudge(
  scorer: Scorer,
  cells: readonly Whole[],
  baseline: readonly SweepRow[],
  classify: (texts: readonly string[]) => Promise<readonly number[]>,
): Promise<(row: SweepRow) => Verdict> {
  switch (scorer.kind) {
    case "words": {
      const count = newWordCounter(scorer);
      return ({ text }) => count(text);
    }
    case "regex": {
      const match = newMatcher(scorer);
      return ({ text }) => match(text);
    }
    case "projection": {
      const above = scorer.above ?? meanOverTokens(baseline, ({ score }) => score);
      return ({ score }) => judgeActivation(score, above);
    }
    case "webhook": {
      // Cells that change nothing have the baseline's texts: each text is asked about once.
      const texts = [...new Set(cells.flatMap(({ rows }) => rows.map(({ text }) => text)))];
      const scores = await classify(texts);
      const known = new Map(texts.map((text, i) => [text, scores[i] as number]));
      return ({ text }) => judgeProbability(known.get(text) as number);
    }
  }
}

const shorten = (text: string, chars: number): string => (text.length <= chars ? text : `${text.slice(0, chars - 1)}…`);
