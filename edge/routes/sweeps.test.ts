import { env } from "cloudflare:workers";
import { Webhook } from "standardwebhooks";
import { beforeAll, describe, expect, it, vi } from "vitest";
import { findEngine, read as readEngine } from "../engine.ts";
import { newBackground } from "../jobs/background.ts";
import type { Job, WholeJob } from "../jobs/contract.ts";
import { type JobRoom, tryJob } from "../jobs/run.ts";
import { type JobOf, newJobs } from "../jobs/store.ts";
import type { SweptCell } from "../jobs/stored.ts";
import { newModels } from "../models.ts";
import { newRecipes } from "../steer/recipe.ts";
import { SweepBody, type SweepCell, type SweepResult, type SweepRow } from "../sweeps/contract.ts";
import { runSweep } from "../sweeps/job.ts";
import { planSweep } from "../sweeps/request.ts";
import { FAULTS, type Hook } from "../test/node/faults.ts";
import { call, config, frames, json, newUser, nextSeed, post, type TestUser } from "../test/worker/client.ts";

const MODEL = "tiller-tales";
const HAPPY = { layer: "3-tales-directions", index: 0 };
const WORDS = ["happy", "smiled", "party", "excited", "wonderful", "hug", "hugs", "love", "loved", "fun", "friends", "laughed"];
let user: TestUser;
let other: TestUser;
beforeAll(async () => {
  [user, other] = [await newUser({ hourlyLimit: 10_000 }), await newUser()];
});

const body = (changes: object = {}) => ({
  ...{ modelId: MODEL, prompts: ["The children walked home and", "One day Tom"], directions: [HAPPY], strengths: [13, -13, 0, 6.5, -6.5] },
  ...{ seeds: [3, 4], n_tokens: 24, scorer: { kind: "words", words: WORDS } },
  ...changes,
});
const one = (changes: object = {}) => body({ prompts: ["One day Tom"], seeds: [3], n_tokens: 8, strengths: [8], ...changes });
const start = async (asked: object, headers: Record<string, string> = user.headers): Promise<Job> => {
  const response = await post("/api/sweeps", asked, headers);
  const job = (await response.json()) as Job;
  expect(response.status, JSON.stringify(job)).toBe(202);
  return job;
};
const get = (id: string, headers: Record<string, string> = user.headers) => call(`/api/sweeps/${id}`, { headers });
const job = async (id: string): Promise<WholeJob> => (await call(`/api/jobs/${id}`, { headers: user.headers })).json();
const ended = async (id: string): Promise<WholeJob> => {
  await vi.waitUntil(async () => /succeeded|failed|canceled/.test((await job(id)).state), { timeout: 60_000, interval: 200 });
  return job(id);
};
const swept = async (asked: object): Promise<SweepResult> => {
  const { id } = await start(asked);
  expect(await ended(id)).toMatchObject({ state: "succeeded", error: null });
  return (await get(id)).json();
};
const textsOf = (cell: { rows: SweepRow[] } | undefined) => cell?.rows.map(({ text }) => text);
const cellAt = ({ cells }: SweepResult, strength: number, column = 0) =>
  cells.find((cell) => cell.strength === strength && cell.column === column) as SweepCell;

describe("a sweep", () => {
  let id: string;
  let result: SweepResult;
  beforeAll(async () => {
    id = (await start(body())).id;
    expect(await ended(id)).toMatchObject({ state: "succeeded", error: null });
    result = await (await get(id)).json();
  });

  it("is a job, whose result is here and there", async () => {
    const whole = await job(id);
    expect(whole).toMatchObject({ kind: "sweep", progress: { texts: 24, of: 24 }, partial: null });
    expect(whole.result).toEqual(result);
    expect(result).toMatchObject({ id, modelId: MODEL, strengths: [-13, -6.5, 0, 6.5, 13], seeds: [3, 4], methods: ["SIMPLE_ADDITIVE"] });
    expect(result.url).toBe(`http://edge.test/sweep/${id}`);
    expect(result.columns).toEqual([
      { label: "happy - sad", layer: 3, hookName: "blocks.3.hook_resid_pre", direction: 0, feature: { modelId: MODEL, ...HAPPY } },
    ]);
    expect(result.cells.map(({ strength, rows, error }) => [strength, rows.length, error])).toEqual(
      result.strengths.map((strength) => [strength, 4, null]),
    );
  });

  it("writes the very texts that a steer writes, plain and steered", async () => {
    for (const [strength, prompt, seed, place] of [
      ...[
        [13, 0, 3, 0],
        [-6.5, 1, 4, 3],
      ],
    ] as [number, number, number, number][]) {
      const answer = await json(
        await post(
          "/api/steer",
          {
            ...{ prompt: body().prompts[prompt], modelId: MODEL, features: [{ ...HAPPY, modelId: MODEL, strength }], seed },
            ...{ temperature: 0.7, n_tokens: 24, freq_penalty: 0, strength_multiplier: 1 },
          },
          user.headers,
        ),
      );
      expect(result.baseline.rows[place]).toMatchObject({ prompt, seed, text: answer.DEFAULT });
      expect(cellAt(result, strength).rows[place]).toMatchObject({ prompt, seed, text: answer.STEERED });
    }
  });

  it("has the baseline's numbers at strength zero", () => {
    const { rows, metrics } = cellAt(result, 0);
    expect(rows).toEqual(result.baseline.rows);
    expect(metrics).toEqual(result.baseline.metrics);
    expect(metrics).toMatchObject({ kl: 0, change: 0, perplexityRatio: 1 });
  });

  it("reads every text as the model without edits does", async () => {
    const [row] = cellAt(result, 13).rows;
    const engine = findEngine(config(), MODEL);
    if (engine === undefined || row === undefined) throw new Error("there is no such row");
    const { signal } = new AbortController();
    const items = [{ prompt: body().prompts[0], text: row.text }];
    const { items: scored } = await readEngine(engine, config(), "/score", { model: MODEL, items }, signal);
    expect([scored[0]?.tokens.length, row.tokens]).toEqual([24, 24]);
    expect(row.perplexity).toBeCloseTo(scored[0]?.perplexity ?? 0, 3);
    const { items: read } = await readEngine(
      ...[engine, config(), "/activations" as const],
      { model: MODEL, texts: [`${body().prompts[0]}${row.text}`], targets: [{ feature: { model: MODEL, source: HAPPY.layer, index: 0 } }] },
      signal,
    );
    const values = read[0]?.values[0]?.slice(-24) ?? [];
    expect(row.activation).toBeCloseTo(values.reduce((sum, value) => sum + value, 0) / values.length, 3);
  });

  it("shows what more strength does, and suggests where to stop", () => {
    const [low, , , , high] = result.cells.map(({ metrics }) => metrics);
    expect(high?.activation).toBeGreaterThan(low?.activation ?? 0);
    expect(high?.success).toBeGreaterThan(low?.success ?? 1);
    expect(high?.kl).toBeGreaterThan(0);
    expect(high?.change).toBeCloseTo(2 * (cellAt(result, 6.5).metrics?.change ?? 0), 1);
    const { cell = -1, sentence } = result.suggested ?? {};
    expect(result.cells[cell]?.metrics?.success).toBeGreaterThan(result.baseline.metrics.success ?? 1);
    expect(sentence).toMatch(/^SIMPLE_ADDITIVE with strength \S+ along 'happy - sad' at blocks\.3\.hook_resid_pre: \d+% of its texts/);
  });

  it("tells its texts as they come", async () => {
    const events = await frames(await call(`/api/jobs/${id}/events`, { headers: user.headers }));
    const cells = events.flatMap(([event, data]) => (event === "cells" ? (data.cells as SweptCell[]) : []));
    expect(cells.filter(({ cell }) => cell === 0).flatMap(({ rows }) => rows.map(({ text }) => text))).toEqual(textsOf(result.cells[0]));
    expect(cells.filter(({ cell }) => cell === -1).length).toBe(4);
  });

  it("is its owner's alone", async () => {
    expect([(await get(id, other.headers)).status, (await get(id, {})).status]).toEqual([404, 401]);
    expect((await get("cm0")).status).toBe(404);
  });

  it("does not depend on the rest of its grid", async () => {
    const alone = await swept(body({ strengths: [13], seeds: [4] }));
    expect(textsOf(alone.cells[0])).toEqual(textsOf({ rows: cellAt(result, 13).rows.filter(({ seed }) => seed === 4) }));
  });
});

describe("a sweep over layers", () => {
  it("moves a direction, and is at its own layer what it is there without moving", async () => {
    const [own, moved] = [await swept(one({ layers: undefined })), await swept(one({ layers: [1, 3], strengths: [0, 8] }))];
    expect(moved.columns.map(({ hookName }) => hookName)).toEqual(["blocks.1.hook_resid_pre", "blocks.3.hook_resid_pre"]);
    expect(textsOf(cellAt(moved, 8, 1))).toEqual(textsOf(own.cells[0]));
    expect(cellAt(moved, 8, 1).metrics?.activation).toBeCloseTo(own.cells[0]?.metrics?.activation ?? 0, 4);
    // The baseline is read along no one direction, its copy in each column is.
    expect(moved.baseline.metrics.activation).toBeNull();
    expect(cellAt(moved, 0, 1).metrics?.activation).toBeCloseTo(own.baseline.metrics.activation ?? 0, 4);
    expect(cellAt(moved, 0, 0).metrics?.activation).not.toBeCloseTo(own.baseline.metrics.activation ?? 0, 4);
  });

  it("takes kept vectors and numbers alike", async () => {
    const vector = Array.from({ length: 256 }, (_, i) => Math.sin(i));
    const kept = await post(
      "/api/vector/new",
      {
        modelId: MODEL,
        layerNumber: 2,
        hookType: "hook_resid_pre",
        vector,
        vectorLabel: "waves",
        vectorDefaultSteerStrength: 1,
        visibility: "private",
      },
      user.headers,
    );
    const { vector: made } = (await kept.json()) as { vector: { source: string; index: string } };
    const address = { layer: made.source, index: Number(made.index) };
    const result = await swept(
      one({ directions: [address, { vector, hookName: "blocks.2.hook_resid_pre", label: "mine" }], strengths: [2] }),
    );
    expect(result.columns.map(({ label }) => label)).toEqual(["waves", "mine"]);
    expect(result.cells[0]?.rows).toEqual(result.cells[1]?.rows);
    const refused = await post("/api/sweeps", one({ directions: [address] }), other.headers);
    expect([refused.status, (await json(refused)).error]).toEqual([404, expect.stringMatching(/^directions\[0\]: there is no vector/)]);
  });
});

describe("a cell that fails", () => {
  it("says why, and touches no other", async () => {
    const asked = { prompts: body().prompts, seeds: [3, 4] };
    const methods = ["SIMPLE_ADDITIVE", "PROJECTION_CAP"];
    const result = await swept(one({ ...asked, methods, strengths: [8, 1e300] }));
    const [fine, huge, , loose] = result.cells;
    expect(huge).toMatchObject({ metrics: null, rows: [], error: expect.stringMatching(/not finite.*Use a smaller one/) });
    expect(loose).toMatchObject({ metrics: null, rows: [], error: expect.stringMatching(/changed nothing/) });
    const alone = await swept(one({ ...asked, strengths: [8] }));
    expect(fine).toEqual(alone.cells[0]);
    expect(result.baseline).toEqual(alone.baseline);
  });
});

describe("scorers", () => {
  it("find patterns, and projections above the baseline", async () => {
    const regex = await swept(one({ scorer: { kind: "regex", pattern: "[a-z]" } }));
    expect(regex.baseline).toMatchObject({ metrics: { success: 1 }, rows: [{ score: 1, success: true }] });
    const ends = body({ strengths: [-13, 13], scorer: { kind: "projection" } });
    const projection = await swept(ends);
    const [low, high] = projection.cells.map(({ metrics }) => metrics?.success);
    expect(high).toBeGreaterThan(low ?? 1);
    for (const { rows } of projection.cells) expect(rows[0]?.score).toBeCloseTo(rows[0]?.activation ?? 0, 6);
    const fixed = await swept({ ...ends, scorer: { kind: "projection", direction: { ...HAPPY, index: 2 }, above: -1e6 } });
    expect(fixed.cells.map(({ metrics }) => metrics?.success)).toEqual([1, 1]);
    expect(fixed.cells[0]?.rows[0]?.score).not.toBeCloseTo(projection.cells[0]?.rows[0]?.score ?? 0, 2);
  });

  it("may be left out: then nothing is called a success", async () => {
    const { cells, suggested } = await swept(one({ scorer: undefined }));
    expect([cells[0]?.metrics?.success, cells[0]?.rows[0]?.success, suggested]).toEqual([null, null, null]);
  });

  it("may be a webhook: it gets the texts, signed, and says what they are", async () => {
    const name = `scores${nextSeed()}`;
    const result = await swept(one({ strengths: [0, 8], scorer: { kind: "webhook", url: `${env.SCRIPTED_URL}/hooks/${name}` } }));
    const [hook, ...more] = (await (await fetch(`${env.SCRIPTED_URL}/hooks/${name}`)).json()) as Hook[];
    const { secret } = await json(await call("/api/webhooks/account-secret", { headers: user.headers }));
    const event = new Webhook(String(secret)).verify(hook?.body ?? "", hook?.headers as Record<string, string>);
    const [base] = result.baseline.rows;
    const steered = cellAt(result, 8).rows[0];
    expect([event, more]).toEqual([{ type: "sweep.score", texts: [base?.text, steered?.text] }, []]);
    for (const row of [base, steered]) expect(row?.score).toBe(row?.text.includes("a") ? 0.75 : 0.25);
  });
});

/** A sweep as a running job that no workflow works on. */
async function running(asked: object, rows = 3): Promise<{ room: JobRoom; sweep: JobOf<"sweep"> }> {
  const settings = config();
  const { jobs, service } = newBackground(settings);
  const models = newModels(settings);
  const parsed = SweepBody.parse(asked);
  const served = await models.get(parsed.modelId);
  const directions = { models, recipes: newRecipes(settings) };
  const { sweep, input, texts } = await planSweep(parsed, served, directions, user.id, settings, new AbortController().signal);
  const id = `cm${String(nextSeed()).padStart(23, "0")}`;
  const quota = { identifier: `user:${user.id}`, limit: 10_000, places: 3 };
  const plan = { sweep: { ...sweep, rows }, quota, origin: "http://edge.test" };
  await jobs.create({
    ...{ id, userId: user.id, kind: "sweep", modelId: MODEL, plan, tokensTotal: texts, webhookUrl: undefined },
    input: JSON.stringify(input),
  });
  expect(await jobs.admit(id)).toBe(true);
  return { room: { config: settings, jobs, end: service.end }, sweep: (await jobs.get(id)) as JobOf<"sweep"> };
}

describe("a sweep that is interrupted", () => {
  const asked = one({ strengths: [-8, -4, 0, 4, 8], seeds: [3, 4] });

  it("goes on with what is not there yet, and ends as if nothing had happened", async () => {
    const whole = await swept(asked);
    const { room, sweep } = await running(asked);
    const crash = new Error("killed");
    let left = 2;
    const dying = {
      ...room.jobs,
      append: async (...args: Parameters<typeof room.jobs.append>) => (left-- > 0 ? room.jobs.append(...args) : Promise.reject(crash)),
    };
    await expect(runSweep({ ...room, jobs: dying }, sweep)).rejects.toBe(crash);
    const before = await room.jobs.items(sweep);
    expect(before.last).toBe(2);

    const appended: number[] = [];
    const counting = {
      ...room.jobs,
      append: (...args: Parameters<typeof room.jobs.append>) => {
        appended.push(args[1]);
        return room.jobs.append(...args);
      },
    };
    const ending = await runSweep({ ...room, jobs: counting }, sweep);
    expect(appended).toEqual([3, 4]);
    const { baseline, cells, suggested } = (ending as { result: SweepResult }).result;
    expect({ baseline, cells, suggested }).toEqual({ baseline: whole.baseline, cells: whole.cells, suggested: whole.suggested });
    const after = await room.jobs.items(sweep);
    expect(after.items.slice(0, before.items.length)).toEqual(before.items);
    expect((await room.jobs.get(sweep.id))?.tokens_done).toBe(12);
  });

  it("leaves the job to whoever took it over, and does nothing for one that has ended", async () => {
    const { room, sweep } = await running(asked);
    const taken = { ...room.jobs, append: async () => undefined };
    expect(await runSweep({ ...room, jobs: taken }, sweep)).toBeUndefined();
    await room.end(sweep, { state: "canceled" });
    expect(await runSweep(room, sweep)).toBeUndefined();
  });

  it("is tried again when its engine fails, and gives back what it took when nothing helps", async () => {
    const used = async () =>
      ((await (await call("/api/user/usage", { headers: user.headers })).json()) as { steers: { used: number } }).steers.used;
    const before = await used();
    const { room, sweep } = await running(asked);
    const away = { ...room, config: { ...room.config, engines: [{ models: "*", url: "http://127.0.0.1:1", token: undefined }] } };
    expect(await tryJob(away, sweep.id, false)).toEqual({ ended: false, accepted: false });
    expect(await tryJob(away, sweep.id, true)).toEqual({ ended: true });
    expect(await job(sweep.id)).toMatchObject({ state: "failed", error: { code: "engine_unavailable" } });
    expect(await used()).toBe(Math.max(0, before - 3));
    const response = await get(sweep.id);
    expect([response.status, (await json(response)).error]).toEqual([409, expect.stringMatching(/^This sweep failed: /)]);
  });

  it("says what a classifier answered that does not do its work", async () => {
    const url = `${env.SCRIPTED_URL}/hooks/twice${nextSeed()}`;
    const { room, sweep } = await running({ ...asked, scorer: { kind: "webhook", url } });
    expect(await tryJob(room, sweep.id, false)).toEqual({ ended: false, accepted: false });
    const texts = (await room.jobs.items(sweep)).last;
    await tryJob(room, sweep.id, true);
    const { state, error } = await job(sweep.id);
    expect([state, error?.code, error?.message]).toEqual([
      "failed",
      "scorer_failed",
      expect.stringMatching(/webhook did not score.*answered 500/),
    ]);
    // Only the scores were asked for again.
    expect((await room.jobs.items(sweep)).last).toBe(texts);
  });
});

describe("a sweep that is canceled", () => {
  it("ends soon, and keeps nothing but what it told", async () => {
    const { id } = await start(body({ strengths: Array.from({ length: 30 }, (_, i) => i), seeds: [1, 2, 3, 4, 5], n_tokens: 100 }));
    await expect.poll(async () => (await job(id)).progress.texts, { timeout: 30_000 }).toBeGreaterThan(0);
    const early = await get(id);
    expect([early.status, (await json(early)).error]).toEqual([
      409,
      expect.stringMatching(/^This sweep is running: it has \d+ of 310 texts/),
    ]);
    await call(`/api/jobs/${id}`, { method: "DELETE", headers: user.headers });
    expect((await ended(id)).state).toBe("canceled");
    expect((await json(await get(id))).error).toBe("This sweep was canceled.");
    expect((await job(id)).progress.texts).toBeLessThan(310);
  });
});

describe("the quota", () => {
  it("counts eight texts as one steer, refuses what does not fit, and counts a request sent twice once", async () => {
    const owner = await newUser({ hourlyLimit: 3 });
    const left = async () =>
      ((await (await call("/api/user/usage", { headers: owner.headers })).json()) as { steers: { remaining: number } }).steers.remaining;
    const nine = one({ strengths: [1, 2, 3, 4, 5, 6, 7, 8] });
    const headers = { ...owner.headers, "idempotency-key": "once" };
    const first = await start(nine, headers);
    expect((await start(nine, headers)).id).toBe(first.id);
    expect(await left()).toBe(1);
    const refused = await post("/api/sweeps", nine, owner.headers);
    expect([refused.status, (await json(refused)).error]).toEqual([429, expect.stringMatching(/counts as 2, and 1 are left/)]);
    expect(await left()).toBe(1);
    await start(one({ strengths: [1, 2, 3] }), owner.headers);
    expect(await left()).toBe(0);
  });
});

describe("what cannot be is refused at once", () => {
  const latent = { layer: "3-tales-res", index: 978 };
  const many = (n: number) => Array.from({ length: n }, (_, i) => i);
  it.each([
    ["no key", {}, 401, /requires authorization/, {}],
    ["an unknown model", { modelId: "none" }, 404, /no model 'none'/],
    ["an unknown field", { strength_multiplier: 2 }, 400, /field that is not known: strength_multiplier/],
    ["no strength", { strengths: [] }, 400, /^strengths must be a list of 1 to 41 strengths/],
    ["a strength twice", { strengths: [0, 4, -0] }, 400, /^strengths has 0 twice/],
    ["a layer twice", { layers: [1, 1] }, 400, /^layers has 1 twice/],
    ["a seed twice", { seeds: [1, 1] }, 400, /^seeds has 1 twice/],
    ["a layer that is not there", { layers: [6] }, 400, /blocks\.6\.hook_resid_pre is not in this model/],
    ["a latent that is moved", { directions: [latent], layers: [2] }, 400, /^directions\[0\] is a latent .* belongs to its layer/],
    ["a clamp of what is no latent", { directions: [latent, HAPPY], methods: ["LATENT_CLAMP"] }, 400, /^directions\[1\]: LATENT_CLAMP/],
    ["ablation with strengths", { methods: ["ABLATE"], strengths: [1, 2] }, 400, /^methods: ABLATE knows no strength/],
    ["a clamp with two bounds", { methods: ["PROJECTION_CLAMP"] }, 400, /^methods\[0\] must be one of/],
    ["an unknown source", { directions: [{ layer: "3-none", index: 0 }] }, 404, /^directions\[0\]\.layer: tiller-tales has no source/],
    ["an unknown feature", { directions: [{ ...HAPPY, index: 9 }] }, 404, /^directions\[0\]\.index: .* has no feature 9/],
    ["a direction without a place", { directions: [{ vector: [1, 2] }] }, 400, /^directions\[0\]\.layer and index name a feature/],
    [
      "a direction that is two",
      { directions: [{ ...HAPPY, hookName: "blocks.0.hook_resid_pre" }] },
      400,
      /^directions\[0\]\.layer and index/,
    ],
    [
      "a narrow vector",
      { directions: [{ vector: [1], hookName: "blocks.0.hook_resid_pre" }] },
      400,
      /^directions\[0\]\.vector has 1 values/,
    ],
    [
      "too many texts",
      { strengths: many(40), seeds: many(16) },
      400,
      /strengths 40 \+ the baseline\) x prompts 1 x seeds 16 are 656 texts; .* at most 640/,
    ],
    [
      "too many tokens",
      { strengths: many(39), seeds: many(16), n_tokens: 63 },
      400,
      /at most 40000\. Ask for fewer texts, or for n_tokens of at most 62/,
    ],
    ["a prompt without room", { prompts: ["One", "word ".repeat(300)], n_tokens: 20 }, 400, /^prompts\[1\] is \d+ tokens long and 20 more/],
    ["a pattern that is none", { scorer: { kind: "regex", pattern: "(" } }, 400, /^scorer\.pattern is no regular expression/],
    ["words that are none", { scorer: { kind: "words", words: ["?"] } }, 400, /^scorer\.words\[0\] has no letter/],
    [
      "an unknown scorer",
      { scorer: { kind: "taste" } },
      400,
      /^scorer.* must be an object whose kind is words, regex, projection or webhook/,
    ],
    ["a scorer along nothing", { scorer: { kind: "projection", direction: { ...HAPPY, index: 9 } } }, 404, /^scorer\.direction\.index/],
    ["a classifier at a private address", { scorer: { kind: "webhook", url: "http://10.0.0.1/" } }, 400, /10\.0\.0\.1/],
    ["a webhook at a private address", { webhook: { url: "http://10.0.0.1/" } }, 400, /10\.0\.0\.1/],
    [
      "a conversation without a template",
      { ...{ modelId: "scripted", directions: [{ layer: "2-scripted", index: 0 }] }, chat: true },
      400,
      /^chat: scripted has no chat template/,
    ],
  ] as [string, object, number, RegExp, Record<string, string>?][])("%s", async (_, changes, status, sentence, headers) => {
    const response = await post("/api/sweeps", one(changes), headers ?? user.headers);
    expect([response.status, (await json(response)).error]).toEqual([status, expect.stringMatching(sentence)]);
  });
});

describe("a sweep of conversations", () => {
  it("asks as a user, with the model's own end of a message", async () => {
    const result = await swept(one({ chat: true, prompts: ["Can we go to the park?"] }));
    const messages = [{ role: "user", content: "Can we go to the park?" }];
    const direct = await json(
      await post(
        "/api/steer-chat",
        {
          ...{ defaultChatMessages: messages, steeredChatMessages: messages, modelId: MODEL, steer_special_tokens: true, seed: 3 },
          ...{
            features: [{ ...HAPPY, modelId: MODEL, strength: 8 }],
            temperature: 0.7,
            n_tokens: 8,
            freq_penalty: 0,
            strength_multiplier: 1,
          },
        },
        user.headers,
      ),
    );
    const last = (side: unknown) => (side as { chatTemplate: { content: string }[] }).chatTemplate.at(-1)?.content;
    expect([textsOf(result.baseline), textsOf(result.cells[0])]).toEqual([[last(direct.DEFAULT)], [last(direct.STEERED)]]);
  });
});

describe("an engine that answers nonsense", () => {
  it("is no cell's fault: the job is tried again", async () => {
    const directions = [{ layer: "2-scripted", index: 0 }];
    for (const prompt of [FAULTS.refuses, FAULTS.garbage, FAULTS.noReceipts, FAULTS.wrongShape]) {
      const { room, sweep } = await running(one({ modelId: "scripted", prompts: [prompt], directions, scorer: undefined }));
      const asked = { ...room.jobs, get: async () => ({ ...sweep, model_id: "scripted" }) };
      expect(await tryJob({ ...room, jobs: asked }, sweep.id, false)).toEqual({ ended: false, accepted: false });
      expect((await newJobs(config()).items(sweep)).last).toBe(0);
      await room.end(sweep, { state: "canceled" });
    }
  });
});
