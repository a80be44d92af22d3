// Engines on Modal, behind a proxy that behaves as Modal's (test/node/modal-proxy.ts).
import { env } from "cloudflare:workers";
import { afterEach, beforeAll, beforeEach, describe, expect, it, type MockInstance, vi } from "vitest";
import type { GenerateRequest } from "../shared/protocol.ts";
import { ColdStart } from "./cold-start.ts";
import type { Config, EngineAddress } from "./config.ts";
import { cancelGeneration, generate, isHealthy, listModels, openGeneration, read } from "./engine.ts";
import { newModels } from "./models.ts";
import { FAULTS } from "./test/node/faults.ts";
import { MODAL_KEYS, type ModalCall } from "./test/node/modal-steps.ts";
import { callWith, config, frames, json, newUser, nextSeed, scripted, type TestUser } from "./test/worker/client.ts";

let user: TestUser;
beforeAll(async () => {
  user = await newUser({ hourlyLimit: 100 });
});

/** What the log says of every test; none may tell a secret. */
let log: MockInstance<typeof console.error>;
beforeEach(() => {
  log = vi.spyOn(console, "error").mockReturnValue(undefined);
});
afterEach(() => {
  expect(JSON.stringify(log.mock.calls)).not.toMatch(/w[ks]-/);
  vi.restoreAllMocks();
});

/** An engine whose first calls are answered by Modal, as the steps say: `generate-503-503`. */
function onModal(steps: string, changes: Partial<EngineAddress> = {}) {
  const name = `m${nextSeed()}`;
  const engine = { models: "*", url: `${env.MODAL_URL}/${name}/${steps}`, token: scriptedToken(), modal: MODAL_KEYS, ...changes };
  const calls = async (path?: string): Promise<ModalCall[]> => {
    const all: ModalCall[] = await (await fetch(`${env.MODAL_URL}/seen/${name}`)).json();
    return all.filter((call) => path === undefined || call.path === path);
  };
  return { engine, calls };
}
const scriptedToken = () => config().engines.find(({ models }) => models === "scripted*")?.token;

/** Tries again at once, for longer than any test takes. */
const eager = { coldStartMs: 60_000, coldStartWaitMs: 1 };
/** Leaves an engine time to answer before its silence means something. */
const calm = { coldStartMs: 60_000, coldStartWaitMs: 100 };
/** Gives up soon. */
const impatient = { coldStartMs: 250, coldStartWaitMs: 5 };
/** Waits for longer than any test takes, so that only something else can end it. */
const patient = { coldStartMs: 600_000, coldStartWaitMs: 300_000 };
const limits = (changes: Partial<Config>): Config => ({ ...config(), ...changes });

const request = (prompt = "hello"): GenerateRequest => ({
  ...{ model: "scripted", prompt, rows: [{ name: "DEFAULT", edits: [] }], max_tokens: 2, steer_special_tokens: true },
  sampling: {
    ...{ temperature: 1, top_p: 1, top_k: 0, frequency_penalty: 0, presence_penalty: 0, seed: nextSeed(), stop: [], logprobs: 0 },
  },
});
const never = new AbortController().signal;
const run = (engine: EngineAddress, changes: Partial<Config>, prompt?: string) => generate(engine, limits(changes), request(prompt), never);
const steer = (engine: EngineAddress, changes: Partial<Config>, body: object = {}, signal = never) =>
  callWith({ engines: [engine], ...changes }, "/api/steer", {
    method: "POST",
    body: JSON.stringify({ ...scripted(), ...body }),
    headers: { ...user.headers },
    signal,
  });

it("carries the proxy key with every request, and our own token", async () => {
  const { engine, calls } = onModal("none");
  await listModels(engine, config());
  await read(engine, config(), "/tokenize", { model: "scripted", text: "hi" }, never);
  await run(engine, {});
  await cancelGeneration(engine, config(), "cm0");
  expect(await isHealthy(engine)).toBe(true);
  const all = await calls();
  expect(all.map(({ path }) => path)).toEqual(["/models", "/tokenize", "/generate", "/cancel", "/health"]);
  const { key, secret } = MODAL_KEYS;
  const sent = { "modal-key": key, "modal-secret": secret, authorization: `Bearer ${scriptedToken()}` };
  for (const { headers } of all) expect(headers).toMatchObject(sent);
});

describe("while a replica starts", () => {
  it.each(["503-503", "502-504"])("tries again until one takes the request (%s), and then never again", async (steps) => {
    const { engine, calls } = onModal(`generate-${steps}`);
    const { rows } = await run(engine, eager);
    expect(rows.map(({ text }) => text)).toEqual([" default0 default1"]);
    expect(await calls()).toHaveLength(3);
  });

  it("gives up when the time for it is over, and says what it is and when to try again", async () => {
    const { engine } = onModal("generate-503-ever");
    const response = await steer(engine, impatient);
    expect([response.status, await json(response)]).toMatchObject([
      503,
      { code: "engine_unavailable", message: "The model is starting up (cold start). Try again in a moment." },
    ]);
    expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(response.headers.get("x-limit-remaining")).toBe("100");
    expect(log).toHaveBeenCalledExactlyOnceWith(expect.stringContaining("no replica has started"));
  });

  it("says the same when the time for the whole request is over first", async () => {
    const { engine } = onModal("generate-503-ever");
    await expect(run(engine, { ...patient, engineTimeoutMs: 1000 })).rejects.toMatchObject({
      ...{ code: "engine_unavailable", message: expect.stringContaining("cold start") },
    });
  });

  it("stops at once when its caller leaves", async () => {
    const { engine, calls } = onModal("generate-503-ever");
    const caller = new AbortController();
    const work = generate(engine, limits(patient), request(), caller.signal);
    const outcome = work.catch((error: unknown) => error);
    await expect.poll(() => calls()).toHaveLength(1);
    caller.abort(new Error("gone"));
    expect(await outcome).toMatchObject({ message: "gone" });
  });

  it("takes a silent list of models for a cold start, and a silent generation for a slow one", async () => {
    const cold = new ColdStart();
    const [models, generation] = [onModal("models-silence-ever").engine, onModal("generate-silence-ever").engine];
    await expect(listModels(models, limits(impatient), never, cold)).rejects.toMatchObject({
      ...{ code: "engine_unavailable", message: expect.stringContaining("cold start") },
    });
    await cold.noticed;
    expect(cold.waitedMs).toBeGreaterThan(0);
    await expect(run(generation, { ...impatient, engineTimeoutMs: 200 })).rejects.toMatchObject({ code: "engine_timeout" });
  });

  it("lists the models without it, and knows them for an hour", async () => {
    const [asleep, awake] = [onModal("models-503-ever"), onModal("none")];
    const at = { now: 1_000_000 };
    const models = newModels(limits({ ...patient, coldStartWaitMs: 2, engines: [awake.engine, asleep.engine] }), () => at.now);
    await models.get("scripted");
    at.now += 3_500_000;
    expect((await models.list()).map(({ id }) => id)).toContain("scripted");
    expect((await asleep.calls()).length).toBeGreaterThan(0);
    expect(await awake.calls()).toHaveLength(1);
    await models.get("scripted");
    expect(await awake.calls()).toHaveLength(2);
  });

  it("is not waited for where a gateway is not Modal's", async () => {
    const { engine, calls } = onModal("generate-503-ever");
    const { modal: _, ...elsewhere } = engine;
    await expect(run(elsewhere, eager)).rejects.toMatchObject({ code: "engine_unavailable", message: expect.not.stringContaining("cold") });
    expect(await calls()).toHaveLength(1);
  });
});

describe("what an engine has answered is not asked again", () => {
  it.each([
    ["that it is full", FAULTS.refuses, "engine_busy"],
    ["that the prompt is too long", FAULTS.tooLong, "prompt_too_long"],
    ["that our token is wrong", FAULTS.unauthorized, "engine_failed"],
    ["nonsense", FAULTS.garbage, "engine_failed"],
  ])("%s", async (_, prompt, code) => {
    const { engine, calls } = onModal("none");
    await expect(run(engine, eager, prompt)).rejects.toMatchObject({ code });
    expect(await calls()).toHaveLength(1);
  });

  it("a stream that broke", async () => {
    const { engine, calls } = onModal("none");
    const events = await openGeneration(engine, limits(eager), request(FAULTS.endsEarly), never);
    await expect(Array.fromAsync(events)).rejects.toMatchObject({ code: "engine_failed" });
    expect(await calls()).toHaveLength(1);
  });
});

describe("a call of more than 150 seconds", () => {
  it("is waited for where Modal says, with the same keys, and not sent again", async () => {
    const { engine, calls } = onModal("generate-303-303-503");
    expect((await run(engine, eager)).rows).toHaveLength(1);
    const [first, ...later] = await calls();
    expect(first?.method).toBe("POST");
    expect(later.map(({ method, body }) => [method, body])).toEqual(Array(3).fill(["GET", ""]));
    const { "modal-key": key, "modal-secret": secret, authorization, accept } = first?.headers ?? {};
    for (const { headers } of later) {
      expect(headers).toMatchObject({ "modal-key": key, "modal-secret": secret, authorization, accept });
      expect(headers).not.toHaveProperty("content-type");
    }
  });

  it.each([
    ["is not followed to another origin", "generate-away", 1],
    ["is not followed for ever", "generate-303-ever", 21],
  ])("%s", async (_, steps, count) => {
    const { engine, calls } = onModal(steps);
    await expect(run(engine, eager)).rejects.toMatchObject({ code: "engine_failed", cause: expect.stringContaining("Modal redirected") });
    expect(await calls()).toHaveLength(count);
  });
});

it("tells the log, and nobody else, that Modal refused its key", async () => {
  const { engine, calls } = onModal("none", { models: "script*", modal: { key: "wk-other", secret: "ws-other" } });
  const response = await steer(engine, eager);
  const answer = await json(response);
  expect([response.status, answer.code, answer.message]).toEqual([
    ...[502, "engine_failed", "The engine that runs this model failed. Try again."],
  ]);
  expect(log).toHaveBeenCalledExactlyOnceWith(expect.stringContaining("Modal refused the proxy key of the engine of script*"));
  expect(await calls()).toHaveLength(1);
});

describe("the caller of a steer", () => {
  it.each(["models", "generate"])("reads in a header how long it waited, when %s had to", async (call) => {
    const cold = await steer(onModal(`${call}-503`).engine, calm);
    expect(cold.status).toBe(200);
    expect(Number(cold.headers.get("x-tiller-cold-start"))).toBeGreaterThan(50);
    expect(cold.headers.get("x-limit-remaining")).toBe((await json(cold)).limit);
    const warm = await steer(onModal("none").engine, {});
    expect([warm.status, warm.headers.get("x-tiller-cold-start")]).toEqual([200, null]);
  });

  it("may leave while it waits", async () => {
    const { engine, calls } = onModal("models-503-ever");
    const caller = new AbortController();
    const response = steer(engine, patient, {}, caller.signal);
    await expect.poll(() => calls()).toHaveLength(1);
    caller.abort();
    expect((await response).status).toBe(499);
  });

  it("hears of it in a stream while the engine is still starting", async () => {
    const response = await steer(onModal("models-503-ever").engine, patient, { stream: true });
    expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/event-stream"]);
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    expect(new TextDecoder().decode((await reader.read()).value)).toBe(": the model is starting (cold start)\n\n");
    await reader.cancel();
  });

  it.each(["models", "generate"])("gets the frames that come then, when %s had to wait", async (call) => {
    const response = await steer(onModal(`${call}-503`).engine, calm, { stream: true });
    const text = await response.clone().text();
    expect(text).toMatch(/^: the model is starting \(cold start\)\n\n/);
    expect(text.split("cold start")).toHaveLength(2);
    const all = await frames(response);
    expect(all.map(([event]) => event)).toEqual(all.map(() => "message"));
    expect(all.at(-1)?.[1]).toMatchObject({ STEERED: " steered0 steered1 steered2", id: expect.any(String) });
  });

  it.each([
    ["no replica has started", "models-503-ever", impatient, FAULTS.hangs, "engine_unavailable"],
    ["the engine refuses", "models-503", eager, FAULTS.tooLong, "prompt_too_long"],
  ] as const)("gets an error event in the stream when %s", async (_, steps, changes, prompt, code) => {
    const response = await steer(onModal(steps).engine, changes, { stream: true, prompt });
    expect(response.status).toBe(200);
    const all = await frames(response);
    expect(all).toEqual([["error", expect.objectContaining({ code, requestId: response.headers.get("x-request-id") })]]);
  });

  it("uses no quota for a stream that never came", async () => {
    const other = await newUser({ hourlyLimit: 5 });
    const init = (prompt?: string) => ({
      ...{
        method: "POST",
        headers: { ...other.headers },
        body: JSON.stringify({ ...scripted(), stream: true, ...(prompt && { prompt }) }),
      },
    });
    const { engine } = onModal("generate-503-ever");
    await (await callWith({ engines: [engine], ...impatient }, "/api/steer", init())).text();
    const next = await callWith({ engines: [onModal("none").engine] }, "/api/steer", init());
    expect(next.headers.get("x-limit-remaining")).toBe("4");
    await next.text();
  });
});
