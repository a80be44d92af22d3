import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { encodeFloat32 } from "../../shared/base64.ts";
import { GenerateRequest, type RowResult } from "../../shared/protocol.ts";
import { ActivationsRequest, LatentsRequest } from "../../shared/readings.ts";
import { Fixture, fixtures } from "../cpu/fixture.ts";
import { ENCODED } from "../cpu/sae.ts";
import { type Engine, loadEngine } from "./engine.ts";

/** tiny-gpt2 with every tiny autoencoder, and the bundled model, which begins texts with BOS. */
const MODEL = "tiny-saes";
const BUNDLED = "tiller-tales";
const temporary = mkdtempSync(path.join(tmpdir(), "latents-"));
let engine: Engine;
let plain: Fixture;
beforeAll(async () => {
  const directory = path.join(temporary, MODEL);
  cpSync(path.join(fixtures, "tiny-gpt2"), directory, { recursive: true });
  cpSync(path.join(fixtures, "saes", "sources"), path.join(directory, "sources"), { recursive: true });
  engine = await loadEngine({ directories: [directory, path.join(fixtures, "..", "bundled", BUNDLED)], threads: 1 });
  plain = new Fixture("tiny-gpt2");
});
afterAll(async () => {
  plain.session.close();
  await engine.close();
  rmSync(temporary, { recursive: true });
});

const never = () => new AbortController().signal;
const latents = async (more: Partial<LatentsRequest> & { texts: string[] }) =>
  (await engine.latents(LatentsRequest.parse({ model: MODEL, source: "2-standard", ignore_bos: false, ...more }), never())).items;
const activations = async (targets: ActivationsRequest["targets"], texts: string[], model = MODEL) =>
  (await engine.activations(ActivationsRequest.parse({ model, texts, targets }), never())).items;
const feature = (source: string, index: number, model = MODEL) => ({ feature: { model, source, index } });

/** More than one piece of an encoder. */
const LONG = "The sun rose over the sea and the small boat. A rainy day! ".repeat(6);

/** Residuals [T][width] of a text at a boundary, from a session of their own. */
async function residualsOf(text: string, boundary: number): Promise<Float32Array[]> {
  const { session, width } = plain;
  const ids = engine.model(MODEL).tokenizer.encodePrompt(text);
  session.edits.set(0, new Map());
  const found: Float32Array[] = [];
  for (let start = 0; start < ids.length; start += 128) {
    const chunk = ids.slice(start, start + 128);
    const stream = (await session.prefill(0, chunk, start, [], { captures: [boundary] })).captured(boundary);
    for (let t = 0; t < chunk.length; t++) found.push(stream.slice(t * width, (t + 1) * width));
  }
  return found;
}

/** Every latent's activation on every token, one by one: [T][N]. */
async function oneByOne(source: string, boundary: number, text: string): Promise<number[][]> {
  const { sources } = engine.model(MODEL);
  const all = Array.from({ length: 32 }, (_, index) => sources.latent({ model: MODEL, source, index }).latent);
  return (await residualsOf(text, boundary)).map((h) =>
    all.map(({ read, edge, zero }) => {
      const s = h.reduce((sum, x, d) => sum + x * (read[d] as number), 0);
      return s > edge ? s - zero : 0;
    }),
  );
}

const rankedBy = (scores: readonly number[]) =>
  scores
    .map((score, index) => ({ score, index }))
    .filter(({ score }) => score > 0)
    .sort((a, b) => b.score - a.score);

describe("latents of texts", () => {
  it("are those that each latent by itself gives, token by token and ranked for the whole text", async () => {
    const wanted = await oneByOne("2-standard", 2, LONG);
    const [short, item] = await latents({ texts: ["A day", LONG], top_k: 5, rank: 7 });
    expect(item?.tokens.length).toBeGreaterThan(2 * ENCODED);
    expect(item?.tokens).toHaveLength(wanted.length);
    expect(short?.top).toHaveLength(short?.tokens.length as number);
    for (const [t, values] of wanted.entries()) {
      const best = rankedBy(values).slice(0, 5);
      expect(item?.top[t]?.map(({ index }) => index)).toEqual(best.map(({ index }) => index));
      item?.top[t]?.forEach(({ activation }, i) => expect(activation / (best[i]?.score as number)).toBeCloseTo(1, 5));
    }
    const greatest = Array.from({ length: 32 }, (_, i) => Math.max(...wanted.map((values) => values[i] as number)));
    expect(item?.ranking.map(({ index }) => index)).toEqual(
      rankedBy(greatest)
        .slice(0, 7)
        .map(({ index }) => index),
    );
    for (const { index, max, max_position, values } of item?.ranking ?? []) {
      expect(max / (greatest[index] as number)).toBeCloseTo(1, 5);
      expect(values[max_position]).toBe(max);
      values.forEach((value, t) => expect(value).toBeCloseTo(wanted[t]?.[index] as number, 3));
    }
  });

  it("are ranked by the sum at the positions that are asked for", async () => {
    const wanted = await oneByOne("2-standard", 2, LONG);
    const at = [3, 70, 70, 5000];
    const [item] = await latents({ texts: [LONG], rank: 6, rank_by: at });
    const sums = Array.from({ length: 32 }, (_, i) => (wanted[3]?.[i] as number) + (wanted[70]?.[i] as number));
    expect(item?.ranking.map(({ index }) => index)).toEqual(
      rankedBy(sums)
        .slice(0, 6)
        .map(({ index }) => index),
    );
  });

  it("leave BOS out unless it is asked for", async () => {
    const ask = async (ignore_bos: boolean) =>
      (await latents({ model: BUNDLED, source: "3-tales-res", texts: ["The dog ran home."], rank: 1000, top_k: 100, ignore_bos }))[0];
    const [without, withBos] = [await ask(true), await ask(false)];
    expect(without?.tokens[0]).toEqual({ id: 0, token: "<|endoftext|>", special: true });
    expect([without?.top[0], withBos?.top[0]?.length === 0]).toEqual([[], false]);
    expect(without?.top.slice(1).map((list) => list.map(({ index }) => index))).toEqual(
      withBos?.top.slice(1).map((list) => list.map(({ index }) => index)),
    );
    expect(without?.ranking.every(({ values }) => values[0] === 0)).toBe(true);
    expect(withBos?.ranking.length).toBeGreaterThan(without?.ranking.length as number);
  });

  it("are refused where there are none, with what would work instead", async () => {
    await expect(latents({ model: BUNDLED, source: "3-tales-directions", texts: ["x"] })).rejects.toThrow(/no encoder.*\/activations/s);
    await expect(latents({ source: "9-none", texts: ["x"] })).rejects.toThrow(/no source '9-none'. Its sources are: 1-gated/);
    await expect(latents({ texts: ["x", "one ".repeat(400)] })).rejects.toThrow(
      /texts\.1 is \d+ tokens long; this model takes at most 160/,
    );
  });

  it("end when nobody waits for them any more", async () => {
    const controller = new AbortController();
    controller.abort();
    const request = LatentsRequest.parse({ model: MODEL, source: "2-standard", texts: [LONG] });
    await expect(engine.latents(request, controller.signal)).rejects.toThrow(/cancelled/);
    await expect(engine.latents({ ...request, texts: Array(64).fill(LONG), deadline_ms: 1 }, never())).rejects.toMatchObject({
      code: "engine_timeout",
    });
    await vi.waitFor(() => expect(engine.model(MODEL).scheduler.load()).toEqual({ rows: 0, waiting: 0 }));
  });
});

describe("activations on texts", () => {
  it("of latents of every kind are those of a full encode", async () => {
    const sources = engine.model(MODEL).info.sources.map(({ id }) => id);
    expect(sources.length).toBeGreaterThan(10);
    for (const source of sources) {
      const [all] = await latents({ source, texts: [LONG], rank: 1000 });
      const chosen = (all?.ranking ?? []).slice(0, 3);
      expect(chosen).toHaveLength(3);
      const [found] = await activations(
        chosen.map(({ index }) => feature(source, index)),
        [LONG],
      );
      for (const [i, { values }] of chosen.entries())
        found?.values[i]?.forEach((value, t) => expect(Math.abs(value - (values[t] as number))).toBeLessThan(2e-4));
    }
  });

  it("of directions and vectors are projections, not divided by a length", async () => {
    const vector = Array.from({ length: 48 }, (_, i) => Math.sin(i) * 3);
    const target = { vector: encodeFloat32(vector), point: "blocks.3.hook_resid_post" };
    const [item] = await activations([target], ["A rainy day"]);
    const wanted = (await residualsOf("A rainy day", 4)).map((h) => h.reduce((sum, x, d) => sum + x * Math.fround(vector[d] as number), 0));
    item?.values[0]?.forEach((value, t) => expect(value).toBeCloseTo(wanted[t] as number, 3));
    const mood = feature("3-tales-directions", 0, BUNDLED);
    const happy = "They were so happy and smiled.";
    const sad = "They were so sad and cried.";
    const means = (await activations([mood], [happy, sad], BUNDLED)).map(({ values }) => values[0]?.slice(1) as number[]);
    const mean = (values: number[] | undefined) => (values ?? []).reduce((a, b) => a + b, 0) / (values?.length ?? 1);
    expect(mean(means[0])).toBeGreaterThan(mean(means[1]) + 1);
  });

  it("refuse what does not fit the model", async () => {
    const narrow = { vector: encodeFloat32([1, 2]), point: "blocks.1.hook_resid_pre" };
    await expect(activations([narrow], ["x"])).rejects.toThrow(/targets\.0\.vector has 2 values; this model needs exactly 48/);
    const nowhere = { vector: encodeFloat32(Array(48).fill(1)), point: "blocks.4.hook_resid_pre" };
    await expect(activations([nowhere], ["x"])).rejects.toThrow(/its layers are 0 to 3/);
    await expect(activations([feature("2-standard", 32)], ["x"])).rejects.toThrow(/its features are 0 to 31/);
    await expect(activations([feature("3-tales-res", 0, BUNDLED)], ["x"])).rejects.toThrow(
      /256 values; this model's residual stream has 48/,
    );
    for (const bad of [{}, { ...narrow, ...feature("2-standard", 0) }, { vector: narrow.vector }])
      expect(ActivationsRequest.safeParse({ model: MODEL, texts: ["x"], targets: [bad] }).success).toBe(false);
  });
});

describe("clamped latents", () => {
  const PROMPT = "The dog ran to the";
  async function generate(source: string, index: number, strength: number, model = MODEL): Promise<RowResult> {
    const edits = [{ feature: { model, source, index }, method: "LATENT_CLAMP" as const, strength }];
    const request = GenerateRequest.parse({
      model,
      prompt: PROMPT,
      rows: [{ name: "ROW", edits }],
      sampling: { temperature: 0, seed: 1 },
      max_tokens: 1,
    });
    for await (const { event, data } of engine.generate(request, never())) if (event === "done") return data.rows[0] as RowResult;
    throw new Error("no answer");
  }

  it("report what they changed: how far every token's activation was from its new value", async () => {
    const stream = await residualsOf(PROMPT, 2);
    const wanted = await oneByOne("2-standard", 2, PROMPT);
    for (const index of [0, 1, 2]) {
      const { receipts } = await generate("2-standard", index, 6);
      const relative = wanted.map((values, t) => Math.abs(6 - (values[index] as number)) / Math.hypot(...(stream[t] as Float32Array)));
      expect(receipts[0]).toMatchObject({
        method: "LATENT_CLAMP",
        strength: 6,
        positions: wanted.length,
        positions_changed: wanted.length,
      });
      expect(receipts[0]?.mean_relative_delta).toBeCloseTo(relative.reduce((a, b) => a + b) / wanted.length, 4);
    }
  });

  it("are refused when they were what they are clamped to, and where no latent can be read alone", async () => {
    await expect(generate("3-tales-res", await silent(), 0, BUNDLED)).rejects.toThrow(/one that is never active has 0/);
    await expect(generate("2-topk", 3, 1)).rejects.toThrow(/depends on all of them/);
    await expect(generate("3-tales-directions", 0, 1, BUNDLED)).rejects.toThrow(/no activation to clamp: PROJECTION_CLAMP/);
  });

  /** A latent that is not active on the prompt. */
  async function silent(): Promise<number> {
    const [item] = await latents({ model: BUNDLED, source: "3-tales-res", texts: [PROMPT], rank: 1000 });
    const active = new Set(item?.ranking.map(({ index }) => index));
    return Array.from({ length: 1024 }, (_, i) => i).find((i) => !active.has(i)) as number;
  }
});
