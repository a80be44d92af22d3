import { beforeAll, describe, expect, it } from "vitest";
import { call, json, newUser, post, type TestUser } from "../test/worker/client.ts";

const MODEL = "tiller-tales";
const PRIVATE = { visibility: "private" };
let user: TestUser;
let other: TestUser;
beforeAll(async () => {
  [user, other] = [await newUser({ hourlyLimit: 1000 }), await newUser()];
});
const steer = async (
  headers: Record<string, string> = user.headers,
  features: object[] = [{ modelId: MODEL, layer: "3-tales-directions", index: 0, strength: 8 }],
) =>
  json(
    await post(
      "/api/steer",
      { prompt: "One <b>day", modelId: MODEL, features, temperature: 0, n_tokens: 3, seed: 1, strength_multiplier: 1 },
      headers,
    ),
  );
const test = async (customText: string | string[], headers: Record<string, string> = user.headers) =>
  (
    await post("/api/activation/new", { feature: { modelId: MODEL, source: "3-tales-res", index: "7" }, customText, share: true }, headers)
  ).json();
const update = (id: unknown, changes: object, headers: Record<string, string> = user.headers) =>
  post("/api/share/update", { id, ...changes }, headers);
const load = (steerOutputId: unknown, headers: Record<string, string> = {}) => post("/api/steer-load", { steerOutputId }, headers);
const owned = async (body: object = {}, who = user) =>
  ((await (await post("/api/share/list-owned", body, who.headers)).json()) as { shares: { id: string; kind: string; url: string }[] })
    .shares;

describe("a steer's link", () => {
  it("has a title that its page and its loaded form show", async () => {
    const { id } = await steer();
    expect(await json(await update(id, { title: "Happy <days>" }))).toMatchObject({
      id,
      kind: "steer",
      title: "Happy <days>",
      visibility: "unlisted",
    });
    expect(await (await call(`/steer/${id}`)).text()).toContain("<title>Happy &lt;days&gt;</title>");
    expect(await json(await load(id))).toMatchObject({ title: "Happy <days>", visibility: "unlisted", expiresAt: null });
  });

  it("that is private is there for its owner alone: in every way to it", async () => {
    const { id } = await steer();
    await update(id, PRIVATE);
    expect((await load(id, user.headers)).status).toBe(200);
    for (const headers of [{}, other.headers]) expect((await load(id, headers)).status).toBe(404);
    expect((await call(`/steer/${id}`)).status).toBe(404);
    expect((await call(`/steer/${id}?embed=true`)).status).toBe(404);
    expect((await call(`/oembed?url=${encodeURIComponent(`http://edge.test/steer/${id}`)}`)).status).toBe(404);
  });

  it("that has expired is as one that never was, but for its owner, who can let it live again", async () => {
    const { id } = await steer();
    await update(id, { expiresAt: new Date(Date.now() - 1000).toISOString() });
    expect((await load(id)).status).toBe(404);
    expect((await load(id, user.headers)).status).toBe(200);
    await update(id, { expiresAt: null });
    expect((await load(id)).status).toBe(200);
    await update(id, { expiresAt: new Date(Date.now() + 60_000).toISOString() });
    expect((await load(id)).status).toBe(200);
  });

  it("that is public is on the list and the first page until it is unlisted", async () => {
    const { id } = await steer();
    await update(id, { title: "Look at this", visibility: "public" });
    const listed = async () =>
      ((await (await post("/api/share/list", "")).json()) as { shares: { id: string }[] }).shares.map((share) => share.id);
    expect(await listed()).toContain(id);
    expect(await (await call("/")).text()).toContain("Look at this");
    await update(id, { visibility: "unlisted" });
    expect(await listed()).not.toContain(id);
    expect((await load(id)).status).toBe(200);
  });

  it("that is deleted is gone for good", async () => {
    const { id } = await steer();
    expect((await post("/api/share/delete", { id }, user.headers)).status).toBe(200);
    expect((await load(id, user.headers)).status).toBe(404);
    expect((await post("/api/share/delete", { id }, user.headers)).status).toBe(404);
  });

  it("is changed and deleted by its owner only, and nobody owns an anonymous one", async () => {
    const [{ id }, anonymous] = [await steer(), await steer({})];
    for (const each of [id, anonymous.id]) {
      expect((await update(each, PRIVATE, other.headers)).status).toBe(404);
      expect((await post("/api/share/delete", { id: each }, other.headers)).status).toBe(404);
    }
    expect((await update(id, PRIVATE, {})).status).toBe(401);
    expect((await load(id)).status).toBe(200);
  });

  it.each([
    ["a time that is none", { expiresAt: "tomorrow" }, /^expiresAt must be a time such as/],
    ["a visibility", { visibility: "secret" }, /private, unlisted, public/],
    ["a long title", { title: "x".repeat(201) }, /^title must be a text of 0 to 200/],
  ])("is not changed to %s", async (_, changes, words) => {
    const response = await update("cm12345678901234567890123", changes);
    expect([response.status, (await json(response)).error]).toEqual([400, expect.stringMatching(words)]);
  });
});

describe("an activation test", () => {
  it("is kept under a link when asked to, and read again as it was", async () => {
    const made = (await test("The happy dog ran.")) as { id: string; shareUrl: string; tokens: string[]; values: number[] };
    expect(made.shareUrl).toBe(`http://edge.test/test/${made.id}`);
    expect(await json(await post("/api/activation/load", { id: made.id }))).toMatchObject({
      ...{ id: made.id, modelId: MODEL, layer: "3-tales-res", index: "7", results: [{ tokens: made.tokens, values: made.values }] },
    });
    const page = await (await call(`/test/${made.id}`)).text();
    expect(page).toContain('<span class="a');
    expect(page).toContain('href="/tiller-tales/3-tales-res/7"');
  });

  it("of several texts has one link", async () => {
    const made = (await test(["one", "two"])) as { id: string }[];
    expect(new Set(made.map(({ id }) => id)).size).toBe(1);
    expect(((await json(await post("/api/activation/load", { id: made[0]?.id }))).results as unknown as object[]).length).toBe(2);
  });

  it("is its owner's to make private and to delete, and is listed with the steers", async () => {
    const { id } = (await test("x")) as { id: string };
    const { id: steered } = await steer();
    // A steer is written after it was answered.
    const newest = async () => (await owned({ limit: 2 })).map((share) => [share.id, share.kind]);
    await expect.poll(newest).toEqual(
      expect.arrayContaining([
        [id, "test"],
        [steered, "steer"],
      ]),
    );
    expect(await owned({}, other)).toEqual([]);
    await update(id, PRIVATE);
    expect((await post("/api/activation/load", { id })).status).toBe(404);
    expect((await post("/api/activation/load", { id }, user.headers)).status).toBe(200);
    expect((await call(`/test/${id}`)).status).toBe(404);
    await post("/api/share/delete", { id }, user.headers);
    expect((await post("/api/activation/load", { id }, user.headers)).status).toBe(404);
  });

  it("is not kept unless asked to", async () => {
    const tests = async () => (await owned()).filter(({ kind }) => kind === "test").length;
    const before = await tests();
    const answer = await json(
      await post("/api/activation/new", { feature: { modelId: MODEL, source: "3-tales-res", index: "7" }, customText: "x" }, user.headers),
    );
    expect([answer.id, answer.shareUrl, await tests()]).toEqual([undefined, undefined, before]);
  });
});

describe("a page in a frame", () => {
  const vector = Array.from({ length: 256 }, (_, i) => Math.sin(i));
  const pages = async (): Promise<string[]> => {
    const body = { modelId: MODEL, layerNumber: 3, hookType: "hook_resid_pre", vector, vectorDefaultSteerStrength: 4, vectorLabel: "Jedi" };
    const kept = (await json(await post("/api/vector/new", body, user.headers))).vector as unknown as { source: string; index: string };
    const list = await json(await post("/api/list/new", { name: "Cats" }, user.headers));
    const { id } = (await test("x")) as { id: string };
    return [
      ...[`/steer/${(await steer()).id}`, `/test/${id}`, `/list/${list.id}`],
      ...[`/${MODEL}/3-tales-res/7`, `/${MODEL}/${kept.source}/${kept.index}`],
    ];
  };

  it("may be shown by other sites, and only there; each tells how to embed it", async () => {
    for (const path of await pages()) {
      const [plain, framed] = [await call(path), await call(`${path}?embed=true`)];
      expect([path, plain.headers.get("x-frame-options")]).toEqual([path, "DENY"]);
      expect(plain.headers.get("content-security-policy")).toContain("frame-ancestors 'none'");
      expect([path, framed.headers.get("x-frame-options")]).toEqual([path, null]);
      expect(framed.headers.get("content-security-policy")).toContain("frame-ancestors *");
      expect(framed.headers.get("content-security-policy")).not.toContain("script-src");
      const [whole, bare] = [await plain.text(), await framed.text()];
      expect([whole.includes("<header>"), bare.includes("<header>")]).toEqual([true, false]);
      for (const tag of ["og:title", "og:description", "og:url", "og:site_name"]) expect(whole).toContain(`property="${tag}"`);
      const [, href = ""] = /type="application\/json\+oembed" href="([^"]+)"/.exec(whole) ?? [];
      const answer = await json(await call(href.replaceAll("&amp;", "&").replace("http://edge.test", "")));
      expect(answer).toMatchObject({ version: "1.0", type: "rich", provider_name: "Tiller" });
      expect(answer.html).toContain(`src="http://edge.test${path}?embed=true"`);
    }
    for (const path of ["/", "/docs", "/?embed=true", "/docs?embed=true", "/steer/x?embed=true"])
      expect([path, (await call(path)).headers.get("x-frame-options")]).toEqual([path, "DENY"]);
  });

  it("is as large as asked for at most, and what is no page of ours is refused", async () => {
    const url = encodeURIComponent(`http://edge.test/${MODEL}/3-tales-res/7`);
    expect(await json(await call(`/oembed?url=${url}&maxwidth=300&maxheight=200`))).toMatchObject({ width: 300, height: 200 });
    expect((await call(`/oembed?url=${url}&format=xml`)).status).toBe(501);
    expect((await call(`/oembed?url=${url}&maxwidth=0`)).status).toBe(400);
    expect((await call("/oembed")).status).toBe(400);
    for (const other of [
      `http://elsewhere.test/${MODEL}/3-tales-res/7`,
      "http://edge.test/docs",
      "http://edge.test/steer/cm12345678901234567890123",
    ])
      expect((await call(`/oembed?url=${encodeURIComponent(other)}`)).status).toBe(404);
  });

  it("shows the parts of a feature that are asked for, and what the feature does on a text", async () => {
    const path = `/${MODEL}/3-tales-res/7`;
    const page = async (query: string) => (await call(`${path}?${query}`)).text();
    expect(await page("")).toContain("Most active on");
    expect(await page("embedactivations=false")).not.toContain("Most active on");
    expect(await page("embedplots=false")).not.toContain("Makes likelier");
    expect(await page("embedsteer=false")).not.toContain("Steer with it");
    expect(await page("embed=true")).toContain("Open on Tiller");
    expect(await page("embed=true&embedlink=false")).not.toContain("Open on Tiller");
    expect(await page(`defaulttesttext=${encodeURIComponent("<i>happy</i>")}`)).toMatch(/On your text[\s\S]*&lt;/);
    expect(await page(`defaulttesttext=${"x".repeat(501)}`)).toContain("at most 500 characters");
    expect((await call(`/${MODEL}/3-tales-res/5000`)).status).toBe(404);
  });
});
