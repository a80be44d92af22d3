import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { GenerateRequest } from "../../shared/protocol.ts";
import { fixtures, worst } from "../cpu/fixture.ts";
import { wholeReading } from "../cpu/reading.ts";
import { type Engine, loadEngine, ROUNDING } from "./engine.ts";

const MODEL = "tiny-gpt2";
const LAYERS = 4;
const CONTEXT = 160;
const open = () => loadEngine({ directories: [path.join(fixtures, MODEL)], threads: 1 });
let engine: Engine;
beforeAll(async () => {
  engine = await open();
});
afterAll(() => engine.close());

const never = () => new AbortController().signal;
const scheduler = () => engine.model(MODEL).scheduler;
const free = () => expect.poll(() => scheduler().load()).toEqual({ rows: 0, waiting: 0 });

const textOf = (length: number, seed: number) => Array.from({ length }, (_, i) => (i * 31 + seed * 17 + 5) % 256);
/** Lengths as sentences have them, not in order, with what is shorter and longer than a call may be. */
const LENGTHS = [45, 1, 8, 127, 30, 31, 9, CONTEXT, 2, 17, 23, 128, 12, 12, 12, 12, 12, 1, 44, 129, 3, 26, 38, 19, 5, 61];
const TEXTS = LENGTHS.map(textOf);
const MANY = Array.from({ length: 8 }, (_, i) => TEXTS.map((_, j) => textOf((LENGTHS[j] as number) % 50 || 7, i * 100 + j))).flat();

/** Reads texts, one at a time being given: their residuals by place. */
async function read(texts: readonly number[][], boundaries: readonly number[], between = async () => {}): Promise<Float32Array[][]> {
  const found: Float32Array[][] = [];
  let taking = 0;
  const each = async (text: number, residuals: readonly Float32Array[]) => {
    expect([taking++, found[text]]).toEqual([0, undefined]);
    await between();
    found[text] = residuals.map((each) => each.slice());
    taking--;
  };
  await scheduler().readTexts(texts, boundaries, each, never());
  return found;
}

async function oneByOne(texts: readonly number[][], boundaries: readonly number[]): Promise<(readonly Float32Array[])[]> {
  const found: (readonly Float32Array[])[] = [];
  for (const ids of texts) {
    const { reading, residuals } = wholeReading(ids, boundaries, engine.model(MODEL).shape);
    await scheduler().read(reading, never());
    found.push(residuals);
  }
  return found;
}

function expectSame(found: readonly (readonly Float32Array[])[], wanted: readonly (readonly Float32Array[])[]): void {
  expect(found).toHaveLength(wanted.length);
  for (const [text, residuals] of wanted.entries()) {
    for (const [i, residual] of residuals.entries()) {
      const got = found[text]?.[i] as Float32Array;
      expect(got).toHaveLength(residual.length);
      if (ROUNDING === 0) expect(got).toEqual(residual);
      else expect(worst(got, residual)).toBeLessThan(1e-5);
    }
  }
}

describe("many texts", () => {
  it("have the residuals of each alone, at every boundary", async () => {
    for (const boundaries of [[0], [2], [LAYERS], [LAYERS, 0, 1, 2, 3]])
      expectSame(await read(TEXTS, boundaries), await oneByOne(TEXTS, boundaries));
    expect(await read([], [0])).toEqual([]);
  });

  it("are the same beside generations, and the generations are the same beside them", async () => {
    const request = GenerateRequest.parse({
      model: MODEL,
      prompt: "The sun rose over",
      rows: Array.from({ length: 8 }, (_, i) => ({ name: `row ${i}`, edits: [] })),
      sampling: { temperature: 0.9, seed: 3 },
      max_tokens: 60,
    });
    let tokens = 0;
    const generate = async () => {
      const ids: number[] = [];
      for await (const { event, data } of engine.generate(request, never())) {
        if (event !== "token") continue;
        tokens++;
        ids.push(data.id);
      }
      return ids;
    };
    const wanted = await oneByOne(MANY, [LAYERS]);
    const alone = await generate();
    tokens = 0;
    const seen = new Set<number>();
    const reading = read(MANY, [LAYERS], async () => {
      seen.add(tokens);
    });
    expect(await generate()).toEqual(alone);
    expectSame(await reading, wanted);
    // Neither waited for the other's end.
    expect(seen.size).toBeGreaterThan(10);
  });

  it("end when nobody wants them any more, and leave nothing behind", async () => {
    const controller = new AbortController();
    let [given, taken] = [0, 0];
    const each = async () => {
      given++;
      controller.abort();
      for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
      taken++;
    };
    await expect(scheduler().readTexts(MANY, [1], each, controller.signal)).rejects.toThrow(/cancelled|aborted/);
    expect([given, taken]).toEqual([1, 1]);
    await expect(scheduler().readTexts(MANY, [1], each, controller.signal)).rejects.toThrow(/cancelled|aborted/);
    expect(given).toBe(1);
    await free();
    expectSame(await read(TEXTS, [1]), await oneByOne(TEXTS, [1]));
  });

  it("end at their deadline", async () => {
    for (const texts of [MANY, Array.from({ length: 300 }, () => textOf(CONTEXT, 1))]) {
      await expect(scheduler().readTexts(texts, [LAYERS], () => undefined, never(), 2)).rejects.toMatchObject({ code: "engine_timeout" });
      await free();
    }
  });

  it("end with what their reader throws, once it has thrown it", async () => {
    for (const texts of [MANY, TEXTS.filter(({ length }) => length > 128)]) {
      let given = 0;
      const error = new RangeError("no room for it");
      const each = async () => {
        await new Promise((resolve) => setImmediate(resolve));
        if (++given === 2) throw error;
      };
      await expect(scheduler().readTexts(texts, [LAYERS], each, never())).rejects.toBe(error);
      expect(given).toBe(2);
      await free();
    }
  });

  it("are refused while too many requests wait", async () => {
    const all = await Promise.allSettled(
      Array.from({ length: 200 }, (_, i) => scheduler().readTexts([textOf(9, i)], [1], () => undefined, never())),
    );
    const refused = all.filter((one) => one.status === "rejected");
    expect(refused.length).toBeGreaterThan(100);
    expect(refused.length).toBeLessThan(200);
    for (const { reason } of refused) expect(reason).toMatchObject({ code: "engine_busy" });
    await free();
  });

  it("end when the engine does", async () => {
    const other = await open();
    let closing: Promise<void> | undefined;
    const each = () => {
      closing ??= other.close();
    };
    await expect(other.model(MODEL).scheduler.readTexts(MANY, [LAYERS], each, never())).rejects.toMatchObject({
      code: "engine_unavailable",
    });
    await closing;
  });
});
