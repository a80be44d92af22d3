import { cpSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { decodeFloat32, encodeFloat32 } from "../../shared/base64.ts";
import { FeatureRecord, FeaturesRequest, RowsRequest, SimilarRequest } from "../../shared/features.ts";
import { LatentsRequest } from "../../shared/readings.ts";
import { type Engine, loadEngine } from "./engine.ts";
import { FEATURES_FILE, type FeatureLine } from "./feature-file.ts";
import { fixtures } from "./fixture.ts";
import { newPace } from "./pace.ts";
import { encodeHeader } from "./safetensors.ts";

const MODEL = "tiny-saes";
const SOURCE = "2-standard";
const WIDTH = 48;
/** Many named directions, more than one part of a file, with one that is zero and one that is not finite. */
const MANY = "1-many";
const ROWS = 16_000;
const [ZERO, BAD] = [7, 11_000];

const temporary = mkdtempSync(path.join(tmpdir(), "features-"));
const sources = path.join(temporary, MODEL, "sources");
const rows = Float32Array.from({ length: ROWS * WIDTH }, (_, i) => Math.sin(i * 1.7) + 0.3 * Math.cos(i * i));
const rowAt = (index: number) => rows.subarray(index * WIDTH, (index + 1) * WIDTH);
let engine: Engine;

beforeAll(async () => {
  const directory = path.join(temporary, MODEL);
  cpSync(path.join(fixtures, "tiny-gpt2"), directory, { recursive: true });
  cpSync(path.join(fixtures, "saes", "sources"), sources, { recursive: true });
  rowAt(ZERO).fill(0);
  rowAt(BAD)[3] = Number.NaN;
  const many = path.join(sources, MANY);
  mkdirSync(many);
  const config = { architecture: "directions", d_in: WIDTH, d_sae: ROWS, hook_name: "blocks.1.hook_resid_post" };
  writeFileSync(path.join(many, "cfg.json"), JSON.stringify(config));
  const header = encodeHeader([{ name: "W_dec", dtype: "F32", shape: [ROWS, WIDTH] }]);
  writeFileSync(path.join(many, "sae_weights.safetensors"), Buffer.concat([header, new Uint8Array(rows.buffer)]));
  engine = await loadEngine({ directories: [directory], threads: 1 });
});
afterAll(async () => {
  await engine.close();
  rmSync(temporary, { recursive: true });
});

const never = () => new AbortController().signal;
const askRows = (source: string, indexes: number[]) => engine.rows(RowsRequest.parse({ model: MODEL, source, indexes }), never());
const similar = async (source: string, vector: ArrayLike<number>, more: Partial<SimilarRequest> = {}, signal = never()) =>
  (await engine.similar(SimilarRequest.parse({ model: MODEL, source, vector: encodeFloat32(vector), top_k: 5, ...more }), signal)).items;
const features = (more: object) => engine.features(FeaturesRequest.parse({ model: MODEL, source: SOURCE, ...more }));
const infoOf = (source: string) => engine.models()[0]?.sources.find(({ id }) => id === source);

const cosine = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += (a[i] as number) * (b[i] as number);
    aa += (a[i] as number) ** 2;
    bb += (b[i] as number) ** 2;
  }
  return dot / Math.sqrt(aa * bb);
};

describe("decoder rows", () => {
  it("are those that steer, of autoencoders and of named directions", async () => {
    const { point, rows: found } = await askRows(SOURCE, [3, 31, 3]);
    expect(point).toBe(infoOf(SOURCE)?.point);
    for (const [i, index] of [3, 31, 3].entries())
      expect(decodeFloat32(found[i] as string)).toEqual(
        engine.model(MODEL).sources.direction({ model: MODEL, source: SOURCE, index }).direction,
      );
    expect(decodeFloat32((await askRows(MANY, [5])).rows[0] as string)).toEqual(rowAt(5).slice());
  });

  it("are refused where there are none", async () => {
    await expect(askRows(SOURCE, [32])).rejects.toMatchObject({ code: "feature_not_found" });
    await expect(askRows("3-none", [0])).rejects.toThrow(/no source '3-none'. Its sources are: 1-gated/);
    await expect(askRows(MANY, [ZERO])).rejects.toMatchObject({ code: "invalid_request" });
    await expect(engine.rows({ model: "x", source: SOURCE, indexes: [0] }, never())).rejects.toMatchObject({ code: "model_not_found" });
  });
});

describe("rows near a vector", () => {
  it.each([SOURCE, "1-llama-scope", "2-openai-topk", "1-gemma-scope"])("are the nearest of all, in %s", async (source) => {
    const { direction } = engine.model(MODEL).sources.direction({ model: MODEL, source, index: 9 });
    const vector = direction.map((value, i) => value + 0.1 * Math.cos(i));
    const all = Array.from({ length: infoOf(source)?.width as number }, (_, index) => ({
      index,
      cosine: cosine(vector, engine.model(MODEL).sources.direction({ model: MODEL, source, index }).direction),
    })).sort((a, b) => b.cosine - a.cosine);
    const found = await similar(source, vector, { top_k: 7 });
    expect(found.map(({ index }) => index)).toEqual(all.slice(0, 7).map(({ index }) => index));
    for (const [i, item] of found.entries()) expect(item.cosine).toBeCloseTo(all[i]?.cosine as number, 5);
    expect(await similar(source, vector, { top_k: 128 })).toHaveLength(all.length);
  });

  it("are found in a file of several parts, without those that have no direction", async () => {
    const wanted = Array.from({ length: ROWS }, (_, index) => ({ index, cosine: cosine(rowAt(500), rowAt(index)) }))
      .filter((item) => Number.isFinite(item.cosine))
      .sort((a, b) => b.cosine - a.cosine || a.index - b.index)
      .slice(0, 128);
    const found = await similar(MANY, rowAt(500), { top_k: 128 });
    expect(found[0]).toMatchObject({ index: 500 });
    expect(found.map((item) => item.index)).toEqual(wanted.map((item) => item.index));
    // The least of all are the far ends: neither the zero row nor the damaged one is there.
    const all = await similar(SOURCE, new Float32Array(WIDTH).fill(1), { top_k: 128 });
    expect(all).toHaveLength(32);
  });

  it("are looked for without holding up the event loop", async () => {
    let turns = 0;
    let handle = setImmediate(function tick() {
      turns++;
      handle = setImmediate(tick);
    });
    await similar(MANY, rowAt(1));
    clearImmediate(handle);
    expect(turns).toBeGreaterThanOrEqual(Math.floor((ROWS * WIDTH) / 2 ** 18));
  });

  it("end when nobody waits for them any more, or too late", async () => {
    const controller = new AbortController();
    const asked = similar(MANY, rowAt(1), {}, controller.signal);
    controller.abort();
    await expect(asked).rejects.toThrow(/cancelled/);
    await expect(newPace(never(), 0)()).rejects.toMatchObject({ code: "engine_timeout" });
    await expect(newPace(never(), undefined)()).resolves.toBeUndefined();
  });

  it.each([
    [new Float32Array(3).fill(1), /vector: it has 3 values; the rows of source '2-standard' have 48/],
    [new Float32Array(WIDTH), /it is zero/],
    [new Float32Array(WIDTH).fill(Number.NaN), /not a finite number/],
  ])("are refused for a vector that has no direction here", async (vector, sentence) => {
    await expect(similar(SOURCE, vector)).rejects.toMatchObject({ code: "invalid_request", message: expect.stringMatching(sentence) });
  });

  it("are refused for what is no vector", async () => {
    await expect(similar(SOURCE, [1], { vector: "AAA" })).rejects.toThrow(/base64 of little-endian float32, 48 values/);
  });
});

describe("features", () => {
  const file = path.join(sources, SOURCE, FEATURES_FILE);
  const labels = path.join(sources, SOURCE, "labels.json");
  const density = (index: number) => (index % 3 === 0 ? 0 : index / 100);
  const line = (index: number): FeatureLine => ({
    index,
    label: density(index) === 0 ? null : `the token "${index} é"`,
    density: density(index),
    max_activation: density(index) === 0 ? 0 : index + 0.125,
    histogram: { width: 0.5, counts: [1, 2, index] },
    top_logits: [{ token: " a", value: 1.5 }],
    bottom_logits: [{ token: "\n", value: -1.5 }],
    nearest: [{ index: (index + 1) % 32, cosine: 0.5 }],
    examples: [{ tokens: ["x", " y"], values: [0, index] }],
  });
  const lines = Array.from({ length: 32 }, (_, index) => JSON.stringify(line(index)));
  const header = JSON.stringify({ model: MODEL, source: SOURCE, tokens: 5, texts: 1, created: "now", settings: {} });
  /** Another file takes the old one's place, as a run does it. */
  const write = (text: string) => {
    writeFileSync(`${file}.part`, text);
    renameSync(`${file}.part`, file);
  };
  beforeEach(() => {
    write(`${[header, ...lines].join("\n")}\n`);
    writeFileSync(labels, JSON.stringify({ labels: { "3": { label: "three", strength: 4 }, "4": { label: "four" } } }));
  });

  it("are given whole, in the order asked for, with labels before automatic ones", async () => {
    const { features: found, next } = await features({ indexes: [31, 4, 3, 31] });
    expect(next).toBeNull();
    expect(found.map(({ index, label, strength }) => ({ index, label, strength }))).toEqual([
      { index: 31, label: 'the token "31 é"', strength: null },
      { index: 4, label: "four", strength: null },
      { index: 3, label: "three", strength: 4 },
      { index: 31, label: 'the token "31 é"', strength: null },
    ]);
    const { index, label, ...stats } = line(31);
    expect([index, label]).toEqual([31, 'the token "31 é"']);
    expect(FeatureRecord.parse(found[0])).toMatchObject({ stats, density: 0.31, max_activation: 31.125 });
    expect(found[0]?.stats).toEqual(stats);
  });

  it("come in pages of those that are known", async () => {
    const wanted = Array.from({ length: 32 }, (_, index) => index).filter((index) => density(index) > 0 || index === 3);
    const found: number[] = [];
    for (let from: number | null = 0; from !== null; ) {
      const page = await features({ from, limit: 5 });
      expect(page.features.every(({ stats }) => stats === null)).toBe(true);
      found.push(...page.features.map(({ index }) => index));
      from = page.next;
    }
    expect(found).toEqual(wanted);
    const [first] = (await features({ from: 4, limit: 1 })).features;
    expect(first).toEqual({ index: 4, label: "four", strength: null, stats: null, density: 0.04, max_activation: 4.125 });
    expect(await features({ from: 32 })).toEqual({ features: [], next: null });
  });

  it("have no statistics where nobody ran texts, and their labels all the same", async () => {
    rmSync(file);
    expect(infoOf(SOURCE)).toMatchObject({ features_revision: expect.any(String), labelled_features: [{ index: 3 }, { index: 4 }] });
    expect(infoOf(SOURCE)).not.toHaveProperty("densities");
    const nothing = { stats: null, density: null, max_activation: null };
    expect((await features({ indexes: [3, 5] })).features).toEqual([
      { index: 3, label: "three", strength: 4, ...nothing },
      { index: 5, label: null, strength: null, ...nothing },
    ]);
    expect((await features({ from: 0 })).features.map(({ index }) => index)).toEqual([3, 4]);
    expect(infoOf("1-gated")).not.toHaveProperty("features_revision");
    expect(await features({ source: MANY, indexes: [0] })).toMatchObject({ features: [{ label: null }] });
  });

  it("change with their files, without a restart", async () => {
    const before = infoOf(SOURCE);
    expect(before?.densities).toBe(true);
    expect(infoOf(SOURCE)?.features_revision).toBe(before?.features_revision);
    expect((await features({ indexes: [5] })).features[0]?.density).toBe(0.05);
    const changed = lines.with(5, JSON.stringify({ ...line(5), density: 0.5, label: "a longer label, so that all lines move" }));
    write([header, ...changed].join("\n"));
    expect((await features({ indexes: [5, 31] })).features).toMatchObject([
      { density: 0.5, label: "a longer label, so that all lines move" },
      { index: 31, density: 0.31, stats: { max_activation: 31.125 } },
    ]);
    const after = infoOf(SOURCE);
    expect(after?.features_revision).not.toBe(before?.features_revision);
    writeFileSync(labels, JSON.stringify({ labels: { "9": { label: "nine" } } }));
    expect(infoOf(SOURCE)?.labelled_features).toEqual([{ index: 9, label: "nine" }]);
    expect(infoOf(SOURCE)?.features_revision).not.toBe(after?.features_revision);
    writeFileSync(labels, '{"labels": {"9"');
    expect(infoOf(SOURCE)?.labelled_features).toEqual([{ index: 9, label: "nine" }]);
  });

  it("are asked for all at once while the file is read for the first time", async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, (_, i) => features({ indexes: [i * 2 + 1] })));
    expect(answers.map(({ features }) => features[0]?.stats?.histogram.counts[2])).toEqual([1, 3, 5, 7, 9, 11, 13, 15]);
  });

  it.each([
    ["ends too early", [header, ...lines.slice(0, 9)], /it has 9 features, the source 32/],
    ["has a damaged line", [header, ...lines.with(7, "{")], /line 9 is not what it should be/],
    ["skips a feature", [header, ...lines.toSpliced(3, 1)], /line 5 is of feature 4/],
    ["is of another source", [header.replace(SOURCE, "2-other"), ...lines], /it is of source '2-other'/],
  ])("are refused with the reason when their file %s", async (_what, damaged, sentence) => {
    write(damaged.join("\n"));
    await expect(features({ from: 0 })).rejects.toMatchObject({ code: "engine_failed", message: expect.stringMatching(sentence) });
  });

  it("are refused where there are none", async () => {
    await expect(features({ indexes: [1, 32] })).rejects.toThrow(/Source '2-standard' has no feature 32; its features are 0 to 31/);
    await expect(features({ source: "9-x", from: 0 })).rejects.toMatchObject({ code: "feature_not_found" });
    expect(FeaturesRequest.safeParse({ model: MODEL, source: SOURCE }).success).toBe(false);
  });

  it("that are active on too many tokens are left out of readings when that is asked for", async () => {
    const text = "The sun rose over the sea and the small boat.";
    const ask = async (max_density?: number) => {
      const more = max_density === undefined ? {} : { max_density };
      const request = { model: MODEL, source: SOURCE, texts: [text], top_k: 4, rank: 30, ignore_bos: false, ...more };
      return (await engine.latents(LatentsRequest.parse(request), never())).items[0];
    };
    const [all, some] = [await ask(), await ask(0.13)];
    const kept = (item: { index: number }) => density(item.index) <= 0.13;
    expect(some?.ranking).toEqual(all?.ranking.filter(kept));
    expect(all?.ranking.some((item) => !kept(item))).toBe(true);
    expect(some?.top.flat().every(kept)).toBe(true);
    // What is left out makes room for what comes next.
    expect(some?.top.some((list, t) => list.length > (all?.top[t] ?? []).filter(kept).length)).toBe(true);
    rmSync(file);
    await expect(ask(0.13)).rejects.toThrow(/densities of source '2-standard'.*npm run features -- tiny-saes 2-standard/);
  });
});
