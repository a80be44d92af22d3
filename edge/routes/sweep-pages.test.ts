import { describe, expect, it } from "vitest";
import { TillerError } from "../../shared/errors.ts";
import { newId } from "../../shared/ids.ts";
import { type Ending, newJobs } from "../jobs/store.ts";
import type { SweptCell } from "../jobs/stored.ts";
import { planOf, type TestSweep, testSweep } from "../sweeps/test-result.ts";
import { call, config, newUser, ORIGIN } from "../test/worker/client.ts";

const EVIL = `<script>alert("x")</script> & 'Söhne'`;

/** A sweep in the database. @param ending undefined: it runs. @param found what it has while it runs. */
async function saved(given: TestSweep, ending?: Ending["state"], found: readonly SweptCell[] = []) {
  const jobs = newJobs(config());
  const { id: userId } = await newUser();
  const result = testSweep({ id: newId(), ...given });
  const { id } = result;
  await jobs.create({ id, userId, kind: "sweep", modelId: result.modelId, plan: planOf(result), tokensTotal: 20, webhookUrl: undefined });
  if (ending === undefined || found.length > 0) expect(await jobs.admit(id)).toBe(true);
  if (found.length > 0) await jobs.append(id, 1, found, 7);
  const error = new TillerError("engine_failed", "The engine <broke>.");
  if (ending !== undefined)
    await jobs.end(
      id,
      ending === "failed" ? { state: ending, error } : ending === "succeeded" ? { state: ending, result } : { state: ending },
      () => [],
    );
  return { result, id, end: () => jobs.end(id, { state: "canceled" }, () => []) };
}
const pageOf = async (id: string, query = "") => (await call(`/sweep/${id}${query}`)).text();

describe("the page of a sweep", () => {
  it("shows the suggestion with its call, plots, every cell, every text and the settings, without a script", async () => {
    const { id, result } = await saved({ text: (cell, row) => `cell ${cell} row ${row} ${EVIL}`, prompts: [EVIL] }, "succeeded");
    const response = await call(`/sweep/${id}`);
    expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/html; charset=UTF-8"]);
    const page = await response.text();
    const shown = (text: string) =>
      text.replace(/[&<>"']/g, (char) => `&${{ "&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "#39" }[char]};`);
    expect(page).toContain("<h1>Strengths of joy, tiller-tales</h1>");
    expect(page).toContain(result.suggested?.sentence);
    for (const { rows } of [result.baseline, ...result.cells]) for (const { text } of rows) expect(page).toContain(shown(text));
    expect(page.match(/<svg /g)?.length).toBe(4);
    expect(page).toContain("<th>n_tokens</th><td>48</td>");
    for (const word of ["<script", "style=", "onerror", "http-equiv"]) expect(page).not.toContain(word);
    expect(response.headers.get("content-security-policy")).toMatch(/^default-src 'none'; style-src 'self'/);
  });

  it("asks no other host for anything, and links to its files", async () => {
    const { id } = await saved({}, "succeeded");
    const page = await pageOf(id);
    for (const [, address] of page.matchAll(/(?:href|src)="([^"]+)"/g)) expect(address).toMatch(/^(\/|#texts-|http:\/\/edge\.test\/)/);
    for (const path of [`/api/sweeps/${id}/csv`, `/sweep/${id}/plot.png`, `/api/sweeps/${id}`])
      expect(page).toContain(`href="${ORIGIN}${path}"`);
    for (const [, anchor] of page.matchAll(/href="#([^"]+)"/g)) expect(page).toContain(`id="${anchor}"`);
  });

  it("has the call that steers as the suggested cell does, in a shell's quotes", async () => {
    const result = testSweep({ prompts: ["It's Tom's dog"], strengths: [5, 10], seeds: [7] });
    const feature = { modelId: "tiller-tales", layer: "3-tales-directions", index: 2 };
    const jobs = newJobs(config());
    const columns = result.columns.map((column) => ({ ...column, feature }));
    const own = { ...result, id: newId(), columns };
    await jobs.create({
      id: own.id,
      userId: (await newUser()).id,
      kind: "sweep",
      modelId: own.modelId,
      plan: planOf(own),
      tokensTotal: 3,
      webhookUrl: undefined,
    });
    await jobs.end(own.id, { state: "succeeded", result: own }, () => []);
    const [, quoted = ""] = /-d &#39;(.*)&#39;<\/pre>/.exec(await pageOf(own.id)) ?? [];
    const argument = quoted.replaceAll("&quot;", '"').replaceAll("&#39;", "'");
    // No quote of the shell's but those that close, escape one and open again.
    expect(argument.split("'\\''").join("")).not.toContain("'");
    expect(JSON.parse(argument.replaceAll("'\\''", "'"))).toMatchObject({
      ...{ prompt: "It's Tom's dog", features: [{ ...feature, strength: 10 }], seed: 7, n_tokens: 48, steer_method: "SIMPLE_ADDITIVE" },
    });
  });

  it("says how to steer with numbers of one's own, and why nothing is suggested", async () => {
    expect(await pageOf((await saved({}, "succeeded")).id)).toContain("Put the numbers of your direction where the dots are");
    expect(await pageOf((await saved({ scored: false }, "succeeded")).id)).toContain("without a scorer nothing is a success");
    expect(await pageOf((await saved({ maxPerplexityRatio: 1, strengths: [20] }, "succeeded")).id)).toContain("no cell has more success");
  });

  it("tells other sites what it shows, with the plot as a picture, and can be framed", async () => {
    const { id, result } = await saved({}, "succeeded");
    const page = await pageOf(id);
    expect(page).toContain(`<meta property="og:image" content="${ORIGIN}/sweep/${id}/plot.png"/>`);
    expect(page).toContain(`<meta property="og:description" content="${result.suggested?.sentence}"/>`);
    const framed = await call(`/sweep/${id}?embed=true`);
    expect([framed.headers.get("x-frame-options"), framed.headers.get("content-security-policy")]).toEqual([
      null,
      expect.stringContaining("frame-ancestors *"),
    ]);
    expect(await framed.text()).toContain("Open on Tiller");
    const how = await (await call(`/oembed?url=${encodeURIComponent(`${ORIGIN}/sweep/${id}`)}`)).json();
    expect(how).toMatchObject({ title: "Strengths of joy, tiller-tales", html: expect.stringContaining(`/sweep/${id}?embed=true`) });
  });

  it("shows how far a sweep is that runs, with what it has, and asks again", async () => {
    const row = { prompt: 0, seed: 1, text: EVIL, tokens: 3, perplexity: 4, kl: 0.1, activation: 1, score: null, success: null };
    const { id, end } = await saved({ strengths: [5, 10] }, undefined, [
      { cell: -1, rows: [row], change: 0, error: null },
      { cell: 1, rows: [row], change: 0.1, error: null },
    ]);
    const page = await pageOf(id);
    expect(page).toContain('<meta http-equiv="refresh" content="3"/>');
    for (const words of ["7 of 20 texts", "baseline · ", "joy, SIMPLE_ADDITIVE, strength 10 · ", "&lt;script&gt;"])
      expect(page).toContain(words);
    expect([page.includes("og:image"), page.includes("<script")]).toEqual([false, false]);
    await end();
    expect(await pageOf(id)).not.toContain("http-equiv");
  });

  it("says why there is no result, or that there is no such sweep", async () => {
    const failed = await pageOf((await saved({}, "failed")).id);
    expect(failed).toContain("This sweep failed: The engine &lt;broke&gt;.");
    expect(failed).not.toContain("http-equiv");
    expect(await pageOf((await saved({}, "canceled")).id)).toContain("This sweep was canceled.");
    const [other, result] = [newId(), testSweep()];
    const plan = planOf(result);
    await newJobs(config()).create({
      ...{ id: other, userId: (await newUser()).id, kind: "steer", modelId: result.modelId, plan, tokensTotal: 1, webhookUrl: undefined },
    });
    for (const id of [newId(), other, "x", "%3Cscript%3E"]) {
      const response = await call(`/sweep/${id}`);
      expect([response.status, await response.text()]).toEqual([404, expect.stringContaining("There is no sweep here")]);
    }
  });
});

describe("the files of a sweep", () => {
  it("are its plot as a PNG and its texts as CSV, for whoever knows its id", async () => {
    const { id } = await saved({ text: () => "=1+1" }, "succeeded");
    const png = await call(`/sweep/${id}/plot.png`);
    expect([png.status, png.headers.get("content-type"), png.headers.get("cache-control")]).toEqual([
      200,
      "image/png",
      "public, max-age=86400",
    ]);
    const bytes = new DataView(await png.arrayBuffer());
    expect([bytes.getUint32(0), bytes.getUint32(16), bytes.getUint32(20)]).toEqual([0x89504e47, 1200, 675]);
    const csv = await call(`/api/sweeps/${id}/csv`);
    expect([csv.status, csv.headers.get("content-type")]).toEqual([200, expect.stringContaining("text/csv; charset=utf-8")]);
    expect(csv.headers.get("content-disposition")).toBe(`attachment; filename="sweep-${id}.csv"`);
    expect(await csv.text()).toContain(",'=1+1,");
  });

  it("are a conflict while there is no result, and not found for another id", async () => {
    const { id, end } = await saved({});
    for (const path of ["/sweep/ID/plot.png", "/api/sweeps/ID/csv"]) {
      expect((await call(path.replace("ID", id))).status).toBe(409);
      expect((await call(path.replace("ID", newId()))).status).toBe(404);
    }
    await end();
    const canceled = await call(`/api/sweeps/${id}/csv`);
    expect([canceled.status, ((await canceled.json()) as { error: string }).error]).toEqual([409, expect.stringContaining("canceled")]);
  });
});
