import { describe, expect, it } from "vitest";
import type { SweepResult } from "./contract.ts";
import { columnNames, cut, seriesOf } from "./plot-data.ts";
import { DosePlot } from "./plot-dose.tsx";
import { HeatMap } from "./plot-heat.tsx";
import { PAGE, picture, shorten, widthOf } from "./plot-parts.tsx";
import { toPng } from "./png.ts";
import { type TestSweep, testSweep } from "./test-result.ts";

const dose = (result: SweepResult, width = 940) => String(DosePlot({ result, theme: PAGE, width }));
const heat = (result: SweepResult, width = 940) => String(HeatMap({ result, method: "SIMPLE_ADDITIVE", theme: PAGE, width, id: "x" }));

interface Place {
  readonly x: number;
  readonly y: number;
}
/** Where the points of a panel are, by their cell. */
function points(svg: string, panel: string): Record<string, Place> {
  const [, group = ""] = svg.split(new RegExp(`<g class="(?:${panel})">`));
  const [own = ""] = group.split(/<g class="/);
  const found = own.matchAll(/<g transform="translate\(([-\d.]+) ([-\d.]+)\)" data-cell="(\w+)"/g);
  return Object.fromEntries([...found].map(([, x, y, cell]) => [cell, { x: Number(x), y: Number(y) }]));
}
const at = (places: Record<string, Place>, cell: number | string): Place => {
  const place = places[cell];
  if (place === undefined) throw new Error(`no point of cell ${cell}`);
  return place;
};
/** Every text with its place; rotated ones there are none. */
const letters = (svg: string) =>
  [...svg.matchAll(/<text[^>]* x="([-\d.]+)" y="([-\d.]+)"[^>]*>([^<]*)<\/text>/g)].map(([, x, y, text]) => ({
    x: Number(x),
    y: Number(y),
    text,
  }));
const boxOf = (svg: string) => (/viewBox="0 0 ([\d.]+) ([\d.]+)"/.exec(svg) ?? []).slice(1).map(Number) as [number, number];

describe("the dose-response plot", () => {
  const even = (more: TestSweep = {}) =>
    testSweep({
      strengths: [0, 10, 20, 40],
      metrics: (_, strength) => ({ success: strength / 40, perplexityRatio: 10 ** (strength / 20) }),
      ...more,
    });

  it("has each point where its numbers say", () => {
    const success = points(dose(even()), "success");
    expect(at(success, 2).x).toBeCloseTo((at(success, 0).x + at(success, 3).x) / 2, 0);
    expect(at(success, 1).x).toBeCloseTo((at(success, 0).x + at(success, 2).x) / 2, 0);
    // 0%, 25%, 50%, 100%
    expect(at(success, 2).y).toBeCloseTo((at(success, 0).y + at(success, 3).y) / 2, 0);
    expect(at(success, 1).y).toBeGreaterThan(at(success, 2).y);
  });

  it("has equal factors of perplexity equally far apart, when they are large", () => {
    const perplexity = points(dose(even()), "perplexity");
    // 1, 10, 100 times
    expect(at(perplexity, 2).y).toBeCloseTo((at(perplexity, 0).y + at(perplexity, 3).y) / 2, 0);
    const small = dose(even({ metrics: (_, strength) => ({ perplexityRatio: 1 + strength / 40 }) }));
    expect(small).not.toContain("log scale");
    expect(at(points(small, "perplexity"), 1).y).toBeCloseTo(
      (3 * at(points(small, "perplexity"), 0).y + at(points(small, "perplexity"), 3).y) / 4,
      0,
    );
  });

  it("has its ticks at the numbers they are labelled with", () => {
    const svg = dose(even());
    const success = points(svg, "success");
    const tick = (text: string) => letters(svg).find((each) => each.text === text) ?? { x: Number.NaN, y: Number.NaN };
    expect(tick("20").x).toBeCloseTo(at(success, 2).x, 0);
    expect(tick("100%").y).toBeCloseTo(at(success, 3).y + 4.5, 0);
    expect(tick("10×").y).toBeCloseTo(at(points(svg, "perplexity"), 2).y + 4.5, 0);
  });

  it("has the baseline at strength 0, with its own success", () => {
    const svg = dose(even());
    const { x, y } = at(points(svg, "success"), "baseline");
    const success = points(svg, "success");
    expect(x).toBe(at(success, 0).x);
    // An eighth of the way from 0% to 100%.
    expect(y).toBeCloseTo(at(success, 0).y + (at(success, 3).y - at(success, 0).y) / 8, 0);
    expect(at(points(svg, "perplexity"), "baseline").y).toBe(at(points(svg, "perplexity"), 0).y);
  });

  it("has the bound between what is within it and what is not, and marks the suggested strength", () => {
    const result = testSweep({ strengths: [5, 10, 20], maxPerplexityRatio: 1.5 });
    const svg = dose(result);
    const [, bound = ""] = /<g class="bound"><path d="M54 ([\d.]+)H/.exec(svg) ?? [];
    const perplexity = points(svg, "perplexity");
    expect([at(perplexity, 1).y > Number(bound), at(perplexity, 2).y < Number(bound)]).toEqual([true, true]);
    expect(result.suggested?.cell).toBe(1);
    expect(svg).toContain("suggested: 10 (73.1% success, 1.13× perplexity)");
    expect(svg).toContain(`<path d="M${at(perplexity, 1).x} `);
    expect(dose(testSweep({ strengths: [5, 10], maxPerplexityRatio: 900 }))).not.toContain('class="bound"');
  });

  it("leaves a gap where a cell failed", () => {
    const svg = dose(testSweep({ strengths: [2, 4, 6, 8], metrics: (_, strength) => (strength === 6 ? null : {}) }));
    expect(Object.keys(points(svg, "success")).sort()).toEqual(["0", "1", "3", "baseline"]);
    expect(svg).toMatch(/<path d="M[\d. ]+L[\d. ]+M[\d. ]+" fill="none"/);
  });

  it("shows the direction's activation where nothing was scored, and suggests nothing", () => {
    const svg = dose(testSweep({ scored: false, strengths: [-10, 10], metrics: (_, strength) => ({ activation: strength }) }));
    expect(points(svg, "success")).toEqual({});
    const activation = points(svg, "activation");
    expect(at(activation, 1).y).toBeLessThan(at(activation, 0).y);
    expect(svg).not.toContain("suggested");
  });

  it("is one panel where nothing has a perplexity", () => {
    const svg = dose(testSweep({ metrics: () => ({ perplexityRatio: null, perplexity: null }) }));
    const alone = { ...testSweep(), cells: [] };
    expect(Object.keys(points(svg, "perplexity"))).toEqual(["baseline"]);
    expect(
      dose({ ...alone, baseline: { ...alone.baseline, metrics: { ...alone.baseline.metrics, perplexityRatio: null } } }),
    ).not.toContain("Perplexity");
  });

  it("colours six lines, the suggested and the best ones, and leaves the others grey", () => {
    const result = testSweep({
      ...{ labels: ["a", "b"], layers: [0, 1, 2, 3, 4], strengths: [5, 10] },
      metrics: (column) => ({ success: column / 10, perplexityRatio: column === 9 ? 3 : 1.1 }),
    });
    const coloured = seriesOf(result).filter(({ place }) => place !== undefined);
    expect(coloured.map(({ name }) => name)).toEqual(["a, layer 3", "a, layer 4", "b, layer 0", "b, layer 1", "b, layer 2", "b, layer 3"]);
    const svg = dose(result);
    for (let place = 1; place <= 6; place++) expect(svg).toContain(`stroke="var(--s${place})"`);
    expect(svg).toContain("4 others");
  });

  it.each([340, 940])("keeps points and letters inside of its %d units, and letters off each other", (width) => {
    const svg = dose(
      testSweep({
        ...{ labels: ["a direction with a long name that has no room, whatever one does about it", "b"], layers: [0, 1, 2, 3] },
        ...{ strengths: [-1200, -10, 5, 10, 1500], methods: ["SIMPLE_ADDITIVE", "ORTHOGONAL_DECOMP"] },
      }),
      width,
    );
    const [w, h] = boxOf(svg);
    expect(w).toBe(width);
    for (const { x, y } of [...Object.values(points(svg, "success")), ...Object.values(points(svg, "perplexity"))])
      expect([x > 50, x < w, y > 0, y < h]).toEqual([true, true, true, true]);
    const axis = letters(svg).filter(({ text }) => /^[−\d.]+$/.test(text ?? ""));
    expect(axis.length).toBeGreaterThan(2);
    for (const [i, { x, text = "" }] of axis.entries()) {
      const next = axis[i + 1];
      if (next !== undefined) expect(next.x - x).toBeGreaterThan((widthOf(text) + widthOf(next.text ?? "")) / 2);
    }
  });
});

describe("the heat map", () => {
  const result = testSweep({
    ...{ layers: [2, 3], strengths: [20, 5, 10] },
    metrics: (column, strength) =>
      column === 1 && strength === 5 ? null : { success: strength / 20, perplexityRatio: strength === 20 ? 2 : 1 },
  });
  const cells = (svg: string) =>
    [...svg.matchAll(/<g transform="translate\(([\d.]+) ([\d.]+)\)" data-cell="(\d+)">(.*?)<\/g>/gs)].map(
      ([, x, y, cell, inside = ""]) => ({
        ...{ x: Number(x), y: Number(y), cell: Number(cell), over: inside.includes('class="over"') },
        ...{ shade: Number(/fill-opacity="([\d.]+)"/.exec(inside)?.[1]), text: />([^<>]*)<\/text>/.exec(inside)?.[1] },
      }),
    );

  it("has strengths in rising order from the left, columns from above, each with its number", () => {
    const all = cells(heat(result));
    const [first, second] = [all.slice(0, 3), all.slice(3)];
    expect(first.map(({ text }) => text)).toEqual(["100", "25", "50"]);
    const [twenty, five, ten] = first as unknown as [Place, Place, Place];
    expect([five.x < ten.x, ten.x < twenty.x, new Set(first.map(({ y }) => y)).size]).toEqual([true, true, 1]);
    expect(second.every(({ y }) => y > twenty.y)).toBe(true);
  });

  it("is darker with more success, hatched above the bound, and marks what failed", () => {
    const all = cells(heat(result));
    const [twenty, five, ten, , failed] = all;
    expect([(five?.shade ?? 1) < (ten?.shade ?? 0), (ten?.shade ?? 1) < (twenty?.shade ?? 0)]).toEqual([true, true]);
    expect(all.map(({ over }) => over)).toEqual([true, false, false, true, false, false]);
    expect(failed?.text).toBe("×");
    expect(heat(result)).toContain("Failed: The engine failed.");
  });

  it("is as wide as it must be for many strengths", () => {
    const many = heat(testSweep({ strengths: Array.from({ length: 40 }, (_, i) => i) }), 340);
    const [w] = boxOf(many);
    expect(w).toBeGreaterThan(340);
    for (const { x } of cells(many)) expect(x).toBeLessThan(w - 30);
  });
});

describe("both plots", () => {
  const EVIL = `</title><script>alert("1")</script> & 'two' \u0000\u0007 \ud800 🙂`;
  const evil = testSweep({ labels: [EVIL, "plain"], text: () => EVIL, metrics: (_, strength) => (strength === 5 ? null : {}) });

  it("are well-formed, whatever the texts and labels are", async () => {
    for (const svg of [dose(evil), dose(evil, 340), heat(evil)]) {
      expect(svg).not.toContain("<script");
      // A strict parser of XML: it takes no half surrogate pair, no control character, no tag left open.
      expect((await toPng(svg, 100)).length).toBeGreaterThan(100);
    }
    await expect(toPng(dose(evil).replace("</g>", ""), 100)).rejects.toThrow();
  });

  it("say at every point and cell what was found there, and what the first two texts are", () => {
    const result = testSweep({ strengths: [10], text: (_, row) => (row === 1 ? "long ".repeat(100) : `the text ${row}`) });
    for (const svg of [dose(result), heat(result)]) {
      const [title = ""] = svg.match(/<title>joy, SIMPLE_ADDITIVE[^<]*/) ?? [];
      expect(title).toMatch(
        /strength 10\nsuccess 73\.1%, perplexity 9, 1\.13 times the baseline&#39;s, KL 0\.25\n“the text 0”\n“long long .*…”$/,
      );
      expect(title.length).toBeLessThan(400);
    }
  });

  it("have the page's colours in a page, and their own in a picture", () => {
    const drawn = String(DosePlot({ result: evil, theme: picture("Some Font"), width: 800, height: 450, title: "A title" }));
    expect(drawn).not.toContain("var(");
    expect(boxOf(drawn)).toEqual([800, 450]);
    expect(dose(evil)).not.toMatch(/#[0-9a-f]{6}/);
    expect(dose(evil) + heat(evil)).not.toContain("style=");
  });
});

describe("names", () => {
  const column = (label: string, layer: number, hook = "resid_pre") => ({
    label,
    layer,
    hookName: `blocks.${layer}.hook_${hook}`,
    direction: 0,
  });

  it.each([
    [
      [column("a", 1), column("b", 1)],
      ["a", "b"],
    ],
    [
      [column("a", 1), column("a", 2)],
      ["a, layer 1", "a, layer 2"],
    ],
    [
      [column("a", 1), column("a", 1, "resid_post")],
      ["a, blocks.1.hook_resid_pre", "a, blocks.1.hook_resid_post"],
    ],
    [
      [column("a", 1), column("a", 1)],
      ["a, blocks.1.hook_resid_pre (1)", "a, blocks.1.hook_resid_pre (2)"],
    ],
  ])("are as long as it takes to tell columns apart", (columns, names) => {
    expect(columnNames(columns)).toEqual(names);
  });

  it("keep their end when they are shortened, and no half characters", () => {
    const name = shorten("a direction with a long name, layer 12", 140, { isName: true });
    expect([name.endsWith("layer 12"), name.startsWith("a"), widthOf(name) <= 140]).toEqual([true, true, true]);
    expect(cut("🙂🙂🙂🙂", 3)).toBe("🙂🙂…");
    expect(cut("abc", 3)).toBe("abc");
  });
});
