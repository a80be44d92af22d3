// An interrupted generation goes on as if nothing had happened; and one can be ended by its name.
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodeFloat32 } from "../../shared/base64.ts";
import { TillerError } from "../../shared/errors.ts";
import { type Edit, GenerateRequest, type GenerateResult, type TokenEvent } from "../../shared/protocol.ts";
import { type Engine, loadEngine } from "./engine.ts";

const fixture = (name: string) => path.join(import.meta.dirname, "..", "fixtures", name);
const BUNDLED = path.join(import.meta.dirname, "..", "bundled", "tiller-tales");
let engine: Engine;
beforeAll(async () => {
  engine = await loadEngine({ directories: [fixture("tiny-gpt2"), fixture("tiny-llama"), BUNDLED], threads: 1 });
});
afterAll(() => engine.close());

interface Run {
  readonly tokens: readonly TokenEvent[];
  readonly result: GenerateResult;
}
async function run(request: object): Promise<Run> {
  const tokens: TokenEvent[] = [];
  for await (const event of engine.generate(GenerateRequest.parse(request), new AbortController().signal)) {
    if (event.event === "token") tokens.push(event.data);
    if (event.event === "done") return { tokens, result: event.data };
  }
  throw new Error("the events ended without done");
}
const idsOf = ({ tokens }: Run, row: string) => tokens.filter((token) => token.row === row).map(({ id }) => id);

const edit = (model: string, more: Partial<Edit>): object => ({
  vector: encodeFloat32(Array.from({ length: engine.models().find(({ id }) => id === model)?.width ?? 0 }, (_, i) => Math.sin(i * 1.7))),
  ...{ point: "blocks.2.hook_resid_pre", method: "SIMPLE_ADDITIVE", strength: 4, ...more },
});
const requestOf = (model: string, edits: readonly Partial<Edit>[], sampling: object = {}, more: object = {}) => ({
  ...{ model, prompt: "One day a little girl", max_tokens: 18, ...more },
  rows: [
    { name: "DEFAULT", edits: [] },
    { name: "STEERED", edits: edits.map((each) => edit(model, each)) },
  ],
  sampling: { temperature: 0.9, seed: 11, logprobs: 2, ...sampling },
});

const CASES: readonly [name: string, request: () => ReturnType<typeof requestOf>][] = [
  ["sampled", () => requestOf("tiny-gpt2", [{}])],
  ["greedy", () => requestOf("tiny-gpt2", [{}], { temperature: 0 })],
  ["another family", () => requestOf("tiny-llama", [{ strength: 2 }])],
  ["the bundled model", () => requestOf("tiller-tales", [{ strength: 20, point: "blocks.3.hook_resid_pre" }], {}, { max_tokens: 24 })],
  ["penalties", () => requestOf("tiny-gpt2", [{}], { frequency_penalty: 1.5, presence_penalty: 0.7 })],
  ["a schedule that fades", () => requestOf("tiny-gpt2", [{ schedule: { kind: "decay", tokens: 9 } }])],
  ["a schedule that grows", () => requestOf("tiny-gpt2", [{ schedule: { kind: "ramp", tokens: 7 } }])],
  ["edits of the prompt alone", () => requestOf("tiny-gpt2", [{ positions: "prompt" }])],
  ["edits of the generation alone", () => requestOf("tiny-gpt2", [{ positions: "generated" }])],
  [
    "edits of ranges over the end of the prompt",
    () =>
      requestOf("tiny-gpt2", [
        {
          positions: [
            [2, 4],
            [7, 16],
          ],
        },
      ]),
  ],
  [
    "several methods",
    () =>
      requestOf("tiny-gpt2", [
        { method: "PROJECTION_CAP", strength: 0.2 },
        { method: "ORTHOGONAL_DECOMP", strength: 3 },
      ]),
  ],
  ["special tokens that are left alone", () => requestOf("tiller-tales", [{ strength: 20 }], {}, { steer_special_tokens: false })],
];

describe("a generation that goes on after", () => {
  it.each(CASES)("%s: is the uninterrupted one from every cut on", async (_, make) => {
    const request = make();
    const whole = await run(request);
    const [plain, steered] = [idsOf(whole, "DEFAULT"), idsOf(whole, "STEERED")];
    for (let cut = 1; cut <= Math.max(plain.length, steered.length); cut += 2) {
      // Rows are stored at different moments: the other one is cut elsewhere.
      const cuts = { DEFAULT: Math.min(cut, plain.length), STEERED: Math.min(Math.floor(cut / 2) + (cut % 3), steered.length) };
      const rows = request.rows.map((row) => {
        const generated = (row.name === "DEFAULT" ? plain : steered).slice(0, cuts[row.name as keyof typeof cuts]);
        return generated.length === 0 ? row : { ...row, generated };
      });
      const rest = await run({ ...request, rows });
      expect([cut, idsOf(rest, "DEFAULT"), idsOf(rest, "STEERED")]).toEqual([cut, plain.slice(cuts.DEFAULT), steered.slice(cuts.STEERED)]);
      for (const name of ["DEFAULT", "STEERED"] as const) {
        const first = rest.tokens.find((token) => token.row === name);
        if (first !== undefined) expect(first.index).toBe(cuts[name]);
      }
      for (const [i, row] of whole.result.rows.entries()) {
        const again = rest.result.rows[i];
        expect([cut, again?.text, again?.finish_reason]).toEqual([cut, row.text, row.finish_reason]);
        expect(again?.receipts.map(({ positions, positions_changed }) => [positions, positions_changed])).toEqual(
          row.receipts.map(({ positions, positions_changed }) => [positions, positions_changed]),
        );
        for (const [r, { mean_relative_delta }] of row.receipts.entries())
          expect(again?.receipts[r]?.mean_relative_delta).toBeCloseTo(mean_relative_delta, 4);
      }
      expect(rest.result.usage).toEqual(whole.result.usage);
    }
  });

  it("what holds a part of a stop string, or of a character, is the uninterrupted one", async () => {
    const plain = await run(requestOf("tiller-tales", [{ strength: 20 }], { temperature: 0 }, { max_tokens: 24 }));
    const text = plain.result.rows[0]?.text ?? "";
    // A stop string of two words: its first token may be stored, and its second not.
    const stop = / \w+ \w+/.exec(text.slice(12))?.[0] ?? "";
    expect(stop.length).toBeGreaterThan(3);
    const request = requestOf("tiller-tales", [{ strength: 20 }], { temperature: 0, stop: [stop] }, { max_tokens: 24 });
    const whole = await run(request);
    expect(whole.result.rows[0]).toMatchObject({ finish_reason: "stop" });
    const ids = idsOf(whole, "DEFAULT");
    for (let cut = 1; cut <= ids.length; cut++) {
      const [first, second] = request.rows;
      const rest = await run({ ...request, rows: [{ ...first, generated: ids.slice(0, cut) }, second] });
      expect([cut, rest.result.rows[0]?.text, rest.result.rows[0]?.finish_reason]).toEqual([cut, whole.result.rows[0]?.text, "stop"]);
    }
  });

  /** The same request after other numbers of tokens of its rows. */
  const goOn = (request: ReturnType<typeof requestOf>, whole: Run, cuts: readonly number[]) =>
    run({ ...request, rows: request.rows.map((row, i) => ({ ...row, generated: idsOf(whole, row.name).slice(0, cuts[i]) })) });

  it("the bytes of a character, some of which were generated before, has the character", async () => {
    const request = requestOf("tiny-gpt2", [{}], { temperature: 2, seed: 1 }, { prompt: "The café — naïve" });
    const whole = await run(request);
    const events = whole.tokens.filter((token) => token.row === "DEFAULT");
    const last = events.findIndex(({ text }, i) => events[i - 1]?.text === "" && /[^\p{ASCII}\ufffd]/u.test(text));
    expect([events[last - 1]?.token, events[last]?.token]).toEqual(["\ufffd", "\ufffd"]);
    const rest = await goOn(request, whole, [last, 0]);
    expect(rest.tokens.find((token) => token.row === "DEFAULT")?.text).toBe(events[last]?.text);
    expect(rest.result.rows[0]?.text).toBe(whole.result.rows[0]?.text);
  });

  it("tokens of rows that are compared has the same KL, also where one row is further or has ended", async () => {
    const free = await run(requestOf("tiny-llama", [{ strength: 2 }]));
    const text = free.result.rows[0]?.text ?? "";
    for (const stop of [[], [text.slice(5, 8)]]) {
      const request = requestOf("tiny-llama", [{ strength: 2 }], { stop }, { kl_baseline: "DEFAULT" });
      const whole = await run(request);
      const [plain, steered] = ["DEFAULT", "STEERED"].map((name) => whole.tokens.filter((token) => token.row === name)) as [
        TokenEvent[],
        TokenEvent[],
      ];
      expect(steered.some(({ kl }) => (kl ?? 0) > 0)).toBe(true);
      for (let cut = 0; cut <= steered.length; cut++) {
        for (const other of [0, cut, steered.length - cut]) {
          const cuts = [Math.min(other, plain.length), cut];
          const rest = await goOn(request, whole, cuts);
          expect([cuts, idsOf(rest, "DEFAULT")]).toEqual([cuts, plain.slice(cuts[0]).map(({ id }) => id)]);
          const compared = rest.tokens.filter((token) => token.row === "STEERED");
          expect(compared.map(({ index, id, text }) => [index, id, text])).toEqual(
            steered.slice(cut).map(({ index, id, text }) => [index, id, text]),
          );
          for (const [i, { kl }] of compared.entries()) {
            const wanted = steered[cut + i]?.kl;
            if (typeof wanted === "number") expect(Math.abs((kl ?? Number.NaN) - wanted)).toBeLessThan(1e-5);
            else expect(kl).toBe(wanted);
          }
          for (const [i, row] of whole.result.rows.entries()) {
            expect(rest.result.rows[i]).toMatchObject({ text: row.text, finish_reason: row.finish_reason });
            expect(rest.result.rows[i]?.receipts.map(({ positions }) => positions)).toEqual(row.receipts.map(({ positions }) => positions));
          }
          expect(rest.result.usage).toEqual(whole.result.usage);
        }
      }
    }
  });

  it("an end-of-text token has nothing more, and the receipts and numbers of the run that met it", async () => {
    const [eos] = [...engine.model("tiny-gpt2").tokenizer.eosIds] as [number];
    const ended = async (seed: number): Promise<[ReturnType<typeof requestOf>, Run]> => {
      const request = requestOf("tiny-gpt2", [{}], { temperature: 2, seed }, { max_tokens: 60 });
      const whole = await run(request);
      return whole.result.rows[1]?.finish_reason === "stop" ? [request, whole] : ended(seed + 1);
    };
    const [request, whole] = await ended(0);
    const rows = request.rows.map((row, i) => ({ ...row, generated: [...idsOf(whole, row.name), ...(i === 1 ? [eos] : [])] }));
    const rest = await run({ ...request, rows });
    expect(rest.tokens).toEqual([]);
    expect(rest.result.usage).toEqual(whole.result.usage);
    expect(rest.result.rows[1]).toMatchObject({ text: whole.result.rows[1]?.text, finish_reason: "stop" });
    expect(rest.result.rows[1]?.receipts[0]?.positions).toBe(whole.result.rows[1]?.receipts[0]?.positions);
  });

  it("more than the row's end is refused, because no run of the request gave it", async () => {
    const request = requestOf("tiny-gpt2", [{}], { temperature: 0 });
    const whole = await run(request);
    const [eos] = [...engine.model("tiny-gpt2").tokenizer.eosIds] as [number];
    const generated = idsOf(whole, "DEFAULT").slice(0, 9);
    const stop = whole.result.rows[0]?.text.slice(0, 2) as string;
    const withTokens = (generated: number[], stop: string[] = []) =>
      run({ ...request, sampling: { ...request.sampling, stop }, rows: [{ ...request.rows[0], generated }, request.rows[1]] });
    await expect(withTokens([eos, ...generated])).rejects.toThrow(/Row 'DEFAULT' ends \(stop\) before token 1 of the 10/);
    await expect(withTokens(generated, [stop])).rejects.toMatchObject({ code: "invalid_request" });
  });

  it("tokens that this model or this request cannot have is refused", async () => {
    const request = requestOf("tiny-gpt2", [{}], {}, { max_tokens: 2 });
    const withTokens = (generated: number[], more: object = {}) =>
      run({ ...request, ...more, rows: [{ ...request.rows[0], generated }, request.rows[1]] });
    await expect(withTokens([100_000])).rejects.toThrow(/rows\.0\.generated has 100000, which is no token/);
    await expect(withTokens([1, 2, 3])).rejects.toThrow(/more than max_tokens, 2/);
  });
});

describe("a generation with a name", () => {
  const long = () => ({ ...requestOf("tiny-gpt2", [{}], {}, { max_tokens: 120 }), id: "job-1" });
  const failure = async (running: Promise<Run>): Promise<unknown> =>
    running.then(
      () => "it went on",
      (error: unknown) => (error instanceof TillerError ? error.code : error),
    );
  const busy = () => engine.model("tiny-gpt2").scheduler.load();

  it("is ended by it, and leaves its slots", async () => {
    const running = failure(run(long()));
    while (busy().rows === 0) await new Promise((resolve) => setImmediate(resolve));
    expect(engine.cancel("job-1")).toBe(true);
    expect(await running).toBe("canceled");
    while (busy().rows > 0) await new Promise((resolve) => setImmediate(resolve));
    expect(engine.cancel("job-1")).toBe(false);
  });

  it("makes room for another of its name", async () => {
    const first = failure(run(long()));
    while (busy().rows === 0) await new Promise((resolve) => setImmediate(resolve));
    const second = run({ ...long(), max_tokens: 3 });
    expect(await first).toBe("canceled");
    expect((await second).result.rows.length).toBe(2);
    expect(engine.cancel("job-1")).toBe(false);
  });
});
