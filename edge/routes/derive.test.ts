import { beforeAll, describe, expect, it, vi } from "vitest";
import type { z } from "zod";
import { cosine, lengthOf } from "../../shared/vector-arithmetic.ts";
import type { Derived } from "../directions/contract.ts";
import { LIMITS } from "../limits.ts";
import { vectors } from "../schema.ts";
import { FAULTS } from "../test/node/faults.ts";
import { call, callWith, config, json, NO_ENGINE, newUser, post, type TestUser } from "../test/worker/client.ts";
import { HAPPY, SAD } from "../test/worker/moods.ts";
import type { Vector } from "../vectors/contract.ts";

const PATH = "/api/vector/derive";
const MODEL = "tiller-tales";
let user: TestUser;
let other: TestUser;
beforeAll(async () => {
  [user, other] = [await newUser({ hourlyLimit: 10_000 }), await newUser()];
});

const moods = (changes: object = {}) => ({ modelId: MODEL, layer: 3, vectorLabel: "cheerful", positive: HAPPY, negative: SAD, ...changes });
/** Of the engine of faults: layer L's vector is L + 1 at place L, and the last layer separates best. */
const scripted = (changes: object = {}) => ({
  ...{ modelId: "scripted", layer: 2, vectorLabel: "x", positive: ["a", "b"], negative: ["c"], ...changes },
});
async function derived(response: Response): Promise<Derived> {
  const answer = await response.text();
  expect(response.status, answer.slice(0, 400)).toBe(200);
  return JSON.parse(answer);
}
const derive = async (body: object) => derived(await post(PATH, body, user.headers));
const refusal = async (response: Response) => {
  const { error, code } = await json(response);
  return [response.status, code, error];
};
type At = Pick<Derived["vectors"][number], "modelId" | "source" | "index">;
const read = async ({ modelId, source, index }: At, headers: Record<string, string> = user.headers) => {
  const response = await post("/api/vector/get", { modelId, source, index }, headers);
  expect(response.status, await response.clone().text()).toBe(200);
  return ((await response.json()) as { vector: z.infer<typeof Vector> }).vector;
};
const first = ({ vectors: [vector] }: Derived) => vector as Derived["vectors"][number];
const form = (files: Record<string, File | string>, fields: Record<string, string> = {}) => {
  const body = new FormData();
  for (const [key, value] of Object.entries({ modelId: MODEL, layer: "3", vectorLabel: "cheerful", ...fields })) body.append(key, value);
  for (const [key, value] of Object.entries(files)) body.append(key, value);
  return call(PATH, { method: "POST", body, headers: user.headers });
};
const usedSteers = async (who: TestUser): Promise<number> =>
  ((await (await call("/api/user/usage", { headers: who.headers })).json()) as { steers: { used: number } }).steers.used;

describe("texts become a vector", () => {
  it("that tells them apart, steers at its suggested strength, and says how it was made", async () => {
    const answer = await derive(moods());
    const vector = first(answer);
    const [layer] = answer.report.layers;
    expect(answer.vectors).toHaveLength(1);
    expect(vector).toMatchObject({ modelId: MODEL, source: "3-neuronpedia-resid-pre", label: "cheerful", visibility: "unlisted" });
    expect(vector.url).toBe(`http://edge.test/${MODEL}/3-neuronpedia-resid-pre/${vector.index}`);
    expect(answer.report).toMatchObject({ method: "mean_difference", bestLayer: 3, layers: [{ hookName: "blocks.3.hook_resid_pre" }] });
    const side = { texts: 10, heldOut: 2 };
    expect(answer.report.counts).toMatchObject({ positive: side, negative: side });
    expect([layer?.aucTrain, layer?.aucHeldOut]).toEqual([expect.closeTo(1, 1), expect.closeTo(1, 0)]);
    expect(vector.defaultSteerStrength).toBeCloseTo(layer?.suggestedStrength ?? 0, 1);

    const kept = await read(vector);
    expect(kept.description).toMatch(
      /^Mean difference of 10 positive and 10 negative texts at blocks\.3\.hook_resid_pre, AUC [01]\.\d\d on 4 others\.$/,
    );
    expect(lengthOf(kept.vector)).toBeCloseTo(layer?.norm ?? 0, 4);
    const own = await read({ modelId: MODEL, source: "3-tales-directions", index: "0" });
    expect(cosine(kept.vector, own.vector)).toBeGreaterThan(0.3);

    const feature = { modelId: MODEL, layer: vector.source, index: vector.index, strength: vector.defaultSteerStrength };
    const body = {
      prompt: "One day a little girl",
      modelId: MODEL,
      features: [feature],
      temperature: 0,
      n_tokens: 24,
      seed: 4,
      strength_multiplier: 1,
    };
    const steer = await json(await post("/api/steer", body, user.headers));
    expect(steer.receipts).toMatchObject([{ point: "blocks.3.hook_resid_pre", strength: vector.defaultSteerStrength }]);
    // A quarter of the stream's length, as the strength is made to do.
    expect(steer.receipts?.[0]?.mean_relative_delta).toBeGreaterThan(0.1);
    expect(steer.receipts?.[0]?.mean_relative_delta).toBeLessThan(0.5);
    expect(steer.STEERED).not.toBe(steer.DEFAULT);
  });

  it("of each layer that is asked for: the best is kept, all of them, or none", async () => {
    const layers = [1, 5, 3];
    const before = await usedSteers(user);
    const [best, all, none] = [
      await derive(moods({ layer: undefined, layers })),
      await derive(moods({ layer: undefined, layers, keep: "all", hookType: "hook_resid_post" })),
      await derive(moods({ layer: undefined, layers, keep: "none", vectorLabel: undefined })),
    ];
    expect(await usedSteers(user)).toBe(before + 3);
    expect(best.report.layers.map(({ layer }) => layer)).toEqual(layers);
    expect(best.vectors.map(({ source }) => source)).toEqual([`${best.report.bestLayer}-neuronpedia-resid-pre`]);
    expect(all.vectors.map(({ source }) => source).sort()).toEqual([1, 3, 5].map((layer) => `${layer}-neuronpedia-resid-post`));
    expect(first(all).hookName).toBe(`blocks.${all.report.bestLayer}.hook_resid_post`);
    expect([none.vectors, none.report.layers.map(({ norm }) => norm)]).toEqual([[], best.report.layers.map(({ norm }) => norm)]);
  });

  it("through an autoencoder: the report has the latents, with their labels", async () => {
    const answer = await derive(moods({ method: "sae", sourceSet: "tales-res", topK: 5, unit: true }));
    const latents = answer.report.layers[0]?.latents ?? [];
    expect(latents).toHaveLength(5);
    for (const { label } of latents) expect(label).toMatch(/^the (word|token)s? "/);
    for (const { frequency, value } of latents) expect([frequency.positive > frequency.negative, value > 0]).toEqual([true, true]);
    const kept = await read(first(answer));
    expect(lengthOf(kept.vector)).toBeCloseTo(1, 5);
    expect(kept.description).toMatch(/^Latents of an autoencoder 3-tales-res of 10 positive/);
  });

  it.each(["pca", "probe"])("with the method %s", async (method) => {
    const answer = await derive(moods({ method, heldOut: 0 }));
    expect(answer.report).toMatchObject({ method, layers: [{ aucHeldOut: null }], counts: { positive: { texts: 12, heldOut: 0 } } });
    expect((await read(first(answer))).description).toMatch(/AUC \d\.\d\d on the texts it was made from/);
  });

  it("of questions with two answers each", async () => {
    const pairs = HAPPY.map((positive, i) => ({ prompt: "One day,", positive: ` ${positive}`, negative: ` ${SAD[i]}` }));
    const { report } = await derive(moods({ positive: undefined, negative: undefined, pairs, tokens: "answer" }));
    expect(report.counts.positive.texts).toBe(10);
    const last = await derive(moods({ positive: undefined, negative: undefined, pairs, tokens: "-1" }));
    expect(last.report.counts.positive.tokens).toBe(10);
  });

  it("from files as from JSON, to the last bit", async () => {
    const lines = (name: string, texts: string[]) => new File([texts.join("\n")], name);
    const labelled = HAPPY.flatMap((text, i) => [`"${text}",1`, `"${SAD[i]}",0`]);
    const answers = [
      await derive(moods()),
      await derived(await form({ positive: lines("happy.txt", HAPPY), negative: lines("sad.txt", SAD) })),
      await derived(await form({ positive: HAPPY.join("\n"), negative: SAD.join("\n") })),
      await derived(await form({ file: new File([`text,label\n${labelled.join("\n")}`], "moods.csv") })),
      await derived(await form({ file: new File([JSON.stringify({ positive: HAPPY, negative: SAD })], "moods.json") })),
    ];
    const [expected, ...others] = await Promise.all(answers.map(async (answer) => (await read(first(answer))).vector));
    for (const each of others) expect(each).toEqual(expected);
  });

  it("with settings in a form as in JSON", async () => {
    const files = { file: new File([JSON.stringify({ positive: HAPPY, negative: SAD })], "moods.json") };
    const body = new FormData();
    const fields = { modelId: MODEL, layers: "2, 4", keep: "all", vectorLabel: "y", unit: "true", heldOut: "0.5", visibility: "private" };
    for (const [key, value] of Object.entries({ ...fields, ...files })) body.append(key, value);
    const answer = await derived(await call(PATH, { method: "POST", body, headers: user.headers }));
    expect(answer.report.layers.map(({ layer, norm }) => [layer, norm])).toEqual([
      [2, expect.closeTo(1, 5)],
      [4, expect.closeTo(1, 5)],
    ]);
    expect(answer.report.counts.positive).toMatchObject({ texts: 6, heldOut: 6 });
    expect(answer.vectors.map(({ visibility }) => visibility)).toEqual(["private", "private"]);
  });
});

describe("what is kept of a vector", () => {
  it("is what was said of it, and else what was found", async () => {
    const said = { description: "mine", vectorDefaultSteerStrength: -7, visibility: "public" };
    expect(await read(first(await derive(scripted(said))))).toMatchObject({
      description: "mine",
      vectorDefaultSteerStrength: -7,
      visibility: "public",
    });
    const found = await read(first(await derive(scripted())));
    expect(found).toMatchObject({ vectorDefaultSteerStrength: 4.57, vector: [0, 0, 3, 0, 0, 0, 0, 0], vectorLabel: "x" });
    expect(found.description).toBe("Mean difference of 2 positive and 1 negative texts at blocks.2.hook_resid_pre, AUC 0.70 on 2 others.");
  });

  it("has the strongest strength there is, where more is suggested, and says so", async () => {
    const found = await read(first(await derive(scripted({ layer: 0 }))));
    expect(found.vectorDefaultSteerStrength).toBe(LIMITS.vectorStrength);
    expect(found.description).toMatch(/The strength it suggests, 1230, is more than can be kept/);
  });

  it("is in the order of how well it separates, the best first", async () => {
    const { vectors: kept } = await derive(scripted({ layer: undefined, layers: [1, 3, 0, 2], keep: "all" }));
    expect(kept.map(({ hookName }) => hookName)).toEqual([3, 2, 1, 0].map((layer) => `blocks.${layer}.hook_resid_pre`));
    expect(new Set(kept.map(({ index }) => index)).size).toBe(4);
  });

  it("is its owner's where it is private, as if it were not there for others", async () => {
    const { modelId, source, index } = first(await derive(scripted({ visibility: "private" })));
    expect((await post("/api/vector/get", { modelId, source, index }, other.headers)).status).toBe(404);
    expect((await read({ modelId, source, index })).creatorId).toBe(user.id);
  });
});

describe("a derivation is refused", () => {
  const sae = { method: "sae", sourceSet: "tales-res" };
  const pairs = [{ prompt: "a", positive: "b", negative: "c" }];
  const none = { positive: undefined, negative: undefined };
  it.each([
    ["without a label", { vectorLabel: undefined }, 400, /^vectorLabel is a required field, unless keep is none/],
    ["with a label of nothing", { keep: "none" }, 400, /^vectorLabel is of a vector that is kept: leave it out where keep is none/],
    ["without a layer", { layer: undefined }, 400, /^layer, or layers to compare several, is a required field: .*from 0 to \d/],
    ["with a layer and layers", { layers: [1] }, 400, /^layer and layers exclude each other/],
    ["with a layer that is not there", { layer: 99 }, 400, /^layer must be a layer of tiller-tales: 0 to \d\./],
    [
      "with a layer of several that is not there",
      { layer: undefined, layers: [1, 99] },
      400,
      /^layers\[1\] must be a layer of tiller-tales/,
    ],
    ["with a layer twice", { layer: undefined, layers: [1, 1] }, 400, /^layers\[1\] is 1 once more/],
    ["without layers", { layer: undefined, layers: [] }, 400, /^layers must be a list of 1 to 128 different layers/],
    ["without texts", none, 400, /^positive and negative, or pairs, are required/],
    ["without one side", { negative: undefined }, 400, /^negative is required/],
    ["with an empty side", { negative: [] }, 400, /^negative must be a list of 1 to 5000 texts/],
    ["with an empty text", { positive: ["a", ""] }, 400, /^positive\[1\] must be .* none of them empty/],
    ["with too many texts", { positive: Array(5001).fill("a") }, 400, /^positive must be a list of 1 to 5000 texts/],
    ["with sides and pairs", { pairs }, 400, /^pairs and the sides exclude each other/],
    ["with the same texts on both sides", { negative: [...HAPPY].reverse() }, 400, /^positive and negative have the same texts/],
    ["with pairs of the same answers", { ...none, pairs: [{ ...pairs[0], negative: "b" }] }, 400, /have the same texts/],
    [
      "with a pair without a prompt",
      { ...none, pairs: [{ positive: "a", negative: "b" }] },
      400,
      /^pairs\[0\]\.prompt must be a list of 1 to 5000 objects/,
    ],
    ["with answers but without pairs", { tokens: "answer" }, 400, /^tokens must not be answer without pairs/],
    [
      "with tokens that are none",
      { tokens: "first" },
      400,
      /^tokens must be all, last, answer \(with pairs\), or a whole number from -64 to -1/,
    ],
    [
      "with sides of different lengths for pca",
      { method: "pca", negative: SAD.slice(1) },
      400,
      /pca pairs the i-th .* positive has 12, negative 11/,
    ],
    ["with an unknown method", { method: "lda" }, 400, /^method must be one of the following values: mean_difference, pca, sae, probe/],
    ["with a set without an autoencoder's method", { sourceSet: "tales-res" }, 400, /^sourceSet belongs to the method sae/],
    ["with topK without it", { topK: 3 }, 400, /^topK belongs to the method sae/],
    ["with latentValues without it", { latentValues: "tar_mean" }, 400, /^latentValues belongs to the method sae/],
    [
      "without the set of autoencoders",
      { method: "sae" },
      400,
      /^sourceSet is a required field of the method sae\. The sets of tiller-tales are: tales-res/,
    ],
    [
      "with a set that is not there",
      { ...sae, sourceSet: "res-jb" },
      404,
      /^sourceSet: tiller-tales has no autoencoders 'res-jb'\. Its sets are: tales-res/,
    ],
    ["with named directions for a set", { ...sae, sourceSet: "tales-directions" }, 404, /has no autoencoders 'tales-directions'/],
    ["with a set that is not at the layer", { ...sae, layer: 2 }, 404, /has no autoencoder at layer 2, but at 3\./],
    [
      "with a set that reads elsewhere",
      { ...sae, hookType: "hook_resid_post" },
      400,
      /^hookType: the autoencoder '3-tales-res' reads blocks\.3\.hook_resid_pre, not blocks\.3\.hook_resid_post/,
    ],
    ["with too many latents", { ...sae, topK: 1001 }, 400, /^topK must be a whole number from 1 to 1000/],
    ["with more held out than half", { heldOut: 0.6 }, 400, /^heldOut must be a number from 0 to 0\.5/],
    ["with a field that nobody knows", { held_out: 0.1 }, 400, /The body has a field that is not known: held_out/],
    ["with an unknown model", { modelId: "none" }, 404, /no model 'none'/],
    ["with a webhook at a private address", { webhook: { url: "http://10.0.0.1/" } }, 400, /10\.0\.0\.1/],
    ["with a webhook that is nothing", { webhook: "x" }, 400, /^webhook must be an object with a url/],
    [
      "with a conversation, of a model without a template",
      { ...scripted(), chat: true },
      400,
      /^chat must be false: scripted has no chat template/,
    ],
    ["with texts that are too long for the model", { positive: ["word ".repeat(1000), ...HAPPY] }, 400, /positive\[0\] has \d+ tokens/],
  ])("%s", async (_, changes, status, words) => {
    const response = await post(PATH, moods(changes), user.headers);
    expect([response.status, (await json(response)).error]).toEqual([status, expect.stringMatching(words)]);
  });

  it.each([
    ["with one file of two", { positive: "a\nb" }, 400, /^The form must have two files, positive and negative, or one with both, file/],
    [
      "with a file of both and one of a side",
      { positive: "a", file: new File(["text,label\na,1"], "a.csv") },
      400,
      /^The form must have two files/,
    ],
    ["with a side that has no texts", { positive: "a", negative: "\n\n" }, 400, /^negative must be a list of 1 to 5000 texts/],
    ["with a file of one side", { file: new File(["text,label\na,1\nb,1"], "a.csv") }, 400, /^negative must be a list of 1 to 5000 texts/],
    ["with a bad label", { file: new File(["text,label\na,1\nb,maybe"], "a.csv") }, 400, /^a\.csv, line 3: the label 'maybe'/],
    ["with a field that nobody knows", { positive: "a", negative: "b", strength: "3" }, 400, /field that is not known: strength/],
    ["with a field that is a file", { positive: "a", negative: "b", layer: new File(["3"], "x") }, 400, /layer came twice/],
    [
      "with more than 4 MB",
      { positive: `${"a".repeat(1000)}\n`.repeat(4500), negative: "b" },
      413,
      /^The texts have 4\d+ bytes together; the limit is 4000000/,
    ],
  ])("as a form %s", async (_, files, status, words) => {
    const response = await form(files as Record<string, File | string>);
    expect([response.status, (await json(response)).error]).toEqual([status, expect.stringMatching(words)]);
  });

  it("as a form that is damaged, and as a body that is too large", async () => {
    const headers = { ...user.headers, "content-type": "multipart/form-data; boundary=x" };
    expect(await refusal(await call(PATH, { method: "POST", body: "--y", headers }))).toMatchObject([400, "invalid_request", /multipart/]);
    const large = await post(PATH, `{"x":"${"a".repeat(LIMITS.uploadBytes)}"}`, user.headers);
    expect(await refusal(large)).toMatchObject([413, "too_large", /limit is 8000000 bytes/]);
  });

  it("without a key, with one of a bot, and with one that is not known", async () => {
    expect((await post(PATH, moods())).status).toBe(401);
    expect((await post(PATH, moods(), { "x-api-key": "sk-til-nobody" })).status).toBe(401);
  });

  it("where there is no room for its vectors, before any work", async () => {
    const full = await newUser();
    const { db } = config();
    const row = { user_id: full.id, model_id: MODEL, layer: 1, hook: "resid_pre", label: "x", default_strength: 1 } as const;
    const rows = Array.from({ length: LIMITS.vectorsPerUser - 1 }, (_, i) => ({
      ...row,
      ...{ index: 1000 + i, visibility: "private" as const, values: Float64Array.of(1), created_at: i },
    }));
    for (let i = 0; i < rows.length; i += 7) await db.insert(vectors).values(rows.slice(i, i + 7));
    const two = { layer: undefined, layers: [0, 1], keep: "all" };
    expect(await refusal(await post(PATH, scripted(two), full.headers))).toEqual([
      409,
      "conflict",
      expect.stringMatching(/You have 999 vectors.*keep 2 more/),
    ]);
    expect(await usedSteers(full)).toBe(0);
    expect((await post(PATH, scripted(), full.headers)).status).toBe(200);
    expect((await post(PATH, scripted({ keep: "none", vectorLabel: undefined }), full.headers)).status).toBe(200);
  });
});

describe("what a derivation costs", () => {
  it("is one steer, nothing where it is refused or the fault is ours, and 429 where none is left", async () => {
    vi.spyOn(console, "error").mockReturnValue(undefined);
    const poor = await newUser({ hourlyLimit: 2 });
    const ask = (changes: object, engines = config().engines) =>
      callWith({ engines }, PATH, { method: "POST", body: JSON.stringify(scripted(changes)), headers: poor.headers });
    expect((await ask({ layer: 99 })).status).toBe(400);
    for (const [fault, status] of [
      [FAULTS.endsEarly, 502],
      [FAULTS.wrongShape, 502],
    ] as const) {
      const response = await ask({ positive: [fault] });
      expect([response.status, response.headers.get("x-limit-remaining")]).toEqual([status, "2"]);
    }
    expect((await ask({}, NO_ENGINE)).status).toBe(503);
    expect(await usedSteers(poor)).toBe(0);
    const asked = await ask({ positive: [FAULTS.errorEvent] });
    expect(await refusal(asked)).toEqual([400, "invalid_request", "The texts give no direction."]);
    expect((await ask({})).headers.get("x-limit-remaining")).toBe("0");
    expect((await ask({})).status).toBe(429);
  });
});
