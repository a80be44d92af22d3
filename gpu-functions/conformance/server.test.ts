import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodeFloat32 } from "../../shared/base64.ts";
import { TillerError } from "../../shared/errors.ts";
import { FeaturesResult, RowsResult, SimilarResult } from "../../shared/features.ts";
import { EngineErrorBody, type GenerateEvent, GenerateResult, ModelList, TokenEvent } from "../../shared/protocol.ts";
import { ActivationsResult, ScoreResult, TokenizeResult } from "../../shared/readings.ts";
import { parseEvents } from "../../shared/sse.ts";
import { fixtures } from "../cpu/fixture.ts";
import { type EngineService, newServer } from "../cpu/server.ts";
import { type Engine, loadEngine } from "./engine.ts";

const TOKEN = "a-token";
const authorised = { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" };
const logged: string[] = [];
let engine: Engine;
let url: string;
const closers: (() => Promise<void>)[] = [];

async function listen(service: EngineService, token: string | undefined = TOKEN): Promise<string> {
  const server = newServer(service, { token, log: (line) => logged.push(line) });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.push(
    () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  );
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** tiny-gpt2 with a template whose turns end with a special token. */
const temporary = mkdtempSync(path.join(tmpdir(), "server-"));
const chatModel = path.join(temporary, "tiny-chat");
const CHAT = `{{ bos_token }}{% for m in messages %}{% if m.role == "system" %}{{ raise_exception("No system here.") }}{% endif %}{{ m.role[0] }}: {{ m.content }}{{ eos_token }}{% endfor %}a:`;

beforeAll(async () => {
  const plain = path.join(fixtures, "tiny-gpt2");
  cpSync(plain, chatModel, { recursive: true });
  writeFileSync(path.join(chatModel, "chat_template.jinja"), CHAT);
  const saes = path.join(temporary, "tiny-saes");
  cpSync(plain, saes, { recursive: true });
  cpSync(path.join(fixtures, "saes", "sources", "2-standard"), path.join(saes, "sources", "2-standard"), { recursive: true });
  engine = await loadEngine({ directories: [plain, chatModel, saes], threads: 1 });
  url = await listen(engine);
});
afterAll(async () => {
  rmSync(temporary, { recursive: true });
  for (const close of closers) await close();
  await engine.close();
});

const edit = {
  vector: encodeFloat32(Array.from({ length: 48 }, (_, i) => Math.cos(i))),
  point: "blocks.1.hook_resid_post",
  method: "SIMPLE_ADDITIVE",
  strength: 5,
};
const body = (more: object = {}) => ({
  model: "tiny-gpt2",
  prompt: "The sun",
  rows: [
    { name: "DEFAULT", edits: [] },
    { name: "STEERED", edits: [edit] },
  ],
  sampling: { temperature: 0.8, seed: 3, logprobs: 2 },
  max_tokens: 12,
  ...more,
});
const post = (at: string, payload: unknown, headers: Record<string, string> = {}) =>
  fetch(at, {
    method: "POST",
    headers: { ...authorised, ...headers },
    body: typeof payload === "string" ? payload : JSON.stringify(payload),
  });
const generate = (payload: unknown, headers: Record<string, string> = {}, at = url) => post(`${at}/generate`, payload, headers);
const errorMessage = async (response: Response) => EngineErrorBody.parse(await response.json()).error.message;
const SSE = { accept: "text/event-stream" };

async function readStream(response: Response): Promise<GenerateEvent[]> {
  const events: GenerateEvent[] = [];
  for await (const { event, data } of parseEvents(response.body as ReadableStream<Uint8Array>))
    events.push({ event, data: JSON.parse(data) } as GenerateEvent);
  return events;
}

describe("the protocol", () => {
  it("says that it lives without asking for the token, and what it serves with it", async () => {
    expect(await (await fetch(`${url}/health`)).json()).toMatchObject({ status: "ok", models: ["tiny-gpt2", "tiny-chat", "tiny-saes"] });
    const { models } = ModelList.parse(await (await fetch(`${url}/models`, { headers: authorised })).json());
    expect(models).toMatchObject([
      { id: "tiny-gpt2", family: "gpt2", layers: 4, width: 48, context: 160, chat_template: false },
      { id: "tiny-chat", chat_template: true },
      { id: "tiny-saes", sources: [{ id: "2-standard" }] },
    ]);
  });

  it("answers the same generation as JSON and as a stream", async () => {
    const json = GenerateResult.parse(await (await generate(body())).json());
    const events = await readStream(await generate(body(), SSE));
    const tokens = events.flatMap((e) => (e.event === "token" ? [TokenEvent.parse(e.data)] : []));
    const done = events.at(-1);
    expect(done?.event).toBe("done");
    const streamed = GenerateResult.parse(done?.data);
    for (const row of json.rows) {
      expect(tokens.filter((t) => t.row === row.name)).toEqual(row.tokens);
      expect(streamed.rows.find((r) => r.name === row.name)).toMatchObject({ text: row.text, receipts: row.receipts });
    }
  });

  it("scores texts, and says which field of a request is wrong", async () => {
    const score = (payload: object) =>
      fetch(`${url}/score`, { method: "POST", headers: authorised, body: JSON.stringify({ model: "tiny-gpt2", ...payload }) });
    const { items } = ScoreResult.parse(await (await score({ items: [{ prompt: "The sun", text: " rose" }] })).json());
    expect(items[0]?.perplexity).toBeGreaterThan(1);
    const refused = await score({ items: [{ prompt: "The sun", text: "" }] });
    expect([refused.status, ((await refused.json()) as { error: { message: string } }).error.message]).toEqual([
      400,
      expect.stringMatching(/^items\.0\.text: /),
    ]);
  });

  it.each([
    ["no token", { authorization: "" }, body(), 401, "unauthorized"],
    ["a wrong token", { authorization: "Bearer a-tokem" }, body(), 401, "unauthorized"],
    ["bad JSON", {}, "{", 400, "invalid_request"],
    ["a missing field", {}, body({ max_tokens: undefined }), 400, "invalid_request"],
    ["an unknown field", {}, body({ best_of: 3 }), 400, "invalid_request"],
    ["an unknown model", SSE, body({ model: "x" }), 404, "model_not_found"],
    ["a prompt that is too long, streaming", SSE, body({ max_tokens: 5000 }), 400, "prompt_too_long"],
    ["a body over the limit", {}, body({ prompt: "x".repeat(17 * 2 ** 20) }), 413, "too_large"],
  ] as [string, Record<string, string>, unknown, number, string][])(
    "refuses %s with its status",
    async (_name, headers, payload, status, code) => {
      const response = await generate(payload, headers);
      expect(response.status).toBe(status);
      expect(await response.json()).toMatchObject({ error: { code } });
    },
  );

  it("refuses other addresses and methods, naming what there is", async () => {
    expect(await (await fetch(`${url}/v1`, { headers: authorised })).json()).toMatchObject({
      error: { code: "not_found", message: expect.stringContaining("/generate") },
    });
    const response = await fetch(`${url}/generate`, { headers: authorised });
    expect([response.status, response.headers.get("allow")]).toEqual([405, "POST"]);
  });

  it("answers an address that is no URL, and logs no caller that leaves in the middle of its body", async () => {
    const before = logged.length;
    const { port } = new URL(url);
    const sent = (text: string, leave: boolean) =>
      new Promise<string>((resolve) => {
        let answer = "";
        const socket = connect(Number(port), "127.0.0.1", () => socket.write(text, () => leave && socket.resetAndDestroy()));
        socket.on("data", (data) => {
          answer += data;
          socket.destroy();
        });
        socket.on("close", () => resolve(answer));
      });
    await sent(`POST /generate HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${TOKEN}\r\ncontent-length: 1000\r\n\r\n{`, true);
    expect(await sent("GET // HTTP/1.1\r\nhost: x\r\n\r\n", false)).toMatch(/^HTTP\/1\.1 404 /);
    expect(logged.slice(before)).toEqual([]);
  });

  it("frees the rows of a client that goes away in the middle of a stream", async () => {
    const response = await generate(body({ max_tokens: 150 }), SSE);
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    await reader.read();
    await reader.cancel();
    const load = () => engine.model("tiny-gpt2").scheduler.load().rows;
    while (load() > 0) await new Promise((resolve) => setImmediate(resolve));
  });

  it("frees the rows of a client that goes away while it waits for JSON", async () => {
    const load = () => engine.model("tiny-gpt2").scheduler.load().rows;
    const client = httpRequest(`${url}/generate`, { method: "POST", headers: authorised });
    client.on("error", () => undefined);
    client.end(JSON.stringify(body({ max_tokens: 150 })));
    while (load() === 0) await new Promise((resolve) => setImmediate(resolve));
    client.destroy();
    while (load() > 0) await new Promise((resolve) => setImmediate(resolve));
  });
});

describe("a conversation", () => {
  const messages = [
    { role: "user", content: "The sun" },
    { role: "assistant", content: "rose." },
    { role: "user", content: "Why?" },
  ];
  const rendered = "<|endoftext|>u: The sun<|endoftext|>a: rose.<|endoftext|>u: Why?<|endoftext|>a:";
  const chat = (more: object = {}) => body({ model: "tiny-chat", prompt: undefined, messages, ...more });
  const result = async (payload: object) => GenerateResult.parse(await (await generate(payload)).json());

  it("is continued as the text that the model's template makes of it, with one BOS", async () => {
    const { timing: _, ...fromMessages } = await result(chat());
    const { timing: __, ...fromPrompt } = await result(body({ model: "tiny-chat", prompt: rendered }));
    expect(fromMessages).toEqual(fromPrompt);
    expect(
      engine
        .model("tiny-chat")
        .tokenizer.encodePrompt(rendered)
        .filter((id) => id === 0),
    ).toHaveLength(4);
  });

  it("keeps its template's special tokens from edits when they are not to be steered", async () => {
    const touched = async (steer_special_tokens: boolean) =>
      (await result(chat({ steer_special_tokens, rows: [{ name: "A", edits: [{ ...edit, positions: "prompt" }] }] }))).rows[0]?.receipts[0]
        ?.positions as number;
    expect((await touched(true)) - (await touched(false))).toBe(4);
  });

  it.each([
    ["a model without a template", { model: "tiny-gpt2" }, "This model has no chat template: send a prompt."],
    ["a prompt beside it", { prompt: "x" }, "body: give exactly one of prompt and messages."],
    ["neither", { messages: undefined }, "body: give exactly one of prompt and messages."],
    ["a role that the template refuses", { messages: [{ role: "system", content: "x" }] }, /refuses these messages: No system here\.$/],
    ["a role that there is not", { messages: [{ role: "tool", content: "x" }] }, /^messages\.0\.role: /],
    ["no messages", { messages: [] }, /^messages: /],
    ["content that is no text", { messages: [{ role: "user", content: [{ type: "text", text: "x" }] }] }, /^messages\.0\.content: /],
    ["more than fits", { messages: [{ role: "user", content: "a z ".repeat(200) }] }, /^The prompt is \d+ tokens long/],
  ])("is refused with %s", async (_name, more, sentence) => {
    const response = await generate(chat(more));
    expect(response.status).toBe(400);
    expect(await errorMessage(response)).toMatch(sentence);
  });
});

describe("tokenizing", () => {
  const ask = (payload: unknown) => post(`${url}/tokenize`, payload);
  const tokenize = async (payload: object) => TokenizeResult.parse(await (await ask({ model: "tiny-chat", ...payload })).json());
  const text = "The sun 🙂<|endoftext|> naïve";

  it("gives each token's id, text, place and whether it is special, with BOS before them", async () => {
    const { ids, tokens, ...rest } = await tokenize({ text });
    expect(rest).toEqual({});
    expect(ids).toEqual(engine.model("tiny-chat").tokenizer.encodePrompt(text));
    expect(tokens.map(({ id }) => id)).toEqual(ids);
    expect(tokens[0]).toEqual({ id: 0, token: "<|endoftext|>", start: 0, end: 0, special: true });
    const whole = tokens.slice(1).filter(({ token }) => !token.includes("\ufffd"));
    for (const { token, start, end } of whole) expect(text.slice(start, end)).toBe(token);
    expect(tokens.filter(({ special }) => special)).toHaveLength(2);
    expect(whole.find(({ special }) => special)).toMatchObject({ start: 10, end: 23 });
    const emoji = tokens.filter(({ start, end }) => text.slice(start, end).includes("🙂"));
    expect(emoji.length).toBeGreaterThan(1);
    expect(emoji.every(({ start, end }) => start <= 8 && end === 10)).toBe(true);
  });

  it("leaves BOS out when it is asked to, and adds none to a text that begins with it", async () => {
    const { ids } = await tokenize({ text });
    expect((await tokenize({ text, add_special_tokens: false })).ids).toEqual(ids.slice(1));
    const begun = `<|endoftext|>${text}`;
    const { ids: same, tokens } = await tokenize({ text: begun });
    expect(same).toEqual(ids);
    expect(tokens[0]).toMatchObject({ start: 0, end: 13 });
    expect(await tokenize({ text: "" })).toMatchObject({ ids: [0] });
    expect(await tokenize({ text: "", add_special_tokens: false })).toEqual({ ids: [], tokens: [] });
  });

  it("shows what the template makes of a conversation, as /generate sees it", async () => {
    const messages = [{ role: "user", content: "The sun" }];
    const { ids, tokens, text: rendered } = await tokenize({ messages });
    expect(rendered).toBe("<|endoftext|>u: The sun<|endoftext|>a:");
    expect(tokens.map(({ start, end }) => rendered?.slice(start, end)).join("")).toBe(rendered);
    const { usage } = GenerateResult.parse(await (await generate(body({ model: "tiny-chat", prompt: undefined, messages }))).json());
    expect(usage.prompt_tokens).toBe(ids.length);
    expect((await tokenize({ messages, add_special_tokens: true })).ids).toEqual(ids);
  });

  it.each([
    ["no model", { model: undefined, text: "x" }, 400, /^model: /],
    ["an unknown model", { model: "x", text: "x" }, 404, /There is no model 'x'.*tiny-chat/],
    ["text and messages", { text: "x", messages: [{ role: "user", content: "x" }] }, 400, "body: give exactly one of text and messages."],
    ["neither", {}, 400, "body: give exactly one of text and messages."],
    [
      "messages for a model without a template",
      { model: "tiny-gpt2", messages: [{ role: "user", content: "x" }] },
      400,
      /no chat template/,
    ],
    ["messages that the template refuses", { messages: [{ role: "system", content: "x" }] }, 400, /No system here\.$/],
    ["a field it does not know", { text: "x", offsets: true }, 400, /offsets/],
    ["a text that is too long", { text: "x".repeat(262_145) }, 400, /^text: /],
  ])("refuses %s", async (_name, payload, status, sentence) => {
    const response = await ask({ model: "tiny-chat", ...payload });
    expect(response.status).toBe(status);
    expect(await errorMessage(response)).toMatch(sentence);
  });

  it("asks for the token, and takes POST only", async () => {
    expect((await post(`${url}/tokenize`, { model: "tiny-chat", text }, { authorization: "" })).status).toBe(401);
    const response = await fetch(`${url}/tokenize`, { headers: authorised });
    expect([response.status, response.headers.get("allow")]).toEqual([405, "POST"]);
  });
});

describe("readings", () => {
  it("answer what latents, directions and vectors do on texts, and what is wrong with a question", async () => {
    const { vector, point } = edit;
    const texts = ["The sun", "A rainy day"];
    const found = await post(`${url}/activations`, { model: "tiny-gpt2", texts, targets: [{ vector, point }] });
    expect(found.status).toBe(200);
    const { items } = ActivationsResult.parse(await found.json());
    expect(items.map(({ tokens, values }) => values[0]?.length === tokens.length)).toEqual([true, true]);
    const refused = await post(`${url}/activations`, { model: "tiny-gpt2", texts, targets: [{ vector }] });
    expect([refused.status, await errorMessage(refused)]).toEqual([400, "targets.0: a vector needs its point, and a feature has its own."]);
    const none = await post(`${url}/latents`, { model: "tiny-gpt2", texts, source: "1-none" });
    expect([none.status, await errorMessage(none)]).toEqual([404, "Model 'tiny-gpt2' has no source '1-none'. Its sources are: none."]);
  });
});

describe("features", () => {
  it("are answered with their directions, neighbours and what is known of them, or with what is wrong", async () => {
    const of = { model: "tiny-saes", source: "2-standard" };
    const ask = async (call: string, payload: object) => {
      const response = await post(`${url}/${call}`, { ...of, ...payload });
      return { status: response.status, body: (await response.json()) as { error: { message: string } } };
    };
    const { rows, point } = RowsResult.parse((await ask("rows", { indexes: [4] })).body);
    expect(point).toBe("blocks.2.hook_resid_pre");
    const { items } = SimilarResult.parse((await ask("similar", { vector: rows[0], top_k: 2 })).body);
    expect(items).toMatchObject([{ index: 4, cosine: expect.closeTo(1, 5) }, {}]);
    const { features, next } = FeaturesResult.parse((await ask("features", { indexes: [4] })).body);
    expect([features[0]?.index, features[0]?.stats, next]).toEqual([4, null, null]);
    for (const [call, payload, status, sentence] of [
      ["rows", { indexes: [32] }, 404, "Source '2-standard' has no feature 32; its features are 0 to 31."],
      ["features", {}, 400, "body: give exactly one of indexes and from."],
      ["similar", { vector: edit.vector, top_k: 0 }, 400, expect.stringMatching(/^top_k: /)],
    ] as const) {
      const { status: found, body } = await ask(call, payload);
      expect([found, body.error.message]).toEqual([status, sentence]);
    }
  });
});

describe("failures half way", () => {
  const notAsked = () => Promise.reject(new Error("not asked"));
  const service = (events: () => AsyncIterable<GenerateEvent>): EngineService => ({
    models: () => [],
    generate: events,
    cancel: () => false,
    score: notAsked,
    latents: notAsked,
    activations: notAsked,
    directions: notAsked,
    tokenize: notAsked,
    rows: notAsked,
    similar: notAsked,
    features: notAsked,
  });
  const token: GenerateEvent = { event: "token", data: { row: "A", index: 0, id: 1, text: "x", token: "x", logprob: -1, top: [] } };

  it("end the stream with an error event after what was sent, and hide a foreign error's words", async () => {
    const at = await listen(
      service(async function* () {
        yield token;
        throw new Error("secret path /etc/x");
      }),
    );
    const events = await readStream(await generate(body(), SSE, at));
    expect(events.map((e) => e.event)).toEqual(["token", "error"]);
    expect(JSON.stringify(events)).not.toContain("secret");
    expect(logged.join()).toContain("secret path");
  });

  it("tell when to come back", async () => {
    const at = await listen(
      service(async function* () {
        yield* [];
        throw new TillerError("engine_busy", "full", { retryAfterSeconds: 4 });
      }),
    );
    const response = await generate(body(), {}, at);
    expect([response.status, response.headers.get("retry-after")]).toEqual([503, "4"]);
    expect(await response.json()).toEqual({ error: { code: "engine_busy", message: "full", retry_after_s: 4 } });
  });

  it("a silent generation opens its stream and is kept alive by comments", async () => {
    const at = await listen(
      service(async function* () {
        await new Promise((resolve) => setTimeout(resolve, 1300));
        yield token;
      }),
    );
    const response = await generate(body(), SSE, at);
    const text = await response.text();
    expect(text.startsWith(": ping\n\n")).toBe(true);
    expect(text).toContain("event: token");
  });
});
