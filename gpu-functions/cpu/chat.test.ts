import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { TillerError } from "../../shared/errors.ts";
import { LIMITS, type Message, Messages } from "../../shared/protocol.ts";
import { loadChatTemplate } from "./chat.ts";
import { fixtures } from "./fixture.ts";
import { loadTokenizer } from "./tokenizer.ts";

interface Chat {
  messages: Message[];
  /** What the template writes, or why it does not. */
  text?: string;
  ids?: number[];
  error?: string;
}
const MODELS = JSON.parse(readFileSync(path.join(fixtures, "chat", "cases.json"), "utf8")) as { model: string; chats: Chat[] }[];
/** The day of chat.py. */
const now = () => new Date(2026, 2, 7, 9, 5);
const hello: Message[] = [{ role: "user", content: "Hello" }];

/** A directory with these files only. */
function directory(files: Record<string, unknown>): string {
  const folder = mkdtempSync(path.join(tmpdir(), "chat-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  for (const [name, content] of Object.entries(files))
    writeFileSync(path.join(folder, name), typeof content === "string" ? content : JSON.stringify(content));
  return folder;
}
const render = (files: Record<string, unknown>, messages = hello) => loadChatTemplate(directory(files), now)?.render(messages);
const settings = (chat_template: unknown, more: object = {}) => ({ "tokenizer_config.json": { chat_template, ...more } });

function refusal(run: () => unknown): TillerError {
  try {
    run();
  } catch (error) {
    if (error instanceof TillerError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe.each(MODELS)("a conversation in the shape of $model", ({ model, chats }) => {
  const folder = path.join(fixtures, "chat", model);
  const template = loadChatTemplate(folder, now);
  const tokenizer = loadTokenizer(folder);

  it.each(chats)("is written and refused as transformers does: $messages.length messages", ({ messages, text, ids, error }) => {
    if (error !== undefined) {
      expect(refusal(() => template?.render(messages))).toMatchObject({
        code: "invalid_request",
        message: `The model's chat template refuses these messages: ${error}`,
      });
      return;
    }
    expect(template?.render(messages)).toBe(text);
    expect(tokenizer.encode(text as string)).toEqual(ids);
    if (tokenizer.bosId !== undefined && text?.startsWith(tokenizer.tokenString(tokenizer.bosId)))
      expect(ids?.filter((id) => id === tokenizer.bosId)).toHaveLength(1);
  });
});

describe("a chat template", () => {
  it("is none where the model has none", () => {
    expect(loadChatTemplate(directory({}), now)).toBeUndefined();
    expect(loadChatTemplate(directory(settings(null)), now)).toBeUndefined();
    expect(loadChatTemplate(path.join(fixtures, "tiny-gpt2"), now)).toBeUndefined();
  });

  it("comes from chat_template.jinja, else from chat_template.json, else from tokenizer_config.json", () => {
    const files = { ...settings("settings"), "chat_template.json": { chat_template: "json" }, "chat_template.jinja": "jinja" };
    expect(render(files)).toBe("jinja");
    const { "chat_template.jinja": _, ...rest } = files;
    expect(render(rest)).toBe("json");
    expect(render(settings("settings"))).toBe("settings");
  });

  it("has the tokenizer's special tokens, in whichever form they are given", () => {
    const source = "{{ bos_token }}{{ eos_token }}{{ image_token }}{{ 'none' if pad_token is not defined }}";
    expect(render(settings(source, { bos_token: "<b>", eos_token: { content: "<e>" }, image_token: "<i>", pad_token: null }))).toBe(
      "<b><e><i>none",
    );
  });

  it("may count, write JSON and read the clock that is passed in", () => {
    expect(render(settings("{% for i in range(2, 8, 3) %}{{ i }} {% endfor %}{{ range(2) | list | tojson }}"))).toBe("2 5 [0, 1]");
    expect(render(settings("{{ messages[0] | tojson }}"), [{ role: "user", content: 'é"' }])).toBe('{"role": "user", "content": "é\\""}');
    expect(render(settings("{{ strftime_now('%A %d %B %Y, %a %b %m/%y %H:%M:%S %I%p %%') }}"))).toBe(
      "Saturday 07 March 2026, Sat Mar 03/26 09:05:00 09AM %",
    );
  });

  it("keeps nothing from one conversation to the next", () => {
    const template = loadChatTemplate(directory(settings("{% set x = (x or '') + messages[0].content %}{{ x }}")), now);
    expect([template?.render(hello), template?.render(hello)]).toEqual(["Hello", "Hello"]);
  });

  it("that is no template is refused when the model is loaded, naming the file", () => {
    expect(() => render({ "chat_template.jinja": "{% for m in %}" })).toThrow(/chat_template\.jinja: the chat template does not compile: /);
    expect(() => render(settings("{% if x %}"))).toThrow(/tokenizer_config\.json: the chat template does not compile: /);
    expect(() => render(settings(7))).toThrow(/tokenizer_config\.json: chat_template must be a text or a list/);
    expect(() => render(settings([{ name: "rag", template: "" }]))).toThrow(/no template called 'default', only rag/);
    expect(() => render({ "chat_template.json": "[]" })).toThrow(/chat_template\.json is not a JSON object/);
  });

  it("that fails on some messages says so to the caller, with the reason", () => {
    for (const [source, reason] of [
      ["{{ messages[0].content | sideways }}", /cannot write these messages: .*sideways/],
      ["{{ strftime_now('%Q') }}", /strftime_now does not know %Q/],
      ["{{ range(10000000) }}", /range\(0, 10000000, 1\) is too long/],
    ] as const) {
      const error = refusal(() => render(settings(source)));
      expect(error.code).toBe("invalid_request");
      expect(error.message).toMatch(reason);
    }
  });
});

it("messages are refused when they are too many, too long or of a role there is not", () => {
  const many = (count: number, content: string) =>
    Messages.safeParse(Array.from({ length: count }, () => ({ role: "user", content }))).success;
  expect([many(1, ""), many(LIMITS.messages, "x"), many(2, "x".repeat(LIMITS.promptChars / 2))]).toEqual([true, true, true]);
  expect([many(0, "x"), many(LIMITS.messages + 1, "x"), many(2, "x".repeat(LIMITS.promptChars / 2 + 1))]).toEqual([false, false, false]);
  expect(Messages.safeParse([{ role: "tool", content: "x" }]).success).toBe(false);
});
