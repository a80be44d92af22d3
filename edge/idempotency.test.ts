import { beforeAll, describe, expect, it } from "vitest";
import { idempotency } from "./jobs-schema.ts";
import { config, json, newUser, post, type TestUser } from "./test/worker/client.ts";

const MODEL = "tiller-tales";
let user: TestUser;
beforeAll(async () => {
  user = await newUser({ hourlyLimit: 100 });
});
const vector = Array.from({ length: 256 }, (_, i) => Math.sin(i));
const body = { modelId: MODEL, layerNumber: 1, hookType: "hook_resid_pre", vector, vectorDefaultSteerStrength: 4, vectorLabel: "x" };
const create = (key: string, changes: object = {}, headers: Record<string, string> = user.headers) =>
  post("/api/vector/new", { ...body, ...changes }, { ...headers, "idempotency-key": key });
const count = async () => (await json(await post("/api/vector/list-owned", { values: false }, user.headers))).total;

describe("a POST with an Idempotency-Key", () => {
  it("is done once, and answered twice with the same", async () => {
    const before = Number(await count());
    const [first, again] = [await create("one"), await create("one")];
    expect([first.status, again.status]).toEqual([200, 200]);
    expect([first.headers.get("idempotent-replayed"), again.headers.get("idempotent-replayed")]).toEqual([null, "true"]);
    expect(await again.json()).toEqual(await first.json());
    expect(await count()).toBe(before + 1);
  });

  it("is done once when two come at the same time", async () => {
    const before = Number(await count());
    const answers = await Promise.all(["two", "two", "two"].map((key) => create(key)));
    const statuses = answers.map(({ status }) => status);
    expect(statuses.filter((status) => status !== 200 && status !== 409)).toEqual([]);
    expect(await count()).toBe(before + 1);
    expect((await create("two")).status).toBe(200);
  });

  it("with another body or path is a conflict", async () => {
    await create("three");
    const other = await create("three", { vectorLabel: "y" });
    expect([other.status, (await json(other)).error]).toEqual([409, expect.stringMatching(/was used for another request/)]);
    expect((await post("/api/list/new", body, { ...user.headers, "idempotency-key": "three" })).status).toBe(409);
  });

  it("is a user's own", async () => {
    const other = await newUser();
    await create("four");
    const answer = await create("four", { vectorLabel: "mine" }, other.headers);
    expect([answer.status, answer.headers.get("idempotent-replayed")]).toEqual([200, null]);
  });

  it("never keeps a secret: a new API key is in the first answer alone", async () => {
    const make = async () =>
      (await post("/api/user/keys/new", { name: "x" }, { ...user.headers, "idempotency-key": "key" })).json() as Promise<{
        id: string;
        key: string;
      }>;
    const [first, again] = [await make(), await make()];
    expect([first.key.startsWith("sk-til-"), again.id, again.key]).toEqual([true, first.id, "shown once, in the first answer"]);
    const kept = await config().db.select().from(idempotency);
    expect(JSON.stringify(kept)).not.toContain(first.key);
  });

  it("makes one job", async () => {
    const steer = { ...{ prompt: "One day", modelId: MODEL, temperature: 0, n_tokens: 2, seed: 1, strength_multiplier: 1 } };
    const features = [{ modelId: MODEL, layer: "3-tales-directions", index: 0, strength: 3 }];
    const send = () =>
      post(
        "/api/steer",
        { ...steer, features },
        { ...user.headers, prefer: "respond-async", "idempotency-key": "a job".replace(" ", "-") },
      );
    const [first, again] = [await json(await send()), await json(await send())];
    expect(again.id).toBe(first.id);
  });

  it.each([
    ["without a key", {}, "x", 401, /needs an API key/],
    ["that is empty", undefined, "", 400, /1 to 255 visible/],
    ["that is too long", undefined, "x".repeat(256), 400, /1 to 255 visible/],
  ])("%s is refused", async (_, headers, key, status, words) => {
    const response = await create(key, {}, headers ?? user.headers);
    expect([response.status, (await json(response)).error]).toEqual([status, expect.stringMatching(words)]);
  });

  it("does not go with a stream, which cannot be answered again", async () => {
    const features = [{ modelId: MODEL, layer: "3-tales-directions", index: 0, strength: 3 }];
    const steer = {
      prompt: "One day",
      modelId: MODEL,
      features,
      temperature: 0,
      n_tokens: 2,
      seed: 1,
      strength_multiplier: 1,
      stream: true,
    };
    const response = await post("/api/steer", steer, { ...user.headers, "idempotency-key": "stream" });
    expect([response.status, (await json(response)).error]).toEqual([400, expect.stringMatching(/a stream cannot be answered again/)]);
  });
});
