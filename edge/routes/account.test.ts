import { describe, expect, it } from "vitest";
import { call, callWith, json, newUser, post, scripted } from "../test/worker/client.ts";

const ADMIN_SECRET = "an-admin-secret-that-is-long";
/** A POST to a deployment that has an administrator. */
const asAdmin = async (path: string, body: object, secret = ADMIN_SECRET, headers: Record<string, string> = {}) => {
  const init = { method: "POST", body: JSON.stringify(body), headers: { "x-admin-secret": secret, ...headers } };
  return callWith({ adminSecret: ADMIN_SECRET }, path, init);
};
const keysOf = async (headers: Record<string, string>) =>
  (
    (await (await post("/api/user/keys/list", {}, headers)).json()) as {
      keys: { id: string; name: string; current: boolean; revokedAt: string | null }[];
    }
  ).keys;

describe("keys", () => {
  it("are made, listed with their prefix and never with the key, and work at once", async () => {
    const user = await newUser();
    const made = await json(await post("/api/user/keys/new", { name: "laptop" }, user.headers));
    expect(made.key).toMatch(/^sk-til-/);
    const headers = { "x-api-key": String(made.key) };
    const list = await (await post("/api/user/keys/list", {}, headers)).text();
    expect(list).not.toContain(String(made.key));
    expect(list).toContain(String(made.prefix));
    expect((await keysOf(headers)).map(({ name, current }) => [name, current])).toEqual(
      expect.arrayContaining([
        ["laptop", true],
        ["test", false],
      ]),
    );
  });

  it("that are revoked stop working, and the last one stays", async () => {
    const user = await newUser();
    const [first] = await keysOf(user.headers);
    const last = await post("/api/user/keys/revoke", { id: first?.id }, user.headers);
    expect([last.status, (await json(last)).error]).toEqual([409, expect.stringMatching(/last key that works: make another first/)]);
    const made = await json(await post("/api/user/keys/new", { name: "new" }, user.headers));
    expect((await post("/api/user/keys/revoke", { id: first?.id }, { "x-api-key": String(made.key) })).status).toBe(200);
    const gone = await callWith({}, "/api/user/keys/list", { method: "POST", headers: user.headers });
    expect(gone.status).toBe(401);
  });

  it("of somebody else cannot be revoked", async () => {
    const [one, two] = [await newUser(), await newUser()];
    const [key] = await keysOf(one.headers);
    expect((await post("/api/user/keys/revoke", { id: key?.id }, two.headers)).status).toBe(404);
  });

  it("are answered in Neuronpedia's shape too: the key that the call was made with", async () => {
    const user = await newUser();
    expect(await json(await post("/api/user/api-key", { type: "NEURONPEDIA" }, user.headers))).toMatchObject({
      ...{ username: "test", type: "NEURONPEDIA", value: user.key },
      ...{ id: expect.any(String), createdAt: expect.any(String), updatedAt: expect.any(String) },
    });
    expect((await post("/api/user/api-key", { type: "OPENAI" }, user.headers)).status).toBe(404);
    expect((await post("/api/user/api-key", { type: "OTHER" }, user.headers)).status).toBe(400);
    expect((await post("/api/user/api-key", { type: "NEURONPEDIA" })).status).toBe(401);
  });
});

describe("usage", () => {
  it("tells what is left without using any, and what the user has", async () => {
    const user = await newUser({ hourlyLimit: 7 });
    expect((await post("/api/steer", scripted(), user.headers)).status).toBe(200);
    for (let i = 0; i < 2; i++) {
      const usage = await json(await call("/api/user/usage", { headers: user.headers }));
      expect(usage).toMatchObject({ user: { id: user.id }, steers: { limit: 7, used: 1, remaining: 6 }, kept: { keys: 1, vectors: 0 } });
    }
  });

  it("counts what looks features up, and what does not is free", async () => {
    const user = await newUser();
    const feature = await call("/api/feature/tiller-tales/3-tales-res/7", { headers: user.headers });
    expect(feature.headers.get("x-limit-remaining")).toBe("9999");
    expect((await post("/api/list/list", "", user.headers)).headers.get("x-limit-remaining")).toBeNull();
    const usage = await json(await call("/api/user/usage", { headers: user.headers }));
    expect(usage).toMatchObject({ steers: { used: 0 }, readings: { used: 0 }, lookups: { limit: 10_000, used: 1 } });
  });

  it("without a key is the address's", async () => {
    expect(await json(await call("/api/user/usage"))).toMatchObject({ user: null, kept: null, steers: { limit: 20 } });
  });
});

describe("an administrator", () => {
  it("makes users, and gives them a higher limit", async () => {
    const made = await json(await asAdmin("/api/admin/user/new", { name: "Ada" }));
    const headers = { "x-api-key": String(made.key) };
    expect(await json(await call("/api/user/usage", { headers }))).toMatchObject({ user: { name: "Ada" }, steers: { limit: 100 } });
    const { id } = made.user as unknown as { id: string };
    expect((await asAdmin("/api/admin/user/update", { userId: id, hourlyLimit: 500 })).status).toBe(200);
    const usage = await json(await callWith({}, "/api/user/usage", { headers }));
    expect(usage).toMatchObject({ steers: { limit: 500 }, readings: { limit: 1000 } });
    const found = await json(await asAdmin("/api/admin/user/list", { query: id }));
    expect(found.users).toEqual([expect.objectContaining({ id, name: "Ada", hourlyLimit: 500 })]);
  });

  it("revokes all keys of a user", async () => {
    const user = await newUser();
    expect(await json(await asAdmin("/api/admin/user/revoke-keys", { userId: user.id }))).toEqual({ revoked: 1 });
    expect((await callWith({}, "/api/user/keys/list", { method: "POST", headers: user.headers })).status).toBe(401);
    expect((await asAdmin("/api/admin/user/revoke-keys", { userId: "nobody" })).status).toBe(404);
  });

  it("is nobody without the secret: neither a user nor a wrong secret, nor where there is none", async () => {
    const user = await newUser();
    expect((await post("/api/admin/user/list", {}, user.headers)).status).toBe(401);
    expect((await asAdmin("/api/admin/user/list", {}, "an-admin-secret-that-is-wrong")).status).toBe(401);
    expect((await post("/api/admin/user/list", {}, { "x-admin-secret": ADMIN_SECRET })).status).toBe(401);
    expect((await post("/api/admin/user/list", {}, { "x-admin-secret": "" })).status).toBe(401);
  });
});
