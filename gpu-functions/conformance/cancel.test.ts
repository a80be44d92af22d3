// POST /cancel and the ids of generations, over HTTP and while a generation waits.

import type { AddressInfo } from "node:net";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { GenerateRequest } from "../../shared/protocol.ts";
import { parseEvents } from "../../shared/sse.ts";
import { fixtures } from "../cpu/fixture.ts";
import { newServer } from "../cpu/server.ts";
import { type Engine, loadEngine } from "./engine.ts";

const MODEL = "tiny-gpt2";
const directories = [path.join(fixtures, MODEL)];
const authorised = { authorization: "Bearer t", "content-type": "application/json" };
let engine: Engine;
let url: string;
let close: () => Promise<void>;
beforeAll(async () => {
  engine = await loadEngine({ directories, threads: 1 });
  const server = newServer(engine, { token: "t", log: () => undefined });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  close = () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
});
afterAll(async () => {
  await close();
  await engine.close();
});

const body = (more: object = {}) => ({
  ...{ model: MODEL, prompt: "The sun", rows: [{ name: "A", edits: [] }], sampling: { temperature: 0, seed: 1 }, max_tokens: 150 },
  ...more,
});
const post = (to: string, payload: object, headers: object = {}) =>
  fetch(`${url}${to}`, { method: "POST", headers: { ...authorised, ...headers }, body: JSON.stringify(payload) });
const SSE = { accept: "text/event-stream" };
const cancel = async (id: string) => (await post("/cancel", { id })).json();
const load = () => engine.model(MODEL).scheduler.load();
const turn = () => new Promise((resolve) => setImmediate(resolve));
const until = async (met: () => boolean) => {
  while (!met()) await turn();
};
const free = () => until(() => load().rows === 0);
/** A row in every slot, for as long as they are wanted. */
function fill(): { done: Promise<unknown>; end: () => void } {
  const gone = new AbortController();
  const { slots } = engine.model(MODEL).plan;
  const done = Promise.all(
    Array.from({ length: slots }, async () => {
      while (!gone.signal.aborted) for await (const _ of engine.generate(GenerateRequest.parse(body()), gone.signal));
    }),
  );
  return { done, end: () => gone.abort() };
}

describe("POST /cancel", () => {
  it("ends a stream with the error canceled, and frees its slots", async () => {
    const response = await post("/generate", body({ id: "a-1" }), SSE);
    const events = parseEvents(response.body as ReadableStream<Uint8Array>)[Symbol.asyncIterator]();
    expect((await events.next()).value).toMatchObject({ event: "token" });
    expect(await cancel("a-1")).toEqual({ canceled: true });
    let last: { event?: string; data?: string } = {};
    for (let next = await events.next(); !next.done; next = await events.next()) last = next.value;
    expect(last.event).toBe("error");
    expect(JSON.parse(last.data ?? "")).toMatchObject({ error: { code: "canceled" } });
    await free();
    expect(await cancel("a-1")).toEqual({ canceled: false });
  });

  it("ends a JSON answer with 409 canceled", async () => {
    const answer = post("/generate", body({ id: "a_2" }));
    await until(() => load().rows > 0);
    expect(await cancel("a_2")).toEqual({ canceled: true });
    const response = await answer;
    expect([response.status, await response.json()]).toMatchObject([409, { error: { code: "canceled" } }]);
    await free();
  });

  it("ends one that waits for slots, while those who have them go on", async () => {
    const others = fill();
    await until(() => load().rows === engine.model(MODEL).plan.slots);
    const answer = post("/generate", body({ id: "waiting" }));
    await until(() => load().waiting > 0);
    expect(await cancel("waiting")).toEqual({ canceled: true });
    expect((await answer).status).toBe(409);
    others.end();
    await others.done;
    await free();
  });

  it("says false for an id that no generation has, and refuses one that none can have", async () => {
    expect(await cancel("nobody")).toEqual({ canceled: false });
    for (const id of ["", "a b", "x".repeat(65), "é"]) {
      expect((await post("/cancel", { id })).status).toBe(400);
      expect((await post("/generate", body({ id }))).status).toBe(400);
    }
    expect((await fetch(`${url}/cancel`, { headers: authorised })).status).toBe(405);
    expect((await post("/cancel", { id: "x" }, { authorization: "" })).status).toBe(401);
  });
});

describe("an id", () => {
  it("is taken over by a second generation, and the first ends with canceled", async () => {
    const first = post("/generate", body({ id: "job" }));
    await until(() => load().rows > 0);
    const second = post("/generate", body({ id: "job", max_tokens: 3 }));
    expect((await first).status).toBe(409);
    expect((await second).status).toBe(200);
    expect(await cancel("job")).toEqual({ canceled: false });
  });

  it("stays with the second when the first one leaves", async () => {
    const [first, second] = [1, 2].map(() =>
      engine.generate(GenerateRequest.parse(body({ id: "job" })), new AbortController().signal)[Symbol.asyncIterator](),
    ) as [AsyncIterator<unknown>, AsyncIterator<unknown>];
    await first.next();
    await second.next();
    const drain = async (events: AsyncIterator<unknown>) => {
      while (!(await events.next()).done);
    };
    await expect(drain(first)).rejects.toMatchObject({ code: "canceled" });
    expect(engine.cancel("job")).toBe(true);
    await expect(drain(second)).rejects.toMatchObject({ code: "canceled" });
    await free();
  });

  it("has nothing to cancel once all is computed, though its caller has not read all", async () => {
    const events = engine.generate(GenerateRequest.parse(body({ id: "job", max_tokens: 2 })), new AbortController().signal);
    const read: string[] = [];
    const reader = events[Symbol.asyncIterator]();
    read.push((await reader.next()).value?.event);
    await free();
    expect(engine.cancel("job")).toBe(false);
    for (let next = await reader.next(); !next.done; next = await reader.next()) read.push(next.value.event);
    expect(read).toEqual(["token", "token", "done"]);
  });

  it("is not taken over by a request that is refused", async () => {
    const first = post("/generate", body({ id: "job" }));
    await until(() => load().rows > 0);
    expect((await post("/generate", body({ id: "job", max_tokens: 5000 }))).status).toBe(400);
    expect(await cancel("job")).toEqual({ canceled: true });
    expect((await first).status).toBe(409);
    await free();
  });

  it("is free again after an end, a deadline and a caller that left", async () => {
    await (await post("/generate", body({ id: "job", max_tokens: 2 }))).json();
    expect(await cancel("job")).toEqual({ canceled: false });
    const others = fill();
    await until(() => load().rows === engine.model(MODEL).plan.slots);
    expect((await post("/generate", body({ id: "job", deadline_ms: 1 }))).status).toBe(504);
    expect(await cancel("job")).toEqual({ canceled: false });
    others.end();
    await others.done;
    await free();
    const gone = new AbortController();
    const left = fetch(`${url}/generate`, {
      ...{ method: "POST", headers: authorised, body: JSON.stringify(body({ id: "job" })), signal: gone.signal },
    }).catch(() => "left");
    await until(() => load().rows > 0);
    gone.abort();
    expect(await left).toBe("left");
    await free();
    expect(await cancel("job")).toEqual({ canceled: false });
  });
});

describe("a generation whose model is being loaded", () => {
  it("ends at once when it is canceled or its caller leaves, and leaves the model to others", async () => {
    const cold = await loadEngine({ directories, threads: 1, warm: 0 });
    try {
      const start = () => cold.generate(GenerateRequest.parse(body({ id: "job", max_tokens: 2 })), new AbortController().signal);
      const waiting = start()[Symbol.asyncIterator]().next();
      expect(cold.cancel("job")).toBe(true);
      await expect(waiting).rejects.toMatchObject({ code: "canceled" });
      expect(() => cold.model(MODEL)).toThrow(/not loaded/);
      const gone = new AbortController();
      const left = cold
        .generate(GenerateRequest.parse(body({ id: "job" })), gone.signal)
        [Symbol.asyncIterator]()
        .next();
      gone.abort();
      expect((await left).done).toBe(true);
      expect(cold.cancel("job")).toBe(false);
      expect(() => cold.model(MODEL)).toThrow(/not loaded/);
      const events: string[] = [];
      for await (const { event } of start()) events.push(event);
      expect(events).toEqual(["token", "token", "done"]);
    } finally {
      await cold.close();
    }
  });
});
