import { beforeAll, describe, expect, it, vi } from "vitest";
import { FAULTS } from "../test/node/faults.ts";
import {
  call,
  callWith,
  type Direction,
  frames,
  json,
  newUser,
  post,
  realDirection,
  scripted,
  seenBy,
  type TestUser,
} from "../test/worker/client.ts";
import { streamBody } from "./stream.ts";

let user: TestUser;
let direction: Direction;
beforeAll(async () => {
  user = await newUser({ hourlyLimit: 10_000 });
  direction = await realDirection();
});

const real = (changes: object = {}) => ({
  prompt: "One day a little girl went to the park.",
  modelId: direction.modelId,
  features: [direction.feature],
  temperature: 0.7,
  n_tokens: 8,
  seed: 16,
  strength_multiplier: 1,
  kl: true,
  ...changes,
});
const stream = (body: object) => post("/api/steer", { ...body, stream: true }, user.headers);
const remaining = async () => Number((await post("/api/steer", "{", user.headers)).headers.get("x-limit-remaining"));

it("sends the whole answer so far in every frame, and what the JSON answer has in the last one", async () => {
  const response = await stream(real());
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  expect(response.headers.get("cache-control")).toBe("no-cache, no-transform");
  const all = await frames(response);
  const last = all.at(-1)?.[1];
  const whole = await json(await post("/api/steer", real(), user.headers));
  expect(last).toMatchObject({ STEERED: whole.STEERED, DEFAULT: whole.DEFAULT, steeredLogProbs: whole.steeredLogProbs, kl: whole.kl });
  expect(last?.shareUrl).toBe(`http://edge.test/steer/${String(last?.id)}`);
  expect((await call(`/steer/${String(last?.id)}`)).status).toBe(200);
  for (const [event, frame] of all.slice(0, -1)) {
    expect(event).toBe("message");
    expect(Object.keys(frame)).toEqual(["STEERED", "DEFAULT", "steeredLogProbs", "defaultLogProbs", "id", "limit"]);
    expect(frame).toMatchObject({
      id: null,
      steeredLogProbs: null,
      defaultLogProbs: null,
      limit: response.headers.get("x-limit-remaining"),
    });
    for (const side of ["STEERED", "DEFAULT"] as const) expect(last?.[side] as string).toContain(frame[side] ?? "");
  }
  expect(all.length - 1).toBe((whole.steeredLogProbs?.length ?? 0) + (whole.defaultLogProbs?.length ?? 0));
});

it("sends one event per token and the whole answer at the end in the delta mode", async () => {
  const all = await frames(await stream(real({ stream_mode: "delta" })));
  expect(all.at(-1)?.[0]).toBe("done");
  const done = all.at(-1)?.[1] as Record<string, unknown>;
  for (const side of ["STEERED", "DEFAULT"]) {
    const tokens = all.filter(([event, data]) => event === "token" && data.side === side).map(([, data]) => data);
    expect(tokens.map((token) => token.index)).toEqual(tokens.map((_, i) => i));
    expect(tokens.map((token) => token.text).join("")).toBe(done[side]);
    expect(tokens[0]).toMatchObject({ token: expect.any(String), logprob: expect.any(Number), topLogprobs: expect.any(Array) });
    if (side === "STEERED") expect(tokens.map((token) => token.kl)).toEqual(done.kl);
  }
});

describe("an engine that fails half way ends the stream with an error frame, and the quota is given back", () => {
  it.each([
    ["its process dies", FAULTS.diesInStream, "engine_failed", 2],
    ["its stream ends without an end", FAULTS.endsEarly, "engine_failed", 2],
    ["it says so itself", FAULTS.errorEvent, "engine_timeout", 2],
    ["it sends what is no JSON", FAULTS.badEvent, "engine_failed", 0],
    ["it leaves out the receipts", FAULTS.noReceipts, "engine_failed", 6],
  ])("%s", async (_, prompt, code, tokens) => {
    vi.spyOn(console, "error").mockReturnValue(undefined);
    const before = await remaining();
    const response = await stream(scripted({ prompt }));
    expect(response.status).toBe(200);
    const all = await frames(response);
    expect(all.map(([event]) => event)).toEqual([...Array(tokens).fill("message"), "error"]);
    const error = all.at(-1)?.[1];
    expect(error).toMatchObject({ code, message: expect.any(String), requestId: response.headers.get("x-request-id") });
    expect(error?.error).toBe(error?.message);
    expect(await remaining()).toBe(before);
  });
});

it("answers with a status, not with a stream, when the engine refuses before it starts", async () => {
  const response = await stream(scripted({ prompt: FAULTS.tooLong }));
  expect([response.status, (await json(response)).code]).toEqual([400, "prompt_too_long"]);
});

it("writes a comment while there is nothing to say", async () => {
  const body = scripted({ prompt: FAULTS.silentStream, stream: true });
  const response = await callWith({ pingMs: 5, engineTimeoutMs: 1500 }, "/api/steer", {
    method: "POST",
    body: JSON.stringify(body),
    headers: { ...user.headers },
  });
  expect(await response.text()).toMatch(/^data: [^\n]+\n\n(: ping\n\n)+event: error\ndata: .*engine_timeout/);
});

it("tells when its reader stops", async () => {
  const onGone = vi.fn();
  const endless = (async function* () {
    for (;;) yield "data: 1\n\n";
  })();
  const reader = streamBody(endless, 1000, onGone).getReader();
  await reader.read();
  expect(onGone).not.toHaveBeenCalled();
  await reader.cancel();
  expect(onGone).toHaveBeenCalledOnce();
});

it("closes the engine's connection when its reader stops", async () => {
  const body = scripted({ prompt: FAULTS.endless });
  const response = await stream(body);
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  await reader.read();
  await reader.cancel();
  await expect.poll(async () => (await seenBy(body.seed))?.abandoned).toBe(true);
});
