import { closeSync, cpSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { decodeFloat32, encodeFloat32 } from "../../shared/base64.ts";
import {
  type AnswerPair,
  DIRECTION_LIMITS,
  DirectionsProgress,
  DirectionsRequest,
  DirectionsResult,
  type LayerDirection,
} from "../../shared/directions.ts";
import { EngineErrorBody } from "../../shared/protocol.ts";
import { ActivationsRequest } from "../../shared/readings.ts";
import { parseEvents } from "../../shared/sse.ts";
import { fixtures } from "../cpu/fixture.ts";
import { newServer } from "../cpu/server.ts";
import { ENGINE, type Engine, loadEngine } from "./engine.ts";

/** What ../fixtures/directions.py found with NumPy in the residual stream of transformers. */
interface Reference {
  readonly texts: { readonly positive: string[]; readonly negative: string[]; readonly pairs: AnswerPair[] };
  readonly cases: {
    readonly request: Omit<Partial<DirectionsRequest>, "pairs"> & { readonly most?: number; readonly pairs?: true };
    readonly expected: Pick<DirectionsResult, "counts" | "best"> & { readonly layers: Omit<LayerDirection, "point">[] };
  }[];
}
const { texts, cases } = JSON.parse(readFileSync(path.join(fixtures, "directions.json"), "utf8")) as Reference;
const { positive, negative, pairs } = texts;

/** tiny-gpt2 with every tiny autoencoder, labels and a template whose turns end with a special token. */
const MODEL = "tiny-all";
const CHAT = "{{ bos_token }}{% for m in messages %}{{ m.role[0] }}: {{ m.content }}{{ eos_token }}{% endfor %}a:";
const TOKEN = "a-token";
/** Worst difference from the reference, in parts of the greatest value: measured 1.2e-6 on the CPU engine, 7e-7 on PyTorch's. */
const RELATIVE = 2e-5;
const temporary = mkdtempSync(path.join(tmpdir(), "directions-"));
const logged: string[] = [];
let engine: Engine;
let url: string;
let close: () => Promise<void>;

beforeAll(async () => {
  const directory = path.join(temporary, MODEL);
  cpSync(path.join(fixtures, "tiny-gpt2"), directory, { recursive: true });
  cpSync(path.join(fixtures, "saes", "sources"), path.join(directory, "sources"), { recursive: true });
  writeFileSync(path.join(directory, "chat_template.jinja"), CHAT);
  const labels = { labels: { 21: { label: "boats" } } };
  writeFileSync(path.join(directory, "sources", "2-standard", "labels.json"), JSON.stringify(labels));
  const named = path.join(directory, "sources", "1-named");
  cpSync(path.join(directory, "sources", "2-standard"), named, { recursive: true });
  const config = { architecture: "directions", d_in: 48, d_sae: 32, hook_name: "blocks.1.hook_resid_pre" };
  writeFileSync(path.join(named, "cfg.json"), JSON.stringify(config));
  engine = await loadEngine({ directories: [directory, path.join(fixtures, "tiny-gpt2")], threads: 1 });
  const server = newServer(engine, { token: TOKEN, log: (line) => logged.push(line) });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/directions`;
  close = () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
});
afterAll(async () => {
  await close();
  await engine.close();
  rmSync(temporary, { recursive: true });
});

const never = () => new AbortController().signal;
type Asked = Partial<DirectionsRequest>;
const parse = (asked: Asked) => DirectionsRequest.parse({ model: MODEL, layers: [2], method: "mean_difference", ...asked });
const ask = (asked: Asked) => engine.directions(parse(asked), never(), () => undefined);
const layerOf = async (asked: Asked): Promise<LayerDirection> => (await ask(asked)).layers[0] as LayerDirection;
const vectorOf = ({ vector }: { vector: string }): number[] => Array.from(decodeFloat32(vector) ?? []);
const lengthOf = (values: readonly number[]) => Math.hypot(...values);

/** Worst difference, in parts of the greatest value. */
function relative(found: readonly number[], wanted: readonly number[]): number {
  expect(found).toHaveLength(wanted.length);
  const greatest = Math.max(...wanted.map(Math.abs));
  return Math.max(...wanted.map((value, i) => Math.abs(value - (found[i] as number)))) / greatest;
}

describe("the reference", () => {
  it.each(cases.map((each, i) => [`${i}: ${JSON.stringify(each.request)}`, each] as const))("is met by case %s", async (_name, each) => {
    const { most, pairs: paired, ...settings } = each.request;
    const sides = paired ? { pairs } : { positive: positive.slice(0, most), negative: negative.slice(0, most) };
    const { layers, best, counts } = await ask({ ...settings, ...sides });
    const { expected } = each;
    expect({ best, counts }).toEqual({ best: expected.best, counts: expected.counts });
    expect(layers.map(({ layer }) => layer)).toEqual(expected.layers.map(({ layer }) => layer));
    for (const [i, wanted] of expected.layers.entries()) {
      const found = layers[i] as LayerDirection;
      expect(relative(vectorOf(found), vectorOf(wanted))).toBeLessThan(RELATIVE);
      expect(found.point).toBe(`blocks.${found.layer}.hook_${settings.hook ?? "resid_pre"}`);
      for (const name of ["norm", "mean_norm", "auc_train", "auc_held_out", "effect", "explained"] as const)
        expect(found[name] ?? null, name).toEqual(typeof wanted[name] === "number" ? expect.closeTo(wanted[name], 3) : null);
      expect(found.strength / wanted.strength).toBeCloseTo(1, 2);
      expect(String(found.strength).replace(/^0\.0*|\./g, "").length).toBeLessThanOrEqual(3);
      expect(found.latents).toEqual(wanted.latents?.map((latent) => latentLike(latent, settings.sae?.set)));
    }
  });

  const latentLike = ({ index, value, frequency, mean }: Omit<NonNullable<LayerDirection["latents"]>[number], "label">, set?: string) => ({
    index,
    label: set === "standard" && index === 21 ? "boats" : null,
    value: expect.closeTo(value, 3),
    frequency,
    mean: { positive: expect.closeTo(mean.positive, 3), negative: expect.closeTo(mean.negative, 3) },
  });
});

describe("directions", () => {
  it.each(["mean_difference", "pca", "probe"] as const)("of %s turn round when the sides change places", async (method) => {
    const sides = [positive.slice(0, 20), negative.slice(0, 20)];
    const one = await layerOf({ method, positive: sides[0], negative: sides[1] });
    const other = await layerOf({ method, positive: sides[1], negative: sides[0] });
    const turned = vectorOf(other).map((value) => -value);
    expect(relative(vectorOf(one), turned)).toBeLessThan(1e-5);
    expect(other).toMatchObject({ auc_train: expect.closeTo(one.auc_train, 6), effect: expect.closeTo(one.effect as number, 4) });
  });

  it("of several layers are those of each by itself, and unit ones have length one", async () => {
    const together = (await ask({ positive, negative, layers: [3, 0, 2] })).layers;
    for (const layer of together) {
      const alone = await layerOf({ positive, negative, layers: [layer.layer] });
      expect(relative(vectorOf(layer), vectorOf(alone))).toBeLessThan(1e-5);
      const unit = await layerOf({ positive, negative, layers: [layer.layer], unit: true });
      expect([unit.norm, lengthOf(vectorOf(unit))]).toEqual([expect.closeTo(1, 12), expect.closeTo(1, 6)]);
      expect(
        relative(
          vectorOf(unit),
          vectorOf(layer).map((value) => value / layer.norm),
        ),
      ).toBeLessThan(1e-5);
      expect(unit.strength / (layer.strength * layer.norm)).toBeCloseTo(1, 2);
    }
  });

  it("at resid_post of a layer are those at resid_pre of the next", async () => {
    const after = await layerOf({ positive, negative, layers: [1], hook: "resid_post" });
    const before = await layerOf({ positive, negative, layers: [2] });
    expect(relative(vectorOf(after), vectorOf(before))).toBeLessThan(1e-5);
    expect([after.point, before.point]).toEqual(["blocks.1.hook_resid_post", "blocks.2.hook_resid_pre"]);
  });

  it("are not made from texts that are held out, which they are judged on", async () => {
    const sides = { positive: positive.slice(0, 10), negative: negative.slice(0, 10) };
    const half = await layerOf({ ...sides, held_out: 0.5 });
    const left = (side: readonly string[]) => side.filter((_, i) => i % 2 === 0);
    const alone = await layerOf({ positive: left(sides.positive), negative: left(sides.negative), held_out: 0 });
    expect(relative(vectorOf(half), vectorOf(alone))).toBeLessThan(1e-5);
    expect([alone.auc_held_out, alone.auc_train]).toEqual([null, expect.closeTo(half.auc_train, 9)]);
    // Held-out texts that lie along the direction, in the wrong order: a special token at the end changes nothing that counts.
    const swapped = (a: readonly string[], b: readonly string[]) => a.map((text, i) => (i % 2 === 1 ? `${b[i - 1]}<|endoftext|>` : text));
    const against = await layerOf({
      positive: swapped(sides.positive, sides.negative),
      negative: swapped(sides.negative, sides.positive),
      held_out: 0.5,
    });
    expect(relative(vectorOf(against), vectorOf(alone))).toBeLessThan(1e-5);
    expect(against.auc_held_out).toBeCloseTo(1 - alone.auc_train, 9);
    expect(against.effect).toBeCloseTo(-(alone.effect as number), 3);
  });

  it("score texts as /activations projects them", async () => {
    const sides = { positive: positive.slice(0, 6), negative: negative.slice(0, 6) };
    const { auc_held_out, auc_train, vector, point, norm } = await layerOf({ ...sides, held_out: 0 });
    expect(auc_held_out).toBeNull();
    const unit = encodeFloat32(vectorOf({ vector }).map((value) => value / norm));
    const scores = async (side: string[]) => {
      const request = ActivationsRequest.parse({ model: MODEL, texts: side, targets: [{ vector: unit, point }] });
      const { items } = await engine.activations(request, never());
      return items.map(({ tokens, values }) => {
        const plain = (values[0] ?? []).filter((_, t) => !tokens[t]?.special);
        return plain.reduce((sum, value) => sum + value, 0) / plain.length;
      });
    };
    const [up, down] = [await scores(sides.positive), await scores(sides.negative)];
    const above = up.flatMap((a) => down.map((b) => (a > b ? 1 : a === b ? 0.5 : 0) as number));
    expect(auc_train).toBeCloseTo(above.reduce((sum, each) => sum + each, 0) / above.length, 9);
  });

  it("read a user's message as the template writes it, up to where the answer begins", async () => {
    const written = (side: readonly string[]) => side.map((text) => `<|endoftext|>u: ${text}<|endoftext|>a:`);
    const sides = { positive: positive.slice(0, 8), negative: negative.slice(0, 8) };
    const chat = await ask({ ...sides, chat: true, tokens: -1 });
    const plain = await ask({ positive: written(sides.positive), negative: written(sides.negative), tokens: -1 });
    expect(vectorOf(chat.layers[0] as LayerDirection)).toEqual(vectorOf(plain.layers[0] as LayerDirection));
    expect(chat.counts).toEqual(plain.counts);
    expect(chat.counts.positive).toEqual({ texts: 7, held_out: 1, tokens: 7 });
    const answers = await ask({ pairs: pairs.slice(0, 5), chat: true, tokens: "answer" });
    expect(answers.counts).toEqual((await ask({ pairs: pairs.slice(0, 5), tokens: "answer" })).counts);
  });

  it("count no special tokens, but read them", async () => {
    const sides = { positive: ["the sun<|endoftext|>", "sea<|endoftext|> day"], negative: ["four", "<|endoftext|>rainy"] };
    const { counts, timing } = await ask({ ...sides, held_out: 0 });
    const { tokenizer } = engine.model(MODEL);
    const plain = (side: readonly string[]) => side.flatMap((text) => tokenizer.encode(text.replace("<|endoftext|>", ""))).length;
    expect([counts.positive.tokens, counts.negative.tokens]).toEqual([plain(sides.positive), plain(sides.negative)]);
    const all = [...sides.positive, ...sides.negative].flatMap((text) => tokenizer.encodePrompt(text)).length;
    expect(timing.tokens).toBe(all);
    // The last token that counts is the one before the special one at the end.
    const [last, named] = [
      await layerOf({ ...sides, tokens: "last" }),
      await layerOf({ positive: ["the sun", "sea<|endoftext|> day"], negative: sides.negative, tokens: -1 }),
    ];
    expect(relative(vectorOf(last), vectorOf(named))).toBeLessThan(1e-5);
  });
});

describe("refusals", () => {
  const sides = { positive: ["the sun", "sea", "boat"], negative: ["rainy", "four", "seven"] };
  const withSae = (set: string, more: Asked = {}): Asked => ({
    ...sides,
    method: "sae",
    sae: { set, top_k: 3, values: "dif_mean" },
    ...more,
  });
  const refusals: [string, Asked, string | RegExp][] = [
    ["a layer that there is not", { ...sides, layers: [1, 4] }, "There is no layer 4 in 'tiny-all': its layers are 0 to 3."],
    [
      "the same texts on both sides",
      { positive: ["a", "b"], negative: ["b", "a"] },
      "Both sides have the same texts: give positive ones that show what the direction is for, and negative ones that do not.",
    ],
    [
      "sides of two lengths for pca",
      { ...sides, positive: ["a", "b", "c", "d"], method: "pca" },
      "The method pca takes the i-th positive and the i-th negative text for a pair: give as many of both, not 4 and 3.",
    ],
    [
      "too few pairs for pca",
      { ...sides, method: "pca", held_out: 0.5 },
      "The method pca needs at least 3 pairs that are not held out, and there are 2: give more, or hold out a smaller share.",
    ],
    [
      "too few texts for a probe",
      { positive: ["a", "b", "c"], negative: ["d"], method: "probe", held_out: 0 },
      "The method probe needs at least 2 texts of each side that are not held out, and there are 3 and 1: give more, or hold out a smaller share.",
    ],
    [
      "more bytes than are read",
      { positive: Array(20).fill("é".repeat(DIRECTION_LIMITS.bytes / 40)), negative: ["a"] },
      `The texts have ${DIRECTION_LIMITS.bytes + 1} bytes together; at most ${DIRECTION_LIMITS.bytes} are read for one direction. Send fewer.`,
    ],
    [
      "a text that is too long",
      { positive: ["a", "sea ".repeat(200)], negative: ["b"] },
      /^positive\[1\] has \d+ tokens, and this model takes at most 160\. Shorten it\.$/,
    ],
    [
      "an answer that is too long with its prompt",
      { pairs: [...pairs.slice(0, 2), { prompt: "a", positive: "b", negative: "sea ".repeat(200) }] },
      /^pairs\[2\]\.negative has \d+ tokens with its prompt, and this model takes at most 160\. Shorten it\.$/,
    ],
    [
      "prompts that are sent once, and not for their bytes",
      { pairs: Array(25).fill({ prompt: "x".repeat(DIRECTION_LIMITS.bytes / 40), positive: "a", negative: "b" }) },
      /^pairs\[0\]\.positive has \d+ tokens with its prompt/,
    ],
    [
      "a text of special tokens",
      { ...sides, negative: ["rainy", "<|endoftext|>"] },
      "negative[1] has 1 token, and none counts: special tokens do not. Leave it out.",
    ],
    [
      "an answer of special tokens",
      { pairs: [{ prompt: "a", positive: "b", negative: "<|endoftext|>" }], tokens: "answer" },
      "pairs[0].negative has 3 tokens, and none of its answer counts: special tokens do not. Leave it out.",
    ],
    [
      "a token that a text does not have",
      { ...sides, positive: ["the sun", "a"], tokens: -3 },
      "positive[1] has 2 tokens, and there is no token -3 from its end. Leave it out.",
    ],
    ["chat for a model without a template", { ...sides, model: "tiny-gpt2", chat: true }, /no chat template/],
    ["a model that there is not", { ...sides, model: "x" }, /There is no model 'x'/],
    [
      "an autoencoder that is not at the layer",
      withSae("standard", { layers: [1] }),
      "Model 'tiny-all' has no source '1-standard'. 'standard' has autoencoders of resid_pre at layers: 2.",
    ],
    [
      "an autoencoder that is nowhere",
      withSae("none"),
      /^Model 'tiny-all' has no source '2-none'\. No autoencoder of resid_pre is called 'none'; the model's sources are: 1-gated, .*2-topk/,
    ],
    [
      "an autoencoder of another point",
      withSae("standard", { hook: "resid_post" }),
      /^Source '2-standard' is of blocks\.2\.hook_resid_pre, and hook is resid_post\. No autoencoder of resid_post is called 'standard'/,
    ],
    ["named directions", withSae("named", { layers: [1] }), /has named directions and no encoder/],
  ];
  it.each(refusals)("meet %s before any work", async (_name, asked, sentence) => {
    let told = 0;
    const call = engine.directions(parse(asked), never(), () => {
      told++;
    });
    await expect(call).rejects.toThrow(sentence);
    expect(told).toBe(0);
  });

  it("meet texts that give no direction", async () => {
    // The same token counts in every text, and nothing differs before it; other lengths are computed in other batches.
    const endings = (from: number) => [0, 1, 2, 3].map((more) => `The sun${"<|endoftext|>".repeat(from + 30 * more)}`);
    const same: Asked = { positive: endings(1), negative: endings(2), tokens: "last", held_out: 0 };
    const at = "There is no direction at blocks.2.hook_resid_pre: ";
    await expect(ask(same)).rejects.toThrow(`${at}both sides have the same mean.`);
    await expect(ask({ ...same, method: "pca" })).rejects.toThrow(`${at}all pairs differ by the same, which mean_difference finds.`);
    await expect(ask({ ...same, method: "probe" })).rejects.toThrow(`${at}nothing tells the texts of both sides apart.`);
    await expect(ask(withSae("standard", same))).rejects.toThrow(`${at}no latent of '2-standard' fires more often on the positive side.`);
  });

  it("leave no file open, nor do directions that are found", async () => {
    const nextFile = () => {
      const file = openSync(path.join(temporary, MODEL, "config.json"), "r");
      closeSync(file);
      return file;
    };
    const before = nextFile();
    for (let time = 0; time < 10; time++) {
      await ask({ ...sides, layers: [0, 1, 2, 3] });
      const gone = new AbortController();
      gone.abort();
      await expect(engine.directions(parse({ ...sides, layers: [0, 1, 2, 3] }), gone.signal, () => undefined)).rejects.toThrow();
      await expect(ask({ positive: ["a"], negative: ["a<|endoftext|>"], tokens: "last" })).rejects.toThrow("the same mean");
    }
    expect(nextFile()).toBeLessThan(before + 10);
  });

  it("name the field of a request that is wrong", async () => {
    for (const [asked, sentence] of [
      [{ positive: [] }, /^positive: /],
      [{ negative: undefined }, "body: give positive and negative, or pairs."],
      [{ pairs }, "body: give positive and negative, or pairs."],
      [{ method: "sae" }, "body: sae belongs to the method sae, which needs it."],
      [{ tokens: "answer" }, "body: tokens: answer belongs to pairs."],
      [{ layers: [1, 1] }, "body: layers must be distinct."],
      [{ tokens: 0 }, /^tokens: /],
      [{ top_k: 3 }, /top_k/],
    ] as const) {
      const response = await post({ model: MODEL, layers: [2], method: "mean_difference", ...sides, ...asked });
      expect(response.status).toBe(400);
      expect(EngineErrorBody.parse(await response.json()).error.message).toMatch(sentence);
    }
  });
});

const post = (payload: unknown, headers: Record<string, string> = {}, signal?: AbortSignal) =>
  fetch(url, {
    method: "POST",
    headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/json", ...headers },
    body: JSON.stringify(payload),
    ...(signal === undefined ? {} : { signal }),
  });

describe("over HTTP", () => {
  const SSE = { accept: "text/event-stream" };
  const body = { model: MODEL, layers: [1, 2], method: "mean_difference", positive, negative };
  const idle = () => vi.waitFor(() => expect(engine.model(MODEL).scheduler.load()).toEqual({ rows: 0, waiting: 0 }));

  it("are answered as JSON, and as events that tell how far they are", async () => {
    const json = DirectionsResult.parse(await (await post(body)).json());
    const response = await post(body, SSE);
    expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/event-stream"]);
    const events: { event: string; data: unknown }[] = [];
    for await (const { event, data } of parseEvents(response.body as ReadableStream<Uint8Array>))
      events.push({ event, data: JSON.parse(data) });
    const progress = events.slice(0, -1).map(({ event, data }) => ({ event, ...DirectionsProgress.parse(data) }));
    const of = positive.length + negative.length;
    expect(progress.at(-1)).toEqual({ event: "progress", texts: of, of });
    progress.slice(1).forEach(({ texts: read }, i) => expect(read).toBeGreaterThan(progress[i]?.texts as number));
    // A few a second, not one for each text.
    expect(progress.length).toBeLessThan(of / 2);
    expect(events.at(-1)?.event).toBe("done");
    const streamed = DirectionsResult.parse(events.at(-1)?.data);
    expect({ ...streamed, timing: undefined }).toMatchObject({
      ...{ best: json.best, counts: json.counts },
      layers: json.layers.map(({ layer, norm }) => ({ layer, norm: expect.closeTo(norm, 4) })),
    });
    expect(streamed.timing.tokens).toBe(json.timing.tokens);
  });

  it("are refused with their status where nothing was sent yet, and need the token", async () => {
    const refused = await post({ ...body, layers: [9] }, SSE);
    expect([refused.status, EngineErrorBody.parse(await refused.json()).error.code]).toEqual([400, "invalid_request"]);
    expect((await post(body, { authorization: "" })).status).toBe(401);
  });

  it("take the most texts, whatever way they are written", async () => {
    // Six characters of JSON for two bytes.
    const text = "é".repeat(DIRECTION_LIMITS.bytes / 40);
    const written = JSON.stringify({ ...body, positive: Array(20).fill(text), negative: ["a"] }).replaceAll("é", "\\u00e9");
    const headers = { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" };
    const response = await fetch(url, { method: "POST", headers, body: written });
    expect([response.status, EngineErrorBody.parse(await response.json()).error.message]).toEqual([
      400,
      expect.stringMatching(/bytes together/),
    ]);
  });

  it("end when their caller leaves, or their deadline has passed", async () => {
    const many = { ...body, positive: Array.from({ length: 400 }, (_, i) => `${"the sun and the sea ".repeat(8)}${i}`), negative };
    const controller = new AbortController();
    const leaving = await post(many, SSE, controller.signal);
    for await (const { event } of parseEvents(leaving.body as ReadableStream<Uint8Array>)) {
      expect(event).toBe("progress");
      break;
    }
    controller.abort();
    await idle();
    expect(logged).toEqual([]);
    const late = await post({ ...many, deadline_ms: 50 });
    expect([late.status, EngineErrorBody.parse(await late.json()).error.code]).toEqual([504, "engine_timeout"]);
    await idle();
  });

  it(`are abandoned by their signal on the ${ENGINE} engine`, async () => {
    const controller = new AbortController();
    let read = 0;
    const call = engine.directions(parse({ positive, negative }), controller.signal, ({ texts: done }) => {
      read = done;
      controller.abort();
    });
    await expect(call).rejects.toMatchObject({ name: "AbortError" });
    expect(read).toBeLessThan(positive.length + negative.length);
    await idle();
  });
});
