// Sweeps for tests: a whole result from a few numbers, as a function of column and strength, and the plan of the job that had it.
import type { SweepPlan } from "../jobs/stored.ts";
import type { CellMetrics, SweepBody, SweepCell, SweepResult, SweepRow } from "./contract.ts";

export interface TestSweep {
  readonly id?: string;
  readonly labels?: readonly string[];
  readonly layers?: readonly number[];
  readonly strengths?: readonly number[];
  readonly methods?: SweepResult["methods"];
  readonly prompts?: readonly string[];
  readonly seeds?: readonly number[];
  readonly maxPerplexityRatio?: number;
  /** What is not said is as of a direction that works at strength 10 and breaks the texts from 20 on; null = the cell failed. */
  readonly metrics?: (column: number, strength: number, method: SweepCell["method"]) => Partial<CellMetrics> | null;
  readonly text?: (cell: number, row: number) => string;
  /** false: nothing has a success. */
  readonly scored?: boolean;
}

const BASELINE: CellMetrics = {
  ...{ success: 0.125, perplexity: 8, perplexityRatio: 1, kl: 0, dist1: 0.8, dist2: 0.95, dist3: 1, repetition: 0.01 },
  ...{ activation: 0.5, change: 0, tokens: 192 },
};

export function metricsAt(strength: number): CellMetrics {
  const ratio = 1 + Math.abs(strength / 20) ** 3;
  return {
    ...{ success: 1 / (1 + Math.exp((8 - strength) / 2)), perplexity: 8 * ratio, perplexityRatio: ratio, kl: strength ** 2 / 400 },
    ...{ dist1: 0.8, dist2: 0.9, dist3: 0.98, repetition: 0.02, activation: 0.5 + strength / 10, change: Math.abs(strength) / 50 },
    tokens: 192,
  };
}

export function testSweep(given: TestSweep = {}): SweepResult {
  const { id = "cmtest", labels = ["joy"], layers = [3], strengths = [-10, 5, 10, 20], methods = ["SIMPLE_ADDITIVE"] } = given;
  const { prompts = ["The children walked home and", "One day"], seeds = [1, 2], scored = true, maxPerplexityRatio = 1.5 } = given;
  const { metrics = () => ({}), text = (cell, row) => `text ${row} of cell ${cell}` } = given;
  const columns = labels.flatMap((label, direction) =>
    layers.map((layer) => ({ label, layer, hookName: `blocks.${layer}.hook_resid_pre`, direction })),
  );
  const rowsOf = (cell: number, { success, perplexity, kl, activation }: CellMetrics): SweepRow[] =>
    prompts.flatMap((_, prompt) =>
      seeds.map((seed, place) => {
        const row = prompt * seeds.length + place;
        const succeeds = success === null ? null : row < success * prompts.length * seeds.length;
        return {
          prompt,
          seed,
          text: text(cell, row),
          tokens: 48,
          perplexity,
          kl,
          activation,
          score: succeeds === null ? null : Number(succeeds),
          success: succeeds,
        };
      }),
    );
  const scoredOnly = (all: CellMetrics): CellMetrics => (scored ? all : { ...all, success: null });
  const cells: SweepCell[] = [];
  for (const column of columns.keys())
    for (const method of methods)
      for (const strength of strengths) {
        const own = metrics(column, strength, method);
        const all = scoredOnly({ ...metricsAt(strength), ...own });
        const place = { column, method, strength };
        if (own === null) cells.push({ ...place, metrics: null, rows: [], error: "The engine failed." });
        else cells.push({ ...place, metrics: all, rows: rowsOf(cells.length, all), error: null });
      }
  const best = cells
    .map((cell, place) => ({
      place,
      success: (cell.metrics?.perplexityRatio ?? Infinity) <= maxPerplexityRatio ? (cell.metrics?.success ?? -1) : -1,
    }))
    .reduce((a, b) => (b.success > a.success ? b : a));
  const baseline = scoredOnly(BASELINE);
  return {
    ...{ id, url: `http://edge.test/sweep/${id}`, csvUrl: `http://edge.test/api/sweeps/${id}/csv`, modelId: "tiller-tales" },
    ...{ prompts: [...prompts], columns, strengths: [...strengths], methods: [...methods], seeds: [...seeds], maxPerplexityRatio },
    ...{ baseline: { metrics: baseline, rows: rowsOf(-1, baseline) }, cells },
    suggested: best.success < 0 ? null : { cell: best.place, sentence: `Strength ${cells[best.place]?.strength} works best.` },
    timing: { totalMs: 1234 },
  };
}

/** What a job had to do whose result this is. */
export const planOf = ({ columns, modelId, prompts, strengths, methods, seeds, maxPerplexityRatio }: SweepResult): SweepPlan => ({
  ...{ quota: { identifier: "test", limit: 1 }, origin: "http://edge.test" },
  sweep: {
    body: {
      ...{
        modelId,
        prompts,
        chat: false,
        strengths,
        methods: methods as SweepBody["methods"],
        seeds,
        positions: "all",
        schedule: "constant",
        steer_special_tokens: true,
      },
      ...{ temperature: 0.7, top_p: 1, top_k: 0, freq_penalty: 0, presence_penalty: 0, stop: [], n_tokens: 48, maxPerplexityRatio },
    },
    ...{ columns, rows: 16 },
  },
});
