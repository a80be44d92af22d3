import { Webhook } from "standardwebhooks";
import { beforeAll, describe, expect, it } from "vitest";
import type { EngineReport, GenerateResult, TokenEvent } from "../../shared/protocol.ts";
import { findEngine } from "../engine.ts";
import { newBackground } from "../jobs/background.ts";
import type { Job, WholeJob } from "../jobs/contract.ts";
import { pollEngine } from "../jobs/run.ts";
import { FAULTS } from "../test/node/faults.ts";
import { call, config, json, newUser, nextSeed, post, scripted, seenBy, type TestUser } from "../test/worker/client.ts";

let user: TestUser;
let direct: Awaited<ReturnType<typeof json>>;
beforeAll(async () => {
  user = await newUser({ hourlyLimit: 1000 });
  direct = await json(await post("/api/steer", scripted({ n_tokens: 3 }), user.headers));
});

/** A job that its engine has accepted. */
async function accepted(prompt: string = FAULTS.accepts): Promise<{ id: string; seed: number }> {
  const seed = nextSeed();
  const asked = scripted({ prompt, n_tokens: 3, seed });
  const { id } = (await (await post("/api/steer", asked, { ...user.headers, prefer: "respond-async" })).json()) as Job;
  await expect.poll(() => seenBy(seed), { timeout: 20_000 }).not.toBeNull();
  return { id, seed };
}
const read = async (id: string): Promise<WholeJob> => (await call(`/api/jobs/${id}`, { headers: user.headers })).json();
const stateOf = async (id: string) => (await read(id)).state;

const sides = ["STEERED", "DEFAULT"];
/** Tokens as the engine of faults makes them. */
const tokens = (from: number, to: number): TokenEvent[] =>
  Array.from({ length: to - from }, (_, i) => from + i).flatMap((index) =>
    sides.map((row) => {
      const text = ` ${row.toLowerCase()}${index}`;
      return { row, index, id: index, text, token: text, logprob: -0.5, top: [{ id: index, token: " a", logprob: -0.5 }] };
    }),
  );
const done: GenerateResult = {
  rows: sides.map((name) => ({
    name,
    text: [0, 1, 2].map((index) => ` ${name.toLowerCase()}${index}`).join(""),
    finish_reason: "length",
    receipts: [],
  })),
  usage: { prompt_tokens: 3, completion_tokens: 6 },
  timing: { queue_ms: 0, prefill_ms: 1, decode_ms: 2 },
};
const receipt = { edit: 0, point: "blocks.2.hook_resid_pre", method: "SIMPLE_ADDITIVE", strength: 4 } as const;
const proven: GenerateResult = {
  ...done,
  rows: done.rows.map((row) =>
    row.name === "STEERED" ? { ...row, receipts: [{ ...receipt, positions: 3, positions_changed: 3, mean_relative_delta: 0.1 }] } : row,
  ),
};

const secret = () => btoa(findEngine(config(), "scripted")?.token ?? "");
function report(id: string, said: Partial<EngineReport>, signed: { secret?: string; at?: Date; body?: string } = {}): Promise<Response> {
  const body = JSON.stringify({ tokens: [], ...said });
  const at = signed.at ?? new Date();
  return post(`/internal/jobs/${id}`, signed.body ?? body, {
    "webhook-id": `${id}-1`,
    "webhook-timestamp": String(Math.floor(at.getTime() / 1000)),
    "webhook-signature": new Webhook(signed.secret ?? secret()).sign(`${id}-1`, at, body),
  });
}

describe("what an engine that calls back says of a job", () => {
  it("is kept, and ends the job with the whole answer", async () => {
    const { id, seed } = await accepted();
    expect((await seenBy(seed))?.request).toMatchObject({ id, callback_url: `http://edge.test/internal/jobs/${id}` });
    expect((await report(id, { tokens: tokens(0, 2) })).status).toBe(200);
    expect(await read(id)).toMatchObject({ state: "running", progress: { tokens: 4, of: 6 }, partial: { STEERED: " steered0 steered1" } });
    // All of it again, and more: what is known is passed over.
    expect(await json(await report(id, { tokens: tokens(0, 3), done: proven }))).toEqual({ state: "succeeded" });
    const { state, result, progress } = await read(id);
    expect([state, (result as typeof direct).STEERED, (result as typeof direct).steeredLogProbs]).toEqual([
      ...["succeeded", direct.STEERED, direct.steeredLogProbs],
    ]);
    expect(progress.tokens).toBe(6);
    expect(await json(await report(id, { error: { code: "engine_failed", message: "late" } }))).toEqual({ state: "succeeded" });
  });

  it("that it failed, makes the job go on at once from what it has", async () => {
    const { id, seed } = await accepted();
    const died = { code: "engine_failed", message: "the GPU went away" };
    expect((await report(id, { tokens: tokens(0, 2), error: died })).status).toBe(200);
    await expect.poll(() => stateOf(id), { timeout: 20_000 }).toBe("succeeded");
    expect((await read(id)).result).toMatchObject({ STEERED: direct.STEERED });
    expect((await seenBy(seed))?.request.rows.map(({ generated }) => generated)).toEqual([
      [0, 1],
      [0, 1],
    ]);
  });

  it("that it cannot be done, ends the job", async () => {
    const { id } = await accepted();
    await report(id, { error: { code: "prompt_too_long", message: "The prompt has 600 tokens; it may have 511." } });
    expect(await read(id)).toMatchObject({
      state: "failed",
      error: { code: "prompt_too_long", message: expect.stringMatching("600 tokens") },
    });
  });

  it("is not believed where tokens or receipts are missing", async () => {
    const { id } = await accepted();
    expect((await report(id, { tokens: tokens(1, 3) })).status).toBe(502);
    expect((await report(id, { tokens: tokens(0, 2), done: proven })).status).toBe(502);
    expect((await report(id, { tokens: tokens(0, 3), done })).status).toBe(502);
    expect(await stateOf(id)).toBe("running");
    expect(await json(await report(id, { tokens: tokens(0, 3), done: proven }))).toEqual({ state: "succeeded" });
  });

  it("is refused unless the engine signed it, just now, for a job there is", async () => {
    const { id } = await accepted();
    const all = { tokens: tokens(0, 3), done: proven };
    const ago = (minutes: number) => new Date(Date.now() - minutes * 60_000);
    const refused = [
      await report(id, all, { secret: btoa("another token") }),
      await report(id, all, { at: ago(6) }),
      await report(id, all, { at: ago(-6) }),
      await report(id, all, { body: JSON.stringify({ tokens: [] }) }),
      await report("cm00000000000000000000001", all),
      await post(`/internal/jobs/${id}`, all, user.headers),
    ];
    expect(refused.map(({ status }) => status)).toEqual([401, 401, 401, 401, 401, 401]);
    const sentences = await Promise.all(refused.map(async (response) => (await json(response)).error));
    expect(new Set(sentences).size).toBe(1);
    expect(await read(id)).toMatchObject({ state: "running", progress: { tokens: 0 } });
    expect((await report(id, { tokens: [{ row: "STEERED" }] } as unknown as EngineReport)).status).toBe(400);
    await call(`/api/jobs/${id}`, { method: "DELETE", headers: user.headers });
    await expect.poll(() => stateOf(id), { timeout: 20_000 }).toBe("canceled");
    expect(await json(await report(id, all))).toEqual({ state: "canceled" });
  });
});

describe("an engine that does not call back", () => {
  const room = () => {
    const background = newBackground(config());
    return { ...background, end: background.service.end };
  };

  it("is asked, and its answer ends the job", async () => {
    const { id } = await accepted(FAULTS.keeps);
    expect(await pollEngine(room(), id)).toBe(true);
    const { state, result } = await read(id);
    expect([state, (result as typeof direct).STEERED]).toEqual(["succeeded", direct.STEERED]);
  });

  it("and knows nothing of the job, says so: then the job is tried again", async () => {
    const { id } = await accepted();
    expect(await pollEngine(room(), id)).toBe(false);
    expect(await stateOf(id)).toBe("running");
    await call(`/api/jobs/${id}`, { method: "DELETE", headers: user.headers });
  });
});
