import { beforeAll, describe, expect, it, vi } from "vitest";
import { FAULTS } from "./test/node/faults.ts";
import { callWith, config, json, NO_ENGINE, newUser, nextSeed, scripted, type TestUser } from "./test/worker/client.ts";

let user: TestUser;
beforeAll(async () => {
  user = await newUser({ hourlyLimit: 50 });
});
const steer = (body: object, changes = {}) =>
  callWith(changes, "/api/steer", { method: "POST", body: JSON.stringify(body), headers: { ...user.headers } });

describe("an engine's failure becomes one answer, and what is not the caller's fault costs no quota", () => {
  it.each([
    ["it is full", FAULTS.refuses, 503, "engine_busy", "50"],
    ["it does not take our token", FAULTS.unauthorized, 502, "engine_failed", "50"],
    ["it answers no JSON", FAULTS.garbage, 502, "engine_failed", "50"],
    ["it answers other JSON", FAULTS.wrongShape, 502, "engine_failed", "50"],
    ["it leaves out the receipts", FAULTS.noReceipts, 502, "engine_failed", "50"],
    ["it leaves out a row", FAULTS.missingRow, 502, "engine_failed", "50"],
    ["the prompt does not fit", FAULTS.tooLong, 400, "prompt_too_long", "49"],
  ])("%s", async (_, prompt, status, code, left) => {
    const log = vi.spyOn(console, "error").mockReturnValue(undefined);
    const response = await steer(scripted({ prompt }));
    const answer = await json(response);
    expect([response.status, answer.code]).toEqual([status, code]);
    expect(response.headers.get("x-limit-remaining")).toBe(left);
    if (status === 503) expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
    if (status >= 500) expect(log).toHaveBeenCalledExactlyOnceWith(expect.stringContaining(String(answer.requestId)));
    for (const [line] of log.mock.calls) expect(line).not.toContain(prompt);
  });

  it("it takes too long", async () => {
    vi.spyOn(console, "error").mockReturnValue(undefined);
    const response = await steer(scripted({ prompt: FAULTS.hangs }), { engineTimeoutMs: 300 });
    expect([response.status, (await json(response)).code, response.headers.get("x-limit-remaining")]).toEqual([
      504,
      "engine_timeout",
      "49",
    ]);
  });

  it("nobody is there", async () => {
    vi.spyOn(console, "error").mockReturnValue(undefined);
    const response = await steer(scripted(), { engines: NO_ENGINE });
    expect([response.status, (await json(response)).code]).toEqual([503, "engine_unavailable"]);
    expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(response.headers.get("x-limit-remaining")).toBe("49");
  });
});

describe("the first row of ENGINES whose pattern fits a model serves it", () => {
  const rows = (...patterns: string[]) => {
    const good = config().engines.find(({ models }) => models === "scripted*");
    return {
      engines: patterns.map((models, i) => ({ ...(i === 0 && good !== undefined ? good : NO_ENGINE[0]), models })) as typeof NO_ENGINE,
    };
  };
  it.each([
    ["script*", 200],
    ["*ted", 200],
    ["s*d", 200],
    ["scripted", 200],
    ["*", 200],
    ["script", 503],
    ["s.ripted", 503],
    ["SCRIPTED", 503],
  ])("%s: %i", async (pattern, status) => {
    vi.spyOn(console, "error").mockReturnValue(undefined);
    expect((await steer(scripted({ seed: nextSeed() }), rows(pattern, "*"))).status).toBe(status);
  });

  it("none: the model is not there", async () => {
    const response = await steer(scripted(), rows("other"));
    expect([response.status, (await json(response)).message]).toEqual([404, "There is no model 'scripted'. The models are: none."]);
  });
});
