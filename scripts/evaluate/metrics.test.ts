import { describe, expect, it } from "vitest";
import type { Cell, Written } from "./cells.ts";
import { type Classifier, parseLexicon } from "./lexicon.ts";
import { type CellResult, resultsOf } from "./metrics.ts";
import type { Done } from "./partial.ts";
import { plot } from "./plot.ts";

const classifier: Classifier = { lexicon: parseLexicon("good\t1\nbad\t-1\n", "ours.txt"), negation: false, silent: 0 };
const cells: Cell[] = [0, -1, 1].map((strength) => ({
  ...{ name: `cell ${strength}`, method: strength === 0 ? "baseline" : "pca", strength, edits: [] },
}));
const written = (text: string, perplexity: number | null, tokens = 4, kl: number | null = 0): Written => ({
  ...{ text, perplexity, tokens, kl, change: 0.25 },
});
const unit = (prompt: number, sample: number, texts: readonly Written[]): Done => ({ prompt, sample, written: texts });
const units = [
  unit(0, 0, [written("good good", 4), written("bad", 8, 1, 2), written("good dog", 2e4)]),
  unit(0, 1, [written("good cat", 6), written("a bad day", 12, 3, 1), written("good cow", 10)]),
  unit(1, 0, [written("a b c d e", 5), written("", null, 0, null), written("good a b c d a b c d", 5)]),
];
const [base, down, up] = resultsOf(cells, units, classifier).map(({ metrics }) => metrics);

describe("what a cell's texts have in common", () => {
  it("is success on the side that the cell steers to", () => {
    expect(base).toMatchObject({ success: null, positive: 2 / 3, negative: 0 });
    expect(down).toMatchObject({ success: 2 / 3, positive: 0, negative: 2 / 3 });
    expect(up).toMatchObject({ success: 1, positive: 1, negative: 0 });
  });

  it("is the mean perplexity of texts, without those above 10,000 and those without a token, which are counted", () => {
    expect(base).toMatchObject({ perplexity: 5, dropped: 0, empty: 0 });
    expect(down).toMatchObject({ perplexity: 10, dropped: 0, empty: 1 });
    expect(up).toMatchObject({ perplexity: 7.5, dropped: 1, empty: 0 });
  });

  it("is the geometric mean of all perplexities, and its ratio to the baseline's", () => {
    expect(base?.perplexity_geometric).toBeCloseTo((4 * 6 * 5) ** (1 / 3));
    expect(up?.perplexity_geometric).toBeCloseTo((2e4 * 10 * 5) ** (1 / 3));
    expect(base?.perplexity_ratio).toBe(1);
    expect(down?.perplexity_ratio).toBeCloseTo(Math.sqrt(8 * 12) / (4 * 6 * 5) ** (1 / 3));
  });

  it("is distinct n-grams by words over the texts of each prompt, then over prompts", () => {
    // good, cat of 4 words; a .. e of 5.
    expect(base?.dist1).toBeCloseTo((2 / 4 + 5 / 5) / 2);
    expect(base?.dist2).toBeCloseTo((2 / 4 + 4 / 5) / 2);
    // The second prompt's only text has no words: nothing can be said of it.
    expect(down?.dist1).toBeCloseTo(3 / 4);
  });

  it("is repetition by texts and KL by tokens", () => {
    expect(up?.repetition).toBeCloseTo(1 / 6);
    expect(down?.kl).toBeCloseTo((2 * 1 + 1 * 3) / 4);
    expect(base?.change).toBe(0.25);
  });

  it("can be drawn where there is nothing to say", () => {
    const results = resultsOf(cells, units, classifier);
    const silent: CellResult[] = results.map((result) => ({ ...result, metrics: { ...result.metrics, perplexity_geometric: null } }));
    const svg = plot(silent, "a & b", { positive: "<good>", negative: "bad" }, "share");
    expect(svg).toContain("<title>a &amp; b</title>");
    expect(svg).toContain("texts that are &lt;good&gt;");
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  });
});
