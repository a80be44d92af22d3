// The bot without a process: what Discord sends to /discord/interactions, and signing in. Real edge and engine; Discord is the fake one.
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { FakeMessage } from "./fake-discord.ts";
import { type At, type Handle, snowflake } from "./state.ts";
import { startWorld, type World } from "./world.ts";

// Engine and edge are real processes here.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const SOURCE = "3-tales-directions";
const STEER = { prompt: "One day a little girl", feature: `${SOURCE}/0`, strength: 8, tokens: 16, seed: 4, temperature: 0.7 };

let world: World;
beforeAll(async () => {
  world = await startWorld();
  await world.runBot(["deploy"]);
});
afterAll(() => world.close());
// Whatever was sent: Discord would have taken it, and nobody was pinged.
afterEach(() => expect(world.discord.problems.splice(0)).toEqual([]));

let people = 0;
const place = (): At => ({
  user: world.discord.user(`bob${++people}`),
  channel: world.discord.channel({ guild: world.discord.guild() }),
});
const isDone = ({ embeds }: FakeMessage) => /changed \d+ of \d+ positions/.test(embeds[0]?.footer?.text ?? "");
const textsOf = ({ embeds }: FakeMessage) => embeds[0]?.fields?.map(({ value }) => value.replace(/\\(.)/g, "$1").trim());
const post = (body: string, headers: Readonly<Record<string, string>>) =>
  fetch(`${world.url}/discord/interactions`, { method: "POST", body, headers });

/** Sends what Discord would send, and takes the answer as Discord would. */
async function deliver({ handle, body, headers }: { handle: Handle; body: string; headers: Record<string, string> }): Promise<Handle> {
  const response = await post(body, headers);
  expect(response.status).toBe(200);
  world.discord.accept(handle, await response.json());
  return handle;
}

/** What the API itself answers. */
async function direct(strength: number): Promise<string[]> {
  const body = {
    ...{ prompt: STEER.prompt, modelId: world.model, temperature: 0.7, n_tokens: 16, seed: 4, freq_penalty: 0.5, strength_multiplier: 1 },
    features: [{ modelId: world.model, layer: SOURCE, index: 0, strength }],
  };
  const headers = { "content-type": "application/json" };
  const response = await fetch(`${world.url}/api/steer`, { method: "POST", headers, body: JSON.stringify(body) });
  const { DEFAULT, STEERED } = (await response.json()) as { STEERED: string; DEFAULT: string };
  return [DEFAULT.trim(), STEERED.trim()];
}

describe("an interaction", () => {
  it("that pings is answered, as Discord asks of an address before it takes it", async () => {
    const { body, headers } = world.discord.ping();
    expect(await (await post(body, headers)).json()).toEqual({ type: 1 });
  });

  it("/steer is acknowledged at once and shows the texts of the API; its buttons go on from there", async () => {
    const at = place();
    const handle = await deliver(world.discord.request("steer", STEER, at));
    expect(handle.acknowledged).toBe(5);
    const message = await handle.until(isDone);
    expect(textsOf(message)).toEqual(await direct(8));
    const pressed = await deliver(world.discord.pressRequest(message, "Flip", at));
    const flipped = await direct(-8);
    await pressed.until((now) => isDone(now) && JSON.stringify(textsOf(now)) === JSON.stringify(flipped));
  });

  it.each([
    ["a private answer", "usage", {}, (handle: Handle) => handle.until(({ content }) => /\*\*100\*\* of 100/.test(content))],
    ["a command that lists", "models", {}, (handle: Handle) => handle.until((message) => JSON.stringify(message).includes("tiller-tales"))],
    [
      "a failure, with what to do instead",
      "steer",
      { ...STEER, feature: `${SOURCE}/100000` },
      (handle: Handle) => handle.until(({ content }) => /request \S+/.test(content)),
    ],
  ])("answers: %s", async (_, name, options, told) => {
    await told(await deliver(world.discord.request(name, options, place())));
  });

  it("opens a form, and suggests while somebody types", async () => {
    const form = await deliver(world.discord.request("vector", { new: { name: "Pasted", layer: 3 } }, place()));
    expect([form.acknowledged, form.modal?.components.length]).toEqual([9, expect.any(Number)]);
    const typed = await deliver(world.discord.suggestRequest("steer", { feature: "hap" }, "feature", place()));
    expect([typed.acknowledged, typed.choices?.length]).toEqual([8, expect.any(Number)]);
    expect(typed.choices?.every(({ name }) => /hap/i.test(name))).toBe(true);
    expect(typed.choices).not.toEqual([]);
  });

  it("keeps one person's quota whatever transport they come by", async () => {
    const at = place();
    await (await deliver(world.discord.request("steer", STEER, at))).until(isDone);
    const usage = await deliver(world.discord.request("usage", {}, at));
    await usage.until(({ content }) => /\*\*99\*\* of 100/.test(content));
  });
});

describe("a request that is not Discord's is refused, and does nothing", () => {
  const now = () => Math.floor(Date.now() / 1000);
  const signed = () => world.discord.request("steer", STEER, place());
  const forget = ({ handle }: { handle: Handle }) => {
    handle.acknowledged = 0;
  };

  it.each<[string, (body: string, headers: Record<string, string>) => [string, Record<string, string>]]>([
    ["a changed body", (body, headers) => [body.replace("little girl", "little boy!"), headers]],
    ["a changed time", (body, headers) => [body, { ...headers, "x-signature-timestamp": String(now() + 1) }]],
    ["a signature of something else", (body) => [body, world.discord.sign("{}")]],
    ["no signature", (body) => [body, { "content-type": "application/json" }]],
    ["a signature that is none", (body, headers) => [body, { ...headers, "x-signature-ed25519": "zz" }]],
    ["one of six minutes ago", (body) => [body, world.discord.sign(body, now() - 360)]],
    ["one of the future", (body) => [body, world.discord.sign(body, now() + 360)]],
    ["a time that is none", (body) => [body, { ...world.discord.sign(body), "x-signature-timestamp": "1e9" }]],
  ])("%s", async (_, change) => {
    const request = signed();
    const calls = world.discord.calls.length;
    const response = await post(...change(request.body, request.headers));
    expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([401, "unauthorized"]);
    expect(world.discord.calls.length).toBe(calls);
    forget(request);
  });

  it("one that was sent before, to whichever it comes", async () => {
    const request = signed();
    const handle = await deliver(request);
    const again = await Promise.all([post(request.body, request.headers), post(request.body, world.discord.sign(request.body))]);
    expect(again.map(({ status }) => status)).toEqual([409, 409]);
    await handle.until(isDone);
  });

  it("one of another application", async () => {
    const body = JSON.stringify({ id: snowflake(), application_id: "123456789", type: 2, token: "x", data: { name: "steer" } });
    expect((await post(body, world.discord.sign(body))).status).toBe(403);
  });

  it("one that is no JSON", async () => {
    expect((await post("{", world.discord.sign("{"))).status).toBe(400);
  });
});

it("what was promised when the Worker ended is posted by its cron, once", async () => {
  const at = place();
  const handle = await deliver(world.discord.request("steer", { ...STEER, seed: 77 }, at));
  const message = await handle.until(isDone);
  // As if the Worker had ended after it noted the promise and before it wrote the texts.
  const { user } = at;
  const model = world.model;
  const feature = { modelId: model, layer: SOURCE, index: 0, strength: 8 };
  const body = {
    ...{ prompt: STEER.prompt, modelId: model, features: [feature], temperature: 0.7, n_tokens: 16, seed: 4, freq_penalty: 0.5 },
    ...{ strength_multiplier: 1, n_logprobs: 0, steer_method: "SIMPLE_ADDITIVE" },
  };
  const promised = {
    ...{ id: snowflake(), transport: "http", person: { id: user.id, name: user.username }, kind: "steer", body },
    view: { ownerId: user.id, prompt: STEER.prompt, modelId: model, features: [{ ...feature, label: "happy" }] },
    target: { channelId: at.channel.id, token: handle.token },
  };
  message.embeds = [];
  await world.service("/api/bot/notes/put", { key: `promise:${promised.id}`, value: promised });
  await world.cron();
  expect(textsOf(message)).toEqual(await direct(8));
  expect((await world.service("/api/bot/notes/list", { prefix: "promise:" })).notes).toEqual([]);
});

describe("signing in with Discord", () => {
  const go = (url: string, cookie = "") => fetch(url, { redirect: "manual", headers: { cookie } });
  const cookiesOf = (response: Response) =>
    response.headers
      .getSetCookie()
      .map((line) => line.split(";")[0])
      .join("; ");
  /** From the button to the account page. */
  async function begin() {
    const response = await go(`${world.url}/auth/discord`);
    expect(response.status).toBe(302);
    return { at: response.headers.get("location") ?? "", cookie: cookiesOf(response) };
  }

  it("shows a person the vectors that they made there", async () => {
    const at = place();
    const file = new File([JSON.stringify(Array.from({ length: 256 }, (_, i) => (i % 7) - 3))], "mine.json");
    const made = await deliver(world.discord.request("vector", { new: { name: "My own", layer: 3, file } }, at));
    await made.until((message) => JSON.stringify(message).includes("My own"));
    expect(await (await go(`${world.url}/account`)).text()).toContain("Sign in with Discord");
    const { at: authorizeUrl, cookie } = await begin();
    const back = await go(world.discord.authorize(at.user, authorizeUrl), cookie);
    expect([back.status, back.headers.get("location")]).toEqual([303, "/account"]);
    const account = await (await go(`${world.url}/account`, cookiesOf(back))).text();
    expect(account).toContain(at.user.username);
    expect(account).toContain("My own");
  });

  it("refuses a way back that did not begin in the same browser, or is used again", async () => {
    const { user } = place();
    const [mine, other] = [await begin(), await begin()];
    const back = world.discord.authorize(user, mine.at);
    for (const cookie of ["", other.cookie]) {
      const response = await go(back, cookie);
      expect([response.status, cookiesOf(response)]).toEqual([403, expect.not.stringMatching(/tiller_session=./)]);
    }
    expect((await go(back, mine.cookie)).status).toBe(303);
    const again = await go(back, mine.cookie);
    expect([again.status, await again.text()]).toEqual([401, expect.stringMatching(/Discord did not take this sign-in.*Begin again/)]);
  });

  it("says so when somebody does not want to, or Discord fails", async () => {
    const { at, cookie } = await begin();
    const state = new URL(at).searchParams.get("state");
    const refused = await go(`${world.url}/auth/discord/callback?error=access_denied&state=${state}`, cookie);
    expect([refused.status, await refused.text()]).toEqual([401, expect.stringContaining("You did not let Discord say who you are")]);
    const next = await begin();
    world.discord.rest.failNext(/GET \/users\/@me/, 500);
    const failed = await go(world.discord.authorize(place().user, next.at), next.cookie);
    expect([failed.status, await failed.text()]).toEqual([500, expect.stringMatching(/Discord did not say who you are: try/)]);
  });
});
