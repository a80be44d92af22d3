import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { loadEngine } from "../../gpu-functions/cpu/engine.ts";
import { newServer } from "../../gpu-functions/cpu/server.ts";
import type { GenerateRequest, GenerateResult } from "../../shared/protocol.ts";
import type { ActivationsResult, ScoreResult, TokenizeResult } from "../../shared/readings.ts";
import { ROOT } from "../edge-bundle.ts";
import { CHECKS } from "./checks.ts";
import { STRONG } from "./endpoint.ts";
import { run } from "./index.ts";

const MODEL = "tiny-gpt2";
const ENGINE_TOKEN = "engine-token";
const PROXY = { MODAL_KEY: "wk-right", MODAL_SECRET: "ws-right" };
const closers: (() => Promise<void>)[] = [];
let url: string;
let open: string;
let printed: string[];

beforeAll(async () => {
  const engine = await loadEngine({ directories: [path.join(ROOT, "gpu-functions", "fixtures", MODEL)], threads: 1 });
  const serve = async (token: string | undefined) => {
    const server = newServer(engine, { token, log: () => undefined });
    return listen((request, response) => server.emit("request", request, response));
  };
  url = await serve(ENGINE_TOKEN);
  open = await serve(undefined);
  closers.push(() => engine.close());
});
afterAll(async () => {
  for (const close of closers) await close();
});
beforeEach(() => {
  printed = [];
});

async function listen(handle: RequestListener): Promise<string> {
  const server = createServer(handle);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.unshift(
    () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  );
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const conformance = (at: string, environment: NodeJS.ProcessEnv = { ENGINE_TOKEN }, model = MODEL) =>
  run(["conformance", model, "--url", at], { environment, say: (line) => printed.push(line), stdio: "ignore", now: () => 0 });
const failed = () => printed.filter((line) => line.startsWith("FAILED"));

describe("an engine that keeps to the protocol", () => {
  it("meets every check", async () => {
    expect([await conformance(`${url}/`), ...failed()]).toEqual([0]);
    expect(printed).toEqual([`${MODEL} at ${url}`, ...CHECKS.map(({ name }) => `ok      ${name}`)]);
  });

  it("need not ask for a token", async () => {
    expect([await conformance(open, {}), ...failed()]).toEqual([0]);
    expect(printed).toContain("skipped a wrong token is refused: 401 unauthorized: ENGINE_TOKEN is not set");
  });

  it("is not told the credentials of Modal's proxy when it is elsewhere", async () => {
    const names = new Set<string>();
    const at = await listen((request, response) => {
      for (const name of Object.keys(request.headers)) names.add(name);
      response.end();
    });
    expect(await conformance(at, { ENGINE_TOKEN, ...PROXY })).toBe(1);
    expect([...names]).toContain("authorization");
    expect([...names].filter((name) => name.startsWith("modal"))).toEqual([]);
  });
});

describe("nobody to check", () => {
  it("is one sentence", async () => {
    await expect(conformance("http://127.0.0.1:9")).rejects.toThrow(
      /^http:\/\/127\.0\.0\.1:9 does not answer \(.+\): start it, or check the address\.$/,
    );
    for (const at of ["ftp://x", "localhost", ""])
      await expect(conformance(at)).rejects.toThrow(`--url takes an http(s) address, not '${at}'.`);
  });
});

interface Fault {
  /** What is asked of the right engine instead. */
  readonly asks?: (path: string, body: never) => unknown;
  /** What becomes of its answers, its streams and its statuses. */
  readonly answers?: (path: string, body: never) => unknown;
  readonly streams?: (text: string) => string;
  readonly status?: (status: number) => number;
  /** Every caller is taken for one with the token. */
  readonly trusts?: true;
}

/** The engine behind something that is wrong in one point. */
const wrong = (fault: Fault): Promise<string> =>
  listen(async (request, response) => {
    const at = request.url ?? "/";
    const sent = Buffer.concat(await request.toArray()).toString();
    const body: unknown = sent === "" ? undefined : JSON.parse(sent);
    if (body !== undefined) fault.asks?.(at, body as never);
    const authorization = fault.trusts ? `Bearer ${ENGINE_TOKEN}` : (request.headers.authorization ?? "");
    const answer = await fetch(url + at, {
      headers: { authorization, accept: request.headers.accept ?? "" },
      ...(body === undefined ? {} : { method: "POST", body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    response.statusCode = fault.status?.(answer.status) ?? answer.status;
    if (answer.headers.get("content-type") === "text/event-stream") return response.end(fault.streams?.(text) ?? text);
    const changed: unknown = JSON.parse(text);
    if (answer.ok) fault.answers?.(at, changed as never);
    return response.end(JSON.stringify(changed));
  });

type Row = GenerateResult["rows"][number];
type Receipt = Row["receipts"][number];
const generating = (change: (body: GenerateRequest & { best_of?: number }) => unknown): Fault => ({
  asks: (at, body) => at === "/generate" && change(body),
});
const answering = <Body>(to: string, change: (body: Body) => unknown): Fault => ({ answers: (at, body) => at === to && change(body) });
/** Changes the last row. */
const rows = (change: (last: Row, plain: Row) => unknown): Fault =>
  answering<GenerateResult>("/generate", ({ rows }) => change(rows.at(-1) as Row, rows[0] as Row));
const receipts = (strength: number, change: Partial<Receipt>): Fault =>
  rows(({ receipts: [receipt] }) => receipt?.strength === strength && Object.assign(receipt, change));
const scores = (change: (item: ScoreResult["items"][number]) => object): Fault =>
  answering<ScoreResult>("/score", ({ items }) => items.forEach((item) => Object.assign(item, change(item))));
const readings = (change: (item: ActivationsResult["items"][number]) => unknown): Fault =>
  answering<ActivationsResult>("/activations", ({ items }) => items.forEach(change));
let calls = 0;
let canceled = false;

describe("an engine that is wrong in one point", () => {
  it.each<[string, Fault, RegExp]>([
    [
      "is not ready",
      answering("/health", (body: object) => Object.assign(body, { status: "loading" })),
      /^\/health .*: its status is 'loading'$/,
    ],
    ["names no model", answering("/health", ({ models }: { models: string[] }) => models.pop()), /^\/health .*: it names no models$/],
    [
      "has no vocabulary",
      answering("/models", ({ models }: { models: object[] }) => models.forEach((model) => Object.assign(model, { vocab: 0 }))),
      /^\/models .*: 4 layers of 48, context 160, vocabulary 0$/,
    ],
    ["takes any token", { trusts: true }, /^a wrong token .*: it answers 200 without a code, not 401 unauthorized$/],
    ["drops a field", generating((body) => delete body.best_of), /^an unknown field .*: it answers 200 without a code, not 400/],
    [
      "has another status",
      { status: (status) => (status === 404 ? 400 : status) },
      /^an unknown model .*: it answers 400 model_not_found, not 404 model_not_found$/,
    ],
    [
      "forgets the seed",
      generating(({ sampling }) => sampling.seed === 7 && Object.assign(sampling, { seed: calls++ })),
      /^the same seed .*: two calls with one seed differ$/,
    ],
    ["has one seed", generating(({ sampling }) => Object.assign(sampling, { seed: 1 })), /^the same seed .*: two seeds give one text$/],
    [
      "changes plain texts",
      rows(({ receipts: [receipt] }, plain) => receipt?.strength === 0 && Object.assign(plain, { text: "!" })),
      /^zero strength .*: the texts differ$/,
    ],
    ["makes too much of it", receipts(0, { positions_changed: 3 }), /^zero strength .*: its receipt says that 3 positions changed$/],
    [
      "does not steer",
      generating(({ rows: [, row] }) => row?.edits[0]?.strength === STRONG && Object.assign(row.edits[0], { strength: 0 })),
      /^steering .*: the texts are the same$/,
    ],
    [
      "leaves receipts out",
      rows(({ receipts }) => receipts[0]?.strength === STRONG && receipts.pop()),
      /^steering .*: it sends 0 receipts for one edit$/,
    ],
    ["counts too few", receipts(STRONG, { positions: 1 }), /^steering .*: its receipt counts 1 positions, where \d+ to \d+ were read$/],
    ["changes too few", receipts(STRONG, { positions_changed: 1 }), /^steering .*: its receipt says that 1 of \d+ positions changed$/],
    ["measures nothing", receipts(STRONG, { mean_relative_delta: 0 }), /^steering .*: its receipt says that the change was nothing$/],
    ["does not stop", generating(({ sampling }) => Object.assign(sampling, { stop: [] })), /^a stop string .*: ".+" instead of ".*"$/],
    [
      "hides why it stopped",
      rows((row) => Object.assign(row, { finish_reason: "length" })),
      /^a stop string .*: the finish_reason is length$/,
    ],
    [
      "streams another text",
      { streams: (text) => text.replaceAll('"text":"', '"text":"x') },
      /^a stream .*: row DEFAULT: "x.+" instead of "/,
    ],
    ["breaks its streams off", { streams: (text) => text.replace(/event: done.*/s, "") }, /^a stream .*: the stream ends with token$/],
    ["knows better", scores(() => ({ perplexity: 0.5 })), /^\/score .*: the perplexity is 0\.5$/],
    ["cannot add up", scores(({ logprob }) => ({ logprob: 2 * logprob })), /^\/score .*: .* probabilities add up to -[\d.]+, not -[\d.]+$/],
    ["cannot average", scores(({ perplexity }) => ({ perplexity: 2 * perplexity })), /^\/score .*: the perplexity is [\d.]+, not [\d.]+$/],
    [
      "misplaces tokens",
      answering("/tokenize", ({ tokens }: TokenizeResult) => tokens.forEach((token) => Object.assign(token, { end: token.end + 1 }))),
      /^\/tokenize .*: the tokens' places hold "O.*"$/,
    ],
    ["renames tokens", answering("/tokenize", ({ ids }: TokenizeResult) => ids.reverse()), /^\/tokenize .*: ids and tokens differ$/],
    ["reads nothing", readings(({ values }) => values.forEach((row) => row.fill(0))), /^\/activations .*: every projection is 0$/],
    [
      "reads one vector",
      readings(({ values }) => values.splice(1, 1, [...(values[0] ?? [])])),
      /^\/activations .*: a vector times -2 does not/,
    ],
    ["loses a token", readings(({ tokens }) => tokens.pop()), /^\/activations .*: \d+ values for \d+ tokens$/],
    [
      "only says that it cancels",
      {
        asks: (at, body) => at === "/cancel" && Object.assign(body, { id: "nobody" }),
        answers: (at, body) => at === "/cancel" && Object.assign(body, { canceled: true }),
      },
      /^\/cancel .*: it answers 200 without a code, not 409 canceled$/,
    ],
    [
      "cancels and denies it",
      answering("/cancel", (body: object) => Object.assign(body, { canceled: false })),
      /^\/cancel .*: it never finds the generation that runs$/,
    ],
    [
      "never forgets",
      answering("/cancel", (body: { canceled: boolean }) => {
        canceled ||= body.canceled;
        return Object.assign(body, { canceled });
      }),
      /^\/cancel .*: it cancels a generation twice$/,
    ],
    ["sends other JSON", scores(({ tokens }) => ({ tokens: tokens.length })), /^\/score .*: its answer is wrong at items\.0\.tokens: /],
  ])("%s: fails that check alone", async (_, fault, why) => {
    expect(await conformance(await wrong(fault))).toBe(1);
    expect(failed().map((line) => line.replace(/^FAILED {2}/, ""))).toEqual([expect.stringMatching(why)]);
    expect(printed.at(-1)).toBe(`1 of ${CHECKS.length} checks failed.`);
  });

  it("fails every check that asks for something it does not have", async () => {
    expect(await conformance(url, { ENGINE_TOKEN }, "gpt2-small")).toBe(1);
    expect(failed()[0]).toBe("FAILED  /health is ok and names the model: it names tiny-gpt2");
    expect(failed()[1]).toBe("FAILED  /models describes the model: it lists 'tiny-gpt2'");
    expect(failed()).toContain("FAILED  a stop string ends the text before it: it answers 404 model_not_found");
  });
});
