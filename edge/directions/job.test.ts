// Derivations as jobs: what they keep, and that they keep it once, whatever happens on the way.
import { env } from "cloudflare:workers";
import { Webhook } from "standardwebhooks";
import { beforeAll, describe, expect, it, vi } from "vitest";
import type { z } from "zod";
import { newBackground } from "../jobs/background.ts";
import type { Job, WholeJob } from "../jobs/contract.ts";
import { tryJob } from "../jobs/run.ts";
import { type Ending, type JobOf, newJobs } from "../jobs/store.ts";
import { LIMITS } from "../limits.ts";
import { FAULTS, type Hook } from "../test/node/faults.ts";
import { call, config, frames, json, newUser, nextSeed, post, type TestUser } from "../test/worker/client.ts";
import { HAPPY, SAD } from "../test/worker/moods.ts";
import type { Vector } from "../vectors/contract.ts";
import { newVectors } from "../vectors/store.ts";
import type { Derived } from "./contract.ts";
import { runDerivation } from "./job.ts";

const PATH = "/api/vector/derive";
const MODEL = "tiller-tales";
let user: TestUser;
beforeAll(async () => {
  user = await newUser({ hourlyLimit: 10_000 });
});

const moods = (changes: object = {}) => ({ modelId: MODEL, layer: 3, vectorLabel: "cheerful", positive: HAPPY, negative: SAD, ...changes });
const scripted = (changes: object = {}) => ({
  ...{ modelId: "scripted", layers: [0, 1, 2], keep: "all", vectorLabel: "x", positive: ["a", "b"], negative: ["c"], ...changes },
});
async function start(body: object, headers: Record<string, string> = {}, who = user): Promise<Job> {
  const response = await post(PATH, body, { ...who.headers, prefer: "respond-async", ...headers });
  const job = (await response.json()) as Job;
  expect(response.status, JSON.stringify(job)).toBe(202);
  return job;
}
const read = async (id: string, who = user): Promise<WholeJob> => (await call(`/api/jobs/${id}`, { headers: who.headers })).json();
const ended = async (id: string, who = user): Promise<WholeJob & { result: Derived }> => {
  await expect.poll(async () => (await read(id, who)).state, { timeout: 30_000 }).toMatch(/succeeded|failed|canceled/);
  return (await read(id, who)) as WholeJob & { result: Derived };
};
const owned = async (who: TestUser) =>
  ((await (await post("/api/vector/list-owned", { values: false }, who.headers)).json()) as { vectors: z.infer<typeof Vector>[] }).vectors;
const indexesOf = ({ result }: { result: Derived }) => result.vectors.map(({ index }) => index).sort();
const usedSteers = async (who: TestUser): Promise<number> =>
  ((await (await call("/api/user/usage", { headers: who.headers })).json()) as { steers: { used: number } }).steers.used;

describe("a derivation as a job", () => {
  it("ends with what the call would have answered, and its vector is there", async () => {
    const job = await start(moods());
    expect(job).toMatchObject({
      kind: "derive",
      modelId: MODEL,
      url: `http://edge.test/api/jobs/${job.id}`,
      progress: { texts: 0, of: 24 },
    });
    const { state, result, progress, partial } = await ended(job.id);
    const direct = (await json(await post(PATH, moods(), user.headers))) as unknown as Derived;
    expect([state, progress, partial]).toEqual(["succeeded", { texts: 24, of: 24 }, null]);
    expect(result.report.layers).toEqual(direct.report.layers);
    const [kept, plain] = [result.vectors[0], direct.vectors[0]];
    expect({ ...kept, index: "", url: "", createdAt: "" }).toEqual({ ...plain, index: "", url: "", createdAt: "" });
    const vectorOf = async (at: typeof kept) =>
      (await json(await post("/api/vector/get", { modelId: MODEL, source: at?.source, index: at?.index }, user.headers))).vector as z.infer<
        typeof Vector
      >;
    expect((await vectorOf(kept)).vector).toEqual((await vectorOf(plain)).vector);
    expect((await vectorOf(kept)).description).toBe((await vectorOf(plain)).description);
  });

  it("is what many texts become by themselves, told as they are read", async () => {
    const texts = (side: string[], n: number) => Array.from({ length: n }, (_, i) => `${side[i % side.length]} ${i}`);
    const few = await post(
      PATH,
      moods({ positive: texts(HAPPY, LIMITS.derivedAtOnce / 2), negative: texts(SAD, 5), keep: "none", vectorLabel: undefined }),
      user.headers,
    );
    expect(few.status).toBe(200);
    const response = await post(PATH, moods({ positive: texts(HAPPY, LIMITS.derivedAtOnce), negative: texts(SAD, 5) }), user.headers);
    const job = (await response.json()) as Job;
    const { headers } = response;
    expect([response.status, headers.get("preference-applied"), headers.get("location")]).toEqual([202, null, job.url]);
    expect(job.progress).toEqual({ texts: 0, of: LIMITS.derivedAtOnce + 5 });
    const events = await frames(await call(`/api/jobs/${job.id}/events`, { headers: user.headers }));
    const done = events.at(-1)?.[1] as unknown as WholeJob & { result: Derived };
    expect([events.at(-1)?.[0], done.state]).toEqual(["done", "succeeded"]);
    expect(done.result.report.counts.positive).toMatchObject({ texts: 320, heldOut: 80 });
    const told = events.filter(([event]) => event === "state").map(([, data]) => (data.progress as { texts: number }).texts);
    expect(told).toEqual([...told].sort((a, b) => a - b));
  });

  it("is done once for one Idempotency-Key, and costs one steer", async () => {
    const owner = await newUser();
    const headers = { "idempotency-key": `derive-${nextSeed()}` };
    const [first, second] = [await start(scripted(), headers, owner), await start(scripted(), headers, owner)];
    expect(second.id).toBe(first.id);
    const done = await ended(first.id, owner);
    expect((await owned(owner)).map(({ index }) => index).sort()).toEqual(indexesOf(done));
    expect([done.result.vectors.length, await usedSteers(owner)]).toEqual([3, 1]);
    const other = await post(PATH, scripted({ layers: [1] }), { ...owner.headers, ...headers, prefer: "respond-async" });
    expect(other.status).toBe(409);
  });

  it("tells a webhook its end, with the whole result", async () => {
    const name = `derive${nextSeed()}`;
    const response = await post(PATH, scripted({ webhook: { url: `${env.SCRIPTED_URL}/hooks/${name}` } }), user.headers);
    expect(response.status).toBe(202);
    const done = await ended(((await response.json()) as Job).id);
    const hooks = async (): Promise<Hook[]> => (await fetch(`${env.SCRIPTED_URL}/hooks/${name}`)).json();
    await expect.poll(async () => (await hooks()).length).toBe(1);
    const [hook] = await hooks();
    const { secret } = (await (await call("/api/webhooks/account-secret", { headers: user.headers })).json()) as { secret: string };
    const event = new Webhook(secret).verify(hook?.body ?? "", hook?.headers as Record<string, string>);
    expect(event).toMatchObject({ type: "job.succeeded", data: done });
  });

  it("can be canceled while its texts are read: nothing is kept of it", async () => {
    const owner = await newUser();
    for (const fault of [FAULTS.endless, FAULTS.silentStream]) {
      const job = await start(scripted({ positive: [fault, "b"] }), {}, owner);
      await expect.poll(async () => (await read(job.id, owner)).progress.texts, { timeout: 20_000 }).toBeGreaterThan(0);
      expect((await call(`/api/jobs/${job.id}`, { method: "DELETE", headers: owner.headers })).status).toBe(200);
      expect(await ended(job.id, owner)).toMatchObject({ state: "canceled", result: null });
    }
    expect(await owned(owner)).toEqual([]);
  });

  it("goes on where the engine dies of it, and is done once", async () => {
    const owner = await newUser();
    const done = await ended((await start(scripted({ positive: [FAULTS.diesInStream, `died ${nextSeed()}`] }), {}, owner)).id, owner);
    expect(done.state).toBe("succeeded");
    expect((await owned(owner)).map(({ index }) => index).sort()).toEqual(indexesOf(done));
  });

  it("says what the engine refuses", async () => {
    const owner = await newUser();
    const done = await ended((await start(scripted({ positive: [FAULTS.errorEvent] }), {}, owner)).id, owner);
    expect(done.error).toEqual({ code: "invalid_request", message: "The texts give no direction." });
    expect(await usedSteers(owner)).toBe(1);
  });
});

describe("two tries of one job", () => {
  /** A job that runs without a workflow: the test is its runner. */
  async function running(owner: TestUser): Promise<JobOf<"derive">> {
    const jobs = newJobs(config());
    const model = await ended((await start(scripted(), {}, owner)).id, owner);
    const like = (await jobs.get(model.id)) as JobOf<"derive">;
    const id = `cm55${owner.id.slice(4)}`;
    const input = JSON.stringify({
      model: "scripted",
      positive: ["a", "b"],
      negative: ["c"],
      layers: [0, 1, 2],
      method: "mean_difference",
      hook: "resid_pre",
    });
    await jobs.create({
      id,
      userId: owner.id,
      kind: "derive",
      modelId: "scripted",
      plan: like.plan,
      tokensTotal: 3,
      webhookUrl: undefined,
      input,
    });
    expect(await jobs.admit(id)).toBe(true);
    for (const { modelId, layer, index } of await owned(owner))
      await post("/api/vector/delete", { modelId, source: layer, index }, owner.headers);
    return (await jobs.get(id)) as JobOf<"derive">;
  }
  const room = () => {
    const background = newBackground(config());
    return { ...background, end: background.service.end };
  };
  const kept = async (owner: TestUser) => (await owned(owner)).map(({ index }) => index).sort();

  it("at once keep one set of vectors, which is the one its result names", async () => {
    const owner = await newUser();
    const job = await running(owner);
    await Promise.all([tryJob(room(), job.id, false), tryJob(room(), job.id, false), tryJob(room(), job.id, false)]);
    const done = await ended(job.id, owner);
    expect(done.state).toBe("succeeded");
    expect(await kept(owner)).toEqual(indexesOf(done));
    expect(await kept(owner)).toHaveLength(3);
  });

  it("of which one was killed before its ending was written, or comes late, keep one set too", async () => {
    const owner = await newUser();
    const job = await running(owner);
    const [killed, late, first] = [await runDerivation(room(), job), await runDerivation(room(), job), await runDerivation(room(), job)];
    expect(killed?.state).toBe("succeeded");
    expect(await kept(owner)).toEqual([]);
    await room().end(job, first as Ending);
    const done = await ended(job.id, owner);
    await room().end(job, late as Ending);
    // What the late one would write, had it seen the job before it ended: nothing, as the result is another.
    const { db } = config();
    const [head, ...rest] = (late as Extract<Ending, { state: "succeeded" }>).statements ?? [];
    if (head !== undefined) await db.batch([head, ...rest]);
    expect(await kept(owner)).toEqual(indexesOf(done));
    expect(await kept(owner)).toHaveLength(3);
    expect(await runDerivation(room(), job)).toBeUndefined();
  });

  it("end neither with a job that was canceled in between", async () => {
    const owner = await newUser();
    const job = await running(owner);
    const ending = await runDerivation(room(), job);
    await newJobs(config()).requestCancel(job.id, owner.id);
    expect(await runDerivation(room(), job)).toEqual({ state: "canceled" });
    await room().end(job, { state: "canceled" });
    await room().end(job, ending as Ending);
    expect([(await ended(job.id, owner)).state, await kept(owner)]).toEqual(["canceled", []]);
  });
});

describe("a vector that is drawn", () => {
  it("never has the index of another, one that was deleted included", async () => {
    const owner = await newUser();
    const store = newVectors(config());
    const vector = { user_id: owner.id, model_id: "scripted", layer: 1, hook: "resid_pre", values: Float64Array.of(1) } as const;
    const given = { ...vector, label: "x", description: "", default_strength: 1, visibility: "private" } as const;
    const [taken] = await store.create([given]);
    if (taken === undefined) throw new Error("no vector was written");
    // The first draw is the taken index again.
    const spy = vi.spyOn(crypto, "getRandomValues").mockImplementationOnce((array) => {
      if (array instanceof Uint32Array) array[0] = taken.index - 90_000_000;
      return array;
    });
    const drawn = await store.draw([given, given]);
    expect(spy).toHaveBeenCalledTimes(3);
    spy.mockRestore();
    expect(new Set([taken.index, ...drawn.map(({ index }) => index)]).size).toBe(3);
  });
});
