import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { newId } from "../shared/ids.ts";
import { WINDOW_MS } from "./limits.ts";
import { newRateLimiter } from "./rate-limit.ts";
import { RateWindow } from "./rate-window.ts";
import { config, json, newUser, post, scripted } from "./test/worker/client.ts";

const windowOf = (identifier: string) =>
  env.RATE_WINDOWS.get(env.RATE_WINDOWS.idFromName(`tiller:steer:${identifier}`)) as DurableObjectStub<RateWindow>;

it("lets exactly 100 of the requests of 50 parallel callers through", async () => {
  const user = await newUser();
  const caller = async () => {
    const statuses: number[] = [];
    for (let i = 0; i < 3; i++) {
      const response = await post("/api/steer", scripted({ n_tokens: 1 }), user.headers);
      await response.body?.cancel();
      statuses.push(response.status);
    }
    return statuses;
  };
  const statuses = (await Promise.all(Array.from({ length: 50 }, caller))).flat();
  expect(statuses.filter((status) => status === 200)).toHaveLength(100);
  expect(statuses.filter((status) => status === 429)).toHaveLength(50);
});

it("refuses with Neuronpedia's words and ours, and says when to come again", async () => {
  const user = await newUser({ hourlyLimit: 1 });
  const first = await post("/api/steer", scripted(), user.headers);
  expect([first.status, first.headers.get("x-limit-remaining"), (await json(first)).limit]).toEqual([200, "0", "0"]);
  const response = await post("/api/steer", scripted(), user.headers);
  expect(response.status).toBe(429);
  const wait = Number(response.headers.get("retry-after"));
  expect(wait).toBeGreaterThan(3500);
  expect(wait).toBeLessThanOrEqual(3600);
  expect(response.headers.get("ratelimit-limit")).toBe("1");
  expect(response.headers.get("ratelimit-remaining")).toBe("0");
  expect(response.headers.get("ratelimit-reset")).toBe(String(wait));
  expect(await json(response)).toEqual({
    endpoint: "/api/steer",
    limitPerWindow: 1,
    requestWindow: "60 m",
    remainingRequests: 0,
    error: expect.stringContaining("(/api/steer) is 1 requests per 60 m"),
    message: expect.stringContaining("Try again in"),
    code: "rate_limited",
    requestId: response.headers.get("x-request-id"),
  });
});

it("counts callers without a key by address, and those of one IPv6 network together", async () => {
  const left = async (address: string) => {
    const response = await post("/api/steer", scripted(), { "cf-connecting-ip": address });
    await response.body?.cancel();
    return response.headers.get("x-limit-remaining");
  };
  expect(await left("192.0.2.1")).toBe("19");
  expect(await left("192.0.2.2")).toBe("19");
  expect(await left("192.0.2.1")).toBe("18");
  expect(await left("2001:db8:0:1::1")).toBe("19");
  expect(await left("2001:0db8::1:5:6:7:8")).toBe("18");
  expect(await left("2001:db8:0:2::1")).toBe("19");
});

describe("the window", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"] }));
  afterEach(() => void vi.useRealTimers());

  it("slides: a use leaves it after an hour, not at the turn of one", async () => {
    const identifier = `user:${newId()}`;
    const limiter = newRateLimiter(config());
    const start = Date.now();
    const takeAt = (time: number) => {
      vi.setSystemTime(start + time);
      return limiter.quotaOf(identifier, 2).take();
    };
    await takeAt(0);
    await takeAt(1000);
    expect(await takeAt(WINDOW_MS - 1)).toMatchObject({ success: false, reset: start + WINDOW_MS });
    expect(await takeAt(WINDOW_MS)).toMatchObject({ success: true, remaining: 0, reset: start + 1000 + WINDOW_MS });
    expect((await takeAt(WINDOW_MS + 999)).success).toBe(false);
  });

  it("is remembered by an object that was put to sleep", async () => {
    const identifier = `user:${newId()}`;
    const limiter = newRateLimiter(config());
    for (let i = 0; i < 3; i++) await limiter.quotaOf(identifier, 5).take();
    const given = limiter.quotaOf(identifier, 5);
    await given.take();
    await given.refund();
    const woken = () => runInDurableObject(windowOf(identifier), (_, state) => new RateWindow(state, env).take(0, 5, WINDOW_MS));
    await expect.poll(woken).toMatchObject({ remaining: 2 });
  });

  it("gives a place back once, and only one that was taken", async () => {
    const identifier = `user:${newId()}`;
    const limiter = newRateLimiter(config());
    const [used, given] = [limiter.quotaOf(identifier, 5), limiter.quotaOf(identifier, 5)];
    await used.take();
    await given.take();
    await given.refund();
    await given.refund();
    expect((await given.state()).remaining).toBe(4);
    const untaken = limiter.quotaOf(identifier, 5);
    await untaken.refund();
    expect((await untaken.state()).remaining).toBe(4);
  });

  it("takes several places at once, all or none, and gives all of them back", async () => {
    const identifier = `user:${newId()}`;
    const limiter = newRateLimiter(config());
    const taken = limiter.quotaOf(identifier, 5);
    expect(await taken.take(3)).toMatchObject({ success: true, remaining: 2 });
    expect(await limiter.quotaOf(identifier, 5).take(3)).toMatchObject({ success: false, remaining: 2 });
    expect(await limiter.quotaOf(identifier, 5).take(2)).toMatchObject({ success: true, remaining: 0 });
    await taken.refund();
    expect((await taken.state()).remaining).toBe(3);
    await limiter.giveBack(identifier, 5, 2);
    expect((await limiter.quotaOf(identifier, 5).state()).remaining).toBe(5);
  });

  it("forgets a caller who has been quiet, and no other", async () => {
    const identifier = `user:${newId()}`;
    await newRateLimiter(config()).quotaOf(identifier, 5).take();
    const uses = () =>
      runInDurableObject(windowOf(identifier), (_, state) => state.storage.sql.exec("SELECT count(*) AS n FROM uses").one().n);
    await expect.poll(uses).toBe(1);
    expect(await runDurableObjectAlarm(windowOf(identifier))).toBe(true);
    expect(await uses()).toBe(1);
    vi.setSystemTime(Date.now() + 2 * WINDOW_MS);
    expect(await runDurableObjectAlarm(windowOf(identifier))).toBe(true);
    expect(await uses()).toBe(0);
    expect(await runDurableObjectAlarm(windowOf(identifier))).toBe(false);
  });
});
