import { describe, expect, it } from "vitest";
import { newPeople } from "../people/store.ts";
import { call, callWith, config, newUser, ORIGIN, post, type TestUser } from "../test/worker/client.ts";

const COOKIE = "tiller_session";
const page = (path: string, cookie = "") => call(path, { headers: { cookie }, redirect: "manual" });
const send = (
  path: string,
  fields: Record<string, string> = {},
  { cookie = "", origin = ORIGIN }: { cookie?: string; origin?: string } = {},
) =>
  call(path, { method: "POST", redirect: "manual", body: new URLSearchParams(fields), headers: { cookie, ...(origin ? { origin } : {}) } });
const cookieOf = (response: Response) => /tiller_session=[^;]*/.exec(response.headers.get("set-cookie") ?? "")?.[0] ?? "";
const signIn = async ({ key }: Pick<TestUser, "key">) => cookieOf(await send("/account/key", { key }));

const VECTOR = {
  ...{ modelId: "tiller-tales", layerNumber: 3, hookType: "hook_resid_pre", vector: Array.from({ length: 256 }, (_, i) => Math.cos(i)) },
  ...{ vectorDefaultSteerStrength: 1, vectorLabel: "Only <mine>", visibility: "private" },
};

describe("signing in with a key", () => {
  it("shows what is theirs, the private too, and nobody else sees it", async () => {
    const user = await newUser({ hourlyLimit: 7 });
    const made = (await (await post("/api/vector/new", VECTOR, user.headers)).json()) as {
      vector: { modelId: string; source: string; index: string };
    };
    expect(await (await page("/account")).text()).toMatch(/<h1>Sign in<\/h1>/);
    const response = await send("/account/key", { key: user.key });
    expect([response.status, response.headers.get("location")]).toEqual([303, "/account"]);
    const account = await page("/account", cookieOf(response));
    expect(account.headers.get("cache-control")).toBe("no-store");
    const html = await account.text();
    expect(html).toContain("Only &lt;mine&gt;");
    expect(html).toMatch(/7 of 7/);
    const [, href = ""] = /href="(\/tiller-tales\/[^"]+)"/.exec(html) ?? [];
    expect(JSON.stringify(made)).toContain(href.split("/").at(-1));
    expect((await page(href, cookieOf(response))).status).toBe(200);
    expect((await page(href)).status).toBe(404);
    expect((await page(href, await signIn(await newUser()))).status).toBe(404);
  });

  it("sets a cookie that no script and no other site has; the database does not know it", async () => {
    const response = await send("/account/key", { key: (await newUser()).key });
    const cookie = response.headers.get("set-cookie") ?? "";
    expect(cookie).toMatch(/HttpOnly/);
    expect(cookie).toMatch(/SameSite=Lax/);
    expect(cookie).not.toMatch(/Secure/);
    const secret = cookieOf(response).slice(COOKIE.length + 1);
    expect(secret).toMatch(/^[\w-]{43}$/);
    const { results } = await config().db.$client.prepare("SELECT * FROM sessions").all();
    expect(JSON.stringify(results)).not.toContain(secret);
    const body = new URLSearchParams({ key: (await newUser()).key });
    const deployed = await callWith({ publicUrl: "https://tiller.example" }, "/account/key", {
      ...{ method: "POST", body, redirect: "manual", headers: { origin: "https://tiller.example" } },
    });
    expect(deployed.headers.get("set-cookie")).toMatch(/Secure/);
  });

  it.each([
    ["an unknown key", "sk-til-0000000000000000000000000000000000000000", 401],
    ["no key", "", 401],
  ])("%s is said on the page, and nobody is signed in", async (_, key, status) => {
    const response = await send("/account/key", { key });
    expect([response.status, response.headers.get("set-cookie")]).toEqual([status, null]);
    expect(await response.text()).toMatch(/role="alert">[^<]*API key/);
  });

  it("counts tries", async () => {
    expect((await send("/account/key", { key: "x" })).headers.get("ratelimit-limit")).toBe("2000");
  });

  it("is not for the key of a bot", async () => {
    const secret = "an-admin-secret-that-is-long";
    const made = await callWith({ adminSecret: secret }, "/api/admin/service-key/new", {
      ...{ method: "POST", body: '{"name":"bot"}', headers: { "x-admin-secret": secret } },
    });
    const { key } = (await made.json()) as { key: string };
    const response = await send("/account/key", { key });
    expect([response.status, cookieOf(response)]).toEqual([403, ""]);
  });
});

describe("forms", () => {
  it.each(["/account/key", "/account/new-key", "/account/disconnect", "/account/sign-out", "/link/abc"])(
    "of another site do nothing: %s",
    async (path) => {
      const user = await newUser();
      const cookie = await signIn(user);
      for (const origin of ["https://evil.example", "null", ""]) {
        const response = await send(path, { key: user.key }, { cookie, origin });
        expect([response.status, response.headers.get("set-cookie")]).toEqual([403, null]);
      }
      expect(await (await page("/account", cookie)).text()).toContain("Sign out");
    },
  );

  it("may be sent from our pages, which are in no frame and run no script", async () => {
    const { headers } = await page("/account");
    expect(headers.get("content-security-policy")).toMatch(/default-src 'none'.*form-action 'self'.*frame-ancestors 'none'/);
    // With no-referrer, browsers would send `Origin: null` with a form.
    expect(headers.get("referrer-policy")).toBe("same-origin");
  });

  it("without a session ask to sign in", async () => {
    expect((await send("/account/new-key")).status).toBe(401);
  });
});

describe("an account", () => {
  it("makes a key that works, and shows it once", async () => {
    const cookie = await signIn(await newUser());
    const [key = ""] = /sk-til-[\w-]+/.exec(await (await send("/account/new-key", {}, { cookie })).text()) ?? [];
    expect((await post("/api/user/keys/list", {}, { "x-api-key": key })).status).toBe(200);
    expect(await (await page("/account", cookie)).text()).not.toContain(key);
  });

  it("is left by signing out: the cookie is worth nothing from then on", async () => {
    const cookie = await signIn(await newUser());
    const response = await send("/account/sign-out", {}, { cookie });
    expect([response.status, response.headers.get("set-cookie")]).toEqual([303, expect.stringMatching(/Max-Age=0/)]);
    expect(await (await page("/account", cookie)).text()).toContain("<h1>Sign in</h1>");
  });

  it("ends with its time", async () => {
    const cookie = await signIn(await newUser());
    await config()
      .db.$client.prepare("UPDATE sessions SET expires_at = ?")
      .bind(Date.now() - 1)
      .run();
    expect(await (await page("/account", cookie)).text()).toContain("<h1>Sign in</h1>");
  });
});

describe("connecting Discord", () => {
  const people = newPeople(config());
  let last = 20_000_000;
  const person = () => ({ id: `${++last}${Date.now()}`.slice(0, 20), name: "Ada <3" });
  const codeFor = async (who: ReturnType<typeof person>) => (await people.newLink((await people.userOf(who)).userId))?.code ?? "";

  it("shows whom, asks for a key, and makes them one", async () => {
    const [ada, user] = [person(), await newUser()];
    const code = await codeFor(ada);
    const html = await (await page(`/link/${code}`)).text();
    expect(html).toContain("Connect Ada &lt;3 of Discord");
    expect(html).toContain('name="key"');
    const wrong = await send(`/link/${code}`, { key: "sk-til-wrong" });
    expect([wrong.status, await wrong.text()]).toEqual([401, expect.stringMatching(/role="alert"/)]);
    const done = await send(`/link/${code}`, { key: user.key });
    expect([done.status, await done.text()]).toEqual([200, expect.stringContaining("Ada &lt;3 of Discord is you")]);
    expect((await people.userOf(ada)).userId).toBe(user.id);
    const account = await (await page("/account", cookieOf(done))).text();
    expect(account).toContain("Disconnect Discord");
    expect((await page(`/link/${code}`)).status).toBe(404);
    expect((await send(`/link/${code}`, { key: user.key })).status).toBe(404);
  });

  it("needs no key of who is signed in, and does nothing when it is only looked at", async () => {
    const [ada, user] = [person(), await newUser()];
    const cookie = await signIn(user);
    const code = await codeFor(ada);
    for (let i = 0; i < 2; i++) expect(await (await page(`/link/${code}`, cookie)).text()).toContain("You are signed in as test");
    expect((await people.userOf(ada)).userId).not.toBe(user.id);
    expect((await send(`/link/${code}`, {}, { cookie })).status).toBe(200);
    expect((await people.userOf(ada)).userId).toBe(user.id);
  });

  it("can be undone by who can still sign in", async () => {
    const [ada, user] = [person(), await newUser()];
    const cookie = await signIn(user);
    await send(`/link/${await codeFor(ada)}`, {}, { cookie });
    expect((await send("/account/disconnect", {}, { cookie })).status).toBe(303);
    expect((await people.userOf(ada)).userId).not.toBe(user.id);
    const bob = await people.userOf(person());
    const only = `${COOKIE}=${await people.newSession(bob.userId)}`;
    const refused = await send("/account/disconnect", {}, { cookie: only });
    expect([refused.status, await refused.text()]).toEqual([409, expect.stringContaining("make an API key first")]);
    expect(await people.identityOf(bob.userId)).toBeDefined();
  });
});

it("nobody signs in with Discord where it is not set up", async () => {
  for (const path of ["/auth/discord", "/auth/discord/callback?code=a&state=b"]) expect((await page(path)).status).toBe(404);
  expect(await (await page("/account")).text()).not.toContain("Sign in with Discord");
});
