import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { fixtures } from "../../gpu-functions/cpu/fixture.ts";
import { type RunOptions, STOPPED } from "../long-run.ts";
import { HELP, runEvaluate } from "./index.ts";
import type { CellResult } from "./metrics.ts";
import type { Results } from "./report.ts";
import { FILES } from "./run.ts";

const MODEL = "tiny-saes";
const temporary = mkdtempSync(path.join(tmpdir(), "evaluate-run-"));
const directory = path.join(temporary, "models", MODEL);
const environment = { TILLER_MODELS: path.join(temporary, "models") };
const file = (name: string) => path.join(temporary, name);
const out = file("out");

const NAMES = ["Anna", "Ben", "Lily", "Tom", "Mia", "Sam"];
const happy = ["was happy and laughed", "had a wonderful day", "smiled, it was so much fun", "loved the lovely party"];
const sad = ["was sad and cried", "had a terrible day", "wept, it was all lost", "hated the awful rain"];
const sentences = (ends: readonly string[]) => NAMES.flatMap((name) => ends.map((end) => `${name} ${end}.`));
const rows = [...sentences(happy).map((text) => `"${text}",1`), ...sentences(sad).map((text) => `"${text}",0`)];

beforeAll(() => {
  cpSync(path.join(fixtures, "tiny-gpt2"), directory, { recursive: true });
  cpSync(path.join(fixtures, "saes", "sources"), path.join(directory, "sources"), { recursive: true });
  writeFileSync(file("data.csv"), `text,label\n${rows.join("\n")}\n`);
  writeFileSync(file("prompts.txt"), "One day\nThe dog saw\nThen she\n");
});
afterAll(() => rmSync(temporary, { recursive: true }));
beforeEach(() => rmSync(out, { recursive: true, force: true }));

interface Run {
  readonly said: string[];
  readonly outcome: Promise<string>;
}
/** A run whose clock goes on by ten seconds whenever it is read; `watch` sees each line of progress and may stop it. */
function run(args: readonly string[], watch: (line: string, stop: () => void) => void = () => undefined): Run {
  const controller = new AbortController();
  const said: string[] = [];
  let clock = 0;
  const options: RunOptions = {
    environment,
    progress: { live: false, write: (line) => watch(line, () => controller.abort()), now: () => (clock += 10_000) },
    say: (line) => said.push(line),
    signal: controller.signal,
    date: () => new Date(0),
  };
  return { said, outcome: runEvaluate(args, options) };
}
const args = (...more: string[]) => [
  ...["--task", "sentiment", "--model", MODEL, "--data", file("data.csv"), "--prompts", file("prompts.txt"), "--out", out],
  ...["--tokens", "8", "--samples", "2", "--strengths", "0.2,0.5", "--texts", "20", "--sae", "2-standard", "--latents", "4"],
  ...more,
];
const complete = async (...more: string[]) => {
  const { said, outcome } = run(args(...more));
  expect(await outcome).toBe("done");
  return said;
};
const place = (name: keyof typeof FILES) => path.join(out, FILES[name]);
const results = () => JSON.parse(readFileSync(place("results"), "utf8")) as Results;
const cellOf = (cells: readonly CellResult[], method: string, strength: number) =>
  cells.find((cell) => cell.method === method && cell.strength === strength) as CellResult;

describe("a run", () => {
  it("has the unsteered model first, then every method at every strength, both ways", async () => {
    const said = await complete();
    const { cells, vectors, settings, prompts } = results();
    const signed = [-0.5, -0.2, 0.2, 0.5];
    expect(cells.map(({ method, strength }) => [method, strength])).toEqual([
      ["baseline", 0],
      ...["mean_difference", "pca", "sae"].flatMap((method) => signed.map((strength) => [method, strength])),
    ]);
    expect(prompts.toSorted()).toEqual(["One day", "The dog saw", "Then she"]);
    for (const { texts } of cells)
      expect(texts.map(({ prompt, sample }) => [prompt, sample])).toEqual(
        [0, 1, 2].flatMap((prompt) => [0, 1].map((sample) => [prompt, sample])),
      );
    const samples = (cells[0] as CellResult).texts.slice(0, 2).map(({ text }) => text);
    expect(samples[0]).not.toBe(samples[1]);
    expect(vectors.map(({ method, point }) => [method, point])).toEqual(
      ["mean_difference", "pca", "sae"].map((method) => [method, "blocks.2.hook_resid_pre"]),
    );
    for (const { auc_held_out } of vectors) expect(auc_held_out).toEqual(expect.any(Number));
    expect(settings).toMatchObject({ layer: 2, unit: "share", positions: "all" });
    expect(said.at(-1)).toContain(out);
    expect(readdirSync(out).sort()).toEqual([FILES.plot, FILES.results, FILES.table].sort());
  });

  it("steers by the share of the stream that was asked for, and the unsteered texts are the model's own", async () => {
    await complete();
    const { cells } = results();
    const base = (cells[0] as CellResult).metrics;
    expect(base).toMatchObject({ success: null, change: 0, kl: 0, perplexity_ratio: 1, texts: 6 });
    for (const { strength, metrics } of cells.slice(1)) {
      // The residual of a prompt is not as long as that of the texts; twice the strength is twice the change.
      expect(metrics.change).toBeGreaterThan(Math.abs(strength) / 2);
      expect(metrics.change).toBeLessThan(Math.abs(strength) * 2);
      expect(metrics.kl).toBeGreaterThan(0);
    }
    for (const method of ["mean_difference", "pca", "sae"]) {
      const [weak, strong] = [0.2, 0.5].map((strength) => cellOf(cells, method, strength).metrics.kl as number);
      expect(strong).toBeGreaterThan(weak as number);
    }
  });

  it("writes a table with a row for each cell, and a plot with a line for each method", async () => {
    const said = await complete();
    const table = readFileSync(place("table"), "utf8");
    expect(said).toContain(table);
    expect(table).toMatch(/^\| baseline \| {2}\| {2}\| \d+% \| \d+% \| [\d.]+ \| [\d.]+ \| 1\.00 \| 0 \|/m);
    for (const method of ["mean_difference", "pca", "sae"])
      for (const strength of ["-0.5", "-0.2", "+0.2", "+0.5"])
        expect(table.split("\n").filter((line) => line.startsWith(`| ${method} | ${strength} |`))).toHaveLength(2);
    expect(table).toContain("data.csv: table with 'text' and 'label' (0 and 1); 24 positive, 24 negative.");
    const svg = readFileSync(place("plot"), "utf8");
    expect(svg.match(/<path d="M[^"]*" fill="none"/g)).toHaveLength(3 * 3);
    expect(svg).toContain("texts that are positive");
    expect(svg).not.toMatch(/NaN|undefined/);
  });

  it("tells how the classifier does on the texts that the vectors were not made from", async () => {
    await complete();
    expect(results().classifier.texts).toEqual({ positive: 24, negative: 24 });
    expect(results().notes.join()).toContain("no other texts to judge the classifier on");
    await complete("--texts", "12");
    const { classifier } = results();
    expect(classifier.texts).toEqual({ positive: 12, negative: 12 });
    expect(classifier.right_of_decided).toBe(1);
  });

  it("has NeuroSteer's settings, with a vector of its own for the other side", async () => {
    await complete("--neurosteer", "--strengths", "3", "--tokens", "6");
    const { settings, vectors, cells } = results();
    expect(settings).toMatchObject({
      ...{ methods: ["sae"], unit: "vector", exchange: true, positions: "prompt_except_last" },
      ...{ temperature: 0.9, top_p: 0.3, frequency_penalty: 1, tokens: 6 },
    });
    const [there, back] = vectors;
    expect(vectors).toHaveLength(2);
    expect([there?.exchanged, back?.exchanged]).toEqual([false, true]);
    const chosen = (vector: typeof there) => new Set(vector?.latents?.filter(({ value }) => value !== 0).map(({ index }) => index));
    expect(chosen(there).isDisjointFrom(chosen(back))).toBe(true);
    expect(cells.map(({ strength }) => strength)).toEqual([0, -3, 3]);
  });

  it("takes the perplexity of a judge when one is asked for", async () => {
    cpSync(directory, path.join(temporary, "models", "judge"), { recursive: true });
    await complete();
    const own = results();
    // The same model by another name reads the texts instead of the tokens: as a rule these are the same.
    await complete("--judge", "judge");
    const judged = results();
    expect(judged.cells.map(({ texts }) => texts.map(({ text }) => text))).toEqual(
      own.cells.map(({ texts }) => texts.map(({ text }) => text)),
    );
    expect(judged.settings.judge).toBe("judge");
    expect(judged.inputs).not.toBe(own.inputs);
    for (const [i, { metrics }] of judged.cells.entries()) expect(metrics.kl).toBe(own.cells[i]?.metrics.kl);
    expect(readFileSync(place("table"), "utf8")).toContain("Perplexity is judge's");
  });

  it("has the bundled model write happier on one side than on the other", async () => {
    const wanted = ["--methods", "mean_difference", "--strengths", "0.35", "--texts", "24", "--tokens", "24"];
    const { outcome } = run([
      "--task",
      "sentiment",
      "--data",
      file("data.csv"),
      "--prompt-count",
      "8",
      "--samples",
      "1",
      "--out",
      out,
      ...wanted,
    ]);
    expect(await outcome).toBe("done");
    const { cells, vectors } = results();
    const [base, down, up] = cells.map(({ metrics }) => metrics);
    expect(vectors[0]?.auc_held_out).toBeGreaterThan(0.9);
    expect(up?.positive).toBeGreaterThanOrEqual(base?.positive ?? 1);
    expect(up?.positive).toBeGreaterThan(down?.positive ?? 1);
    expect(down?.negative).toBeGreaterThan(up?.negative ?? 1);
  });
});

describe("a run that is stopped", () => {
  const stopAt = (pattern: RegExp) => (line: string, stop: () => void) => {
    if (pattern.test(line)) stop();
  };

  it("goes on where it was, and its results are the same to the byte", async () => {
    await complete();
    const wanted = readFileSync(place("results"));
    rmSync(out, { recursive: true });
    expect(await run(args(), stopAt(/Vectors/)).outcome).toBe(STOPPED);
    expect(existsSync(place("partial"))).toBe(false);
    const first = run(args(), stopAt(/Steering/));
    expect(await first.outcome).toBe(STOPPED);
    const count = /^Stopped at (\d) of 6 continuations of prompts. The same command goes on from there.$/.exec(
      first.said.at(-1) ?? "",
    )?.[1];
    expect(Number(count)).toBeGreaterThan(0);
    expect(existsSync(place("results"))).toBe(false);
    const said = await complete();
    expect(said[0]).toBe(`Going on after ${count} of 6 continuations of prompts.`);
    expect(readFileSync(place("results")).equals(wanted)).toBe(true);
    expect(existsSync(place("partial"))).toBe(false);
  });

  it("goes on from whole lines when it was killed while it wrote one, and when it is stopped after that", async () => {
    await complete();
    const wanted = readFileSync(place("results"));
    rmSync(out, { recursive: true });
    await run(args(), stopAt(/Steering [3-9]\d%/)).outcome;
    const units = () => readFileSync(place("partial"), "utf8").trimEnd().split("\n").length - 1;
    const noted = readFileSync(place("partial"), "utf8");
    writeFileSync(place("partial"), noted.split("\n").slice(0, 3).join("\n").slice(0, -20));
    const again = run(args(), stopAt(/Steering [3-9]\d%/));
    expect(await again.outcome).toBe(STOPPED);
    expect(again.said[0]).toBe("Going on after 1 of 6 continuations of prompts.");
    const count = units();
    expect((await complete())[0]).toBe(`Going on after ${count} of 6 continuations of prompts.`);
    expect(readFileSync(place("results")).equals(wanted)).toBe(true);
  });

  it.each([
    ["with other options", () => args("--temperature", "1")],
    ["with other prompts", () => args("--prompt-count", "2")],
    ["with another lexicon", () => args("--lexicon", file("lexicon.txt"))],
  ])("starts anew %s, and says so", async (_what, other) => {
    writeFileSync(file("lexicon.txt"), "fun\t1\nrain\t-1\n");
    expect(await run(args(), stopAt(/Steering/)).outcome).toBe(STOPPED);
    const { said, outcome } = run(other());
    expect(await outcome).toBe("done");
    expect(said[0]).toMatch(/results\.partial is of another model, option or text.*starting anew/);
  });

  it("starts anew when that is asked for, and when the model is another", async () => {
    expect(await run(args(), stopAt(/Steering/)).outcome).toBe(STOPPED);
    expect((await complete("--restart"))[0]).not.toMatch(/Going on/);
    expect((await complete())[0]).toMatch(/table\.md is the result of this very run. --restart makes it again/);
    utimesSync(path.join(directory, "config.json"), 1, 1);
    expect((await complete())[0]).not.toMatch(/this very run/);
  });
});

describe("a run that cannot be", () => {
  const refused = (list: readonly string[]) => run(list).outcome;
  const without = (name: string) => {
    const list = args();
    const at = list.indexOf(name);
    return list.toSpliced(at, 2);
  };

  it("says what was wrong and what there is", async () => {
    await expect(refused(without("--task"))).rejects.toThrow(/--task takes sentiment, politeness, toxicity, stance, custom/);
    await expect(refused(args("--task", "joy"))).rejects.toThrow(/There is no task 'joy'/);
    await expect(refused(args("--task", "custom"))).rejects.toThrow(/--task custom needs --lexicon FILE/);
    await expect(refused(without("--data"))).rejects.toThrow(
      /There are 0 positive texts \(positive\), and at least 10 are needed: give data/,
    );
    await expect(refused(args("--model", "x"))).rejects.toThrow(/There is no model 'x'. There are: tiller-tales, /);
    await expect(refused(args("--judge", "x"))).rejects.toThrow(/There is no model 'x'/);
    await expect(refused(args("--sae", "9-x"))).rejects.toThrow(/has no autoencoder '9-x'. It has: .*2-standard/);
    await expect(refused(args("--layer", "1"))).rejects.toThrow(/--layer 1 and --sae 2-standard do not go together/);
    await expect(refused(args("--methods", "pca"))).rejects.toThrow(/--sae and --latents belong to the method sae/);
    await expect(refused(args("--methods", "magic"))).rejects.toThrow(
      /no method 'magic': --methods takes mean_difference, pca, sae, probe/,
    );
    await expect(refused(args("--strengths", "0,2"))).rejects.toThrow(/--strengths takes different numbers above 0/);
    await expect(refused(args("--positions", "last"))).rejects.toThrow(/--positions takes all, prompt, prompt_except_last, not 'last'/);
    await expect(refused(args("--texts", "9"))).rejects.toThrow(/--texts takes a whole number from 10 to 5000/);
    await expect(refused(args("--temperature", "hot"))).rejects.toThrow(/--temperature takes a number from 0 to 2, not 'hot'/);
    await expect(refused(args("--tokens", "158"))).rejects.toThrow(/No prompt fits/);
    await expect(refused(args("--lexicon", file("none.txt")))).rejects.toThrow(/none\.txt cannot be read/);
    await expect(refused(args("--what"))).rejects.toThrow(/See npm run evaluate -- --help/);
    expect(existsSync(out)).toBe(false);
  });

  it("has no NeuroSteer strengths for a task that it did not have", async () => {
    writeFileSync(file("lexicon.txt"), "fun\t1\nrain\t-1\n");
    const list = without("--strengths");
    await expect(refused([...list, "--task", "custom", "--lexicon", file("lexicon.txt"), "--neurosteer"])).rejects.toThrow(
      /say which --strengths/,
    );
  });

  it("explains itself", async () => {
    const { said, outcome } = run(["--help"]);
    expect([await outcome, said]).toEqual(["done", [HELP]]);
  });
});
