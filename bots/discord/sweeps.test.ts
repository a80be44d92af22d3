import { describe, expect, it } from "vitest";
import type { CellMetrics, Model, SweepCell, SweepResult } from "../../shared/client-types.ts";
import { toMessage } from "./asked.ts";
import { planSweep } from "./commands/sweep.ts";
import type { SweepView } from "./promised.ts";
import { readPress } from "./render.ts";
import { suggestedSteer, sweepingMessage, sweptMessage } from "./sweeps.ts";
import { newCheck } from "./test/openapi.ts";

const OWNER = "12345678901234567890";
const JOB_ID = `cm${"j7q2".repeat(6).slice(0, 23)}`;
const PLOT = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);

const feature = { modelId: "tales", layer: "3-dirs", index: 5, strength: 10, label: "Joy" };
const view: SweepView = { prompt: "One day", modelId: "tales", feature, ownerId: OWNER };
const model: Model = { id: "tales", layers: 4, width: 8, context: 256, chatTemplate: false, sources: [] };

const plan = (given: Record<string, string | number>, strength = 10) =>
  planSweep(
    model,
    { ...feature, strength },
    {
      text: (name) => (typeof given[name] === "string" ? given[name] : undefined),
      number: (name) => (typeof given[name] === "number" ? given[name] : undefined),
    },
  );

describe("the plan of a sweep", () => {
  it("is, when nothing else is said, as far to both sides of nothing as shows", () => {
    expect(plan({ prompt: "One day" })).toEqual({
      ...{ modelId: "tales", prompts: ["One day"], n_tokens: 48, methods: ["SIMPLE_ADDITIVE"], seeds: [16, 17, 18] },
      directions: [{ modelId: "tales", layer: "3-dirs", index: 5, label: "Joy" }],
      strengths: [-15, -10, -5, 5, 10, 15],
      ...{ temperature: 0.7, freq_penalty: 0.5 },
    });
  });

  it.each<[string, Record<string, string | number>, number[]]>([
    ["from and to", { from: 0, to: 20, steps: 5 }, [5, 10, 15, 20]],
    ["only to", { to: 6, steps: 3 }, [-6, 6]],
    ["only from", { from: -6, steps: 4 }, [-6, -2, 2, 6]],
    ["the greater first", { from: 3, to: 1, steps: 3 }, [3, 2, 1]],
    ["fractions", { from: 0, to: 1, steps: 4 }, [0.3333, 0.6667, 1]],
    ["one value", { from: 4, to: 4, steps: 7 }, [4]],
    ["another method, of which 0 does something", { from: -2, to: 2, steps: 3, method: "LATENT_CLAMP" }, [-2, 0, 2]],
    ["a method without strengths", { from: -2, to: 2, method: "ABLATE" }, [1]],
  ])("has strengths by %s", (_, given, strengths) => {
    expect(plan(given).strengths).toEqual(strengths);
  });

  it("has what was said of everything else", () => {
    const given = { words: " happy, glad,,happy; big smile ", layers: "1-2", seeds: 2, tokens: 20, temperature: 0, frequency_penalty: 1 };
    expect(plan(given)).toMatchObject({
      ...{ layers: [1, 2], seeds: [16, 17], n_tokens: 20, temperature: 0, freq_penalty: 1 },
      scorer: { kind: "words", words: ["happy", "glad", "big smile"] },
    });
  });

  it.each<[Record<string, string | number>, number, RegExp]>([
    [{}, 0, /needs strengths other than 0: give from and to/],
    [{ from: 0, to: 0 }, 10, /needs strengths other than 0/],
    [{ words: " , ," }, 10, /Write 1 to 2000 words/],
    [{ layers: "2-9" }, 10, /tales has the layers 0 to 3/],
  ])("is refused for %j", (given, strength, words) => {
    expect(() => plan(given, strength)).toThrow(words);
  });
});

const metrics = (success: number | null, perplexityRatio: number): CellMetrics => ({
  ...{ success, perplexity: 10 * perplexityRatio, perplexityRatio, kl: 0.25, dist2: 0.9, activation: 1 },
});
const cell = (strength: number, success: number | null, ratio: number, column = 0): SweepCell => ({
  ...{ column, method: "SIMPLE_ADDITIVE", strength, metrics: metrics(success, ratio), rows: [{ text: `at ${strength} ` }], error: null },
});
function swept(cells: SweepCell[], suggested: number | undefined, layers = [3]): SweepResult {
  return {
    ...{ id: JOB_ID, url: `https://tiller.example/sweep/${JOB_ID}`, maxPerplexityRatio: 1.5, cells },
    columns: layers.map((layer) => ({ label: "Joy", layer, hookName: `blocks.${layer}.hook_resid_pre` })),
    baseline: { metrics: { ...metrics(0.1, 1), perplexityRatio: 1 }, rows: [{ text: "plain *text*" }] },
    suggested: suggested === undefined ? null : { cell: suggested, sentence: "At 8, 67 % succeed." },
  };
}
const promised = (words = "happy") => ({ view, body: plan({ prompt: "One day", ...(words === "" ? {} : { words }) }) });
function shownOf(result: SweepResult, words?: string, plot: Uint8Array | undefined = PLOT) {
  const asked = promised(words);
  return sweptMessage(asked, result, { id: JOB_ID, suggested: suggestedSteer(asked, result), plot });
}
const check = newCheck();
function problemsOf(answer: ReturnType<typeof sweptMessage>): string[] {
  const { body, files } = toMessage(answer);
  const names = files.map(({ name }) => name);
  return check("PATCH /webhooks/{webhook_id}/{webhook_token}/messages/@original", JSON.parse(JSON.stringify(body)), names);
}
const rowsOf = (answer: ReturnType<typeof sweptMessage>) =>
  (answer.embeds?.[0]?.fields?.[0]?.value ?? "").split("\n").map((line) => line.trim().split(/\s{2,}/));
const buttonsOf = (answer: ReturnType<typeof sweptMessage>) =>
  (answer.components ?? []).flatMap((row) => (row as { components: { label: string; custom_id?: string; url?: string }[] }).components);

describe("an answer about a sweep", () => {
  const cells = [cell(-8, 0, 1.1), cell(4, 0.33, 1.2), cell(8, 0.67, 1.45), cell(12, 1, 3)];

  it("has the strengths in order with the plain texts first, the suggested one marked, its text beside the plain one", () => {
    const answer = shownOf(swept(cells, 2));
    expect(rowsOf(answer)).toEqual([
      ["```"],
      ["strength", "success", "perpl. ×", "KL", "dist-2"],
      ["plain", "10 %", "1.00", "0.00", "0.90"],
      ["-8", "0 %", "1.10", "0.25", "0.90"],
      ["4", "33 %", "1.20", "0.25", "0.90"],
      ["→ 8", "67 %", "1.45", "0.25", "0.90"],
      ["12", "100 %", "3.00", "0.25", "0.90"],
      ["```"],
    ]);
    const [, plain, steered] = answer.embeds?.[0]?.fields ?? [];
    expect([plain, steered]).toMatchObject([
      { name: "Not steered", value: "plain \\*text\\*" },
      { name: "At 8", value: "at 8" },
    ]);
    expect(answer.embeds?.[0]?.description).toBe("**Prompt** One day\n\nAt 8, 67 % succeed.");
  });

  it("shows the plot as a picture, byte for byte", () => {
    const answer = shownOf(swept(cells, 2));
    expect(answer.embeds?.[0]?.image?.url).toBe("attachment://dose-response.png");
    const { body, files } = toMessage(answer);
    expect(files).toEqual([{ name: "dose-response.png", data: PLOT, contentType: "image/png" }]);
    expect(body).toMatchObject({ attachments: [{ id: "0", filename: "dose-response.png" }] });
    const bare = sweptMessage(promised(), swept(cells, 2), { id: JOB_ID, suggested: undefined, plot: undefined });
    expect([bare.embeds?.[0]?.image, bare.files, problemsOf(bare)]).toEqual([undefined, [], []]);
  });

  it("has a button that steers as the suggested cell did, and a link", () => {
    const result = swept(cells, 2);
    const [steer, open] = buttonsOf(shownOf(result));
    expect(steer?.label).toBe("Steer at 8");
    expect(readPress(steer?.custom_id ?? "")).toEqual({ verb: "sweep-steer", about: JOB_ID, ownerId: OWNER });
    expect(open).toMatchObject({ label: "Open", url: result.url });
    expect(suggestedSteer(promised(), result)).toEqual({
      view: { prompt: "One day", modelId: "tales", ownerId: OWNER, features: [{ ...feature, strength: 8 }] },
      body: {
        ...{ prompt: "One day", modelId: "tales", features: [{ modelId: "tales", layer: "3-dirs", index: 5, strength: 8 }] },
        ...{ temperature: 0.7, freq_penalty: 0.5, n_tokens: 48, seed: 16, strength_multiplier: 1, n_logprobs: 0 },
        steer_method: "SIMPLE_ADDITIVE",
      },
    });
  });

  it("says why nothing is suggested, and then only links", () => {
    const none = shownOf(swept(cells, undefined));
    expect(none.embeds?.[0]?.description).toMatch(/No strength is suggested: none made the words come .* within 1.5 times/);
    const unscored = shownOf(swept([cell(8, null, 1.1)], undefined), "");
    expect(unscored.embeds?.[0]?.description).toMatch(/Nothing says what success is.*give `words`/);
    expect(rowsOf(unscored)[3]).toEqual(["8", "–", "1.10", "0.25", "0.90"]);
    for (const answer of [none, unscored]) expect(buttonsOf(answer).map(({ label }) => label)).toEqual(["Open"]);
  });

  it("of several layers tells the layer, and steers only at the direction's own", () => {
    const result = swept([cell(8, 1, 1.1, 0), cell(8, 0.5, 1.1, 1)], 0, [2, 3]);
    const answer = shownOf(result);
    expect(rowsOf(answer)[1]).toEqual(["strength", "layer", "success", "perpl. ×", "KL", "dist-2"]);
    expect(rowsOf(answer)[3]?.slice(0, 3)).toEqual(["→ 8", "2", "100 %"]);
    expect(answer.embeds?.[0]?.description).toContain("takes a direction at its own layer, 3: keep it at layer 2 to steer there");
    expect(buttonsOf(answer).map(({ label }) => label)).toEqual(["Open"]);
    expect(buttonsOf(shownOf({ ...result, suggested: { cell: 1, sentence: "." } })).map(({ label }) => label)).toEqual([
      "Steer at 8",
      "Open",
    ]);
  });

  it("of very many cells has the best: the suggested one, those within the bound, those with most success", () => {
    const many = Array.from({ length: 40 }, (_, i) => cell(i + 1, i < 20 ? i / 20 : 1, i < 20 ? 1 + i / 100 : 9));
    const answer = shownOf(swept(many, 3));
    expect(answer.embeds?.[0]?.fields?.[0]?.name).toBe("The best 12 of 40 cells");
    const strengths = rowsOf(answer)
      .slice(3, -1)
      .map(([strength]) => strength);
    expect(strengths).toEqual(["→ 4", ...Array.from({ length: 11 }, (_, i) => String(10 + i))]);
  });

  it("tells of cells that have no texts", () => {
    const failed: SweepCell = { ...cell(99, null, 1), metrics: null, rows: [], error: "The edit changed nothing." };
    const answer = shownOf(swept([cell(8, 1, 1.1), failed], 0));
    expect(answer.embeds?.[0]?.description).toContain("1 of 2 cells have no texts: The edit changed nothing.");
    expect(rowsOf(answer)[4]).toEqual(["99", "–", "–", "–", "–"]);
  });

  it.each(["*".repeat(3000), "😀".repeat(1500), "@everyone ".repeat(300), " \n"])("holds Discord's limits for texts like %j", (text) => {
    const many = Array.from({ length: 640 }, (_, i) => ({
      ...cell(-1234.5678 * i - 1, 1, 123_456.789 * (i + 1), i % 3),
      rows: [{ text }],
    }));
    const result = swept(many, 639, [1, 2, 3]);
    const told = { ...result, suggested: { cell: 639, sentence: text }, baseline: { ...result.baseline, rows: [{ text }] } };
    const long = { ...view, prompt: text, feature: { ...feature, label: text } };
    const failing = { ...told, cells: told.cells.map((each, i) => (i === 0 ? { ...each, error: text } : each)) };
    for (const shown of [told, failing])
      expect(
        problemsOf(sweptMessage({ view: long, body: promised().body }, shown, { id: JOB_ID, suggested: undefined, plot: PLOT })),
      ).toEqual([]);
    for (const state of ["queued", "running"] as const) {
      const growing = sweepingMessage(long, { state, jobId: JOB_ID, texts: { STEERED: "", DEFAULT: "" }, done: 3, of: 24 });
      expect(problemsOf(growing)).toEqual([]);
      expect(growing.embeds?.[0]?.footer?.text).toBe(state === "queued" ? "Waits for its turn" : "Writing: 3 of 24 texts");
    }
  });
});
