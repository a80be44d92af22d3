import { beforeEach, describe, expect, it } from "vitest";
import { newApp } from "../app.ts";
import { deliveries } from "../jobs-schema.ts";
import { callWith, config, newUser, type TestUser } from "../test/worker/client.ts";
import { newWebhooks } from "../webhooks/store.ts";

// No look-ups of names, and nothing is sent: there is nobody at this address.
const changes = { webhooks: { allow: ["127.0.0.1:*"], dnsUrl: undefined } };
const NOBODY = "http://127.0.0.1:1/hook";

let user: TestUser;
let other: TestUser;
beforeEach(async () => {
  [user, other] = [await newUser(), await newUser()];
});
type Answer = { status: number; body: Record<string, unknown> & { id: string } };
async function ask(method: string, path: string, body?: unknown, who: TestUser | undefined = user): Promise<Answer> {
  const headers = { ...(who?.headers ?? {}), "content-type": "application/json" };
  const init = body === undefined ? { method, headers } : { method, headers, body: JSON.stringify(body) };
  const response = await callWith(changes, `/api/webhooks${path}`, init);
  return { status: response.status, body: await response.json() };
}
const create = async (url = NOBODY): Promise<Answer["body"]> => (await ask("POST", "", { url, description: "mine" })).body;

describe("an endpoint", () => {
  it("is registered with a secret that only that answer and a rotation show", async () => {
    const { secret, ...shown } = await create();
    expect(secret).toMatch(/^whsec_/);
    expect(shown).toMatchObject({ url: NOBODY, description: "mine", enabled: true, disabledReason: null, failingSince: null });
    expect((await ask("GET", `/${shown.id}`)).body).toEqual(shown);
    expect((await ask("GET", "")).body).toEqual({ webhooks: [shown] });
    const rotated = (await ask("POST", `/${shown.id}/rotate-secret`, { overlapSeconds: 60 })).body;
    expect(rotated.secret).toMatch(/^whsec_/);
    expect(rotated.secret).not.toBe(secret);
    expect(rotated.previousSecretUntil).toMatch(/Z$/);
    expect((await ask("POST", `/${shown.id}/rotate-secret`, { overlapSeconds: 0 })).body.previousSecretUntil).toBeNull();
  });

  it("is refused at a private address, twice, and above twenty", async () => {
    expect(await ask("POST", "", { url: "http://10.0.0.1/" })).toMatchObject({
      status: 400,
      body: { message: expect.stringMatching(/10\.0\.0\.1/) },
    });
    await create();
    expect((await ask("POST", "", { url: NOBODY })).status).toBe(409);
    for (let n = 1; n < 20; n++) await create(`${NOBODY}/${n}`);
    expect(await ask("POST", "", { url: `${NOBODY}/x` })).toMatchObject({ status: 409, body: { message: expect.stringMatching(/20/) } });
  });

  it("is disabled, enabled and removed", async () => {
    const { id } = await create();
    expect((await ask("POST", `/${id}/disable`)).body).toMatchObject({ enabled: false, disabledReason: expect.stringMatching(/owner/) });
    expect((await ask("POST", `/${id}/test`)).status).toBe(409);
    expect((await ask("POST", `/${id}/enable`)).body).toMatchObject({ enabled: true, disabledReason: null });
    expect((await ask("DELETE", `/${id}`)).body).toEqual({ message: "Success" });
    expect((await ask("DELETE", `/${id}`)).status).toBe(404);
    expect((await ask("GET", `/${id}`)).status).toBe(404);
  });

  it("is its owner's alone", async () => {
    const { id } = await create();
    const calls: [string, string][] = [
      ...([
        ["GET", `/${id}`],
        ["DELETE", `/${id}`],
      ] as [string, string][]),
      ...["rotate-secret", "disable", "enable", "test", "replay-failed"].map((verb): [string, string] => ["POST", `/${id}/${verb}`]),
    ];
    for (const [method, path] of calls) {
      expect([path, (await ask(method, path, undefined, other)).status]).toEqual([path, 404]);
      const bare = await callWith(changes, `/api/webhooks${path}`, { method });
      expect([path, bare.status]).toEqual([path, 401]);
    }
    expect((await ask("GET", "", undefined, other)).body).toEqual({ webhooks: [] });
  });
});

describe("deliveries", () => {
  const fail = async (id: string) => {
    await newWebhooks({ ...config(), ...changes }).disable(user.id, id);
    await ask("POST", `/${id}/enable`);
  };

  it("are listed in pages, read, and replayed", async () => {
    const { id } = await create();
    const webhooks = newWebhooks({ ...config(), ...changes });
    for (let n = 0; n < 3; n++) await webhooks.test(user.id, id);
    await fail(id);
    const first = (await ask("GET", `/deliveries?endpoint=${id}&state=failed&limit=2`)).body as unknown as {
      deliveries: { id: string }[];
      nextCursor: string;
    };
    const second = (await ask("GET", `/deliveries?limit=2&cursor=${first.nextCursor}`)).body as unknown as typeof first;
    expect(new Set([...first.deliveries, ...second.deliveries].map((row) => row.id)).size).toBe(3);
    expect(second.nextCursor).toBeNull();
    expect((await ask("GET", "/deliveries?state=succeeded")).body).toMatchObject({ deliveries: [] });
    const one = first.deliveries[0]?.id as string;
    expect((await ask("GET", `/deliveries/${one}`)).body).toMatchObject({
      ...{ id: one, endpointId: id, event: "webhook.test", state: "failed", payload: expect.stringMatching(/webhook\.test/) },
      tried: [{ number: 1, status: null, error: expect.stringMatching(/^Not sent/) }],
    });
    for (const [method, path] of [
      ["GET", ""],
      ["POST", "/replay"],
    ] as const)
      expect((await ask(method, `/deliveries/${one}${path}`, undefined, other)).status).toBe(404);
    expect((await ask("POST", `/deliveries/${one}/replay`)).body).toMatchObject({ id: one, state: "pending", finishedAt: null });
    expect((await ask("POST", `/${id}/replay-failed`, { since: "2999-01-01T00:00:00Z" })).body).toEqual({ replayed: 0, more: false });
    expect((await ask("POST", `/${id}/replay-failed`)).body.more).toBe(false);
  });

  it("are refused a page that is none", async () => {
    for (const query of ["cursor=x", "state=lost", "limit=0"]) expect((await ask("GET", `/deliveries?${query}`)).status).toBe(400);
    expect((await ask("POST", "/cmx/replay-failed", { since: "yesterday" })).status).toBe(400);
  });

  it("start when a test event is asked for", async () => {
    const { id } = await create();
    const { body } = await ask("POST", `/${id}/test`);
    expect(body).toMatchObject({ event: "webhook.test", state: "pending", endpointId: id });
    expect((await config().db.select().from(deliveries)).some((row) => row.id === body.id)).toBe(true);
  });
});

describe("the account's secret", () => {
  it("is made once and replaced when asked", async () => {
    const { secret } = (await ask("GET", "/account-secret")).body;
    expect(secret).toMatch(/^whsec_/);
    expect((await ask("GET", "/account-secret")).body.secret).toBe(secret);
    const rotated = (await ask("POST", "/account-secret/rotate")).body.secret;
    expect(rotated).not.toBe(secret);
    expect((await ask("GET", "/account-secret")).body.secret).toBe(rotated);
    expect((await ask("GET", "/account-secret", undefined, other)).body.secret).not.toBe(rotated);
  });
});

it("is in the OpenAPI document with its ids as parameters", async () => {
  const paths = Object.keys(((await (await newApp(config()).request("/openapi.json")).json()) as { paths: object }).paths);
  expect(paths).toContain("/api/webhooks/{id}/test");
});
