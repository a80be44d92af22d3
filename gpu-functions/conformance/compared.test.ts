// Generations whose texts are compared with the model without edits (`compare`): as /score says of the same tokens afterwards.
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { z } from "zod";
import { encodeFloat32 } from "../../shared/base64.ts";
import { type Edit, GenerateRequest, type GenerateResult } from "../../shared/protocol.ts";
import { ScoreRequest } from "../../shared/readings.ts";
import { fixtures } from "../cpu/fixture.ts";
import { divergenceOf } from "../cpu/reading.ts";
import { klDivergence, predict } from "../cpu/sampler.ts";
import { type Engine, loadEngine, ROUNDING } from "./engine.ts";

const MODEL = "tiny-compared";
const temporary = mkdtempSync(path.join(tmpdir(), "compared-"));
let engine: Engine;
beforeAll(async () => {
  const directory = path.join(temporary, MODEL);
  cpSync(path.join(fixtures, "tiny-gpt2"), directory, { recursive: true });
  cpSync(path.join(fixtures, "saes", "sources", "2-standard"), path.join(directory, "sources", "2-standard"), { recursive: true });
  engine = await loadEngine({ directories: [directory], threads: 1 });
});
afterAll(async () => {
  await engine.close();
  rmSync(temporary, { recursive: true });
});

const never = () => new AbortController().signal;
const wave = (phase: number) => encodeFloat32(Array.from({ length: 48 }, (_, i) => Math.sin(i * 1.7 + phase)));
const edit = (more: Partial<Edit> = {}): Edit => ({
  ...{ vector: wave(0), point: "blocks.2.hook_resid_pre", method: "SIMPLE_ADDITIVE", strength: 4, positions: "all", schedule: "constant" },
  ...more,
});
const PROMPT = "The sun rose over the sea.";
const TARGETS = [{ vector: wave(1), point: "blocks.1.hook_resid_post" }, { feature: { model: MODEL, source: "2-standard", index: 3 } }];
const SAMPLING = { temperature: 0.8, seed: 8 };
const ROWS: Record<string, Edit[]> = {
  plain: [],
  added: [edit()],
  capped: [edit({ method: "PROJECTION_CAP", strength: -0.3, point: "blocks.1.hook_resid_pre" })],
  "first and last": [edit({ point: "blocks.0.hook_resid_pre", strength: -3 }), edit({ point: "blocks.3.hook_resid_post" })],
  "of generated tokens": [edit({ positions: "generated", schedule: { kind: "ramp", tokens: 5 } })],
};

async function generate(
  more: Partial<z.input<typeof GenerateRequest>> = {},
): Promise<{ result: GenerateResult; idsOf: (row: string) => number[] }> {
  const rows = Object.entries(ROWS).map(([name, edits]) => ({ name, edits }));
  const request = GenerateRequest.parse({
    model: MODEL,
    prompt: PROMPT,
    rows,
    sampling: SAMPLING,
    max_tokens: 20,
    compare: { targets: TARGETS },
    ...more,
  });
  const tokens: { row: string; id: number }[] = [];
  for await (const { event, data } of engine.generate(request, never())) {
    if (event === "token") tokens.push(data);
    if (event === "done") return { result: data, idsOf: (row) => tokens.filter((token) => token.row === row).map(({ id }) => id) };
  }
  throw new Error("no result");
}

describe("rows that are compared", () => {
  // Of a long text, what lies below the edits is kept while it is written, up to its last token.
  it.each([
    ["of a few tokens", 20, {}],
    ["of many", 140, {}],
    ["of many, up to a stop string", 140, { stop: ["e", "a"] }],
    ["of two after a long prompt", 2, {}, PROMPT.repeat(11)],
  ])("%s have what /score says of their tokens with and without their edits", async (_, max_tokens, more, prompt = PROMPT) => {
    const { result, idsOf } = await generate({ max_tokens, prompt, sampling: { ...SAMPLING, ...more } });
    const items = Object.entries(ROWS).map(([name, edits]) => ({ prompt, ids: idsOf(name), edits }));
    const scored = await engine.score(ScoreRequest.parse({ model: MODEL, items, compare: true, targets: TARGETS }), never());
    for (const [i, { name, compared }] of result.rows.entries()) {
      const wanted = scored.items[i];
      // Of their length: sums of more numbers differ by more.
      const length = idsOf(name).length;
      const close = (found: number, sum: number) => expect(Math.abs(found - sum), name).toBeLessThan(5e-5 * Math.max(1, length / 20));
      close(compared?.plain.logprob as number, wanted?.plain?.logprob as number);
      for (const key of ["perplexity", "kl"] as const)
        expect(compared?.plain[key], `${key} of ${name}`).toBeCloseTo(wanted?.plain?.[key] as number, 3);
      expect(compared?.values.map((each) => each.length)).toEqual(TARGETS.map(() => length));
      for (const [target, values] of (wanted?.values ?? []).entries())
        for (const [t, value] of values.entries()) expect(compared?.values[target]?.[t], `${name} at ${t}`).toBeCloseTo(value, 3);
    }
    const kl = (name: string) => result.rows.find((row) => row.name === name)?.compared?.plain.kl as number;
    expect(kl("plain")).toBe(0);
    expect(kl("added")).toBeGreaterThan(0.001);
  });

  it.each([
    [20, {}, "length"],
    [140, {}, "length"],
    [140, { stop: ["e", "a"] }, "stop"],
  ])("write the same texts with the same receipts as rows that are not, of %i tokens with %o", async (max_tokens, more, end) => {
    const request = { max_tokens, sampling: { ...SAMPLING, ...more } };
    const [compared, alone] = [await generate(request), await generate({ ...request, compare: undefined })];
    expect(alone.result.rows.find(({ name }) => name === "added")?.finish_reason).toBe(end);
    expect(alone.result.rows.map(({ compared: found }) => found)).toEqual(Object.keys(ROWS).map(() => undefined));
    expect(compared.result.rows.map(({ compared: _, ...row }) => row)).toEqual(alone.result.rows);
  });

  it.each([20, 140])("are the same when an earlier run wrote some of their %i tokens", async (max_tokens) => {
    const whole = await generate({ max_tokens });
    const rows = Object.entries(ROWS).map(([name, edits], i) => ({ name, edits, generated: whole.idsOf(name).slice(0, 3 * i) }));
    const { result } = await generate({ rows, max_tokens });
    for (const [i, row] of result.rows.entries())
      expect(row.compared?.plain.kl).toBeCloseTo(whole.result.rows[i]?.compared?.plain.kl as number, 5);
  });

  it("are the same in any order, and beside others or fewer of them", async () => {
    const whole = await generate();
    const names = Object.keys(ROWS).reverse();
    for (const some of [names, names.slice(0, 2)]) {
      const { result } = await generate({ rows: some.map((name) => ({ name, edits: ROWS[name] ?? [] })) });
      for (const row of result.rows) {
        const { plain, values } = whole.result.rows.find(({ name }) => name === row.name)?.compared ?? {};
        for (const key of ["logprob", "kl"] as const)
          expect(Math.abs((row.compared?.plain[key] as number) - (plain?.[key] as number))).toBeLessThanOrEqual(ROUNDING * 20);
        for (const [target, each] of (row.compared?.values ?? []).entries())
          for (const [t, value] of each.entries())
            expect(Math.abs(value - (values?.[target]?.[t] as number))).toBeLessThanOrEqual(ROUNDING);
      }
    }
  });

  it("end when their caller leaves while they are read", async () => {
    const controller = new AbortController();
    const rows = Object.entries(ROWS).map(([name, edits]) => ({ name, edits }));
    const request = GenerateRequest.parse({ model: MODEL, prompt: PROMPT, rows, sampling: SAMPLING, max_tokens: 60, compare: {} });
    let done = false;
    const read = async () => {
      for await (const { event, data } of engine.generate(request, controller.signal)) {
        if (event === "token" && data.index === 59) controller.abort();
        done ||= event === "done";
      }
    };
    await read().catch((error: Error) => expect(error.message).toMatch(/cancelled|aborted/));
    expect(done).toBe(false);
    await vi.waitFor(() => expect(engine.model(MODEL).scheduler.load()).toEqual({ rows: 0, waiting: 0 }));
  });

  it("are refused with a target that does not fit, before anything is written", async () => {
    const wrong = { targets: [{ vector: encodeFloat32([1, 2, 3]), point: "blocks.1.hook_resid_pre" }] };
    await expect(generate({ compare: wrong })).rejects.toThrow(/targets\.0\.vector has 3 values/);
  });
});

describe("the divergence of two predictions", () => {
  it("is that of exact exponentials to seven digits, also where masses vanish", () => {
    const logits = (spread: number, phase: number) => Float32Array.from({ length: 4000 }, (_, i) => spread * Math.sin(i * i + phase));
    for (const spread of [0.1, 1, 8, 60]) {
      const [p, q] = [predict(logits(spread, 0), 1), predict(logits(spread, 0.3), 1)];
      const exact = klDivergence(p, q);
      expect(Math.abs(divergenceOf(p.logProbs, q.logProbs) - exact) / exact).toBeLessThan(1e-7);
      expect(divergenceOf(p.logProbs, p.logProbs)).toBe(0);
    }
  });
});
