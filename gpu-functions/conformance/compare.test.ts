import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { encodeFloat32 } from "../../shared/base64.ts";
import type { Edit } from "../../shared/protocol.ts";
import { ActivationsRequest, ScoreRequest, type ScoreResult } from "../../shared/readings.ts";
import { Fixture, type Forward, fixtures } from "../cpu/fixture.ts";
import { planEdits } from "../cpu/model.ts";
import type { OpenModel } from "../cpu/open-model.ts";
import { predict } from "../cpu/sampler.ts";
import { CHUNK } from "../cpu/session.ts";
import { ENGINE, type Engine, loadEngine, ROUNDING } from "./engine.ts";

/** tiny-gpt2 with autoencoders and a template. */
const MODEL = "tiny-sweep";
const WIDTH = 48;
const CONTEXT = 160;
const CHAT = `{{ bos_token }}{% for m in messages %}{{ m.role[0] }}: {{ m.content }}{{ eos_token }}{% endfor %}a:`;
const temporary = mkdtempSync(path.join(tmpdir(), "compare-"));
let engine: Engine;
let fixture: Fixture;
beforeAll(async () => {
  const directory = path.join(temporary, MODEL);
  cpSync(path.join(fixtures, "tiny-gpt2"), directory, { recursive: true });
  cpSync(path.join(fixtures, "saes", "sources"), path.join(directory, "sources"), { recursive: true });
  writeFileSync(path.join(directory, "chat_template.jinja"), CHAT);
  engine = await loadEngine({ directories: [directory], threads: 1 });
  fixture = new Fixture("tiny-gpt2");
});
afterAll(async () => {
  fixture.session.close();
  await engine.close();
  rmSync(temporary, { recursive: true });
});

type Scored = ScoreResult["items"][number];
const score = async (request: Partial<ScoreRequest> & Pick<ScoreRequest, "items">): Promise<Scored[]> =>
  (await engine.score(ScoreRequest.parse({ model: MODEL, compare: true, ...request }), new AbortController().signal)).items;

const wave = (phase: number) => Float32Array.from({ length: WIDTH }, (_, i) => Math.sin(i * 1.7 + phase));
const at = (boundary: number) => (boundary < 4 ? `blocks.${boundary}.hook_resid_pre` : "blocks.3.hook_resid_post");
const edit = (boundary: number, more: Partial<Edit> = {}): Edit => ({
  ...{ vector: encodeFloat32(wave(boundary)), point: at(boundary), method: "SIMPLE_ADDITIVE", strength: 4 },
  ...{ positions: "all", schedule: "constant", ...more },
});
const latent = (source: string, index: number) => ({ feature: { model: MODEL, source, index } });

const PROMPT = "The sun rose over the sea. ".repeat(3);
const TEXT = "One two three, naïve and 日本語. ".repeat(6);
const encode = (text: string) => engine.model(MODEL).tokenizer.encode(text);
const encodePrompt = (text: string) => engine.model(MODEL).tokenizer.encodePrompt(text);

/** Every position's prediction and the residuals, from one pass over prompt and text. */
async function pass(prompt: number[], text: number[], edits: Edit[]): Promise<Forward> {
  const model = engine.model(MODEL);
  const row = planEdits(model, edits, prompt, true, () => model);
  return fixture.forward([...prompt, ...text], row, prompt.length + text.length);
}

/** The definition, in float64: log probabilities of the text by both passes, and the divergence of every prediction. */
async function defined(prompt: number[], text: number[], edits: Edit[]) {
  const [edited, plain] = [await pass(prompt, text, edits), await pass(prompt, text, [])];
  return text.map((id, i) => {
    const position = prompt.length - 1 + i;
    const [q, r] = [edited, plain].map(({ logits }) => predict(logits[position] as Float32Array, 1).logProbs) as [
      Float64Array,
      Float64Array,
    ];
    const kl = q.reduce((sum, lq, v) => sum + Math.exp(lq) * (lq - (r[v] as number)), 0);
    return { id, logprob: q[id] as number, plain_logprob: r[id] as number, kl };
  });
}

function expectClose(found: Scored | undefined, wanted: Awaited<ReturnType<typeof defined>>): void {
  expect(found?.tokens.map(({ id }) => id)).toEqual(wanted.map(({ id }) => id));
  for (const [i, token] of (found?.tokens ?? []).entries()) {
    for (const key of ["logprob", "plain_logprob", "kl"] as const)
      expect(Math.abs((token[key] as number) - (wanted[i]?.[key] as number)), `${key} of token ${i}`).toBeLessThan(1e-5);
    expect(token.kl).toBeGreaterThanOrEqual(0);
  }
}

describe("a comparison of a text with and without edits", () => {
  const cases: [string, Edit[]][] = [
    ["before the first layer", [edit(0)]],
    ["in the middle", [edit(2)]],
    ["after the last layer", [edit(4)]],
    ["at several boundaries", [edit(3), edit(1, { strength: -2 }), edit(3, { method: "ORTHOGONAL_DECOMP", strength: -1 })]],
    ["of generated tokens only", [edit(2, { positions: "generated" })]],
    ["of the prompt only", [edit(1, { positions: "prompt" })]],
    [
      "at ranges of positions",
      [
        edit(2, {
          positions: [
            [3, 9],
            [35, 36],
            [50, 90],
          ],
        }),
        edit(3, { positions: "prompt_except_last" }),
      ],
    ],
    ["that fade", [edit(2, { schedule: { kind: "decay", tokens: 12 } })]],
    ["that grow", [edit(0, { schedule: { kind: "ramp", tokens: 20 }, positions: "generated" })]],
    ["that cap", [edit(2, { method: "PROJECTION_CAP", strength: -0.3 })]],
    [
      "that clamp",
      [edit(1, { method: "PROJECTION_CLAMP", strength: 0, min: 0.5, max: 0.7 }), edit(3, { method: "PROJECTION_CAP", strength: 0 })],
    ],
    ["that ablate at all layers", [{ ...edit(0, { method: "ABLATE", strength: 0, layers: "all" }), point: undefined }]],
    ["of a latent", [{ ...latent("2-standard", 1), method: "LATENT_CLAMP", strength: 6, positions: "all", schedule: "constant" }]],
  ];

  it.each(cases)("gives what two separate passes give, with edits %s", async (_, edits) => {
    const [prompt, text] = [encodePrompt(PROMPT), encode(TEXT)];
    // More than one part of a reading, on either engine.
    expect(prompt.length + text.length).toBeGreaterThan(CHUNK + 1);
    const wanted = await defined(prompt, text, edits);
    const [item] = await score({ items: [{ prompt: PROMPT, text: TEXT }], edits });
    expectClose(item, wanted);
    const sum = (of: (token: (typeof wanted)[number]) => number) => wanted.reduce((total, token) => total + of(token), 0);
    const [plain, kl] = [sum(({ plain_logprob }) => plain_logprob), sum((token) => token.kl)];
    expect(kl).toBeGreaterThan(0.01);
    expect(item?.logprob).toBeCloseTo(
      sum(({ logprob }) => logprob),
      3,
    );
    expect(item?.plain?.logprob).toBeCloseTo(plain, 3);
    expect(item?.plain?.perplexity).toBeCloseTo(Math.exp(-plain / text.length), 3);
    expect(item?.plain?.kl).toBeCloseTo(kl / text.length, 5);
    // Reading it plain as well changes nothing of what a reading with edits says, but for roundings of parts that are cut elsewhere.
    const [alone] = await score({ items: [{ prompt: PROMPT, text: TEXT }], edits, compare: false });
    for (const [i, token] of (alone?.tokens ?? []).entries())
      expect(Math.abs(token.logprob - (item?.tokens[i]?.logprob as number))).toBeLessThan(1e-5);
    expect(item?.receipts.map(({ positions, positions_changed }) => [positions, positions_changed])).toEqual(
      alone?.receipts.map(({ positions, positions_changed }) => [positions, positions_changed]),
    );
    expect(alone?.tokens[0]).not.toHaveProperty("kl");
    expect(alone).not.toHaveProperty("plain");
  });

  it("is right for texts of every length around the parts that are computed at once, with the last token read for targets", async () => {
    const all = encodePrompt(PROMPT.repeat(5));
    const target = { vector: encodeFloat32(wave(9)), point: at(2) };
    for (const [prompt, length] of [
      [1, 2],
      [5, 6],
      [10, 64],
      [10, 65],
      [64, 66],
      [100, CHUNK],
      [100, CHUNK + 1],
      [CHUNK, CHUNK + 2],
      [CHUNK + 1, CHUNK + 2],
      [3, CONTEXT],
    ] as const) {
      const text = all.slice(prompt, length);
      // Tokens of a prompt are given as its text: the same ids come back.
      const written = all.slice(0, prompt).map((id) => engine.model(MODEL).tokenizer.tokenString(id));
      expect(encodePrompt(written.join(""))).toEqual(all.slice(0, prompt));
      const [item] = await score({ items: [{ prompt: written.join(""), ids: text }], edits: [edit(1)], targets: [target] });
      expectClose(item, await defined(all.slice(0, prompt), text, [edit(1)]));
      // The last token's own prediction is not asked for: no edit acts on it.
      expect(item?.receipts[0]?.positions).toBe(length - 1);
      const stream = (await pass(all.slice(0, prompt), text, [])).resid[2] as Float32Array[];
      const wanted = stream.slice(prompt).map((h) => h.reduce((sum, x, d) => sum + x * (wave(9)[d] as number), 0));
      expect(item?.values).toHaveLength(1);
      expect(item?.values?.[0]).toHaveLength(text.length);
      item?.values?.[0]?.forEach((value, i) => expect(value).toBeCloseTo(wanted[i] as number, 3));
    }
  });

  it("is nothing without edits, and with edits that change nothing on purpose", async () => {
    const items = [{ prompt: PROMPT, text: TEXT }];
    for (const edits of [[], [edit(2, { strength: 0 })], [edit(1, { method: "ORTHOGONAL_DECOMP", strength: 1 })]]) {
      const [item] = await score({ items, edits, targets: [latent("2-standard", 0)] });
      for (const { logprob, plain_logprob, kl } of item?.tokens ?? []) {
        expect(Math.abs(logprob - (plain_logprob as number))).toBeLessThanOrEqual(ROUNDING);
        expect(kl).toBeLessThanOrEqual(ROUNDING);
      }
      expect(item?.plain?.perplexity).toBeCloseTo(item?.perplexity as number, ENGINE === "cpu" ? 12 : 3);
      expect(item?.receipts.map(({ positions_changed }) => positions_changed)).toEqual(edits.map(() => 0));
      expect(item?.values?.[0]).toHaveLength(encode(TEXT).length);
    }
  });

  it("gives every text its own edits, prompt and tokens, the same alone and among others", async () => {
    const conversation = [{ role: "user" as const, content: "Tell me of the sea." }];
    const rendered = CHAT_TEXT(conversation);
    const items: ScoreRequest["items"] = [
      { prompt: PROMPT, text: TEXT },
      { prompt: PROMPT, ids: encode(TEXT) },
      { prompt: PROMPT, text: TEXT, edits: [edit(3, { strength: -5 })] },
      { prompt: PROMPT, text: TEXT, edits: [] },
      { messages: conversation, text: "It is deep.", edits: [edit(1)] },
      { prompt: rendered, text: "It is deep.", edits: [edit(1)] },
    ];
    const all = await score({ items, edits: [edit(2)], logprobs: 2, targets: [{ vector: encodeFloat32(wave(2)), point: at(3) }] });
    expect(all[1]).toEqual(all[0]);
    expect(all[5]).toEqual(all[4]);
    expect(all[3]?.plain?.kl).toBe(0);
    expectClose(all[2], await defined(encodePrompt(PROMPT), encode(TEXT), [edit(3, { strength: -5 })]));
    expectClose(all[4], await defined(encode(rendered), encode("It is deep."), [edit(1)]));
    for (const [i, item] of items.entries()) {
      const [alone] = await score({
        items: [{ edits: [edit(2)], ...item }],
        logprobs: 2,
        targets: [{ vector: encodeFloat32(wave(2)), point: at(3) }],
      });
      expect(alone).toEqual(all[i]);
    }
  });

  const CHAT_TEXT = (messages: { role: "user"; content: string }[]): string => {
    const { chat } = engine.model(MODEL);
    if (chat === undefined) throw new Error("the model has a template");
    return chat.render(messages);
  };

  it("reads what features and vectors do on the text without edits, as /activations does", async () => {
    const targets = [
      ...["1-gated", "2-standard", "3-jumprelu-half", "2-topk", "1-llama-scope"].flatMap((source) => [
        latent(source, 1),
        latent(source, 7),
      ]),
      { vector: encodeFloat32(wave(3)), point: at(0) },
      { vector: encodeFloat32(wave(3)), point: at(4) },
    ];
    const text = " Then one two three men came home.".repeat(3);
    const [prompt, ids] = [encodePrompt("The sun rose."), encode(text)];
    expect(encodePrompt(`The sun rose.${text}`)).toEqual([...prompt, ...ids]);
    const request = ActivationsRequest.parse({ model: MODEL, texts: [`The sun rose.${text}`], targets });
    const [wanted] = (await engine.activations(request, new AbortController().signal)).items;
    for (const edits of [[], [edit(0)], [edit(2), edit(4)]]) {
      const [item] = await score({ items: [{ prompt: "The sun rose.", text }], edits, targets });
      expect(item?.values).toHaveLength(targets.length);
      for (const [i, values] of (item?.values ?? []).entries()) {
        const expected = wanted?.values[i]?.slice(prompt.length) as number[];
        expect(values).toHaveLength(expected.length);
        values.forEach((value, t) => expect(Math.abs(value - (expected[t] as number))).toBeLessThan(2e-4));
      }
    }
    expect(wanted?.values.some((values) => values.slice(prompt.length).some((value) => value > 0))).toBe(true);
  });

  it("is refused where an item, an id or a target is wrong, before anything is read", async () => {
    const good = { prompt: "The", text: "sea" };
    for (const bad of [{ prompt: "The" }, { ...good, ids: [1] }, { ...good, messages: [{ role: "user", content: "Hi" }] }])
      expect(ScoreRequest.safeParse({ model: MODEL, items: [bad] }).error?.issues[0]?.message).toMatch(
        /^an item has (exactly|at most) one of/,
      );
    const target = { vector: encodeFloat32(wave(0)), point: at(2) };
    expect(ScoreRequest.safeParse({ model: MODEL, items: [good], targets: [target] }).error?.issues[0]?.message).toMatch(/ask for compare/);
    const refused = async (request: Parameters<typeof score>[0]) => {
      const error = await score(request).catch((error: unknown) => error);
      return error as Error & { code: string };
    };
    const unknown = await refused({ items: [good, { prompt: "The", ids: [3, fixture.vocab] }] });
    expect(unknown).toMatchObject({ code: "invalid_request" });
    expect(unknown.message).toBe(`items.1.ids has ${fixture.vocab}, which is no token of this model: they are 0 to ${fixture.vocab - 1}.`);
    const long = await refused({ items: [good, { prompt: PROMPT, ids: Array(CONTEXT).fill(1) }] });
    expect(long).toMatchObject({ code: "prompt_too_long" });
    expect(long.message).toMatch(/^items\.1 is \d+ tokens long with its prompt; this model takes at most 160/);
    const narrow = await refused({ items: [good], targets: [{ vector: encodeFloat32([1, 2]), point: at(2) }] });
    expect(narrow.message).toMatch(/targets\.0\.vector has 2 values/);
    expect(await refused({ items: [good], targets: [latent("9-none", 0)] })).toMatchObject({ code: "feature_not_found" });
  });

  it("never passes for steered when nothing was, and fails where numbers are lost", async () => {
    const items = [{ prompt: "The", text: "sea" }];
    await expect(score({ items, edits: [edit(2, { positions: [[150, 151]] })] })).rejects.toMatchObject({ code: "steering_not_applied" });
    // The one token of the text is predicted before any edit acts.
    await expect(score({ items: [{ prompt: "The", ids: [5] }], edits: [edit(2, { positions: "generated" })] })).rejects.toMatchObject({
      code: "steering_not_applied",
    });
    const vast = edit(2, { vector: encodeFloat32(wave(0).map((value) => 100 * value)), strength: 1e38 });
    const lost = score({ items: [{ prompt: "The", text: "sea", edits: [vast] }, ...Array(6).fill({ prompt: PROMPT, text: TEXT })] });
    await expect(lost).rejects.toMatchObject({ code: "engine_failed", message: expect.stringMatching(/not finite/) });
    // What failed frees its rows, and the others of the request with it.
    await expect.poll(() => engine.model(MODEL).scheduler.load()).toEqual({ rows: 0, waiting: 0 });
    expect((await score({ items, edits: [edit(2)] }))[0]?.tokens.length).toBeGreaterThan(0);
  });

  it.skipIf(ENGINE !== "cpu")("computes what is below the first edited layer once", async () => {
    const { session } = engine.model(MODEL) as OpenModel;
    const [whole, part] = [vi.spyOn(session, "prefill"), vi.spyOn(session, "prefillFrom")];
    try {
      await score({ items: [{ prompt: PROMPT, text: TEXT }], edits: [edit(3)] });
      const tokens = encodePrompt(PROMPT).length + encode(TEXT).length - 1;
      expect(whole.mock.calls.reduce((sum, [, ids]) => sum + ids.length, 0)).toBe(tokens);
      expect(part.mock.calls.map(([from, , , ids]) => [from, ids.length])).toEqual(whole.mock.calls.map(([, ids]) => [3, ids.length]));
    } finally {
      whole.mockRestore();
      part.mockRestore();
    }
  });
});
