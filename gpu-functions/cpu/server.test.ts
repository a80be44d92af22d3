import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodeFloat32 } from "../../shared/base64.ts";
import { TillerError } from "../../shared/errors.ts";
import { EngineErrorBody, type GenerateEvent, GenerateResult, ModelList, ScoreResult, TokenEvent } from "../../shared/protocol.ts";
import { parseEvents } from "../../shared/sse.ts";
import { type Engine, loadEngine } from "./engine.ts";
import { fixtures } from "./fixture.ts";
import { type EngineService, newServer } from "./server.ts";

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
  engine = await loadEngine({ directories: [plain, chatModel], threads: 1 });
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
const generate = (payload: unknown, headers: Record<string, string> = {}, at = url) =>
  fetch(`${at}/generate`, {
    method: "POST",
    headers: { ...authorised, ...headers },
    body: typeof payload === "string" ? payload : JSON.stringify(payload),
  });
const SSE = { accept: "text/event-stream" };

async function readStream(response: Response): Promise<GenerateEvent[]> {
  const events: GenerateEvent[] = [];
  for await (const { event, data } of parseEvents(response.body as ReadableStream<Uint8Array>))
    events.push({ event, data: JSON.parse(data) } as GenerateEvent);
  return events;
}

describe("the protocol", () => {
  it("says that it lives without asking for the token, and what it serves with it", async () => {
    expect(await (await fetch(`${url}/health`)).json()).toEqual({ status: "ok", models: ["tiny-gpt2", "tiny-chat"] });
    const { models } = ModelList.parse(await (await fetch(`${url}/models`, { headers: authorised })).json());
    expect(models).toMatchObject([
      { id: "tiny-gpt2", family: "gpt2", layers: 4, width: 48, context: 160, chat_template: false },
      { id: "tiny-chat", chat_template: true },
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
    ["a body over the limit", {}, body({ prompt: "x".repeat(9 * 2 ** 20) }), 413, "too_large"],
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
    expect(EngineErrorBody.parse(await response.json()).error.message).toMatch(sentence);
  });
});

describe("failures half way", () => {
  const service = (events: () => AsyncIterable<GenerateEvent>): EngineService => ({
    models: () => [],
    score: () => Promise.reject(new Error("not asked")),
    generate: events,
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
