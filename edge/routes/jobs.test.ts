import { env } from "cloudflare:workers";
import { Webhook } from "standardwebhooks";
import { beforeAll, describe, expect, it } from "vitest";
import type { Job, WholeJob } from "../jobs/contract.ts";
import { newJobs, type SavedJob } from "../jobs/store.ts";
import type { JobPlan } from "../jobs/stored.ts";
import { FAULTS, type Hook } from "../test/node/faults.ts";
import { call, config, frames, json, newUser, nextSeed, post, scripted, seenBy, type TestUser } from "../test/worker/client.ts";

const MODEL = "tiller-tales";
let user: TestUser;
let other: TestUser;
beforeAll(async () => {
  [user, other] = [await newUser({ hourlyLimit: 10_000 }), await newUser()];
});
const body = (changes: object = {}) => ({
  ...{ prompt: "One day a little girl", modelId: MODEL, temperature: 0.7, n_tokens: 24, seed: 4, strength_multiplier: 1, freq_penalty: 0 },
  features: [{ modelId: MODEL, layer: "3-tales-directions", index: 0, strength: 8 }],
  ...changes,
});
const ask = (changes: object = {}, headers: Record<string, string> = {}, path = "/api/steer") =>
  post(path, body(changes), { ...user.headers, prefer: "respond-async", ...headers });
const start = async (changes: object = {}, headers: Record<string, string> = {}, path = "/api/steer"): Promise<Job> => {
  const response = await ask(changes, headers, path);
  const job = (await response.json()) as Job;
  expect(response.status, JSON.stringify(job)).toBe(202);
  return job;
};
const read = async (id: string): Promise<WholeJob> => (await call(`/api/jobs/${id}`, { headers: user.headers })).json();
const ended = async (id: string): Promise<WholeJob> => {
  await expect.poll(async () => (await read(id)).state, { timeout: 30_000 }).toMatch(/succeeded|failed|canceled/);
  return read(id);
};
/** What a job that was made has to do, for one that is made without a workflow. */
const anyPlan = async (): Promise<JobPlan> => {
  const { id } = await ended((await start({ n_tokens: 2 })).id);
  return ((await newJobs(config()).get(id)) as SavedJob).plan;
};
const cancel = async (id: string, headers: Record<string, string> = user.headers) => call(`/api/jobs/${id}`, { method: "DELETE", headers });
const usedSteers = async (who: TestUser): Promise<number> =>
  ((await (await call("/api/user/usage", { headers: who.headers })).json()) as { steers: { used: number } }).steers.used;

describe("a job", () => {
  it("is answered with 202 and where it is, and ends with what the call would have answered", async () => {
    const response = await ask();
    const job = (await response.json()) as Job;
    expect(response.headers.get("location")).toBe(`http://edge.test/api/jobs/${job.id}`);
    expect(response.headers.get("preference-applied")).toBe("respond-async");
    expect(job).toMatchObject({ kind: "steer", modelId: MODEL, url: response.headers.get("location"), progress: { of: 48 } });
    const done = await ended(job.id);
    expect(done).toMatchObject({ state: "succeeded", error: null, partial: null, progress: { tokens: done.progress.tokens } });
    const direct = await json(await post("/api/steer", body(), user.headers));
    const { STEERED, DEFAULT, receipts, steeredLogProbs, finishReasons, shareUrl } = done.result as typeof direct;
    expect([STEERED, DEFAULT, receipts, steeredLogProbs, finishReasons]).toEqual([
      ...[direct.STEERED, direct.DEFAULT, direct.receipts, direct.steeredLogProbs, direct.finishReasons],
    ]);
    expect(shareUrl).toBe(`http://edge.test/steer/${job.id}`);
    expect((await json(await post("/api/steer-load", { steerOutputId: job.id }))).STEERED).toMatchObject({ raw: STEERED });
  });

  it("may be as long as the model has room for, and no longer", async () => {
    const { prompt } = body();
    const { tokens } = (await json(await post("/api/tokenize", { prompt, modelId: MODEL }))) as unknown as { tokens: number[] };
    const room = 256 - tokens.length;
    const refused = await ask({ n_tokens: room + 1, n_logprobs: 0 });
    expect([refused.status, (await json(refused)).error]).toEqual([
      400,
      expect.stringMatching(`has room for 256 together. Ask for at most ${room}`),
    ]);
    expect((await ended((await start({ n_tokens: room, n_logprobs: 0 })).id)).state).toBe("succeeded");
    expect((await json(await post("/api/steer", body({ n_tokens: 257 }), user.headers))).error).toMatch(/from 1 to 256/);
  });

  it("continues conversations too", async () => {
    const messages = [{ role: "user", content: "Can we go to the park?" }];
    const chat = { defaultChatMessages: messages, steeredChatMessages: messages, steer_special_tokens: true, prompt: undefined };
    const job = await start(chat, {}, "/api/steer-chat");
    const direct = await json(await post("/api/steer-chat", body(chat), user.headers));
    const { state, result } = await ended(job.id);
    expect([state, (result as typeof direct).STEERED]).toEqual(["succeeded", direct.STEERED]);
  });

  it("is its owner's alone, and listed in pages, the newest first", async () => {
    const owner = await newUser({ hourlyLimit: 100 });
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) {
      const response = await post("/api/steer", body({ n_tokens: 2 }), { ...owner.headers, prefer: "respond-async" });
      ids.push(((await response.json()) as Job).id);
    }
    const page = async (query: string) =>
      (await (await call(`/api/jobs${query}`, { headers: owner.headers })).json()) as { jobs: Job[]; nextCursor: string | null };
    const first = await page("?limit=2");
    const second = await page(`?limit=2&cursor=${first.nextCursor}`);
    expect([...first.jobs, ...second.jobs].map(({ id }) => id).sort()).toEqual([...ids].sort());
    expect([first.jobs.length, second.nextCursor]).toEqual([2, null]);
    await expect.poll(async () => (await page("?state=succeeded")).jobs.length).toBe(3);
    for (const id of ids) {
      expect((await call(`/api/jobs/${id}`, { headers: other.headers })).status).toBe(404);
      expect((await call(`/api/jobs/${id}/events`, { headers: other.headers })).status).toBe(404);
      expect((await cancel(id, other.headers)).status).toBe(404);
      expect((await call(`/api/jobs/${id}`)).status).toBe(401);
    }
    expect((await call("/api/jobs?state=none", { headers: owner.headers })).status).toBe(400);
    expect((await call("/api/jobs?cursor=x", { headers: owner.headers })).status).toBe(400);
  });

  it.each([
    ["without a key", {}, { "x-api-key": undefined }, 401, /requires authorization/],
    ["that streams", { stream: true }, {}, 400, /stream and a job exclude each other/],
    [
      "with more log probabilities than can be kept",
      { n_tokens: 5000, n_logprobs: 5 },
      {},
      400,
      /n_tokens must be at most 1000 with n_logprobs 5/,
    ],
    ["of an unknown model", { modelId: "none" }, {}, 404, /no model 'none'/],
    ["with a webhook at a private address", { webhook: { url: "http://10.0.0.1/" } }, {}, 400, /10\.0\.0\.1/],
    ["with a webhook that is no address", { webhook: { url: "ftp://example.org" } }, {}, 400, /http/],
    ["with a webhook that is nothing", { webhook: null }, {}, 400, /^webhook/],
  ])("%s is refused at once, and costs nothing", async (_, changes, headers, status, words) => {
    const before = await usedSteers(user);
    const all = Object.entries({ ...user.headers, prefer: "respond-async", ...headers }).filter(([, value]) => value !== undefined);
    const response = await post("/api/steer", body(changes), Object.fromEntries(all) as Record<string, string>);
    expect([response.status, (await json(response)).error]).toEqual([status, expect.stringMatching(words)]);
    expect(await usedSteers(user)).toBe(before);
  });
});

describe("a job that fails", () => {
  it("because of what it asks for says so, and keeps its place of the quota", async () => {
    const owner = await newUser({ hourlyLimit: 10 });
    const asked = scripted({ prompt: FAULTS.tooLong });
    const job = (await (await post("/api/steer", asked, { ...owner.headers, prefer: "respond-async" })).json()) as Job;
    const states = async () => ((await (await call(`/api/jobs/${job.id}`, { headers: owner.headers })).json()) as WholeJob).error;
    await expect.poll(states, { timeout: 20_000 }).toMatchObject({ code: "prompt_too_long" });
    expect(await usedSteers(owner)).toBe(1);
  });
});

describe("a job whose engine dies", () => {
  it("goes on from what it has, again and again, and ends with the whole text", async () => {
    const seed = nextSeed();
    const asked = scripted({ prompt: FAULTS.diesInStream, n_tokens: 3, seed });
    const job = (await (await post("/api/steer", asked, { ...user.headers, prefer: "respond-async" })).json()) as Job;
    const done = await ended(job.id);
    const direct = await json(await post("/api/steer", scripted({ n_tokens: 3, seed: nextSeed() }), user.headers));
    expect([done.state, (done.result as typeof direct | null)?.STEERED]).toEqual(["succeeded", direct.STEERED]);
    expect((await seenBy(seed))?.request.rows.map(({ generated }) => generated?.length)).toEqual([3, 3]);
  });
});

describe("the end of a job", () => {
  const hooksOf = async (name: string): Promise<Hook[]> => (await fetch(`${env.SCRIPTED_URL}/hooks/${name}`)).json();

  it("is told to the address that came with it, signed, with the whole result", async () => {
    const name = `once${nextSeed()}`;
    const job = await start({ webhook: { url: `${env.SCRIPTED_URL}/hooks/${name}` } });
    expect(job.webhookUrl).toBe(`${env.SCRIPTED_URL}/hooks/${name}`);
    const done = await ended(job.id);
    await expect.poll(async () => (await hooksOf(name)).length).toBe(1);
    const [hook] = await hooksOf(name);
    const { secret } = (await (await call("/api/webhooks/account-secret", { headers: user.headers })).json()) as { secret: string };
    const event = new Webhook(secret).verify(hook?.body ?? "", hook?.headers as Record<string, string>) as { type: string; data: WholeJob };
    expect([event.type, event.data]).toEqual(["job.succeeded", done]);
  });

  it("is told to every endpoint, again after failures, and once more when it is replayed", async () => {
    const owner = await newUser({ hourlyLimit: 10 });
    const name = `twice${nextSeed()}`;
    const endpoint = await json(await post("/api/webhooks", { url: `${env.SCRIPTED_URL}/hooks/${name}` }, owner.headers));
    const headers = { ...owner.headers, prefer: "respond-async" };
    const job = (await (await post("/api/steer", body({ n_tokens: 2 }), headers)).json()) as Job;
    // The first attempt is answered with 500, as is the second, which comes five seconds later.
    await expect.poll(async () => (await hooksOf(name)).length, { timeout: 20_000 }).toBe(2);
    const [delivery] = ((await json(await call(`/api/webhooks/deliveries?job=${job.id}`, { headers: owner.headers }))).deliveries ??
      []) as unknown as { id: string; state: string; attempts: number }[];
    expect(delivery).toMatchObject({ state: "pending" });
    const replayed = await post(`/api/webhooks/deliveries/${delivery?.id}/replay`, {}, owner.headers);
    expect(replayed.status, await replayed.clone().text()).toBe(200);
    const state = async () =>
      JSON.stringify(await json(await call(`/api/webhooks/deliveries/${delivery?.id}`, { headers: owner.headers })));
    await expect.poll(state, { timeout: 20_000 }).toContain('"state":"succeeded"');
    const again = await post(`/api/webhooks/deliveries/${delivery?.id}/replay`, {}, owner.headers);
    expect(again.status).toBe(200);
    await expect.poll(async () => (await hooksOf(name)).length, { timeout: 20_000 }).toBe(4);
    const hooks = await hooksOf(name);
    expect(new Set(hooks.map(({ headers }) => headers["webhook-id"])).size).toBe(1);
    expect(new Set(hooks.map(({ body }) => body)).size).toBe(1);
    for (const hook of hooks) new Webhook(String(endpoint.secret)).verify(hook.body, hook.headers as Record<string, string>);
  });
});

describe("a job that is canceled", () => {
  it("while it runs ends soon, and what it has generated stays", async () => {
    const seed = nextSeed();
    const job = (await (
      await post("/api/steer", scripted({ prompt: FAULTS.endless, seed }), { ...user.headers, prefer: "respond-async" })
    ).json()) as Job;
    await expect.poll(async () => (await read(job.id)).progress.tokens, { timeout: 20_000 }).toBeGreaterThan(0);
    expect((await cancel(job.id)).status).toBe(200);
    const done = await ended(job.id);
    expect([done.state, done.result]).toEqual(["canceled", null]);
    expect(done.partial?.STEERED.length).toBeGreaterThan(0);
    await expect.poll(async () => (await seenBy(seed))?.abandoned).toBe(true);
    expect(await json(await cancel(job.id))).toMatchObject({ state: "canceled" });
  });

  it("before it runs never does", async () => {
    const jobs = newJobs(config());
    const plan = await anyPlan();
    const id = "cm00000000000000000000000";
    // Made without a workflow, as if its turn never came.
    await jobs.create({ id, userId: user.id, kind: "steer", modelId: MODEL, plan, tokensTotal: 4, webhookUrl: undefined });
    expect(await json(await cancel(id))).toMatchObject({ state: "canceled", cancelRequested: true });
    expect(await jobs.admit(id)).toBe(false);
  });
});

describe("the events of a job", () => {
  it("are its tokens, each once, and the whole job at the end", async () => {
    const job = await start({ n_tokens: 40 });
    const events = await frames(await call(`/api/jobs/${job.id}/events`, { headers: user.headers }));
    const done = events.at(-1)?.[1] as unknown as WholeJob;
    expect(events.at(-1)?.[0]).toBe("done");
    expect(done.state).toBe("succeeded");
    const tokens = events.filter(([event]) => event === "tokens").flatMap(([, data]) => data.tokens as { side: string; text: string }[]);
    const said = tokens.filter(({ side }) => side === "STEERED").map(({ text }) => text);
    expect(said.join("")).toBe((done.result as { STEERED: string }).STEERED);
  });

  it("go on after the last that was seen", async () => {
    const job = await start({ n_tokens: 30 });
    await ended(job.id);
    const all = await (await call(`/api/jobs/${job.id}/events`, { headers: user.headers })).text();
    const ids = [...all.matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id));
    expect(ids).toEqual(ids.map((_, i) => i + 1));
    const rest = await (
      await call(`/api/jobs/${job.id}/events`, { headers: { ...user.headers, "last-event-id": String(ids.at(-1)) } })
    ).text();
    expect(rest).not.toContain("event: tokens");
    expect(rest).toContain("event: done");
    expect((await call(`/api/jobs/${job.id}/events`, { headers: { ...user.headers, "last-event-id": "x" } })).status).toBe(400);
  });
});

describe("whose turn it is", () => {
  it("is fair: so many run of one user, and who has fewest running is next", async () => {
    const jobs = newJobs(config());
    const plan = await anyPlan();
    const [many, few] = [await newUser(), await newUser()];
    const make = async (owner: TestUser, n: number) => {
      const id = `cm${String(n).padStart(2, "0")}${owner.id.slice(4)}`;
      await jobs.create({
        id,
        userId: owner.id,
        kind: "steer",
        modelId: MODEL,
        plan,
        tokensTotal: 4,
        webhookUrl: undefined,
      });
      return id;
    };
    const first: string[] = [];
    for (let n = 0; n < 4; n++) first.push(await make(many, n));
    const late = await make(few, 9);
    const turns = await jobs.next();
    expect(turns.filter((id) => first.includes(id))).toEqual(first.slice(0, 2));
    expect(turns.indexOf(late)).toBeLessThan(turns.indexOf(first[1] as string));
    expect(await jobs.admit(first[2] as string)).toBe(false);
    expect([await jobs.admit(first[0] as string), await jobs.admit(first[1] as string)]).toEqual([true, true]);
    expect(await jobs.admit(first[0] as string)).toBe(false);
    expect((await jobs.next()).filter((id) => first.includes(id))).toEqual([]);
    await jobs.end(first[0] as string, { state: "canceled" }, () => []);
    expect((await jobs.next()).filter((id) => first.includes(id))).toEqual([first[2]]);
    for (const id of [...first, late]) await jobs.end(id, { state: "canceled" }, () => []);
  });
});

describe("what a runner writes", () => {
  it("is written once: another runner of the same job is told that it is not its own", async () => {
    const jobs = newJobs(config());
    const plan = await anyPlan();
    const owner = await newUser();
    const id = `cm77${owner.id.slice(4)}`;
    await jobs.create({ id, userId: owner.id, kind: "steer", modelId: MODEL, plan, tokensTotal: 4, webhookUrl: undefined });
    await jobs.admit(id);
    const token = { row: "STEERED", index: 0, id: 1, text: "a", token: "a", logprob: 0, top: [] };
    expect(await jobs.append(id, 1, [token])).toEqual({ canceled: false });
    expect(await jobs.append(id, 1, [{ ...token, text: "b" }])).toBeUndefined();
    expect(await jobs.append(id, 3, [token])).toBeUndefined();
    expect((await jobs.tokens(id)).tokens).toEqual([token]);
    expect((await jobs.get(id))?.tokens_done).toBe(1);
    await jobs.requestCancel(id, owner.id);
    expect(await jobs.append(id, 2, [{ ...token, index: 1 }])).toEqual({ canceled: true });
    expect(await jobs.end(id, { state: "canceled" }, () => [])).toBe(true);
    expect(await jobs.end(id, { state: "canceled" }, () => [])).toBe(false);
    expect(await jobs.append(id, 3, [token])).toBeUndefined();
  });
});
