import { describe, expect, it } from "vitest";
import { TillerError } from "./errors.ts";
import golden from "./golden/steering.json" with { type: "json" };
import { LIMITS, type Method } from "./protocol.ts";
import { applyEdits, compilePoint, editDeltas, isNeutral, type ResolvedEdit, runProgram } from "./steering.ts";

interface GoldenEdit {
  method: string;
  strength: number;
  min?: number;
  max?: number;
  vector: number;
  latent?: { read: number[]; zero: number; edge: number };
}

const cases = golden.cases.map((test) => ({
  ...test,
  edits: (test.edits as GoldenEdit[]).map(
    ({ latent, ...e }): ResolvedEdit => ({
      ...e,
      method: e.method as Method,
      direction: Float32Array.from(test.vectors[e.vector] as number[]),
      latent: latent && { ...latent, read: Float32Array.from(latent.read) },
    }),
  ),
}));
const edit = (method: Method, strength: number, direction: number[], more: Partial<ResolvedEdit> = {}): ResolvedEdit => ({
  method,
  strength,
  direction: Float32Array.from(direction),
  ...more,
});
const expectClose = (actual: ArrayLike<number>, wanted: ArrayLike<number>, tolerance: number) => {
  for (let i = 0; i < wanted.length; i++) expect(Math.abs((actual[i] as number) - (wanted[i] as number))).toBeLessThan(tolerance);
};

describe("golden cases, computed by PyTorch in float64", () => {
  it.each(cases)("$name: applied one after another", ({ h, edits, expected }) => {
    expectClose(applyEdits(h, edits), expected, 1e-12);
  });

  it.each(cases)("$name: folded into one read and one write", ({ h, edits, expected }) => {
    const scale = Math.max(1, ...expected.map(Math.abs));
    expectClose(runProgram(compilePoint(edits, h.length), h), expected, 2e-6 * scale);
  });

  it.each(cases)("$name: the deltas of a receipt are the lengths of the steps", ({ h, edits }) => {
    const program = compilePoint(edits, h.length);
    const reads = Array.from({ length: program.slots }, (_, k) =>
      h.reduce((sum, x, d) => sum + x * (program.read[d * program.slots + k] as number), 0),
    );
    const steps = edits.map((_, i) => {
      const [before, after] = [applyEdits(h, edits.slice(0, i)), applyEdits(h, edits.slice(0, i + 1))];
      return Math.hypot(...after.map((x, d) => x - (before[d] as number)));
    });
    expectClose(editDeltas(program, reads), steps, 1e-5 * Math.max(1, ...steps));
  });
});

describe("algebra", () => {
  const h = [0.3, -1.2, 2.5, 0.7];
  const v = [1, 2, -1, 0.5];

  it("opposite additive strengths undo each other", () => {
    expectClose(applyEdits(h, [edit("SIMPLE_ADDITIVE", 3, v), edit("SIMPLE_ADDITIVE", -3, v)]), h, 1e-12);
  });

  it("only the additive edit depends on the length of the direction", () => {
    const long = v.map((x) => 7 * x);
    for (const method of ["ORTHOGONAL_DECOMP", "PROJECTION_CAP", "ABLATE"] as const) {
      expectClose(applyEdits(h, [edit(method, 0.5, long)]), applyEdits(h, [edit(method, 0.5, v)]), 1e-12);
    }
    expectClose(applyEdits(h, [edit("SIMPLE_ADDITIVE", 1, long)]), applyEdits(h, [edit("SIMPLE_ADDITIVE", 7, v)]), 1e-12);
  });

  it("ablation leaves nothing along the direction, and a second one changes nothing", () => {
    const once = applyEdits(h, [edit("ABLATE", 0, v)]);
    expect(Math.abs(once.reduce((sum, x, i) => sum + x * (v[i] as number), 0))).toBeLessThan(1e-12);
    expectClose(applyEdits(once, [edit("ABLATE", 0, v)]), once, 1e-12);
  });

  it("clamping a latent keeps what the autoencoder does not explain, and a second clamp to the same value changes nothing", () => {
    const read = Float32Array.from([1, 0, -0.5, 2]);
    const direction = [0, 3, 0, 4];
    const clamp = (strength: number, zero: number, edge: number) =>
      edit("LATENT_CLAMP", strength, direction, { latent: { read, zero, edge } });
    const s = h.reduce((sum, x, i) => sum + x * (read[i] as number), 0);
    // Active with a = s + 1: the residual moves by (4 - a) along the unit direction only.
    expectClose(
      applyEdits(h, [clamp(4, -1, -1)]),
      h.map((x, i) => x + ((4 - s - 1) * (direction[i] as number)) / 5),
      1e-12,
    );
    expect(applyEdits(h, [clamp(0, 5, 6)])).toEqual(Float64Array.from(h));
    // A decoder row that its own column reads as 1: the latent is at its value after the first clamp.
    const own = { latent: { read: Float32Array.from([0, 0.6, 0, 0.8]), zero: -1, edge: -1 } };
    const once = applyEdits(h, [edit("LATENT_CLAMP", 2, direction, own)]);
    expectClose(applyEdits(once, [edit("LATENT_CLAMP", 2, direction, own)]), once, 1e-6);
  });

  it("calls zero additive strength and orthogonal strength one neutral, and nothing else", () => {
    expect(isNeutral(edit("SIMPLE_ADDITIVE", 0, v))).toBe(true);
    expect(isNeutral(edit("ORTHOGONAL_DECOMP", 1, v))).toBe(true);
    expect(isNeutral(edit("SIMPLE_ADDITIVE", 1e-9, v))).toBe(false);
    expect(isNeutral(edit("PROJECTION_CAP", 0, v))).toBe(false);
    expect(isNeutral(edit("ABLATE", 0, v))).toBe(false);
  });
});

describe("refusals", () => {
  it("refuses to clamp what is no latent", () => {
    expect(() => compilePoint([edit("LATENT_CLAMP", 1, [1, 2, 3])], 3)).toThrow(/needs a latent/);
  });

  it("refuses zero and non-finite directions", () => {
    for (const direction of [
      [0, 0, 0],
      [1, Number.NaN, 0],
      [1, Number.POSITIVE_INFINITY, 0],
    ]) {
      expect(() => compilePoint([edit("SIMPLE_ADDITIVE", 1, direction)], 3)).toThrow(TillerError);
    }
  });

  it("refuses more reading edits at one point than the graph has slots, but adds any number", () => {
    const many = (method: Method) => Array.from({ length: LIMITS.editsPerPoint + 1 }, () => edit(method, 2, [1, 2, 3]));
    expect(() => compilePoint(many("ABLATE"), 3)).toThrow(/the limit is 8/);
    expect(compilePoint(many("SIMPLE_ADDITIVE"), 3).slots).toBe(0);
  });
});
