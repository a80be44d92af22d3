import { describe, expect, it } from "vitest";
import { groupsOf } from "./cells.ts";
import type { CellMetrics, SweepCell, SweepRow } from "./contract.ts";
import { metricsOf, suggest } from "./metrics.ts";
import { toResult } from "./result.ts";
import type { StoredSweep } from "./stored.ts";

const row = (changes: Partial<SweepRow> = {}): SweepRow => ({
  ...{ prompt: 0, seed: 1, text: "one two three", tokens: 3, perplexity: 4, kl: 0.5, activation: 2, score: 1, success: true },
  ...changes,
});

describe("metrics of a cell", () => {
  it("weigh what is per token by tokens", () => {
    const metrics = metricsOf([row(), row({ tokens: 9, perplexity: 16, kl: 0.1, activation: -2 })], 0.2, 2);
    // 3 tokens of ln 4 nats and 9 of ln 16: as one text of 12 tokens.
    expect(metrics.perplexity).toBeCloseTo(Math.exp((3 * Math.log(4) + 9 * Math.log(16)) / 12), 12);
    expect(metrics.perplexityRatio).toBeCloseTo((metrics.perplexity ?? 0) / 2, 12);
    expect(metrics.kl).toBeCloseTo((3 * 0.5 + 9 * 0.1) / 12, 12);
    expect(metrics.activation).toBeCloseTo((3 * 2 - 9 * 2) / 12, 12);
    expect(metrics).toMatchObject({ tokens: 12, change: 0.2, success: 1 });
  });

  it("count different words among the texts of one prompt, and mean over prompts", () => {
    const texts = [row({ text: "a b" }), row({ text: "a b", seed: 2 }), row({ text: "a b", prompt: 1 })];
    expect(metricsOf(texts, 0)).toMatchObject({ dist1: (2 / 4 + 2 / 2) / 2, dist2: (1 / 4 + 1 / 2) / 2, dist3: 0 });
  });

  it("say how much texts repeat themselves, and how many succeed", () => {
    const texts = [row({ text: "a b c d a b c d" }), row({ text: "a b c d", success: false }), row({ text: "too short", success: false })];
    expect(metricsOf(texts, 0)).toMatchObject({ repetition: expect.closeTo((1 / 5 + 0) / 2, 12), success: 1 / 3 });
  });

  it("are null where nothing can be said", () => {
    const empty = row({ text: "", tokens: 0, perplexity: null, kl: null, activation: null, score: null, success: null });
    const none = { success: null, perplexity: null, perplexityRatio: null, kl: null, activation: null, dist1: null, repetition: null };
    expect(metricsOf([empty], 0, 3)).toMatchObject({ ...none, tokens: 0 });
    expect(metricsOf([row()], 0, null).perplexityRatio).toBeNull();
    // A text that ended at once changes no mean.
    expect(metricsOf([row(), empty], 0, 4)).toMatchObject({ perplexity: expect.closeTo(4, 12), kl: 0.5 });
  });
});

describe("the suggested cell", () => {
  const columns = [{ label: "joy", layer: 3, hookName: "blocks.3.hook_resid_pre", direction: 0 }];
  const metrics = (success: number | null, perplexity: number): CellMetrics => ({
    ...metricsOf([row()], 0, 4),
    ...{ success, perplexity, perplexityRatio: perplexity / 4 },
  });
  const cell = (strength: number, success: number | null, perplexity: number): SweepCell => ({
    ...{ column: 0, method: "SIMPLE_ADDITIVE", strength, metrics: metrics(success, perplexity), rows: [], error: null },
  });
  const baseline = metrics(0.25, 4);
  const failed: SweepCell = { ...cell(99, 1, 4), metrics: null, error: "it failed" };
  const chosen = (...cells: SweepCell[]) => suggest(cells, columns, baseline, 1.5)?.cell;

  it("has the most success within the bound", () => {
    expect(chosen(cell(2, 0.5, 4), cell(4, 0.75, 6), cell(8, 1, 6.001), failed)).toBe(1);
  });

  it("is, of equals, the one the model finds more likely, then the gentler one", () => {
    expect(chosen(cell(4, 0.5, 5), cell(8, 0.5, 4))).toBe(1);
    expect(chosen(cell(-8, 0.5, 5), cell(4, 0.5, 5))).toBe(1);
  });

  it("is none where no cell does better than the baseline, and without a scorer", () => {
    expect(chosen(cell(2, 0.25, 4), cell(4, 0.1, 4))).toBeUndefined();
    expect(suggest([cell(2, null, 4)], columns, metrics(null, 4), 1.5)).toBeNull();
  });

  it("is told in a sentence", () => {
    expect(suggest([cell(4, 0.75, 5)], columns, baseline, 1.5)?.sentence).toBe(
      "SIMPLE_ADDITIVE with strength 4 along 'joy' at blocks.3.hook_resid_pre: 75% of its texts are a success (baseline: 25%), and their perplexity is 1.25 times the baseline's.",
    );
  });
});

describe("a grid", () => {
  const sweep = (changes: Partial<StoredSweep["body"]>, columns: number, rows: number): StoredSweep =>
    ({
      columns: Array.from({ length: columns }, (_, i) => ({
        label: "joy",
        layer: i,
        hookName: `blocks.${i}.hook_resid_pre`,
        direction: 0,
      })),
      rows,
      body: { prompts: ["a"], seeds: [1], methods: ["SIMPLE_ADDITIVE"], strengths: [-4, 0, 4], maxPerplexityRatio: 1.5, ...changes },
    }) as StoredSweep;

  it("is worked on in groups that fit into one generation: every text once, the baseline first", () => {
    for (const [columns, rows] of [
      ...[
        [1, 1],
        [1, 4],
        [3, 4],
        [40, 31],
      ],
    ] as [number, number][]) {
      const groups = groupsOf(sweep({ prompts: ["a", "b"], seeds: [1, 2] }, columns, rows));
      const cells = columns * 3;
      for (const [prompt, seed] of [
        [0, 1],
        [1, 2],
      ]) {
        const own = groups.filter((group) => group.prompt === prompt && group.seed === seed).map((group) => group.cells);
        expect(own.flat().toSorted((a, b) => a - b)).toEqual(Array.from({ length: cells + 1 }, (_, i) => i - 1));
        expect(own[0]?.[0]).toBe(-1);
        // Cells of strength 0 (1, 4, 7, ...) share the baseline's row, and a reading has at most 64 targets.
        const rowsOf = (group: readonly number[]) => new Set(group.map((cell) => (cell === -1 || cell % 3 === 1 ? "plain" : cell))).size;
        for (const group of own) expect([rowsOf(group) <= rows, group.length <= 31]).toEqual([true, true]);
      }
    }
  });

  it("of the largest size is a result that can be kept, whatever its texts are", async () => {
    const large = sweep(
      { prompts: Array.from({ length: 16 }, () => "p".repeat(2048)), strengths: Array.from({ length: 39 }, (_, i) => i + 1) },
      1,
      15,
    );
    const found = groupsOf(large).flatMap(({ prompt, seed, cells }) =>
      cells.map((cell) => ({
        ...{ cell, change: 0.123456789012345, error: null },
        rows: [row({ prompt, seed, text: "=".repeat(62 * 128), perplexity: 12.345678901234567, kl: 1.2345678901234567 })],
      })),
    );
    expect(found.length).toBe(640);
    const result = await toResult(
      { id: "cm1", origin: "http://edge.test", modelId: "m", totalMs: 1 },
      large,
      undefined,
      found,
      async () => [],
    );
    expect(JSON.stringify(result).length).toBeLessThan(1_000_000);
    expect(result.cells[0]?.rows[0]?.text).toMatch(/^=+…$/);
    // What is said of a text is said of all of it.
    expect(result.cells[0]?.metrics?.tokens).toBe(48);
  });
});
