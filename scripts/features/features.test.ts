import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Engine, loadEngine } from "../../gpu-functions/cpu/engine.ts";
import { FeatureLine, FeaturesHeader } from "../../gpu-functions/cpu/feature-file.ts";
import { fixtures } from "../../gpu-functions/cpu/fixture.ts";
import { readText } from "../../gpu-functions/cpu/read-text.ts";
import { ActivationsRequest } from "../../shared/readings.ts";
import { type RunOptions, STOPPED } from "../long-run.ts";
import { HELP, runFeatures } from "./index.ts";
import { BINS, SPAN } from "./tally.ts";

const MODEL = "tiny-saes";
const SOURCE = "2-standard";
const BUNDLED = "tiller-tales";
const LATENTS = 32;
const CONTEXT = 30;
const temporary = mkdtempSync(path.join(tmpdir(), "features-run-"));
const directory = path.join(temporary, "models", MODEL);
const environment = { TILLER_MODELS: path.join(temporary, "models") };
const file = (name: string) => path.join(temporary, name);
const out = path.join(directory, "sources", SOURCE, "features.jsonl");
const partial = path.join(directory, "sources", SOURCE, "features.partial");

const SENTENCES = [
  "The sun rose over the sea and the small boat.",
  "A rainy day! Nobody went out, and the cat slept by the fire until the evening came.",
  "Old bread is not hard; no bread is hard.",
  "Two small dogs ran across the wide green field and barked at every bird they saw there.",
];
/** Shorter and longer than a window, and some of it twice. */
const blocks = Array.from(
  { length: 12 },
  (_, i) => SENTENCES.slice(i % 3, (i % 3) + 1 + (i % 2)).join(" ") + ` Number ${i}.`.repeat(i % 4),
);
const marked = ["One text, with a blank line\n\nin it.", SENTENCES.join("\n\n"), "The end."];

let engine: Engine;
beforeAll(async () => {
  cpSync(path.join(fixtures, "tiny-gpt2"), directory, { recursive: true });
  cpSync(path.join(fixtures, "saes", "sources"), path.join(directory, "sources"), { recursive: true });
  writeFileSync(file("a.txt"), `\n\n${blocks.join("\n  \n\n")}\n`);
  writeFileSync(file("b.txt"), marked.join("<|endoftext|>\n"));
  engine = await loadEngine({ directories: [directory, path.join(fixtures, "..", "bundled", BUNDLED)], threads: 1 });
});
afterAll(async () => {
  await engine.close();
  rmSync(temporary, { recursive: true });
});
beforeEach(() => {
  for (const left of [out, partial]) rmSync(left, { force: true });
});

const texts = () => [file("a.txt"), file("b.txt")];
interface Run {
  readonly said: string[];
  readonly shown: string[];
  readonly outcome: Promise<string>;
}
/** A run whose clock goes on by ten seconds whenever it is read; `watch` sees each line of progress and may stop it. */
function run(args: readonly string[], watch: (line: string, stop: () => void) => void = () => undefined): Run {
  const controller = new AbortController();
  const [said, shown]: [string[], string[]] = [[], []];
  let clock = 0;
  const options: RunOptions = {
    environment,
    progress: {
      live: false,
      write: (line) => {
        shown.push(line);
        watch(line, () => controller.abort());
      },
      now: () => (clock += 10_000),
    },
    say: (line) => said.push(line),
    signal: controller.signal,
    date: () => new Date(0),
  };
  return { said, shown, outcome: runFeatures(args, options) };
}
const args = (...more: string[]) => [MODEL, SOURCE, ...texts(), "--context", String(CONTEXT), ...more];
const complete = async (...more: string[]) => {
  const { said, outcome } = run(args(...more));
  expect(await outcome).toBe("done");
  return said;
};
function read(from: string): { header: FeaturesHeader; lines: FeatureLine[] } {
  const [first, ...rest] = readFileSync(from, "utf8").trimEnd().split("\n");
  return { header: FeaturesHeader.parse(JSON.parse(first as string)), lines: rest.map((line) => FeatureLine.parse(JSON.parse(line))) };
}
const rounded = (value: number) => Number(value.toPrecision(4));

interface WindowRead {
  readonly tokens: string[];
  /** [T][N] */
  readonly values: number[][];
}
/** Every window of the texts with every latent's activation on every token. */
async function readAll(): Promise<WindowRead[]> {
  const model = engine.model(MODEL);
  const sae = model.sources.sae(SOURCE);
  const found: WindowRead[] = [];
  for (const text of [...blocks, ...marked]) {
    const ids = model.tokenizer.encode(text.trim());
    for (let start = 0; start < ids.length; start += CONTEXT) {
      const window = ids.slice(start, start + CONTEXT);
      const prompt = model.tokenizer.withBos([...window]);
      expect(prompt).toHaveLength(window.length + 1);
      const { residuals } = await readText(model, prompt, [sae.point], new AbortController().signal, undefined);
      const stream = (residuals[0] as Float32Array).subarray(sae.width);
      const activations = await model.encoders.use(sae, async (encoder) => (await encoder.encode(stream)).activations.slice());
      found.push({
        tokens: window.map((id) => model.tokenizer.tokenString(id)),
        values: window.map((_, t) => Array.from(activations.subarray(t * LATENTS, (t + 1) * LATENTS))),
      });
    }
  }
  return found;
}

describe("a run on texts", () => {
  it("counts what a model reading every window by itself would count", async () => {
    const said = await complete();
    expect(said.at(-1)).toMatch(/32 features on \d+ tokens of 15 texts; \d+ were active nowhere/);
    expect(existsSync(partial)).toBe(false);
    const { header, lines } = read(out);
    const windows = await readAll();
    const tokens = windows.reduce((sum, { values }) => sum + values.length, 0);
    expect(header).toEqual({
      ...{ model: MODEL, source: SOURCE, tokens, texts: blocks.length + marked.length, created: "1970-01-01T00:00:00.000Z" },
      settings: { context: CONTEXT, examples: 10, limit: null, files: ["a.txt", "b.txt"] },
    });
    expect(lines.map(({ index }) => index)).toEqual(Array.from({ length: LATENTS }, (_, index) => index));
    for (const { index, density, max_activation, histogram } of lines) {
      const active = windows.flatMap(({ values }) => values.map((row) => row[index] as number)).filter((value) => value > 0);
      expect(density).toBe(rounded(active.length / tokens));
      expect(max_activation).toBe(active.length === 0 ? 0 : rounded(Math.max(...active)));
      const wanted = new Array<number>(histogram.counts.length).fill(0);
      for (const value of active) wanted[Math.floor(value / histogram.width)] = (wanted[Math.floor(value / histogram.width)] ?? 0) + 1;
      expect(histogram.counts).toEqual(wanted);
      if (active.length > 0) expect(histogram.counts.length).toBeGreaterThan(BINS / 2);
    }
    expect(lines.filter(({ density }) => density > 0).length).toBeGreaterThan(10);
  });

  it("keeps the most active windows, each once, cut around the most active token", async () => {
    await complete("--examples", "3");
    const windows = await readAll();
    for (const { index, examples } of read(out).lines) {
      const ranked = windows
        .map(({ tokens, values }, number) => {
          const own = values.map((row) => row[index] as number);
          const peak = Math.max(...own);
          const start = Math.max(0, Math.min(own.indexOf(peak) - 15, tokens.length - SPAN));
          return { peak, number, tokens: tokens.slice(start, start + SPAN), values: own.slice(start, start + SPAN).map(rounded) };
        })
        .filter(({ peak }) => peak > 0)
        .sort((a, b) => b.peak - a.peak || a.number - b.number);
      const different = ranked.filter(({ tokens }, i) => ranked.findIndex((other) => other.tokens.join("|") === tokens.join("|")) === i);
      expect(examples).toEqual(different.slice(0, 3).map(({ tokens, values }) => ({ tokens, values })));
    }
    expect(windows.length).toBeGreaterThan(blocks.length + marked.length);
  });

  it("gives examples the values that readings give, and leaves BOS out", async () => {
    const stories = ["The dog ran home.", "Lily saw a big red boat on the sea."];
    writeFileSync(file("stories.txt"), stories.join("\n\n"));
    const target = file("tales.jsonl");
    const { outcome } = run([BUNDLED, "3-tales-res", file("stories.txt"), "--out", target]);
    expect(await outcome).toBe("done");
    const { header, lines } = read(target);
    const active = lines.filter(({ examples }) => examples.length > 0);
    expect(active.length).toBeGreaterThan(20);
    const targets = active.slice(0, 40).map(({ index }) => ({ feature: { model: BUNDLED, source: "3-tales-res", index } }));
    const request = ActivationsRequest.parse({ model: BUNDLED, texts: stories, targets });
    const { items } = await engine.activations(request, new AbortController().signal);
    expect(header.tokens).toBe(items.reduce((sum, { tokens }) => sum + tokens.length - 1, 0));
    for (const [k, { examples, density }] of active.slice(0, 40).entries()) {
      for (const { tokens, values } of examples) {
        const item = items.find(
          (each) =>
            each.tokens
              .slice(1)
              .map(({ token }) => token)
              .join("|") === tokens.join("|"),
        );
        values.forEach((value, t) => expect(Math.abs(value - (item?.values[k]?.[t + 1] as number))).toBeLessThan(2e-3 + 1e-3 * value));
      }
      const on = items.flatMap(({ values }) => (values[k] as number[]).slice(1)).filter((value) => value > 0).length;
      expect(density).toBe(rounded(on / header.tokens));
    }
  });

  it("reads every direction's tokens and neighbours without texts", async () => {
    await complete("--limit", "40");
    const { header, lines } = read(out);
    expect(header).toMatchObject({ tokens: 40, settings: { limit: 40 } });
    const model = engine.model(MODEL);
    const { width, vocab } = model.shape;
    const [gain, table] = [model.checkpoint.read("transformer.ln_f.weight"), model.checkpoint.read("transformer.wte.weight")];
    const rows = lines.map(({ index }) => model.sources.direction({ model: MODEL, source: SOURCE, index }).direction);
    const dot = (a: ArrayLike<number>, b: ArrayLike<number>) => Array.from(a).reduce((sum, x, d) => sum + x * (b[d] as number), 0);
    for (const { index, top_logits, bottom_logits, nearest } of lines) {
      const row = rows[index] as Float32Array;
      const mean = dot(row, new Float32Array(width).fill(1 / width));
      const read = row.map((x, d) => (x - mean) * (gain[d] as number));
      const logits = Array.from({ length: vocab }, (_, id) => ({
        token: model.tokenizer.tokenString(id),
        value: dot(read, table.subarray(id * width, (id + 1) * width)),
      }));
      logits.sort((a, b) => b.value - a.value);
      for (const [list, wanted] of [
        [top_logits, logits.slice(0, 10)],
        [bottom_logits, logits.toReversed().slice(0, 10)],
      ] as const) {
        expect(list.map(({ token }) => token)).toEqual(wanted.map(({ token }) => token));
        for (const [i, { value }] of list.entries()) expect(value).toBeCloseTo(wanted[i]?.value as number, 3);
      }
      const others = rows
        .map((other, i) => ({ index: i, cosine: dot(row, other) }))
        .filter((other) => other.index !== index)
        .sort((a, b) => b.cosine - a.cosine);
      expect(nearest.map((each) => each.index)).toEqual(others.slice(0, 10).map((each) => each.index));
    }
  });

  it("is served by an engine that runs, and its own labels give way to the source's", async () => {
    const ask = async () =>
      (await engine.features({ model: MODEL, source: SOURCE, indexes: [0, 1, 2, 3, 4, 5, 6, 7], limit: 1 })).features.find(
        ({ stats }) => (stats?.density ?? 0) > 0,
      );
    expect(await ask()).toBeUndefined();
    await complete();
    const found = await ask();
    expect(found?.label).toMatch(/^the tokens? "/);
    const { index, label, ...stats } = read(out).lines.find((line) => line.index === found?.index) as FeatureLine;
    expect([found?.index, found?.label, found?.stats]).toEqual([index, label, stats]);
  });
});

describe("a run that is stopped", () => {
  /** Stops when the n-th line of progress is shown. */
  const stopAt = (count: number) => {
    let left = count;
    return (_: string, stop: () => void) => {
      left--;
      if (left === 0) stop();
    };
  };

  it("goes on where it was, and its result is the same to the byte", async () => {
    await complete();
    const wanted = readFileSync(out);
    rmSync(out);
    let before: string | undefined;
    for (const count of [1, 5, 9]) {
      const { said, outcome } = run(args(), stopAt(count));
      expect(await outcome).toBe(STOPPED);
      expect(said.length).toBe(before === undefined ? 1 : 2);
      if (before !== undefined) expect(said[0]).toBe(`Going on after ${before} tokens.`);
      before = /^Stopped at (\d+) of \d+ tokens. The same command goes on from there.$/.exec(said.at(-1) ?? "")?.[1];
      expect(before).toBeDefined();
      expect(existsSync(out)).toBe(false);
    }
    const said = await complete();
    expect(said[0]).toBe(`Going on after ${before} tokens.`);
    expect(readFileSync(out).equals(wanted)).toBe(true);
    expect(existsSync(partial)).toBe(false);
  });

  it("goes on from what was noted on the way when it could not end in order", async () => {
    await complete();
    const wanted = readFileSync(out);
    const noted: Buffer[] = [];
    await run(args(), () => {
      if (existsSync(partial)) noted.push(readFileSync(partial));
    }).outcome;
    expect(noted.length).toBeGreaterThan(3);
    writeFileSync(partial, noted[2] as Buffer);
    rmSync(out);
    expect((await complete())[0]).toMatch(/Going on/);
    expect(readFileSync(out).equals(wanted)).toBe(true);
  });

  it("while it writes leaves no file that is half done", async () => {
    const { outcome, shown } = run(args(), (line, stop) => {
      if (line.includes("Reading 100%")) stop();
    });
    expect(await outcome).toBe(STOPPED);
    expect(shown.at(-1)).toContain("Directions");
    expect([existsSync(out), existsSync(`${out}.part`), existsSync(partial)]).toEqual([false, false, true]);
  });

  it.each([
    ["with other options", () => args("--examples", "2")],
    ["with another limit", () => args("--limit", "300")],
    ["with other texts", () => [MODEL, SOURCE, file("b.txt"), "--context", String(CONTEXT)]],
  ])("starts anew %s, and says so", async (_what, other) => {
    expect(await run(args(), stopAt(4)).outcome).toBe(STOPPED);
    const { said, outcome } = run(other());
    expect(await outcome).toBe("done");
    expect(said[0]).toMatch(/features\.partial is of another model, source, option or text.*starting anew/);
  });

  it("starts anew when that is asked for, and when the note is damaged", async () => {
    expect(await run(args(), stopAt(4)).outcome).toBe(STOPPED);
    expect(await complete("--restart")).toHaveLength(1);
    writeFileSync(partial, "what");
    expect((await complete())[0]).toMatch(/damaged: starting anew/);
  });
});

describe("a run that cannot be", () => {
  const refused = (list: readonly string[]) => run(list).outcome;
  it("says what was wrong and what there is", async () => {
    const [a] = texts() as [string, string];
    await expect(refused(["x", SOURCE, a])).rejects.toThrow(/no model 'x'. There are: tiller-tales, tiny-saes. npm run models -- pull/);
    await expect(refused([MODEL, "9-x", a])).rejects.toThrow(/no source '9-x'. Its sources are: 1-gated/);
    await expect(refused([BUNDLED, "3-tales-directions", a])).rejects.toThrow(/named directions and no encoder/);
    await expect(refused([MODEL, SOURCE, file("none.txt")])).rejects.toThrow(/none\.txt cannot be read/);
    writeFileSync(file("latin1.txt"), Buffer.from([0x63, 0x61, 0x66, 0xe9, 0x20, 0x62]));
    await expect(refused([MODEL, SOURCE, file("latin1.txt")])).rejects.toThrow(/latin1\.txt is no text in UTF-8/);
    writeFileSync(file("empty.txt"), " \n\n ");
    await expect(refused([MODEL, SOURCE, file("empty.txt")])).rejects.toThrow(/no text in .*empty\.txt/);
    mkdirSync(file("folder"), { recursive: true });
    await expect(refused([MODEL, SOURCE, file("folder")])).rejects.toThrow(/folder cannot be read/);
    await expect(refused(args("--out", file("none/f.jsonl")))).rejects.toThrow(/none does not exist: choose another place with --out/);
    for (const [option, value] of [
      ["--context", "0"],
      ["--context", "161"],
      ["--limit", "many"],
      ["--examples", "101"],
    ] as const)
      await expect(refused([MODEL, SOURCE, a, option, value])).rejects.toThrow(new RegExp(`${option} takes a whole number from 1 to`));
    await expect(refused([MODEL, SOURCE])).rejects.toThrow(/which text files/);
    await expect(refused(args("--what"))).rejects.toThrow(/See npm run features -- --help/);
  });

  it("explains itself", async () => {
    const { said, outcome } = run(["--help"]);
    expect([await outcome, said]).toEqual(["done", [HELP]]);
  });
});
