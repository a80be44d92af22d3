// Rate limits over Upstash: its protocol, its scripts, a real Redis, and what happens when that is gone.
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { bundleEdge } from "../../../scripts/edge-bundle.ts";
import { type EdgeProcess, startEdgeProcess } from "./edge-process.ts";
import { hasRedis, startRedis } from "./redis.ts";
import { SCRIPTED_TOKEN, startScriptedEngine } from "./scripted-engine.ts";
import { startUpstashProxy } from "./upstash-proxy.ts";

// Once, before a test's own time begins.
beforeAll(async () => {
  await bundleEdge();
});

const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function setUp() {
  const redis = await startRedis();
  cleanups.push(redis.kill);
  const proxy = await startUpstashProxy(redis.port);
  cleanups.push(proxy.close);
  const engine = await startScriptedEngine();
  cleanups.push(engine.close);
  const edge = await startEdgeProcess({
    ENGINES: JSON.stringify([{ models: "*", url: `http://127.0.0.1:${engine.port}`, token: "SCRIPTED_TOKEN" }]),
    SCRIPTED_TOKEN,
    UPSTASH_REDIS_REST_URL: proxy.url,
    UPSTASH_REDIS_REST_TOKEN: proxy.token,
  });
  cleanups.push(edge.close);
  return { redis, proxy, engine, edge };
}

async function steer(edge: EdgeProcess, headers: Record<string, string>, prompt = "hello"): Promise<Response> {
  const response = await fetch(`${edge.url}/api/steer`, {
    method: "POST",
    headers,
    body: JSON.stringify({
      prompt,
      modelId: "scripted",
      features: [{ modelId: "scripted", layer: "2-scripted", index: 0, strength: 1 }],
      temperature: 0,
      n_tokens: 1,
      seed: 1,
      strength_multiplier: 1,
    }),
  });
  await response.text();
  return response;
}

const remaining = (response: Response) => response.headers.get("x-limit-remaining");

describe.skipIf(!hasRedis())("with Upstash configured", () => {
  it("lets exactly 100 of the requests of 50 parallel callers through, counted in Redis", async () => {
    const { edge, proxy } = await setUp();
    const user = await edge.newUser();
    const caller = async () =>
      [await steer(edge, user), await steer(edge, user), await steer(edge, user)].map((response) => response.status);
    const statuses = (await Promise.all(Array.from({ length: 50 }, caller))).flat();
    expect(statuses.filter((status) => status === 200)).toHaveLength(100);
    expect(statuses.filter((status) => status === 429)).toHaveLength(50);
    expect(proxy.commands()).toBeGreaterThanOrEqual(150);
  });

  it("gives the quota back there when the engine fails", async () => {
    const { edge } = await setUp();
    const user = await edge.newUser(5);
    expect(remaining(await steer(edge, user))).toBe("4");
    const failed = await steer(edge, user, "engine: answer no JSON");
    expect([failed.status, remaining(failed)]).toEqual([502, "4"]);
    expect(remaining(await steer(edge, user))).toBe("3");
  });

  it("counts a sweep as several steers, and nothing of one that does not fit", async () => {
    const { edge } = await setUp();
    const user = await edge.newUser(5);
    const strengths = Array.from({ length: 24 }, (_, i) => i + 1);
    const asked = { modelId: "scripted", prompts: ["hello"], directions: [{ layer: "2-scripted", index: 0 }], strengths, n_tokens: 1 };
    const sweep = async () => {
      const response = await fetch(`${edge.url}/api/sweeps`, { method: "POST", headers: user, body: JSON.stringify(asked) });
      await response.text();
      return [response.status, remaining(response)];
    };
    expect([await sweep(), await sweep()]).toEqual([
      [202, "1"],
      [429, "1"],
    ]);
    expect(remaining(await steer(edge, user))).toBe("0");
  });

  it("limits on without Redis when it is killed", async () => {
    const { edge, redis } = await setUp();
    const user = await edge.newUser(2);
    expect((await steer(edge, user)).status).toBe(200);
    await redis.kill();
    // The Durable Object starts its own count: the limit holds, and calls go on.
    const statuses = [];
    for (let i = 0; i < 4; i++) statuses.push((await steer(edge, user)).status);
    expect(statuses).toEqual([200, 200, 429, 429]);
  });

  it("limits on without Redis when it does not answer", async () => {
    const { edge, proxy } = await setUp();
    const user = await edge.newUser(1);
    proxy.hang();
    expect([(await steer(edge, user)).status, (await steer(edge, user)).status]).toEqual([200, 429]);
  });
});
