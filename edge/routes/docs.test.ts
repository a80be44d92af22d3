import { describe, expect, it, vi } from "vitest";
import { SteerRequest } from "../steer/contract.ts";
import { call, callWith, config, json, NO_ENGINE } from "../test/worker/client.ts";

interface Document {
  openapi: string;
  paths: Record<string, Record<string, { responses: Record<string, unknown>; requestBody?: unknown }>>;
  components: { schemas: Record<string, { properties: Record<string, Record<string, unknown>>; required?: string[] }> };
}
const load = async () => (await (await call("/openapi.json")).json()) as Document;

describe("the OpenAPI document", () => {
  it("describes every call and the errors of each", async () => {
    const { openapi, paths } = await load();
    expect(openapi).toBe("3.1.0");
    expect(Object.keys(paths).sort()).toEqual([
      "/api/activation/new",
      "/api/activation/source",
      "/api/models",
      "/api/search-all",
      "/api/search-topk-by-token",
      "/api/steer",
      "/api/steer-chat",
      "/api/steer-load",
      "/api/tokenize",
      "/api/vector/delete",
      "/api/vector/get",
      "/api/vector/list-owned",
      "/api/vector/new",
      "/health",
    ]);
    expect(Object.keys(paths["/api/steer"]?.post?.responses ?? {})).toEqual([
      "200",
      "400",
      "401",
      "404",
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
    const response = await call("/health");
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ status: "ok", edge: "ok", database: true });
  });

  it("is degraded while an engine does not, and tells no address", async () => {
    vi.spyOn(console, "error").mockReturnValue(undefined);
    const response = await callWith({ engines: [...config().engines, ...NO_ENGINE] }, "/health");
    expect(response.status).toBe(503);
    const text = await response.text();
    expect(JSON.parse(text)).toMatchObject({ status: "degraded", engines: [{ ok: true }, { ok: true }, { models: "*", ok: false }] });
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
