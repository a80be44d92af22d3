import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodeFloat32 } from "../../shared/base64.ts";
import { TillerError } from "../../shared/errors.ts";
import { type Edit, type GenerateEvent, GenerateRequest, type GenerateResult, type TokenEvent } from "../../shared/protocol.ts";
import { FIXTURES, fixtures } from "../cpu/fixture.ts";
import { type Engine, loadEngine, ROUNDING } from "./engine.ts";

const MODEL = "tiny-gpt2";
const WIDTH = 48;
const CONTEXT = 160;
let engine: Engine;
beforeAll(async () => {
  engine = await loadEngine({ directories: [path.join(import.meta.dirname, "..", "fixtures", MODEL)], threads: 1 });
});
afterAll(() => engine.close());

const wave = (phase: number) => encodeFloat32(Array.from({ length: WIDTH }, (_, i) => Math.sin(i * 1.7 + phase)));
const vectorEdit = (strength: number, more: Partial<Edit> = {}): Edit => ({
  vector: wave(0.3),
  point: "blocks.2.hook_resid_pre",
  method: "SIMPLE_ADDITIVE",
  strength,
  positions: "all",
  schedule: "constant",
  ...more,
});

interface Options {
  prompt?: string;
  edits?: Edit[];
  max_tokens?: number;
  sampling?: Partial<GenerateRequest["sampling"]>;
  more?: Partial<GenerateRequest>;
}
const request = ({
  prompt = "The sun rose over",
  edits = [vectorEdit(6)],
  max_tokens = 24,
  sampling = {},
  more = {},
}: Options = {}): GenerateRequest =>
  GenerateRequest.parse({
    model: MODEL,
    prompt,
    rows: [
      { name: "DEFAULT", edits: [] },
      { name: "STEERED", edits },
    ],
    sampling: { temperature: 0.9, seed: 16, logprobs: 3, ...sampling },
    max_tokens,
    ...more,
  });

interface Outcome {
  tokens: TokenEvent[];
  result: GenerateResult;
}
async function run(body: GenerateRequest, signal = new AbortController().signal, on = engine): Promise<Outcome> {
  const tokens: TokenEvent[] = [];
  for await (const event of on.generate(body, signal)) {
    if (event.event === "token") tokens.push(event.data);
    else if (event.event === "done") return { tokens, result: event.data };
  }
  throw new Error("the stream ended without a result");
}
const row = (outcome: Outcome, name: string) => outcome.result.rows.find((r) => r.name === name) as GenerateResult["rows"][number];
const ids = (outcome: Outcome, name: string) => outcome.tokens.filter((t) => t.row === name).map((t) => t.id);
/** Slots are freed between steps: waits for the step after the last event. */
const untilFree = async () => {
  while (engine.model(MODEL).scheduler.load().rows > 0) await new Promise((resolve) => setImmediate(resolve));
};
const refusal = async (body: GenerateRequest): Promise<TillerError> => {
  try {
    await run(body);
  } catch (error) {
    if (error instanceof TillerError) return error;
    throw error;
  }
  throw new Error("the request was not refused");
};

describe("generation", () => {
  it("streams every row's tokens, whose texts join to the final text", async () => {
    const outcome = await run(request());
    for (const name of ["DEFAULT", "STEERED"]) {
      const tokens = outcome.tokens.filter((t) => t.row === name);
      expect(tokens.map((t) => t.index)).toEqual(tokens.map((_, i) => i));
      expect(tokens.map((t) => t.text).join("")).toBe(row(outcome, name).text);
      expect(tokens.every((t) => t.top.length === 3 && t.logprob <= 0)).toBe(true);
    }
    expect(outcome.result.usage.completion_tokens).toBe(outcome.tokens.length);
    expect(row(outcome, "STEERED").text).not.toBe(row(outcome, "DEFAULT").text);
  });

  it("gives the same text for the same request, and another for another seed", async () => {
    const [first, second] = [await run(request()), await run(request())];
    expect(second.tokens).toEqual(first.tokens);
    expect(ids(await run(request({ sampling: { seed: 17 } })), "DEFAULT")).not.toEqual(ids(first, "DEFAULT"));
  });

  it("at zero strength gives the baseline's tokens and logprobs exactly, and says that nothing changed", async () => {
    const outcome = await run(request({ edits: [vectorEdit(0)] }));
    const strip = (name: string) => outcome.tokens.filter((t) => t.row === name).map(({ row: _row, ...token }) => token);
    const rounded = (name: string) => strip(name).map(({ logprob, top, ...token }) => ({ ...token, top: top.map(({ id }) => id) }));
    expect(rounded("STEERED")).toEqual(rounded("DEFAULT"));
    strip("STEERED").forEach((token, i) => {
      const wanted = strip("DEFAULT")[i] as typeof token;
      expect(Math.abs(token.logprob - wanted.logprob)).toBeLessThanOrEqual(ROUNDING);
      token.top.forEach(({ logprob }, k) => expect(Math.abs(logprob - (wanted.top[k]?.logprob as number))).toBeLessThanOrEqual(ROUNDING));
    });
    expect(row(outcome, "STEERED").receipts).toMatchObject([{ strength: 0, positions_changed: 0, mean_relative_delta: 0 }]);
  });

  it("gives a row the same tokens alone, beside its pair, and among many requests of other lengths that come and go", async () => {
    const alone = await run(request({ more: { rows: [{ name: "STEERED", edits: [vectorEdit(6)] }] } }));
    const others = Array.from({ length: 14 }, (_, i) =>
      run(
        request({
          prompt: "one two three ".repeat(1 + (i % 5) * 3),
          edits: [i % 3 === 0 ? vectorEdit(0.1, { method: "PROJECTION_CAP" }) : vectorEdit(i - 6.5)],
          max_tokens: 3 + i * 2,
          sampling: { seed: i },
        }),
      ),
    );
    const among = await run(request());
    await Promise.all(others);
    expect(ids(among, "STEERED")).toEqual(ids(alone, "STEERED"));
    expect(ids(await run(request()), "STEERED")).toEqual(ids(alone, "STEERED"));
  });

  it("measures a KL of zero against an equal row and a positive one against a different row", async () => {
    const equal = await run(request({ edits: [vectorEdit(0)], more: { kl_baseline: "DEFAULT" } }));
    expect(equal.tokens.filter((t) => t.row === "STEERED").every((t) => (t.kl as number) <= ROUNDING)).toBe(true);
    const different = await run(request({ more: { kl_baseline: "DEFAULT" } }));
    expect(different.tokens.find((t) => t.row === "STEERED")?.kl).toBeGreaterThan(0);
    expect(different.tokens.find((t) => t.row === "DEFAULT")).not.toHaveProperty("kl");
  });

  it("ends a row at a stop string without showing it, while the other row goes on", async () => {
    const free = await run(request({ sampling: { temperature: 0 } }));
    const text = row(free, "STEERED").text;
    const stop = text.slice(5, 8);
    const stopped = await run(request({ sampling: { temperature: 0, stop: [stop] } }));
    expect(row(stopped, "STEERED")).toMatchObject({ text: text.slice(0, text.indexOf(stop)), finish_reason: "stop" });
  });

  it("applies the frequency penalty", async () => {
    const repeats = (outcome: Outcome) => ids(outcome, "DEFAULT").length - new Set(ids(outcome, "DEFAULT")).size;
    const free = await run(request({ sampling: { temperature: 0 }, max_tokens: 40 }));
    const penalised = await run(request({ sampling: { temperature: 0, frequency_penalty: 2 }, max_tokens: 40 }));
    expect(repeats(penalised)).toBeLessThan(repeats(free));
  });
});

describe("edits", () => {
  it("report receipts with positions of prompt and generated tokens", async () => {
    const outcome = await run(request({ max_tokens: 10 }));
    const prompt = outcome.result.usage.prompt_tokens;
    const generated = ids(outcome, "STEERED").length;
    // The last token is only returned, never fed back.
    expect(row(outcome, "STEERED").receipts).toMatchObject([
      { positions: prompt + generated - 1, positions_changed: prompt + generated - 1 },
    ]);
  });

  it("leave the tokenizer's special tokens alone when asked to", async () => {
    const all = await run(request({ max_tokens: 4 }));
    const spared = await run(request({ max_tokens: 4, more: { steer_special_tokens: false } }));
    const positions = (o: Outcome) => row(o, "STEERED").receipts[0]?.positions as number;
    expect(positions(spared)).toBe(positions(all) - 1);
    expect(spared.tokens.find((t) => t.row === "STEERED")?.logprob).not.toBe(all.tokens.find((t) => t.row === "STEERED")?.logprob);
  });

  it("of generated positions leave the first token's distribution alone", async () => {
    const outcome = await run(request({ edits: [vectorEdit(6, { positions: "generated" })] }));
    const [steered, plain] = ["STEERED", "DEFAULT"].map((name) => outcome.tokens.filter((t) => t.row === name));
    expect(steered?.[0]?.logprob).toBe(plain?.[0]?.logprob);
    expect(steered?.[0]?.id).toBe(plain?.[0]?.id);
    expect(steered?.[1]?.logprob).not.toBe(plain?.[1]?.logprob);
  });

  it("that change nothing are an error, not a plain text called steered", async () => {
    expect(await refusal(request({ edits: [vectorEdit(1e9, { method: "PROJECTION_CAP" })] }))).toMatchObject({
      code: "steering_not_applied",
      message: expect.stringContaining("no position's projection went past the bound"),
    });
    expect(await refusal(request({ edits: [vectorEdit(5, { positions: [[150, 155]] })], max_tokens: 3 }))).toMatchObject({
      code: "steering_not_applied",
      message: expect.stringContaining("met no position"),
    });
  });
});

describe("refusals before any work", () => {
  it.each([
    ["an unknown model", { more: { model: "gpt5" } }, "model_not_found", "It serves: tiny-gpt2"],
    [
      "a wrong width",
      { edits: [vectorEdit(1, { vector: encodeFloat32([1, 2, 3]) })] },
      "invalid_request",
      "has 3 values; this model's residual stream has 48",
    ],
    ["a zero vector", { edits: [vectorEdit(1, { vector: encodeFloat32(new Array(WIDTH).fill(0)) })] }, "invalid_request", "is zero"],
    [
      "a non-finite vector",
      { edits: [vectorEdit(1, { vector: encodeFloat32(new Array(WIDTH).fill(Number.NaN)) })] },
      "invalid_request",
      "not a finite number",
    ],
    [
      "a vector that is not base64",
      { edits: [vectorEdit(1, { vector: "!!" })] },
      "invalid_request",
      "base64 of little-endian float32, 48 values",
    ],
    ["an unknown point", { edits: [vectorEdit(1, { point: "blocks.2.mlp.hook_post" })] }, "invalid_request", "blocks.L.hook_resid_pre"],
    [
      "a layer that does not exist",
      { edits: [vectorEdit(1, { point: "blocks.4.hook_resid_pre" })] },
      "invalid_request",
      "its layers are 0 to 3",
    ],
    [
      "a source that does not exist",
      { edits: [{ method: "ABLATE", strength: 0, positions: "all", feature: { model: MODEL, source: "2-none", index: 0 } }] },
      "feature_not_found",
      "2-none",
    ],
    ["too many tokens", { max_tokens: CONTEXT }, "prompt_too_long", "context is 160"],
    ["a prompt that is too long", { prompt: "x ".repeat(400) }, "prompt_too_long", "at most 159"],
    ["a KL baseline that is no row", { more: { kl_baseline: "PLAIN" } }, "invalid_request", "DEFAULT, STEERED"],
  ] as [string, Options, string, string][])("%s", async (_name, options, code, words) => {
    await untilFree();
    expect(await refusal(request(options))).toMatchObject({ code, message: expect.stringContaining(words) });
    expect(engine.model(MODEL).scheduler.load()).toEqual({ rows: 0, waiting: 0 });
  });
});

describe("rows with conversations of their own", () => {
  const talk = (content: string) => [{ role: "user" as const, content }];
  it("continue each its own, as they would alone, and are never compared", async () => {
    const directories = [path.join(fixtures, "..", "bundled", "tiller-tales")];
    const bundled = await loadEngine({ directories, threads: 1 });
    try {
      const texts = async (rows: GenerateRequest["rows"], more: object = {}) => {
        const sampling = { temperature: 0.8, seed: 3 };
        const { result } = await run(
          GenerateRequest.parse({ model: "tiller-tales", rows, sampling, max_tokens: 12, ...more }),
          undefined,
          bundled,
        );
        return result.rows.map(({ text }) => text);
      };
      const vector = encodeFloat32(Array.from({ length: 256 }, (_, i) => Math.sin(i)));
      const edits = [vectorEdit(8, { vector, point: "blocks.3.hook_resid_pre" })];
      const [short, long] = [talk("Hello!"), talk("Can we go to the park and see the ducks today?")];
      const together = await texts([
        { name: "A", edits: [], messages: short },
        { name: "B", edits, messages: long },
      ]);
      expect(together[0]).toBe((await texts([{ name: "A", edits: [], messages: short }]))[0]);
      expect(together[1]).toBe((await texts([{ name: "B", edits }], { messages: long }))[0]);
    } finally {
      await bundled.close();
    }
    const rows = [
      { name: "A", edits: [], messages: talk("x") },
      { name: "B", edits: [] },
    ];
    const parse = (more: object) =>
      GenerateRequest.safeParse({ model: "m", rows, sampling: { temperature: 1, seed: 1 }, max_tokens: 1, ...more }).success;
    expect([parse({}), parse({ prompt: "x" }), parse({ prompt: "x", kl_baseline: "A" })]).toEqual([false, true, false]);
    expect(parse({ rows: rows.slice(0, 1), prompt: "x" })).toBe(false);
  });
});

describe("leaving early", () => {
  it("an aborted request frees its rows while others go on to the same text", async () => {
    const wanted = ids(await run(request({ max_tokens: 60 })), "STEERED");
    const controller = new AbortController();
    const events = engine.generate(request({ max_tokens: 120, sampling: { seed: 5 } }), controller.signal)[Symbol.asyncIterator]();
    const other = run(request({ max_tokens: 60 }));
    for (let i = 0; i < 10; i++) await events.next();
    controller.abort();
    let left: IteratorResult<GenerateEvent>;
    do left = await events.next();
    while (!left.done);
    expect(ids(await other, "STEERED")).toEqual(wanted);
    await untilFree();
  });

  it("a consumer that stops reading frees its rows", async () => {
    for await (const event of engine.generate(request({ max_tokens: 120 }), new AbortController().signal))
      if (event.event === "token") break;
    await untilFree();
  });

  it("a request that was given up before it began stops nobody after it", async () => {
    await untilFree();
    const controller = new AbortController();
    controller.abort();
    await expect(run(request(), controller.signal)).rejects.toThrow(/without a result/);
    expect((await run(request({ max_tokens: 3 }))).result.rows).toHaveLength(2);
  });

  it("a full queue is refused with a time to come back", async () => {
    const controller = new AbortController();
    const waiting = Array.from({ length: 80 }, () => run(request({ max_tokens: 100 }), controller.signal).catch((error: unknown) => error));
    const refused = await Promise.race(waiting);
    expect(refused).toMatchObject({ code: "engine_busy", retryAfterSeconds: 5 });
    controller.abort();
    await Promise.all(waiting);
    await untilFree();
  });
});

describe("a model of every family", () => {
  it.each(FIXTURES)("%s loads, proves its hooks and is steered", async (name) => {
    const other = await loadEngine({ directories: [path.join(fixtures, name)], threads: 1 });
    try {
      const { width } = other.model(name).shape;
      const vector = encodeFloat32(Array.from({ length: width }, (_, i) => Math.sin(i * 1.7)));
      const body = request({ edits: [vectorEdit(20, { vector })], max_tokens: 8, sampling: { temperature: 0 }, more: { model: name } });
      const outcome = await run(body, undefined, other);
      for (const { name: rowName, text } of outcome.result.rows) {
        const shown = outcome.tokens.filter((token) => token.row === rowName).map((token) => token.text);
        // What a row held back may follow its last token.
        expect(text.startsWith(shown.join(""))).toBe(true);
      }
      expect(row(outcome, "STEERED").receipts[0]?.positions_changed).toBeGreaterThan(0);
      expect(ids(outcome, "STEERED")).not.toEqual(ids(outcome, "DEFAULT"));
    } finally {
      await other.close();
    }
  });
});

describe("schedules", () => {
  const GREEDY = { temperature: 0 };
  const length = () => engine.model(MODEL).tokenizer.encodePrompt("The sun rose over").length;
  const steered = async (...edits: Edit[]) => {
    const outcome = await run(request({ edits, sampling: GREEDY }));
    return { tokens: outcome.tokens.filter((token) => token.row === "STEERED"), receipts: row(outcome, "STEERED").receipts };
  };

  it("decay: all of the change at the first token, less at each, none at the end", async () => {
    const [P, all] = [length(), 4];
    const decayed = await steered(vectorEdit(all, { schedule: { kind: "decay", tokens: 4 } }));
    const shares = [1, 0.75, 0.5, 0.25].map((share, i) => vectorEdit(share * all, { positions: [[i === 0 ? 0 : P + i, P + i + 1]] }));
    expect(decayed.tokens).toEqual((await steered(...shares)).tokens);
    expect(decayed.receipts).toMatchObject([{ strength: all, positions: P + 4, positions_changed: P + 4 }]);
    expect(decayed.tokens).not.toEqual((await steered(vectorEdit(all))).tokens);
  });

  it("ramp: more at each token until it is all", async () => {
    const [P, all] = [length(), 4];
    const ramped = await steered(vectorEdit(all, { schedule: { kind: "ramp", tokens: 2 } }));
    const shares = [
      vectorEdit(all, { positions: "prompt" }),
      vectorEdit(all / 2, { positions: [[P, P + 1]] }),
      vectorEdit(all, { positions: [[P + 1, CONTEXT]] }),
    ];
    expect(ramped.tokens).toEqual((await steered(...shares)).tokens);
    expect((await steered(vectorEdit(all, { schedule: { kind: "ramp", tokens: 1 } }))).tokens).toEqual(
      (await steered(vectorEdit(all))).tokens,
    );
  });

  it("scale the change of every method, not only additions", async () => {
    const P = length();
    for (const edit of [
      vectorEdit(-1, { method: "ORTHOGONAL_DECOMP" }),
      vectorEdit(0, { method: "ABLATE" }),
      vectorEdit(-3, { method: "PROJECTION_CAP" }),
    ]) {
      const once = await steered({ ...edit, schedule: { kind: "decay", tokens: 1 } });
      expect(once.tokens).toEqual((await steered({ ...edit, positions: [[0, P + 1]] })).tokens);
    }
    // Half of an ablation is an orthogonal edit by a half.
    const half = await steered(vectorEdit(0, { method: "ABLATE", positions: "generated", schedule: { kind: "decay", tokens: 2 } }));
    const same = await steered(
      vectorEdit(0, { method: "ABLATE", positions: [[P, P + 1]] }),
      vectorEdit(0.5, { method: "ORTHOGONAL_DECOMP", positions: [[P + 1, P + 2]] }),
    );
    expect(half.tokens).toEqual(same.tokens);
  });
});

describe("directional ablation", () => {
  it("at all layers is the same as at every boundary, with a receipt for each", async () => {
    const { point: _, ...everywhere } = vectorEdit(0, { method: "ABLATE" });
    const one = await run(request({ edits: [{ ...everywhere, layers: "all" }] }));
    const points = [...[0, 1, 2, 3].map((layer) => `blocks.${layer}.hook_resid_pre`), "blocks.3.hook_resid_post"];
    const each = await run(request({ edits: points.map((point) => vectorEdit(0, { method: "ABLATE", point })) }));
    expect(ids(one, "STEERED")).toEqual(ids(each, "STEERED"));
    expect(row(one, "STEERED").receipts).toEqual(row(each, "STEERED").receipts.map((receipt) => ({ ...receipt, edit: 0 })));
    expect(row(one, "STEERED").receipts.map(({ point }) => point)).toEqual(points);
  });

  it("is refused where it means nothing", () => {
    const { point: _, ...everywhere } = vectorEdit(1);
    const parse = (edit: object) => request({ edits: [edit as Edit] });
    expect(() => parse({ ...everywhere, layers: "all" })).toThrow(/layers: all belongs to ABLATE/);
    expect(() => parse({ ...vectorEdit(1, { method: "ABLATE" }), layers: "all" })).toThrow(/leave point out/);
    expect(() => parse({ ...everywhere, schedule: { kind: "ramp", tokens: 0 } })).toThrow();
  });
});
