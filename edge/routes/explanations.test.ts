import { beforeAll, describe, expect, it } from "vitest";
import { call, callWith, json, newUser, post, type TestUser } from "../test/worker/client.ts";

const MODEL = "tiller-tales";
const SOURCE = "3-tales-res";
let user: TestUser;
let other: TestUser;
beforeAll(async () => {
  [user, other] = [await newUser(), await newUser()];
});
interface Found {
  results: { layer: string; index: string; description: string; explanationId: string; neuron: { activations: object[] } | null }[];
  resultsCount: number;
  hasMore: boolean;
  nextOffset?: number;
  nextCursor?: string;
}
const search = async (path: string, body: object, headers: Record<string, string> = {}): Promise<Found> => {
  const response = await post(`/api/explanation/${path}`, body, headers);
  expect(response.status).toBe(200);
  return response.json();
};
const label = async (description: string, headers: Record<string, string> = user.headers, index: number | string = 11) =>
  json(await post("/api/explanation/new", { modelId: MODEL, layer: SOURCE, index, description }, headers));

describe("labels", () => {
  it("of the model are found by their words, ranked, with the feature and a few of its texts", async () => {
    const { results } = await search("search-model", { modelId: MODEL, query: "happy" });
    expect(results.length).toBeGreaterThan(0);
    for (const { description } of results) expect(description.toLowerCase()).toContain("happ");
    expect(results.some(({ neuron }) => (neuron?.activations.length ?? 0) > 0)).toBe(true);
    for (const { neuron } of results) expect(neuron?.activations.length).toBeLessThanOrEqual(3);
  });

  it("are found by the beginning of the last word, by other endings, and by all words only", async () => {
    const found = async (query: string) =>
      (await search("search", { modelId: MODEL, layers: [SOURCE], query })).results.map(({ index }) => index);
    const { id, index } = await label("zebras grazing quietly", user.headers, 12);
    for (const query of ["zebra", "zeb", "quietly zebras", "GRAZED"]) expect(await found(query)).toContain(index);
    expect(await found("zebra elephants")).toEqual([]);
    await post("/api/explanation/delete", { explanationId: id }, user.headers);
    expect(await found("zebra")).toEqual([]);
  });

  it("come in pages of 20, each label once, by offset and by cursor", async () => {
    const query = "word";
    const first = await search("search-all", { query });
    expect([first.resultsCount, first.hasMore, first.nextOffset]).toEqual([20, true, 20]);
    const byOffset = await search("search-all", { query, offset: first.nextOffset });
    const byCursor = await search("search-all", { query, cursor: first.nextCursor });
    const ids = ({ results }: Found) => results.map(({ explanationId }) => explanationId);
    expect(ids(byCursor)).toEqual(ids(byOffset));
    const seen = new Set(ids(first));
    let page = first;
    for (let pages = 1; page.hasMore && pages < 60; pages++) {
      page = await search("search-all", { query, cursor: page.nextCursor });
      for (const id of ids(page)) {
        expect(seen).not.toContain(id);
        seen.add(id);
      }
    }
    expect(page.nextOffset).toBeUndefined();
    expect(seen.size).toBeGreaterThan(200);
  });

  it("are searched in one source set of every model too", async () => {
    const { results } = await search("search-release", { releaseName: "tales-res", query: "happy" });
    expect(new Set(results.map(({ layer }) => layer))).toEqual(new Set([SOURCE]));
    expect((await search("search-release", { releaseName: "none", query: "happy" })).results).toEqual([]);
  });

  it("that a user adds are shown with the feature, and found by everybody", async () => {
    const text = "words of quokkas";
    const made = await label(text);
    expect(made).toMatchObject({ description: text, triggeredByUser: { id: user.id }, layer: SOURCE, index: "11" });
    expect(await json(await call(`/api/explanation/${made.id}`))).toEqual(made);
    const feature = (await (await call(`/api/feature/${MODEL}/${SOURCE}/11`)).json()) as { explanations: { description: string }[] };
    expect(feature.explanations.map(({ description }) => description)).toContain(text);
    expect((await search("search-all", { query: "quokka" })).results.map(({ explanationId }) => explanationId)).toEqual([made.id]);
    expect((await label(text)).code).toBe("conflict");
  });

  it("are voted on and deleted by their author or an administrator only", async () => {
    const { id } = await label("a label to vote on");
    const vote = (explanationId: unknown, vote: number, headers: Record<string, string>) =>
      post("/api/explanation/vote", { explanationId, vote }, headers);
    expect((await vote(id, 1, other.headers)).status).toBe(403);
    expect(await json(await vote(id, 1, user.headers))).toEqual({ votes: 1 });
    expect(await json(await vote(id, 1, user.headers))).toEqual({ votes: 1 });
    const adminSecret = "an-admin-secret-that-is-long";
    const asAdmin = (path: string, body: object) =>
      callWith({ adminSecret }, path, {
        method: "POST",
        body: JSON.stringify(body),
        headers: { "x-admin-secret": adminSecret, ...other.headers },
      });
    expect(await json(await asAdmin("/api/explanation/vote", { explanationId: id, vote: 1 }))).toEqual({ votes: 2 });
    expect(await json(await vote(id, 0, user.headers))).toEqual({ votes: 1 });
    expect((await post("/api/explanation/delete", { explanationId: id }, other.headers)).status).toBe(403);
    expect((await asAdmin("/api/explanation/delete", { explanationId: id })).status).toBe(200);
    expect((await call(`/api/explanation/${id}`)).status).toBe(404);
  });

  it("that came with the model stay, and an administrator's vote on them stays with them", async () => {
    const [first] = (await search("search-model", { modelId: MODEL, query: "happy" })).results;
    const remove = await post("/api/explanation/delete", { explanationId: first?.explanationId }, user.headers);
    expect(remove.status).toBe(403);
    expect((await json(await call(`/api/explanation/${encodeURIComponent(first?.explanationId ?? "")}`))).description).toBe(
      first?.description,
    );
  });

  it("of a source set that is not listed are found by naming it", async () => {
    const modelId = `l-${Date.now()}`;
    await post("/api/model/new", { id: modelId, layers: 1 }, user.headers);
    await post("/api/source-set/new", { name: "res-mine", modelId }, user.headers);
    const features = [{ index: 1, explanations: [{ text: "wombat burrows" }], activations: [{ tokens: ["a"], values: [1] }] }];
    await post("/api/feature/upload-batch", { modelId, source: "0-res-mine", features }, user.headers);
    expect((await search("search-all", { query: "wombat" }, other.headers)).results).toEqual([]);
    expect((await search("search-model", { modelId, query: "wombat" }, user.headers)).results.length).toBe(1);
    expect((await search("search", { modelId, layers: ["0-res-mine"], query: "wombat" }, other.headers)).results.length).toBe(1);
  });

  it.each([
    ["a query of two letters", "search-all", { query: "ab" }, /^query must be a text of 3 to 200/],
    ["a query without words", "search-all", { query: "???!" }, /at least one word/],
    ["no sources", "search", { query: "happy", modelId: MODEL, layers: [] }, /^layers must name at least one source/],
    ["a cursor of one's own", "search-all", { query: "happy", cursor: "x" }, /^cursor must be the nextCursor/],
    ["search syntax that means something to a database", "search-all", { query: '"happy" OR * NEAR(' }, undefined],
  ])("with %s: an answer, never a failure", async (_, path, body, words) => {
    const response = await post(`/api/explanation/${path}`, body);
    if (words === undefined) expect(response.status).toBe(200);
    else expect([response.status, (await json(response)).error]).toEqual([400, expect.stringMatching(words)]);
  });

  it("are added to features that are there, by somebody with a key", async () => {
    expect((await label("x", {})).code).toBe("unauthorized");
    expect((await label("x", user.headers, 5000)).code).toBe("feature_not_found");
    const vector = { modelId: MODEL, layer: "3-neuronpedia-resid-pre", index: 100_000_000, description: "x" };
    expect((await json(await post("/api/explanation/new", vector, user.headers))).error).toMatch(/vector\/update/);
  });
});
