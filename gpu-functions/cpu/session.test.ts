import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { applyEdits, compilePoint, type ResolvedEdit } from "../../shared/steering.ts";
import type { Edits } from "./edit-slots.ts";
import { type Case, FIXTURES, Fixture, type Forward } from "./fixture.ts";
import { predict } from "./sampler.ts";
import { CHUNK, type DecoderSession } from "./session.ts";
import type { Step } from "./step.ts";

const STORAGES = FIXTURES.flatMap((name) => (["float32", "q8"] as const).map((storage) => [name, storage] as const));

describe.each(STORAGES)("exactness of %s in %s", (name, storage) => {
  let fixture: Fixture;
  let session: DecoderSession;
  let test: Case;
  let layers: number;
  let width: number;
  let direction: Float32Array;
  let captures: number[];
  beforeAll(() => {
    fixture = new Fixture(name, storage);
    ({ session, layers, width } = fixture);
    test = fixture.case("plain-short");
    direction = fixture.direction(0);
    captures = Array.from({ length: layers + 1 }, (_, b) => b);
  });
  afterAll(() => session.close());
  const at = (boundary: number, edit: Partial<ResolvedEdit>): Edits =>
    new Map([[boundary, compilePoint([{ method: "SIMPLE_ADDITIVE", strength: 3, direction, ...edit }], width)]]);
  async function run(edits: Edits, slot = 0, ids: readonly number[] = test.ids): Promise<{ logits: Float32Array; resid: Float32Array[] }> {
    session.edits.set(slot, edits);
    const step = await session.prefill(slot, ids, 0, [ids.length - 1], { captures });
    return { logits: step.logits(0).slice(), resid: captures.map((b) => step.captured(b).slice()) };
  }

  it("going on from a boundary's residuals gives the bits of the whole graph, with edits of both kinds", async () => {
    const ids = test.ids;
    for (const edit of [{}, { method: "PROJECTION_CAP" as const, strength: -0.5 }]) {
      for (let b = 1; b <= layers; b++) {
        const residual = (await run(new Map())).resid[b];
        const whole = await run(at(b, edit), 1);
        session.edits.set(2, at(b, edit));
        session.cache.move(0, 2, ids.length, 0, b);
        const step = await session.prefillFrom(b, residual as Float32Array, 2, ids, 0, [ids.length - 1]);
        expect(step.logits(0)).toEqual(whole.logits);
        // Its cache is whole: the next token is the same too.
        session.edits.set(0, at(b, edit));
        const next = async (slot: number) => {
          session.cache.move(slot, 0, ids.length);
          return (await session.decode([3], [ids.length])).logits(0).slice();
        };
        const wanted = await next(1);
        expect(await next(2)).toEqual(wanted);
      }
    }
  });

  it("offers the residuals of a boundary before its edits, of a prompt and of rows that decode", async () => {
    const ids = test.ids.slice(0, 6);
    const boundaries = captures.slice(1);
    for (const edit of [{}, { method: "PROJECTION_CAP" as const, strength: -50 }]) {
      const plain = await run(new Map(), 0, ids);
      const next = (await session.decode([7], [ids.length], [1], boundaries)).before(1).slice();
      for (const b of boundaries) {
        session.edits.set(0, at(b, edit));
        const step = await session.prefill(0, ids, 0, [0], { before: [b], captures: [b] });
        expect(step.before(b)).toEqual(plain.resid[b]);
        expect(step.captured(b)).not.toEqual(plain.resid[b]);
      }
      await run(new Map(), 1, ids);
      await run(at(1, edit), 0, ids);
      const decoded = await session.decode([7, 7], [ids.length, ids.length], [1, 1], boundaries);
      expect(decoded.before(1)).toEqual(Float32Array.from([...next, ...next]));
      expect(decoded.before(layers).subarray(0, width)).not.toEqual(decoded.before(layers).subarray(width));
    }
  });

  it("zero strength equals the baseline bit for bit", async () => {
    const plain = await run(new Map());
    for (let b = 0; b <= layers; b++) {
      expect((await run(at(b, { strength: 0 }))).logits).toEqual(plain.logits);
      expect((await run(at(b, { method: "ORTHOGONAL_DECOMP", strength: 1 }))).logits).toEqual(plain.logits);
    }
  });

  it("predictions are those of the logits, at each row's temperature, and the same alone and in a batch", async () => {
    const temperatures = [0.7, 1.9, 0.05, 1];
    const slots = temperatures.map((_, slot) => slot);
    const ids = test.ids.slice(0, 5);
    for (const slot of slots) await run(at(1, { strength: slot }), slot, ids);
    const keep = (step: Step, row: number) => structuredClone(step.prediction(row));
    const batch = await session.decode(
      slots.map(() => 7),
      slots.map(() => ids.length),
      temperatures,
    );
    const together = slots.map((row) => ({ ...keep(batch, row), logits: batch.logits(row).slice() }));
    for (const [row, temperature] of temperatures.entries()) {
      const { logits, logProbs, probs, top } = together[row] as (typeof together)[number];
      const defined = predict(logits, temperature);
      expect(top.map(({ id }) => id)).toEqual(defined.top.map(({ id }) => id));
      expect(top.map(({ id, logprob }) => logprob - (logProbs[id] as number)).every((difference) => difference === 0)).toBe(true);
      for (const id of logits.keys()) {
        expect(Math.abs((logProbs[id] as number) - (defined.logProbs[id] as number))).toBeLessThan(1e-5);
        expect(Math.abs((probs[id] as number) - (defined.probs[id] as number))).toBeLessThan(1e-6);
      }
    }
    // Slot 0 alone: what was drawn beside others is drawn again.
    const first = together[0] as (typeof together)[number];
    const alone = keep(await session.decode([7], [ids.length], [0.7]), 0);
    expect(alone).toEqual({ logProbs: first.logProbs, probs: first.probs, top: first.top });
  });

  it("a bound that is never reached equals the baseline bit for bit, on the graph with ordered edits", async () => {
    const plain = await run(new Map());
    expect((await run(at(2, { method: "PROJECTION_CAP", strength: 1e6 }))).logits).toEqual(plain.logits);
  });

  it("an edit at boundary L leaves every lower boundary bit-equal and changes L and all above", async () => {
    const plain = await run(new Map());
    for (const edit of [{}, { method: "PROJECTION_CAP" as const, strength: -50 }]) {
      for (let b = 0; b <= layers; b++) {
        const edited = await run(at(b, edit));
        for (let other = 0; other <= layers; other++) {
          if (other < b) expect(edited.resid[other]).toEqual(plain.resid[other]);
          else expect(edited.resid[other]).not.toEqual(plain.resid[other]);
        }
        expect(edited.logits).not.toEqual(plain.logits);
      }
    }
  });

  it("the edited boundary differs by exactly the edit", async () => {
    const plain = await run(new Map());
    const edited = await run(at(2, {}));
    const before = plain.resid[2] as Float32Array;
    const after = edited.resid[2] as Float32Array;
    after.forEach((value, i) => expect(value).toBe(Math.fround((before[i] as number) + Math.fround(3 * (direction[i % width] as number)))));
  });

  it("clamped latents, active or not, between other edits give what the definition gives", async () => {
    const before = (await run(new Map())).resid[2] as Float32Array;
    const residual = (t: number) => before.subarray(t * width, (t + 1) * width);
    const read = fixture.direction(1);
    const reads = test.ids.map((_, t) => residual(t).reduce((sum, x, d) => sum + x * (read[d] as number), 0)).sort((a, b) => a - b);
    // Halfway between two tokens' reads: the latent is active at some positions only, and no rounding can move one over the edge.
    const edge = ((reads[5] as number) + (reads[6] as number)) / 2;
    const list: ResolvedEdit[] = [
      { method: "LATENT_CLAMP", strength: 1.5, direction, latent: { read, zero: edge - 0.3, edge } },
      { method: "SIMPLE_ADDITIVE", strength: 2, direction },
      { method: "LATENT_CLAMP", strength: 0, direction: fixture.direction(2), latent: { read, zero: -20, edge: -20 } },
      { method: "PROJECTION_CAP", strength: 0.2, direction: fixture.direction(3) },
    ];
    const after = (await run(new Map([[2, compilePoint(list, width)]]))).resid[2] as Float32Array;
    const active = test.ids.filter((_, t) => {
      const wanted = applyEdits(residual(t), list);
      for (let d = 0; d < width; d++) expect(Math.abs((after[t * width + d] as number) - (wanted[d] as number))).toBeLessThan(1e-4);
      return residual(t).reduce((sum, x, d) => sum + x * (read[d] as number), 0) > edge;
    });
    expect(active.length).toBe(test.ids.length - 6);
  });

  it("chunks of any length give the same bits as one call", async () => {
    const long = fixture.cases.findLast(({ ids }) => ids.length > CHUNK) as Case;
    const whole = await fixture.forward(long.ids, fixture.rowEdits(long), long.prompt);
    for (const chunk of [7, 64]) {
      const parts = await fixture.forward(long.ids, fixture.rowEdits(long), long.prompt, 1, chunk);
      expect(parts.logits.at(-1)).toEqual(whole.logits.at(-1));
    }
  });

  it("a row decodes to the same bits alone, beside plain rows and beside rows with ordered edits", async () => {
    const edits = at(1, {});
    const decode = async (others: readonly Edits[]): Promise<Float32Array> => {
      const all = [edits, ...others];
      for (const [slot, each] of all.entries()) await run(each, slot);
      const step = await session.decode(
        all.map((_, slot) => 5 + slot),
        all.map(() => test.ids.length),
      );
      return step.logits(0).slice();
    };
    const alone = await decode([]);
    expect(await decode([new Map()])).toEqual(alone);
    expect(await decode([new Map(), at(3, { strength: -2 })])).toEqual(alone);
    expect(await decode([at(2, { method: "PROJECTION_CAP", strength: 0 }), new Map()])).toEqual(alone);
  });

  it("moved and swapped caches decode to the same bits", async () => {
    await run(at(1, {}), 0);
    const decode = async (slot: number, first: number) => {
      session.edits.set(slot, at(1, {}));
      const step = await session.prefill(slot, [first], test.ids.length, [0]);
      return step.logits(0).slice();
    };
    const wanted = await decode(0, 9);
    session.cache.move(0, 3, test.ids.length);
    expect(await decode(3, 9)).toEqual(wanted);
    await run(new Map(), 2, [...test.ids].reverse());
    session.cache.swap(3, 2, test.ids.length);
    expect(await decode(2, 9)).toEqual(wanted);
  });
});

describe("receipts", () => {
  const fixture = new Fixture("tiny-gpt2");
  afterAll(() => fixture.session.close());

  it("report the positions changed and the mean relative change that the formulas give", async () => {
    const test = fixture.case("positions-ranges");
    const edits = fixture.rowEdits(test);
    const run = await fixture.forward(test.ids, edits, test.prompt);
    const [additive, cap] = edits.receipts();
    expect(additive).toMatchObject({ positions: 5, positions_changed: 5 });
    expect(cap?.positions).toBe(test.ids.length);
    expect(cap?.positions_changed).toBeLessThan(test.ids.length);
    const plain = await fixture.forward(test.ids, fixture.rowEdits({ edits: [], prompt: test.prompt }), test.prompt);
    const length = (v: Float32Array) => Math.sqrt(v.reduce((sum, x) => sum + x * x, 0));
    const direction = fixture.direction(0);
    const relative = [1, 2, 6, 7, 8].map((p) => (2 * length(direction)) / length(relativeTo(run, plain, test, p)));
    expect(additive?.mean_relative_delta).toBeCloseTo(relative.reduce((a, b) => a + b) / 5, 4);
  });

  /** h before boundary 1's edits: what the stream was there when only lower boundaries (which have none) had acted. */
  function relativeTo(run: Forward, plain: Forward, test: Case, position: number): Float32Array {
    // Later positions read edited keys and values only above boundary 1, so boundary 1 before its edits equals the plain stream
    // when the edits are at boundary 1 alone.
    expect(test.edits.every((e) => e.boundary === 1)).toBe(true);
    expect(run.resid[0]).toEqual(plain.resid[0]);
    return (plain.resid[1] as Float32Array[])[position] as Float32Array;
  }
});
