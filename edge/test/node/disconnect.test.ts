// Connections that break, over real sockets: a client that leaves, and an engine that is killed.
import { request as httpRequest } from "node:http";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startCpuEngine } from "./cpu-engine.ts";
import { type EdgeProcess, startEdgeProcess } from "./edge-process.ts";
import { FAULTS } from "./faults.ts";
import { SCRIPTED_TOKEN, type ScriptedEngine, startScriptedEngine } from "./scripted-engine.ts";

let edge: EdgeProcess;
let scripted: ScriptedEngine;
let cpu: Awaited<ReturnType<typeof startCpuEngine>>;

beforeAll(async () => {
  cpu = await startCpuEngine();
  scripted = await startScriptedEngine();
  edge = await startEdgeProcess({
    ENGINES: JSON.stringify([
      { models: "scripted*", url: `http://127.0.0.1:${scripted.port}`, token: "SCRIPTED_TOKEN" },
      { models: "*", url: cpu.url, token: "ENGINE_TOKEN" },
    ]),
    SCRIPTED_TOKEN,
    ENGINE_TOKEN: cpu.token,
  });
});

afterAll(async () => {
  await edge?.close();
  await scripted?.close();
  await cpu?.close();
});

const body = (changes: object) => ({
  prompt: "hello",
  modelId: "scripted",
  features: [{ modelId: "scripted", layer: "2-scripted", index: 0, strength: 1 }],
  temperature: 0,
  n_tokens: 8,
  seed: 1,
  strength_multiplier: 1,
  stream: true,
  ...changes,
});

async function seenBy(seed: number): Promise<{ abandoned: boolean } | null> {
  return (await fetch(`http://127.0.0.1:${scripted.port}/seen/${seed}`)).json() as Promise<{ abandoned: boolean } | null>;
}

it.each([
  ["while tokens come", FAULTS.endless, 11],
  ["while the engine is silent", FAULTS.silentStream, 12],
])("frees the engine when a client leaves %s", async (_, prompt, seed) => {
  const client = new AbortController();
  const response = await fetch(`${edge.url}/api/steer`, {
    method: "POST",
    body: JSON.stringify(body({ prompt, seed })),
    signal: client.signal,
  });
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  await reader.read();
  expect(await seenBy(seed)).toMatchObject({ abandoned: false });
  client.abort();
  await expect.poll(async () => (await seenBy(seed))?.abandoned).toBe(true);
});

// The local runtime learns of it only from a reset connection; one that is merely closed shows when something is written to it.
it("frees the engine when a client that waits for one JSON answer is cut off", async () => {
  const request = httpRequest(`${edge.url}/api/steer`, { method: "POST" });
  request.on("error", () => undefined);
  request.end(JSON.stringify(body({ prompt: FAULTS.hangs, seed: 13, stream: false })));
  await expect.poll(() => seenBy(13)).toMatchObject({ abandoned: false });
  request.socket?.resetAndDestroy();
  await expect.poll(async () => (await seenBy(13))?.abandoned, { timeout: 5000 }).toBe(true);
});

it("ends a stream with an error frame when the engine is killed, gives the quota back, and says when to retry", async () => {
  const user = await edge.newUser(5);
  const { models } = (await (await fetch(`${edge.url}/api/models`)).json()) as {
    models: { id: string; context: number; sources: { id: string }[] }[];
  };
  const model = models.find(({ id, sources }) => !id.startsWith("scripted") && sources.length > 0);
  const layer = model?.sources[0]?.id;
  const request = body({
    modelId: model?.id,
    features: [{ modelId: model?.id, layer, index: 0, strength: 1 }],
    // Long, and never cut short by an end of text that is likely.
    n_tokens: Math.min(256, (model?.context ?? 0) - 8),
    temperature: 2,
  });
  const send = () => fetch(`${edge.url}/api/steer/`, { method: "POST", headers: user, body: JSON.stringify(request) });
  const response = await send();
  expect([response.status, response.headers.get("x-limit-remaining")]).toEqual([200, "4"]);
  const reader = (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream()).getReader();
  let text = (await reader.read()).value ?? "";
  expect(text).toMatch(/^data: /);
  await cpu.kill();
  for (let next = await reader.read(); !next.done; next = await reader.read()) text += next.value;
  const [, data] = /event: error\ndata: (.*)\n\n$/.exec(text) ?? [];
  expect(JSON.parse(data ?? "null")).toMatchObject({
    code: "engine_failed",
    error: expect.any(String),
    message: expect.any(String),
    requestId: response.headers.get("x-request-id"),
  });

  const down = await send();
  expect([down.status, down.headers.get("x-limit-remaining")]).toEqual([503, "5"]);
  expect(Number(down.headers.get("retry-after"))).toBeGreaterThan(0);
  expect(await down.json()).toMatchObject({ code: "engine_unavailable" });
});
