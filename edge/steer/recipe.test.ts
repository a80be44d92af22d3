import { drizzle } from "drizzle-orm/d1";
import { beforeAll, describe, expect, it } from "vitest";
import { callWith, config, json, newUser, post, type TestUser } from "../test/worker/client.ts";

const MODEL = "tiller-tales";
let user: TestUser;
beforeAll(async () => {
  user = await newUser({ hourlyLimit: 1000 });
});

/** The database, noting every call to it: a statement's first word, or all of a batch's. */
function watched() {
  const calls: string[] = [];
  const client = config().db.$client;
  const words = new WeakMap<D1PreparedStatement, string>();
  const note = <T extends D1PreparedStatement>(statement: T, sql: string): T => {
    words.set(statement, sql.trim().split(/\s+/)[0]?.toLowerCase() ?? "");
    return new Proxy(statement, {
      get(target, name) {
        if (name === "bind") return (...values: unknown[]) => note(target.bind(...values), sql);
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        if (["all", "run", "first", "raw"].includes(String(name))) calls.push(words.get(target) ?? "");
        return value.bind(target);
      },
    });
  };
  const proxied = new Proxy(client, {
    get(target, name) {
      if (name === "prepare") return (sql: string) => note(target.prepare(sql), sql);
      if (name === "batch") {
        return (statements: D1PreparedStatement[]) => {
          calls.push("batch");
          return target.batch(statements);
        };
      }
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  return { db: drizzle(proxied), calls };
}

describe("what a steer asks of the database before the engine", () => {
  const vector = Array.from({ length: 256 }, (_, i) => Math.sin(i));
  const keep = async () => {
    const body = { modelId: MODEL, layerNumber: 2, hookType: "hook_resid_pre", vector, vectorDefaultSteerStrength: 4, vectorLabel: "v" };
    return (await json(await post("/api/vector/new", body, user.headers))).vector as unknown as { source: string; index: string };
  };
  const steer = async (body: object) => {
    const { db, calls } = watched();
    const whole = {
      prompt: "One day",
      modelId: MODEL,
      temperature: 0,
      n_tokens: 1,
      seed: 1,
      strength_multiplier: 1,
      features: [],
      ...body,
    };
    const response = await callWith({ db }, "/api/steer", { method: "POST", headers: user.headers, body: JSON.stringify(whole) });
    expect(response.status, await response.clone().text()).toBe(200);
    // Writes come after the answer: when a key was used, and the saved steer.
    return calls.filter((call) => call !== "insert" && call !== "update");
  };

  it("is who is calling, and in one more round trip everything that was kept", async () => {
    const [one, two] = [await keep(), await keep()];
    const feature = ({ source, index }: typeof one) => ({ modelId: MODEL, layer: source, index, strength: 3 });
    const mood = { modelId: MODEL, layer: "3-tales-directions", index: 0, strength: 3 };
    expect(await steer({ features: [mood] })).toEqual(["select"]);
    expect(await steer({ features: [mood, feature(one), feature(two)] })).toEqual(["select", "batch"]);
    const list = await json(await post("/api/list/new-with-features", { name: "x", features: [feature(one), mood] }, user.headers));
    expect(await steer({ listId: list.id, features: [feature(two)] })).toEqual(["select", "batch"]);
  });
});
