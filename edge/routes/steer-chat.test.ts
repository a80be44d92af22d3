import { beforeAll, describe, expect, it } from "vitest";
import type { z } from "zod";
import type { SteerChatResult } from "../steer/chat-contract.ts";
import { call, frames, json, newUser, post, scripted, type TestUser } from "../test/worker/client.ts";

const MODEL = "tiller-tales";
type Answer = z.infer<typeof SteerChatResult> & { error?: string };

let user: TestUser;
beforeAll(async () => {
  user = await newUser({ hourlyLimit: 10_000 });
});

const mood = { modelId: MODEL, layer: "3-tales-directions", index: 0, strength: 13 };
const hello = [{ role: "user", content: "Can we go to the park?" }];
const body = (changes: object = {}) => ({
  ...{ defaultChatMessages: hello, steeredChatMessages: hello, modelId: MODEL, features: [mood] },
  ...{ temperature: 0.7, n_tokens: 40, freq_penalty: 0, seed: 5, strength_multiplier: 1, steer_special_tokens: true },
  ...changes,
});
async function chat(changes: object = {}): Promise<Answer> {
  const response = await post("/api/steer-chat", body(changes), user.headers);
  const answer: Answer = await response.json();
  expect(response.status, JSON.stringify(answer).slice(0, 300)).toBe(200);
  return answer;
}
const lastOf = (side: Answer["DEFAULT"]) => side?.chatTemplate.at(-1);

describe("a steered conversation", () => {
  it("answers both histories in the documented shape, the answer ended where a message of the model ends", async () => {
    const answer = await chat();
    for (const side of [answer.STEERED, answer.DEFAULT]) {
      expect(side?.chatTemplate).toEqual([...hello, { role: "assistant", content: expect.any(String) }]);
      const said = lastOf(side)?.content ?? "";
      expect(said).not.toContain('"');
      expect(side?.raw).toMatch(/^<\|endoftext\|>Once upon a time[\s\S]*Lily said, "Can we go to the park\?"\nHer mom smiled and said, "/);
      expect(side?.raw.endsWith(said)).toBe(true);
      expect(side?.logprobs?.length).toBeGreaterThan(0);
    }
    expect(lastOf(answer.STEERED)?.content).not.toBe(lastOf(answer.DEFAULT)?.content);
    expect(answer).toMatchObject({
      ...{ id: expect.any(String), limit: expect.any(String), settings: { n_tokens: 40, steer_method: "SIMPLE_ADDITIVE" } },
      receipts: [expect.objectContaining({ method: "SIMPLE_ADDITIVE" })],
    });
  });

  it("goes on from two histories that differ, each as it would alone", async () => {
    const first = await chat();
    const [plain, steered] = [first.DEFAULT?.chatTemplate, first.STEERED?.chatTemplate];
    const next = { role: "user", content: "Why?" };
    const both = await chat({ defaultChatMessages: [...(plain ?? []), next], steeredChatMessages: [...(steered ?? []), next] });
    expect(both.DEFAULT?.chatTemplate.slice(0, -1)).toEqual([...(plain ?? []), next]);
    expect(both.STEERED?.chatTemplate.slice(0, -1)).toEqual([...(steered ?? []), next]);
    const alone = await chat({ defaultChatMessages: [...(plain ?? []), next], steeredChatMessages: [...(plain ?? []), next] });
    expect(alone.DEFAULT).toEqual(both.DEFAULT);
    const other = [...(steered ?? []), next];
    const swapped = await chat({ defaultChatMessages: other, steeredChatMessages: other });
    expect(swapped.STEERED).toEqual(both.STEERED);
  });

  it("zero strength gives both sides the same answer, and a system message opens the story", async () => {
    const messages = [{ role: "developer", content: "It was cold and snow was falling." }, ...hello];
    const answer = await chat({ strength_multiplier: 0, defaultChatMessages: messages, steeredChatMessages: messages });
    expect(answer.STEERED?.raw).toBe(answer.DEFAULT?.raw);
    expect(answer.DEFAULT?.raw).toMatch(/^<\|endoftext\|>It was cold and snow was falling\.\n/);
    expect(answer.DEFAULT?.chatTemplate[0]?.role).toBe("system");
  });

  it("streams the conversation so far, and the last frame is the answer", async () => {
    const whole = await chat();
    const response = await post("/api/steer-chat", body({ stream: true }), user.headers);
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    const all = (await frames(response)).map(([, data]) => data as unknown as Answer);
    expect(all.length).toBeGreaterThan(3);
    const texts = all.flatMap(({ STEERED }) => (STEERED === null ? [] : [STEERED.raw]));
    for (const [i, text] of texts.entries()) if (i > 0) expect(text.startsWith(texts[i - 1] as string)).toBe(true);
    const last = all.at(-1);
    expect([last?.STEERED, last?.DEFAULT]).toEqual([whole.STEERED, whole.DEFAULT]);
    expect(last?.id).not.toBeNull();
    const delta = await frames(await post("/api/steer-chat", body({ stream: true, stream_mode: "delta" }), user.headers));
    const said = delta.flatMap(([event, data]) => (event === "token" && data.side === "STEERED" ? [String(data.text)] : [])).join("");
    expect(said).toBe(lastOf(whole.STEERED)?.content);
  });

  it("is saved with its messages: loaded, and shown on its page", async () => {
    const answer = await chat();
    const loaded = await json(await post("/api/steer-load", { steerOutputId: answer.id }));
    for (const side of ["STEERED", "DEFAULT"] as const) {
      const { raw, chatTemplate } = loaded[side] as unknown as NonNullable<Answer["STEERED"]>;
      expect({ raw, chatTemplate }).toEqual({ raw: answer[side]?.raw, chatTemplate: answer[side]?.chatTemplate });
    }
    const page = await (await call(`/steer/${answer.id}`)).text();
    expect(page).toContain("Can we go to the park?");
    expect(page).toContain(lastOf(answer.DEFAULT)?.content.slice(0, 10).replaceAll("'", "&#39;"));
  });
});

describe("a conversation that cannot be steered", () => {
  it.each([
    [
      "a model without a template",
      { modelId: "scripted", features: scripted().features },
      400,
      /scripted has no chat template.*\/api\/steer/,
    ],
    ["no history", { defaultChatMessages: undefined }, 400, /^defaultChatMessages is a required field/],
    ["an empty history", { steeredChatMessages: [] }, 400, /^steeredChatMessages must have at least one message/],
    [
      "an empty message",
      { steeredChatMessages: [{ role: "user", content: "" }] },
      400,
      /^steeredChatMessages\[0\]\.content must not be empty/,
    ],
    ["a role", { steeredChatMessages: [{ role: "tool", content: "x" }] }, 400, /role must be one of the following values: user, assistant/],
    ["a long history", { steeredChatMessages: [{ role: "user", content: "x".repeat(8193) }] }, 400, /at most 8192 characters in all/],
    [
      "one beyond the context",
      { steeredChatMessages: [{ role: "user", content: "word ".repeat(300) }] },
      400,
      /^The steered conversation is \d+ tokens long.*Shorten it/,
    ],
    [
      "messages that the template refuses",
      { steeredChatMessages: [...hello, { role: "system", content: "x" }] },
      400,
      /Only the first message can be a system message/,
    ],
    ["no word on special tokens", { steer_special_tokens: undefined }, 400, /^steer_special_tokens/],
    ["stops", { stop: ["a", "b", "c", "d", "e", "f", "g", "h"] }, 400, /^stop must be a list of at most 7 texts here/],
    ["nothing to steer with", { features: [] }, 400, /at least one feature or vector/],
  ])("for %s is refused with what is allowed, and costs nothing", async (_, changes, status, words) => {
    const fresh = await newUser({ hourlyLimit: 3 });
    const response = await post("/api/steer-chat", body(changes), fresh.headers);
    expect([response.status, (await json(response)).error]).toEqual([status, expect.stringMatching(words)]);
    expect(response.headers.get("x-limit-remaining")).toBe("3");
  });
});
