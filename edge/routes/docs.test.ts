import { describe, expect, it, vi } from "vitest";
import { SteerRequest } from "../steer/contract.ts";
import { call, callWith, config, json, NO_ENGINE } from "../test/worker/client.ts";

interface Document {
  openapi: string;
  paths: Record<string, Record<string, { responses: Record<string, unknown>; requestBody?: unknown }>>;
  components: { schemas: Record<string, { properties: Record<string, Record<string, unknown>>; required?: string[] }> };
}
const load = async () => (await (await call("/openapi.json")).json()) as Document;

const DOCUMENTED = [
  ...["steer", "steer-chat", "steer-load", "steer/presets", "tokenize", "cossim", "search-all", "search-topk-by-token"],
  ...[
    "vector/new",
    "vector/get",
    "vector/list-owned",
    "vector/delete",
    "vector/update",
    "vector/upload",
    "vector/export",
    "vector/derive",
    "vector/combine",
  ],
  ...["activation/new", "activation/source", "activation/get", "activation/upload-batch", "activation/load"],
  ...["feature/{modelId}/{layer}/{index}", "features", "features-offset", "feature/upload-batch"],
  ...["explanation/search", "explanation/search-model", "explanation/search-release", "explanation/search-all"],
  ...["explanation/new", "explanation/vote", "explanation/delete", "explanation/{id}"],
  ...["model/list", "model/get", "model/new", "source-set/new", "source-set/{modelId}/{name}", "models"],
  ...["list/new", "list/new-with-features", "list/list", "list/get", "list/add-features", "list/edit-feature", "list/remove"],
  ...["list/update", "list/delete", "list/comment/new", "list/comment/delete"],
  ...["user/api-key", "user/keys/new", "user/keys/list", "user/keys/revoke", "user/usage"],
  ...["admin/user/new", "admin/user/list", "admin/user/update", "admin/user/revoke-keys"],
  ...["jobs", "jobs/{id}", "jobs/{id}/events", "webhooks", "webhooks/{id}", "webhooks/deliveries", "webhooks/deliveries/{id}"],
  ...["sweeps", "sweeps/{id}"],
  ...["share/update", "share/delete", "share/list-owned", "share/list"],
].map((path) => `/api/${path}`);

describe("the OpenAPI document", () => {
  it("describes every call and the errors of each", async () => {
    const { openapi, paths } = await load();
    expect(openapi).toBe("3.1.0");
    // Neuronpedia's calls about steering, vectors, features, lists, models and accounts, and ours.
    for (const path of DOCUMENTED) expect(paths).toHaveProperty([path]);
    for (const [path, methods] of Object.entries(paths))
      for (const [method, { responses }] of Object.entries(methods))
        expect([path, method, Object.keys(responses).some((status) => status >= "400")]).toEqual([path, method, true]);
    expect(Object.keys(paths["/api/steer"]?.post?.responses ?? {})).toEqual([
      "200",
      "202",
      "400",
      "401",
      "404",
      "409",
      "413",
      "422",
      "429",
      "500",
      "502",
      "503",
      "504",
    ]);
  });

  it("has the limits and defaults that the validator has, for every field", async () => {
    const { properties, required } = (await load()).components.schemas.SteerRequest ?? { properties: {} };
    expect(Object.keys(properties)).toEqual(Object.keys(SteerRequest.shape));
    expect(required).toEqual(["prompt", "modelId", "features", "temperature", "n_tokens", "seed", "strength_multiplier"]);
    expect(properties.n_tokens).toMatchObject({ type: "integer", minimum: 1, maximum: 256 });
    const defaults = SteerRequest.parse({
      prompt: "a",
      modelId: "b",
      features: [],
      temperature: 1,
      n_tokens: 1,
      seed: 1,
      strength_multiplier: 1,
    });
    for (const [name, value] of Object.entries(defaults)) {
      if (!required?.includes(name)) expect([name, properties[name]?.default]).toEqual([name, value]);
    }
  });

  it("refers only to what it contains", async () => {
    const document = await load();
    for (const [, name] of JSON.stringify(document).matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
      expect(document.components.schemas).toHaveProperty(name as string);
    }
  });
});

describe("the documentation page", () => {
  it("loads everything from this host, and may run nothing else", async () => {
    const response = await call("/docs/");
    expect(response.headers.get("content-security-policy")).toMatch(/script-src 'self';/);
    const page = await response.text();
    const addresses = [...page.matchAll(/(?:href|src)="([^"]+)"/g)].map(([, address]) => address as string);
    expect(addresses).toContain("/assets/swagger-ui-bundle.js");
    for (const address of addresses) {
      const file = await call(address);
      expect([address, file.status]).toEqual([address, 200]);
      expect(file.headers.get("x-request-id")).not.toBeNull();
      await file.body?.cancel();
    }
  });

  it("has no other files", async () => {
    const response = await call("/assets/none.js");
    expect([response.status, (await json(response)).code]).toEqual([404, "not_found"]);
  });
});

describe("health", () => {
  it("is ok while the database and every engine answer", async () => {
    // An engine that is busy for seconds on a full machine counts as one that does not answer: it is asked again.
    const health = async () => (await call("/health")).json();
    await expect.poll(health).toMatchObject({ status: "ok", edge: "ok", database: true });
    expect((await call("/health")).status).toBe(200);
  });

  it("is degraded while an engine does not, and tells no address", async () => {
    vi.spyOn(console, "error").mockReturnValue(undefined);
    const health = () => callWith({ engines: [...config().engines, ...NO_ENGINE] }, "/health");
    const engines = [{ ok: true }, { ok: true }, { models: "*", ok: false }];
    await expect.poll(async () => (await health()).json()).toMatchObject({ status: "degraded", engines });
    const response = await health();
    expect(response.status).toBe(503);
    const text = await response.text();
    expect(text).not.toContain("127.0.0.1");
  });
});

it("lists the models with their sources and the limits", async () => {
  const answer = (await (await call("/api/models")).json()) as { models: { id: string }[]; limits: unknown };
  expect(answer.models.find(({ id }) => id === "scripted")).toMatchObject({
    width: 8,
    chatTemplate: false,
    sources: [
      {
        id: "2-scripted",
        hookName: "blocks.2.hook_resid_pre",
        width: 4,
        architecture: "directions",
        labelledFeatures: [{ index: 0, label: "first", strength: 5 }],
      },
    ],
  });
  expect(answer.limits).toEqual({
    promptChars: 2048,
    nTokens: 256,
    strengthMultiplier: 10,
    steersPerHour: { withKey: 100, anonymous: 20 },
  });
});
