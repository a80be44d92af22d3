import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import { newId } from "../../shared/ids.ts";
import { actAs, asService } from "../people/acting.ts";
import { newNotes } from "../people/notes.ts";
import { newPeople } from "../people/store.ts";
import { callWith, config, json, newUser, post, scripted, type TestUser } from "../test/worker/client.ts";

const ADMIN_SECRET = "an-admin-secret-that-is-long";
const admin = (path: string, body: object, headers: Record<string, string> = {}) =>
  callWith({ adminSecret: ADMIN_SECRET }, path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "x-admin-secret": ADMIN_SECRET, ...headers },
  });
const serviceKey = async () => {
  const { key, id } = await json(await admin("/api/admin/service-key/new", { name: "bot" }));
  return { id: String(id), headers: { "x-api-key": String(key) } };
};
const bot = await serviceKey();
let last = 10_000_000;
/** Someone of Discord whom nobody has seen. */
const someone = () => ({ ...bot.headers, "x-acting-for": `discord:${++last}${Date.now()}`.slice(0, 28), "x-acting-name": "Ada%20L" });
const usageOf = async (headers: Record<string, string>) =>
  (await (await callWith({}, "/api/user/usage", { headers })).json()) as { user: { id: string; name: string } | null; steers: object };

const VECTOR = {
  ...{ modelId: "tiller-tales", layerNumber: 3, hookType: "hook_resid_pre", vector: Array.from({ length: 256 }, (_, i) => Math.cos(i)) },
  ...{ vectorDefaultSteerStrength: 1, vectorLabel: "Mine" },
};

describe("somebody of Discord", () => {
  it("is a user from the first use on, with a quota and a name of their own", async () => {
    const [ada, bob] = [someone(), someone()];
    const user = (await usageOf(ada)).user;
    expect(user).toMatchObject({ name: "Ada L" });
    expect((await usageOf(ada)).user).toEqual(user);
    expect((await usageOf(bob)).user?.id).not.toBe(user?.id);
    expect((await post("/api/steer", scripted(), ada)).headers.get("ratelimit-limit")).toBe("100");
    expect((await usageOf(ada)).steers).toMatchObject({ used: 1, limit: 100 });
    expect((await usageOf(bob)).steers).toMatchObject({ used: 0 });
  });

  it("is one user when two first uses come at once", async () => {
    const ada = someone();
    const ids = await Promise.all(Array.from({ length: 6 }, async () => (await usageOf(ada)).user?.id));
    expect(new Set(ids).size).toBe(1);
  });

  it("has vectors that nobody else sees", async () => {
    const [ada, bob] = [someone(), someone()];
    const made = await json(await post("/api/vector/new", VECTOR, ada));
    expect(made.code).toBeUndefined();
    const list = async (headers: Record<string, string>) => await (await post("/api/vector/list-owned", {}, headers)).text();
    expect(await list(ada)).toContain("Mine");
    expect(await list(bob)).not.toContain("Mine");
  });

  it.each([
    ["/api/user/keys/new", { name: "stolen" }],
    ["/api/user/keys/list", {}],
    ["/api/user/api-key", { type: "NEURONPEDIA" }],
    ["/api/webhooks", { url: "https://example.com/hook" }],
  ])("shares no secret with a bot: %s", async (path, body) => {
    const response = await post(path, body, someone());
    expect([response.status, (await json(response)).code]).toEqual([403, "forbidden"]);
  });
});

describe("a service key", () => {
  it("does nothing for nobody", async () => {
    for (const [path, body] of [
      ["/api/steer", scripted()],
      ["/api/vector/list-owned", {}],
      ["/api/link/new", {}],
    ] as const) {
      const response = await post(path, body, bot.headers);
      expect([path, response.status]).toEqual([path, 403]);
      expect((await json(response)).error).toMatch(/X-Acting-For/);
    }
  });

  it("administers nothing, not even with the secret", async () => {
    for (const headers of [bot.headers, someone()]) {
      expect((await admin("/api/admin/user/list", {}, headers)).status).toBe(403);
    }
  });

  it("is what X-Acting-For needs: neither a user's key nor none will do", async () => {
    const { "x-acting-for": forged } = someone();
    for (const headers of [(await newUser()).headers, {}]) {
      const response = await post("/api/vector/list-owned", {}, { ...headers, "x-acting-for": forged });
      expect([response.status, (await json(response)).code]).toEqual([403, "forbidden"]);
    }
  });

  it.each(["discord:abc", "discord:1", "slack:1234567890", "1234567890", ""])("acts for nobody malformed: %j", async (who) => {
    const response = await post("/api/vector/list-owned", {}, { ...bot.headers, "x-acting-for": who });
    expect([response.status, (await json(response)).error]).toEqual([400, expect.stringMatching(/X-Acting-For must be discord:/)]);
  });

  it.each(["%E0%A4%A", "x".repeat(101)])("takes no malformed name: %.9s", async (name) => {
    const response = await post("/api/vector/list-owned", {}, { ...someone(), "x-acting-name": name });
    expect([response.status, (await json(response)).error]).toEqual([400, expect.stringMatching(/X-Acting-Name/)]);
  });

  it("is listed without its key, and ends when it is revoked", async () => {
    const one = await serviceKey();
    const { keys } = (await (await admin("/api/admin/service-key/list", {})).json()) as {
      keys: { id: string; revokedAt: string | null }[];
    };
    expect(keys).toContainEqual(expect.objectContaining({ id: one.id, name: "bot", revokedAt: null }));
    expect(JSON.stringify(keys)).not.toContain(one.headers["x-api-key"]);
    expect((await admin("/api/admin/service-key/revoke", { id: one.id })).status).toBe(200);
    expect((await callWith({}, "/api/bot/notes/get", { method: "POST", body: '{"key":"a"}', headers: one.headers })).status).toBe(401);
    expect((await admin("/api/admin/service-key/revoke", { id: one.id })).status).toBe(404);
  });

  it("is made by administrators only", async () => {
    expect((await post("/api/admin/service-key/new", { name: "mine" }, (await newUser()).headers)).status).toBe(401);
  });
});

it("a request from inside is whose the Worker says, whatever its headers are", async () => {
  const { newApp } = await import("../app.ts");
  const app = newApp(config());
  const ask = async (bindings: Env, headers: Record<string, string> = {}) => {
    const request = new Request("http://edge.test/api/user/usage", { headers });
    return app.fetch(request, bindings as never, { waitUntil: () => undefined, passThroughOnException: () => undefined } as never);
  };
  const person = { id: `77${Date.now()}`, name: "Inside" };
  expect(await json(await ask(actAs(env, person), { "x-acting-for": "discord:99999999" }))).toMatchObject({ user: { name: "Inside" } });
  expect((await ask(asService(env))).status).toBe(403);
  expect((await ask(actAs(env, person), bot.headers)).status).toBe(403);
});

describe("notes", () => {
  const notes = (what: string, body: object, headers: Record<string, string> = bot.headers) =>
    post(`/api/bot/notes/${what}`, body, headers);
  const read = async (response: Response) => ((await response.json()) as { note: { value: unknown } | null }).note?.value;

  it("are kept, listed by prefix in order, taken once, and not put over one that is there when that is asked for", async () => {
    const prefix = `${newId()}:`;
    for (const name of ["b", "a", "c"]) await notes("put", { key: prefix + name, value: { name } });
    expect(await json(await notes("put", { key: `${prefix}a`, value: 1, ifAbsent: true }))).toEqual({ written: false });
    expect(await read(await notes("get", { key: `${prefix}a` }))).toEqual({ name: "a" });
    const list = async (more: object) =>
      ((await (await notes("list", { prefix, ...more })).json()) as { notes: { key: string }[] }).notes.map(({ key }) => key.slice(-1));
    expect([await list({}), await list({ after: `${prefix}a`, limit: 1 })]).toEqual([["a", "b", "c"], ["b"]]);
    const taken = await Promise.all([1, 2, 3].map(async () => read(await notes("take", { key: `${prefix}b` }))));
    expect(taken.filter((value) => value !== undefined)).toEqual([{ name: "b" }]);
  });

  it("that are over are not there, and are deleted", async () => {
    const store = newNotes(config());
    const key = newId();
    await store.put(key, 1, { ttlSeconds: -1 });
    expect(await store.get(key)).toBeUndefined();
    expect(await store.put(key, 2, { ifAbsent: true })).toBe(true);
    await store.put(key, 3, { ttlSeconds: -1 });
    await store.deleteExpired();
    const { results } = await config().db.$client.prepare("SELECT key FROM bot_notes WHERE key = ?").bind(key).all();
    expect(results).toEqual([]);
  });

  it("are for bots alone, and not for whom they act", async () => {
    for (const headers of [{}, (await newUser()).headers, someone()])
      expect((await notes("get", { key: "promise:1" }, headers)).status).toBe(403);
  });

  it("have a limit", async () => {
    const response = await notes("put", { key: "long", value: "x".repeat(100_001) });
    expect([response.status, (await json(response)).error]).toEqual([413, expect.stringMatching(/at most 100000 characters/)]);
    expect((await notes("put", { key: "x".repeat(201), value: 1 })).status).toBe(400);
  });
});

describe("the address that connects a person with an account", () => {
  const people = newPeople(config());
  const codeOf = async (headers: Record<string, string>) => {
    const { url, expiresAt } = await json(await post("/api/link/new", {}, headers));
    expect(Date.parse(String(expiresAt))).toBeGreaterThan(Date.now());
    return String(url).split("/link/")[1] as string;
  };
  const vectorsOf = async ({ headers }: TestUser) => await (await post("/api/vector/list-owned", {}, headers)).text();

  it("makes them one user, and brings along what they had; it works once", async () => {
    const [ada, account, other] = [someone(), await newUser(), await newUser()];
    await post("/api/vector/new", VECTOR, ada);
    const code = await codeOf(ada);
    expect(await people.useLink(code, account.id)).toBe(true);
    expect(await vectorsOf(account)).toContain("Mine");
    expect((await usageOf(ada)).user?.id).toBe(account.id);
    expect(await people.useLink(code, other.id)).toBe(false);
    expect((await usageOf(ada)).user?.id).toBe(account.id);
  });

  it("is used by one of two at once", async () => {
    const [ada, one, two] = [someone(), await newUser(), await newUser()];
    const code = await codeOf(ada);
    const used = await Promise.all([people.useLink(code, one.id), people.useLink(code, two.id)]);
    expect(used.filter(Boolean).length).toBe(1);
    expect((await usageOf(ada)).user?.id).toBe(used[0] ? one.id : two.id);
  });

  it("takes nothing from an account that has keys of its own", async () => {
    const [ada, before, after] = [someone(), await newUser(), await newUser()];
    await people.useLink(await codeOf(ada), before.id);
    await post("/api/vector/new", VECTOR, before.headers);
    const second = await people.newLink(before.id);
    await people.useLink(second?.code ?? "", after.id);
    expect(await vectorsOf(before)).toContain("Mine");
    expect(await vectorsOf(after)).not.toContain("Mine");
  });

  it("ends when there is a newer one, and after ten minutes", async () => {
    const [ada, account] = [someone(), await newUser()];
    const [first, second] = [await codeOf(ada), await codeOf(ada)];
    expect(await people.useLink(first, account.id)).toBe(false);
    await config()
      .db.$client.prepare("UPDATE link_codes SET expires_at = ?")
      .bind(Date.now() - 1)
      .run();
    expect(await people.useLink(second, account.id)).toBe(false);
    expect(await people.findLink(second)).toBeUndefined();
  });

  it("is made for a bot that acts for somebody, not for users themselves", async () => {
    expect((await post("/api/link/new", {}, (await newUser()).headers)).status).toBe(403);
  });
});
