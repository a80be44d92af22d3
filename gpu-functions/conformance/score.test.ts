import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { encodeFloat32 } from "../../shared/base64.ts";
import { type Edit, GenerateRequest, type GenerateResult, type TokenEvent } from "../../shared/protocol.ts";
import { ScoreRequest } from "../../shared/readings.ts";
import { compilePoint } from "../../shared/steering.ts";
import { Fixture, fixtures } from "../cpu/fixture.ts";
import type { OpenModel } from "../cpu/open-model.ts";
import { ENGINE, type Engine, loadEngine } from "./engine.ts";

const MODEL = "tiny-gpt2";
let engine: Engine;
beforeAll(async () => {
  engine = await loadEngine({ directories: [path.join(fixtures, MODEL)], threads: 1 });
});
afterAll(() => engine.close());

const vector = encodeFloat32(Array.from({ length: 48 }, (_, i) => Math.sin(i * 1.7)));
const edit = (more: Partial<Edit> = {}): Edit => ({
  vector,
  point: "blocks.2.hook_resid_pre",
  method: "SIMPLE_ADDITIVE",
  strength: 6,
  positions: "all",
  schedule: "constant",
  ...more,
});
const never = () => new AbortController().signal;
const PROMPT = "The sun rose over the sea. ".repeat(11);

async function generate(rows: GenerateRequest["rows"], more: Partial<GenerateRequest> = {}) {
  const sampling = { temperature: 0.9, seed: 4, logprobs: 2 };
  const request = GenerateRequest.parse({ model: MODEL, prompt: PROMPT, rows, sampling, max_tokens: 12, ...more });
  const tokens: TokenEvent[] = [];
  let result: GenerateResult | undefined;
  for await (const event of engine.generate(request, never())) {
    if (event.event === "token") tokens.push(event.data);
    else if (event.event === "done") result = event.data;
  }
  return {
    result: result as GenerateResult,
    of: (row: string) => tokens.filter((token) => token.row === row).map(({ row: _, ...token }) => token),
  };
}

describe("scores", () => {
  const score = (items: ScoreRequest["items"], edits: Edit[] = []) =>
    engine.score(ScoreRequest.parse({ model: MODEL, items, edits, logprobs: 2 }), never());

  it("are the log probabilities of one forward pass over prompt and text, plain and steered", async () => {
    const { session } = new Fixture(MODEL);
    const direction = Float32Array.from({ length: 48 }, (_, i) => Math.sin(i * 1.7));
    const text = "one two three, naïve";
    const { tokenizer } = engine.model(MODEL);
    // One call's worth.
    const shorter = PROMPT.slice(0, PROMPT.length / 2);
    const prompt = tokenizer.encodePrompt(shorter);
    const ids = [...prompt, ...tokenizer.encode(text)];
    for (const edits of [[], [edit()]]) {
      const program = compilePoint([{ method: "SIMPLE_ADDITIVE", strength: 6, direction }], 48);
      session.edits.set(0, new Map(edits.length === 0 ? [] : [[2, program]]));
      const step = await session.prefill(
        0,
        ids,
        0,
        ids.map((_, i) => i),
      );
      const { items } = await score([{ prompt: shorter, text }], edits);
      expect(items[0]?.tokens.map(({ id }) => id)).toEqual(ids.slice(prompt.length));
      for (const [i, token] of (items[0]?.tokens ?? []).entries()) {
        const logits = step.logits(prompt.length - 1 + i);
        const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
        expect(token.logprob).toBeCloseTo((logits[token.id] as number) - total, 5);
        expect(token.top[0]?.logprob).toBeCloseTo(Math.max(...logits) - total, 5);
      }
      expect(items[0]?.receipts.map(({ positions }) => positions)).toEqual(edits.map(() => ids.length - 1));
    }
    session.close();
  });

  it("are the same alone, among others and beside a generation, and sum to the perplexity", async () => {
    const items = ["The sea was calm.", "one two three four five six seven eight ".repeat(4), "naïve 日本語"].map((text) => ({
      prompt: "The",
      text,
    }));
    const alone = [];
    for (const item of items) alone.push((await score([item])).items[0]);
    const [among] = await Promise.all([score(items), generate([{ name: "A", edits: [edit()] }])]);
    expect(among.items).toEqual(alone);
    for (const item of among.items) {
      const sum = item.tokens.reduce((total, token) => total + token.logprob, 0);
      expect(item.logprob).toBeCloseTo(sum, 10);
      expect(item.perplexity).toBeCloseTo(Math.exp(-sum / item.tokens.length), 10);
    }
  });

  it("say which item is too long, and never pass for steered when nothing was", async () => {
    await expect(
      score([
        { prompt: "The", text: "a" },
        { prompt: "The", text: "word ".repeat(400) },
      ]),
    ).rejects.toMatchObject({
      code: "prompt_too_long",
      message: expect.stringMatching(/^items\.1 is \d+ tokens long with its prompt; this model takes at most 160/),
    });
    await expect(score([{ prompt: "The", text: "sea" }], [edit({ positions: [[150, 151]] })])).rejects.toMatchObject({
      code: "steering_not_applied",
    });
  });
});

// Sharing the prompt among rows is the CPU engine's affair: PyTorch computes rows of one prompt as one batch.
describe.skipIf(ENGINE !== "cpu")("a prompt", () => {
  const rowsOf = (...edits: Edit[]) => [
    { name: "DEFAULT", edits: [] },
    { name: "STEERED", edits },
  ];
  /** A generation, with the tokens times layers that its prompts took. */
  const measured = async (...edits: Edit[]) => {
    const { session } = engine.model(MODEL) as OpenModel;
    const [whole, part] = [vi.spyOn(session, "prefill"), vi.spyOn(session, "prefillFrom")];
    try {
      const made = await generate(rowsOf(...edits));
      const layers = session.shape.layers + 1;
      const work =
        whole.mock.calls.reduce((sum, [, ids]) => sum + ids.length * layers, 0) +
        part.mock.calls.reduce((sum, [from, , , ids]) => sum + ids.length * (layers - from), 0);
      return { made, work: work / layers };
    } finally {
      whole.mockRestore();
      part.mockRestore();
    }
  };
  const alone = async (...edits: Edit[]) => {
    for (const row of rowsOf(...edits)) expect((await measured(...edits)).made.of(row.name)).toEqual((await generate([row])).of(row.name));
  };
  const length = () => engine.model(MODEL).tokenizer.encodePrompt(PROMPT).length;

  it("is computed once for all rows when only generated tokens are steered, with the same texts as alone", async () => {
    const { made, work } = await measured(edit({ positions: "generated" }));
    expect(work).toBe(length());
    expect(made.of("STEERED")).not.toEqual(made.of("DEFAULT"));
    await alone(edit({ positions: "generated" }));
  });

  it("is computed once up to the first edited layer, with the same texts and receipts as alone", async () => {
    const cap = edit({ method: "PROJECTION_CAP", strength: 0.2, point: "blocks.3.hook_resid_pre" });
    for (const edits of [[edit()], [edit({ positions: "prompt" })], [edit(), cap], [cap, edit({ positions: "generated" }), edit()]]) {
      const { made, work } = await measured(...edits);
      expect(work).toBeCloseTo(length() * (1 + 3 / 5), 10);
      await alone(...edits);
      const [receipts] = (await generate(rowsOf(...edits).slice(1))).result.rows.map((row) => row.receipts);
      expect(made.result.rows[1]?.receipts).toEqual(receipts);
    }
    for (const each of [
      edit({ point: "blocks.0.hook_resid_pre" }),
      edit({ positions: [[3, 9]] }),
      edit({ positions: "prompt_except_last" }),
    ]) {
      expect((await measured(each)).work).toBe(2 * length());
      await alone(each);
    }
  });
});

describe("many rows", () => {
  const rowsOf = (count: number) =>
    Array.from({ length: count }, (_, i) => ({ name: `row ${i}`, edits: i === 0 ? [] : [edit({ strength: i })] }));
  const text = ({ result }: Awaited<ReturnType<typeof generate>>) => result.rows.map((row) => row.text);

  it("of one prompt run in one call, as many as the model says, with the texts of calls of their own", async () => {
    const { rows: most } = engine.model(MODEL).info;
    expect(most).toBe(16);
    const together = await generate(rowsOf(most), { kl_baseline: "row 0" });
    expect(new Set(text(together)).size).toBeGreaterThan(8);
    for (const [i, row] of rowsOf(most).entries()) expect(text(await generate([row]))).toEqual([text(together)[i]]);
  });

  it("are refused where they are more", async () => {
    await expect(generate(rowsOf(17))).rejects.toMatchObject({
      code: "invalid_request",
      message: `17 rows are asked for; ${MODEL} runs 16 at once: ask for fewer.`,
    });
  });
});

describe("a deadline", () => {
  it("ends a request that takes longer, frees its rows, and leaves others alone", async () => {
    const other = generate([{ name: "A", edits: [] }], { max_tokens: 20 });
    await expect(generate([{ name: "A", edits: [] }], { max_tokens: 24, deadline_ms: 1 })).rejects.toMatchObject({
      code: "engine_timeout",
    });
    expect((await other).of("A")).toHaveLength(20);
    await expect.poll(() => engine.model(MODEL).scheduler.load().rows).toBe(0);
  });
});
