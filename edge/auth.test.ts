import { eq } from "drizzle-orm";
import { describe, expect, it } from "vitest";
import { hashApiKey, newApiKey } from "../shared/keys.ts";
import { newGate } from "./auth.ts";
import { apiKeys } from "./schema.ts";
import { call, config, json, newUser, post, scripted } from "./test/worker/client.ts";

describe("a key", () => {
  it("is taken from x-api-key and from a Bearer token, in any case of the header", async () => {
    const user = await newUser({ hourlyLimit: 7 });
    for (const headers of [{ "X-Api-Key": user.key }, { authorization: `Bearer ${user.key}` }, { authorization: `bearer ${user.key}` }]) {
      const response = await post("/api/steer", "{", headers);
      expect([response.status, response.headers.get("ratelimit-limit")]).toEqual([400, "7"]);
    }
  });

  it("gives the default limit to a user without one of their own", async () => {
    const response = await post("/api/steer", "{", (await newUser()).headers);
    expect(response.headers.get("ratelimit-limit")).toBe("100");
  });

  it("is stored as a hash only, and remembers when it was used", async () => {
    const user = await newUser();
    await (await post("/api/steer", scripted(), user.headers)).body?.cancel();
    const find = async () => (await config().db.select().from(apiKeys).where(eq(apiKeys.user_id, user.id)))[0];
    await expect.poll(async () => (await find())?.last_used_at).toBeGreaterThan(0);
    expect(JSON.stringify(await find())).not.toContain(user.key);
    expect((await find())?.hash).toBe(await hashApiKey(user.key));
  });
});

it("is looked up once in ten seconds, so that a revoked key is refused after them", async () => {
  const user = await newUser();
  const clock = { now: Date.now() };
  const gate = newGate(config(), () => clock.now);
  const identify = () => gate.identify(new Request("http://edge.test", { headers: user.headers }), () => undefined);
  expect((await identify()).userId).toBe(user.id);
  await config().db.update(apiKeys).set({ revoked_at: clock.now }).where(eq(apiKeys.user_id, user.id));
  clock.now += 9_999;
  expect((await identify()).userId).toBe(user.id);
  clock.now += 1;
  await expect(identify()).rejects.toMatchObject({ code: "unauthorized" });
});

describe("a key that is not good is refused, never taken for no key", () => {
  it.each([
    ["an unknown one", async () => ({ "x-api-key": (await newApiKey()).key })],
    ["a revoked one", async () => (await newUser({ revoked: true })).headers],
    ["another's form", async () => ({ "x-api-key": "sk-np-abc" })],
    ["an empty one", async () => ({ "x-api-key": "" })],
    ["a Basic authorization", async () => ({ authorization: "Basic dTpw" })],
  ])("%s", async (_, headers) => {
    const response = await call("/api/steer", { method: "POST", body: JSON.stringify(scripted()), headers: await headers() });
    expect([response.status, (await json(response)).code]).toEqual([401, "unauthorized"]);
  });
});
