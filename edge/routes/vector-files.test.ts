import { beforeAll, describe, expect, it } from "vitest";
import type { z } from "zod";
import { EXPORTS, writeVectorFile } from "../../shared/vector-files/index.ts";
import { call, json, newUser, post, type TestUser } from "../test/worker/client.ts";
import type { CreatedVector } from "../vectors/contract.ts";

const MODEL = "tiller-tales";
const WIDTH = 256;
type Kept = z.infer<typeof CreatedVector>["vector"];
let user: TestUser;
let other: TestUser;
beforeAll(async () => {
  [user, other] = [await newUser({ hourlyLimit: 1000 }), await newUser()];
});

const values = Float64Array.from({ length: WIDTH }, (_, i) => Math.sin(i) / 3);
const out = (layer: number, more: object = {}) => ({
  ...{ name: `v${layer}`, layer, hook: "resid_post" as const, values: values.map((value) => value * (layer + 1)) },
  ...{ label: "x", modelId: MODEL, strength: 4, ...more },
});
const fileOf = (format: (typeof EXPORTS)[number], layers: readonly number[]) =>
  writeVectorFile(
    format,
    layers.map((layer) => out(layer)),
  ).bytes;
/** As a browser or curl -F sends it. */
const upload = (
  bytes: Uint8Array<ArrayBuffer>,
  name: string,
  fields: Record<string, string> = {},
  headers: Record<string, string> = user.headers,
) => {
  const form = new FormData();
  for (const [key, value] of Object.entries({ modelId: MODEL, ...fields })) form.set(key, value);
  form.set("file", new File([bytes], name));
  return call("/api/vector/upload", { method: "POST", body: form, headers });
};
const kept = async (response: Response): Promise<Kept[]> => {
  const answer = (await response.json()) as { vectors?: { vector: Kept }[] };
  expect([response.status, JSON.stringify(answer).slice(0, 300)]).toEqual([200, expect.anything()]);
  return (answer.vectors ?? []).map(({ vector }) => vector);
};
const refusal = async (response: Response) => [response.status, (await json(response)).error];
const at = { layerNumber: "3", hookType: "hook_resid_pre" };

describe("a file of a vector", () => {
  it.each(["npy", "json", "safetensors"] as const)("in %s is kept to the last bit, and steers", async (format) => {
    const fields = { vectorLabel: "From a file", description: "d", vectorDefaultSteerStrength: "7", visibility: "private" };
    const [vector] = await kept(await upload(fileOf(format, [2]), `jedi.${format}`, format === "npy" ? { ...fields, ...at } : fields));
    expect(vector).toMatchObject({ label: "From a file", defaultSteerStrength: 7, visibility: "private" });
    expect(vector?.source).toBe(format === "npy" ? "3-neuronpedia-resid-pre" : "2-neuronpedia-resid-post");
    expect(vector?.values).toEqual(Array.from(values, (value) => value * 3));
    const feature = { modelId: MODEL, layer: vector?.source, index: vector?.index, strength: 3 };
    const body = { prompt: "One day", modelId: MODEL, features: [feature], temperature: 0, n_tokens: 2, seed: 1, strength_multiplier: 1 };
    expect((await post("/api/steer", body, user.headers)).status).toBe(200);
  });

  it("is called as the file when nothing else is said", async () => {
    const [vector] = await kept(await upload(fileOf("npy", [0]), "my.jedi.npy", at));
    expect([vector?.label, vector?.defaultSteerStrength, vector?.visibility]).toEqual(["my.jedi", 10, "unlisted"]);
  });

  it("may come as JSON with base64 too", async () => {
    const file = btoa(String.fromCharCode(...fileOf("npy", [1])));
    const body = { modelId: MODEL, file, fileName: "a.npy", layerNumber: 3, hookType: "hook_resid_post" };
    const [vector] = await kept(await post("/api/vector/upload", body, user.headers));
    expect(vector?.values).toEqual(Array.from(values, (value) => value * 2));
  });

  it("of plain numbers is read as one", async () => {
    const [vector] = await kept(await upload(Uint8Array.from(new TextEncoder().encode(values.join(" "))), "numbers.txt", at));
    expect(vector?.values).toEqual(Array.from(values));
  });
});

describe("a file of several vectors", () => {
  it("in GGUF becomes one vector for each layer, or the one that is asked for", async () => {
    const file = fileOf("gguf", [0, 1, 4]);
    const all = await kept(await upload(file, "cat.gguf"));
    expect(all.map(({ source, label }) => [source, label])).toEqual([0, 1, 4].map((layer) => [`${layer}-neuronpedia-resid-post`, "cat"]));
    expect(all[2]?.values).toEqual(Array.from(values, (value) => Math.fround(value * 5)));
    const [one, ...others] = await kept(await upload(file, "cat.gguf", { layerNumber: "1" }));
    expect([one?.source, others.length]).toEqual(["1-neuronpedia-resid-post", 0]);
    expect(await refusal(await upload(file, "cat.gguf", { layerNumber: "2" }))).toEqual([
      400,
      expect.stringMatching(/no vector for layer 2; it has direction\.0, direction\.1/),
    ]);
    expect(await refusal(await upload(file, "cat.gguf", { layerNumber: "1", hookType: "hook_resid_pre" }))).toEqual([
      400,
      expect.stringMatching(/acts at blocks\.1\.hook_resid_post/),
    ]);
  });

  it("without layers asks which one is meant", async () => {
    const file = fileOf("npy", [0, 1]);
    expect(await refusal(await upload(file, "two.npy", at))).toEqual([
      400,
      expect.stringMatching(/2 vectors: choose one with tensor. They are row 0, row 1/),
    ]);
    const [vector] = await kept(await upload(file, "two.npy", { ...at, tensor: "row 1" }));
    expect(vector?.values).toEqual(Array.from(values, (value) => value * 2));
    expect(await refusal(await upload(file, "two.npy", { ...at, tensor: "row 2" }))).toEqual([
      400,
      expect.stringMatching(/no vector 'row 2'/),
    ]);
  });

  it("is kept whole or not at all", async () => {
    const visitor = await newUser();
    const file = fileOf("gguf", [1, 9]);
    expect(await refusal(await upload(file, "cat.gguf", {}, visitor.headers))).toEqual([
      400,
      expect.stringMatching(/layerNumber must be a layer/),
    ]);
    expect(((await json(await post("/api/vector/list-owned", {}, visitor.headers))) as { total?: number }).total).toBe(0);
  });
});

describe("a file that cannot be kept", () => {
  it.each([
    ["without a place", () => upload(fileOf("npy", [0]), "a.npy"), 400, /layerNumber and hookType are required fields here/],
    [
      "of another width",
      () => upload(writeVectorFile("npy", [out(0, { values: new Float64Array(8).fill(1) })]).bytes, "a.npy", at),
      400,
      /8 values; tiller-tales needs exactly 256/,
    ],
    ["of nothing", () => upload(new Uint8Array(), "a.npy", at), 400, /The file is empty/],
    ["cut off", () => upload(fileOf("npy", [0]).slice(0, 500), "a.npy", at), 400, /truncated/],
    ["of zeros", () => upload(writeVectorFile("npy", [out(0, { values: new Float64Array(WIDTH) })]).bytes, "a.npy", at), 400, /is zero/],
    ["of an unknown model", () => upload(fileOf("npy", [0]), "a.npy", { ...at, modelId: "none" }), 404, /no model 'none'/],
    [
      "without a file",
      () => call("/api/vector/upload", { method: "POST", body: new FormData(), headers: user.headers }),
      400,
      /file is a required field/,
    ],
    ["that is no base64", () => post("/api/vector/upload", { modelId: MODEL, file: "%%%" }, user.headers), 400, /base64/],
    ["without a key", () => upload(fileOf("npy", [0]), "a.npy", at, {}), 401, /requires authorization/],
    ["larger than 8 MB", () => upload(new Uint8Array(8_000_001), "a.npy", at), 413, /too large: the limit is 8000000 bytes/],
  ])("%s is refused with what is allowed", async (_, send, status, words) => {
    expect(await refusal(await send())).toEqual([status, expect.stringMatching(words)]);
  });
});

describe("an export", () => {
  const ask = (format: string, vectors: Kept[], headers: Record<string, string> = user.headers) =>
    post("/api/vector/export", { format, vectors: vectors.map(({ modelId, source, index }) => ({ modelId, source, index })) }, headers);

  it.each(EXPORTS)("in %s is read again as the same vector", async (format) => {
    const [vector] = (await kept(await upload(fileOf("safetensors", [2]), "a.safetensors"))) as [Kept];
    const response = await ask(format, [vector]);
    expect(response.headers.get("content-disposition")).toBe(`attachment; filename="vector-${vector.index}.${format}"`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    const [again] = await kept(
      await upload(bytes, `a.${format}`, format === "npy" ? { layerNumber: "2", hookType: "hook_resid_post" } : {}),
    );
    expect(again?.source).toBe(vector.source);
    expect(again?.values).toEqual(format === "gguf" ? vector.values.map(Math.fround) : vector.values);
  });

  it("of several layers is one control vector", async () => {
    const vectors = await kept(await upload(fileOf("gguf", [1, 3]), "cat.gguf"));
    const bytes = new Uint8Array(await (await ask("gguf", vectors)).arrayBuffer());
    expect((await kept(await upload(bytes, "again.gguf"))).map(({ source }) => source)).toEqual(vectors.map(({ source }) => source));
  });

  it("is of vectors that the caller may read, in a format that there is", async () => {
    const vectors = await kept(await upload(fileOf("safetensors", [2]), "a.safetensors", { visibility: "private" }));
    expect((await ask("json", vectors, other.headers)).status).toBe(404);
    expect((await ask("xml", vectors)).status).toBe(400);
    expect((await ask("json", [])).status).toBe(400);
  });
});
