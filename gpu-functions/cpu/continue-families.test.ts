// Every family, cut at every token: what an interrupted run goes on to is what it would have been.
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodeFloat32 } from "../../shared/base64.ts";
import { GenerateRequest, type GenerateResult, type TokenEvent } from "../../shared/protocol.ts";
import { type Engine, loadEngine } from "./engine.ts";
import { FIXTURES, fixtures } from "./fixture.ts";
import { CHUNK } from "./session.ts";

interface Run {
  readonly tokens: readonly TokenEvent[];
  readonly result: GenerateResult;
}
type Request = ReturnType<typeof requestOf>;

async function run(engine: Engine, request: object): Promise<Run> {
  const tokens: TokenEvent[] = [];
  for await (const event of engine.generate(GenerateRequest.parse(request), new AbortController().signal)) {
    if (event.event === "token") tokens.push(event.data);
    if (event.event === "done") return { tokens, result: event.data };
  }
  throw new Error("the events ended without done");
}

function requestOf(engine: Engine, model: string, sampling: object = {}, more: object = {}) {
  const width = engine.models().find(({ id }) => id === model)?.width ?? 0;
  const edit = (phase: number, more: object) => ({
    vector: encodeFloat32(Array.from({ length: width }, (_, i) => Math.sin(i * 1.7 + phase))),
    point: "blocks.1.hook_resid_post",
    ...more,
  });
  return {
    ...{ model, prompt: "The café — naïve", max_tokens: 20, ...more },
    rows: [
      { name: "DEFAULT", edits: [] },
      {
        name: "STEERED",
        edits: [
          edit(0, { method: "SIMPLE_ADDITIVE", strength: 3, schedule: { kind: "ramp", tokens: 6 } }),
          edit(1, { method: "PROJECTION_CLAMP", strength: 0, min: -0.2, max: 0.3, positions: "generated" }),
        ],
      },
    ],
    sampling: { temperature: 2, seed: 1, logprobs: 1, frequency_penalty: 0.4, ...sampling },
  };
}

/** Runs the request anew with the first `cuts[i]` tokens of row i generated, and compares everything with the whole run. */
async function compare(engine: Engine, request: Request, whole: Run, cuts: readonly number[]): Promise<void> {
  const rows = request.rows.map((row, i) => ({ ...row, generated: tokensOf(whole, row.name, 0, cuts[i]).map(({ id }) => id) }));
  const rest = await run(engine, { ...request, rows });
  for (const [i, { name, text, finish_reason, receipts }] of whole.result.rows.entries()) {
    const again = rest.result.rows[i] as GenerateResult["rows"][number];
    const place = `${name} after ${cuts.join(" and ")}`;
    expect([place, again.text, again.finish_reason]).toEqual([place, text, finish_reason]);
    const shown = (tokens: readonly TokenEvent[]) => tokens.map(({ index, id, text }) => ({ index, id, text }));
    expect(shown(tokensOf(rest, name, 0))).toEqual(shown(tokensOf(whole, name, cuts[i] as number)));
    expect(again.receipts.length).toBe(receipts.length);
    for (const [r, { mean_relative_delta, ...counted }] of receipts.entries()) {
      expect(again.receipts[r]).toMatchObject(counted);
      expect(Math.abs((again.receipts[r]?.mean_relative_delta ?? 0) - mean_relative_delta)).toBeLessThan(1e-5);
    }
  }
  expect(rest.result.usage).toEqual(whole.result.usage);
}

const tokensOf = ({ tokens }: Run, row: string, from: number, to?: number) => tokens.filter((token) => token.row === row).slice(from, to);
const count = (whole: Run, row: number) => tokensOf(whole, whole.result.rows[row]?.name ?? "", 0).length;

/** Every cut of each row, beside another cut of the other. */
async function compareEveryCut(engine: Engine, request: Request): Promise<Run> {
  const whole = await run(engine, request);
  const [first, second] = [count(whole, 0), count(whole, 1)];
  const most = Math.max(first, second);
  for (let cut = 0; cut <= most; cut++) await compare(engine, request, whole, [Math.min(cut, first), Math.min(most - cut, second)]);
  return whole;
}

describe.each(FIXTURES)("%s", (name) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ directories: [path.join(fixtures, name)], threads: 1 });
  });
  afterAll(() => engine.close());

  it("goes on from every token, sampled and greedy", async () => {
    await compareEveryCut(engine, requestOf(engine, name));
    await compareEveryCut(engine, requestOf(engine, name, { temperature: 0 }));
  });

  it("goes on past the end of a chunk of the prompt", async () => {
    const request = requestOf(engine, name, {}, { max_tokens: CHUNK });
    const whole = await run(engine, request);
    const prompt = whole.result.usage.prompt_tokens;
    const cuts = [CHUNK - prompt - 1, CHUNK - prompt, CHUNK - prompt + 1];
    for (const [i, cut] of cuts.entries())
      await compare(engine, request, whole, [Math.min(cut, count(whole, 0)), Math.min(cuts.at(-1 - i) ?? 0, count(whole, 1))]);
  });
});

describe("8-bit blocks", () => {
  const temporary = mkdtempSync(path.join(tmpdir(), "continue-"));
  let engine: Engine;
  beforeAll(async () => {
    // The blocks are written beside the weights.
    const blocks = path.join(temporary, "tiny-llama");
    cpSync(path.join(fixtures, "tiny-llama"), blocks, { recursive: true });
    engine = await loadEngine({ directories: [blocks], threads: 1, quantise: "q8" });
  });
  afterAll(async () => {
    await engine.close();
    rmSync(temporary, { recursive: true });
  });

  it("go on from every token", async () => {
    expect(engine.model("tiny-llama").info.dtype).toMatch(/int8/);
    await compareEveryCut(engine, requestOf(engine, "tiny-llama"));
  });
});
