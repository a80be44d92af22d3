// Whatever is sent, every call answers in JSON and none fails: 2xx, or a 4xx that says what is wrong.
import { beforeAll, describe, expect, it } from "vitest";
import { call, newUser, type TestUser } from "../test/worker/client.ts";

interface Schema {
  readonly $ref?: string;
  readonly properties?: Readonly<Record<string, unknown>>;
}
interface Document {
  readonly paths: Readonly<
    Record<string, Readonly<Record<string, { requestBody?: { content: Readonly<Record<string, { schema: Schema }>> } }>>>
  >;
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
}

/** Good values of fields that many calls have: what is tried is wrong in one of them alone. */
const GOOD: Readonly<Record<string, unknown>> = {
  ...{
    modelId: "tiller-tales",
    source: "3-tales-res",
    layer: "3-tales-res",
    index: 7,
    prompt: "One day",
    text: "a dog",
    customText: "a dog",
  },
  ...{ features: [], temperature: 0, n_tokens: 1, seed: 1, strength_multiplier: 1, steer_special_tokens: true, name: "x", query: "happy" },
  ...{
    feature: { modelId: "tiller-tales", layer: "3-tales-res", index: "7" },
    sourceSet: "tales-res",
    selectedLayers: [],
    sortIndexes: [],
  },
  ...{
    layers: ["3-tales-res"],
    releaseName: "tales-res",
    targetModelId: "tiller-tales",
    targetSourceId: "3-tales-res",
    type: "NEURONPEDIA",
  },
  ...{ defaultChatMessages: [{ role: "user", content: "Hi" }], steeredChatMessages: [{ role: "user", content: "Hi" }] },
  ...{
    id: "none",
    listId: "none",
    commentId: "none",
    explanationId: "none",
    steerOutputId: "none",
    userId: "none",
    vote: 1,
    format: "json",
  },
  ...{ description: "d", layerNumber: 1, hookType: "hook_resid_pre", vectorLabel: "x", vectorDefaultSteerStrength: 1, vector: [1, 2] },
};
const BAD: readonly unknown[] = [
  ...[null, -1, 1.5, 1e300, 2 ** 53, "", "x", "\u0000", "\ud800", "'; DROP TABLE users; --", "%_\\", true, [], [null], {}, [[]]],
  ...["x".repeat(20_000), Array(500).fill(0), { toString: 1 }, { __proto__: null, constructor: "x" }],
];
const BODIES = ["", "{", "[]", "null", "1", '"x"', "\u0000", "{}", '{"__proto__":{"a":1}}', "[".repeat(5000)];

let user: TestUser;
let document: Document;
beforeAll(async () => {
  user = await newUser({ hourlyLimit: 1_000_000 });
  document = await (await call("/openapi.json")).json();
});

const send = async (path: string, body: string): Promise<void> => {
  const headers = { ...user.headers, "content-type": "application/json" };
  const response = await call(path, { method: "POST", headers, body });
  const text = await response.text();
  const what = `${path} ${body.slice(0, 120)}: ${response.status} ${text.slice(0, 200)}`;
  expect(response.status, what).toBeLessThan(500);
  if (response.status < 400) return;
  const { error, message, code, requestId } = JSON.parse(text) as Record<string, unknown>;
  expect([typeof error, message, typeof code, typeof requestId], what).toEqual(["string", error, "string", "string"]);
};
const posts = () => Object.entries(document.paths).flatMap(([path, { post }]) => (post === undefined ? [] : [{ path, post }]));
const fieldsOf = (schema: Schema | undefined): string[] => {
  const named = schema?.$ref === undefined ? schema : document.components.schemas[schema.$ref.split("/").at(-1) ?? ""];
  return Object.keys(named?.properties ?? {});
};

describe("a call", () => {
  it("answers a body that is none", async () => {
    expect(posts().length).toBeGreaterThan(50);
    for (const { path } of posts()) for (const body of BODIES) await send(path, body);
  });

  it("answers a body with one field that is wrong", async () => {
    for (const { path, post } of posts()) {
      const fields = fieldsOf(post.requestBody?.content["application/json"]?.schema);
      const good = Object.fromEntries(Object.entries(GOOD).filter(([name]) => fields.includes(name)));
      for (const field of fields) for (const value of BAD) await send(path, JSON.stringify({ ...good, [field]: value }));
    }
  });

  it("answers an address that is none", async () => {
    for (const path of [
      "/api/feature/%00/%00/%00",
      "/api/feature/a/b/c",
      "/api/source-set/%F0%9F/x",
      "/api/explanation/%00",
      "/oembed?url=http://edge.test/%00",
      "/%00/3-x/1",
      "/steer/%00",
      "/list/%00",
      "/test/%FF",
    ]) {
      const response = await call(path);
      expect([path, response.status < 500], await response.text()).toEqual([path, true]);
    }
  });
});
