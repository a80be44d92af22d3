import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { fixtures } from "./fixture.ts";
import { readRope, ropeTable } from "./rope.ts";

const golden = JSON.parse(readFileSync(path.join(fixtures, "rope.json"), "utf8")) as {
  rope: Record<string, unknown> & { rope_theta: number };
  context: number;
  head: number;
  positions: number[];
  cos: number[][];
};

describe("rotary positions", () => {
  const { rope_theta, rope_type, ...factors } = golden.rope;

  it("turn Llama 3.1's heads as transformers does, also at the end of a long context", () => {
    const rope = readRope({ rope_parameters: golden.rope }, golden.context);
    const half = golden.head / 2;
    const [cos, sin] = [Math.cos, Math.sin].map((part) => ropeTable(rope, golden.head, golden.context, part)) as [
      Float32Array,
      Float32Array,
    ];
    golden.positions.forEach((position, k) => {
      for (let i = 0; i < half; i++) {
        const at = position * half + i;
        expect(Math.abs((cos[at] as number) - (golden.cos[k]?.[i] as number)), `position ${position}, pair ${i}`).toBeLessThan(1e-4);
        expect((cos[at] as number) ** 2 + (sin[at] as number) ** 2).toBeCloseTo(1, 5);
      }
    });
  });

  it("read the same from every style of configuration", () => {
    const wanted = readRope({ rope_parameters: golden.rope }, golden.context);
    expect(readRope({ rope_theta, rope_scaling: { rope_type, ...factors } }, golden.context)).toEqual(wanted);
    expect(readRope({ rope_theta, rope_scaling: { type: rope_type, ...factors } }, golden.context)).toEqual(wanted);
    expect(readRope({}, 64)).toEqual(readRope({ rope_parameters: { rope_type: "default", rope_theta: 10_000 }, rope_scaling: null }, 64));
  });

  it("take a llama3 scaling's original context from the model's when it is not named, as transformers does", () => {
    const { original_max_position_embeddings, ...rest } = golden.rope;
    expect(readRope({ rope_parameters: rest }, 777).scaling).toMatchObject({ original_max_position_embeddings: 777 });
  });

  it("refuse what they do not do, by name", () => {
    expect(() => readRope({ rope_scaling: { type: "yarn", factor: 4 } }, 64)).toThrow(
      /rope_type \\?"yarn\\?" is not supported; default, linear and llama3 are/,
    );
    expect(() => readRope({ rope_scaling: { type: "linear" } }, 64)).toThrow(/factor/);
    expect(() => readRope({ rope_parameters: { ...golden.rope, high_freq_factor: 1 } }, 64)).toThrow(/high_freq_factor must be greater/);
    expect(() => readRope({ rope_parameters: { partial_rotary_factor: 0.5 } }, 64)).toThrow(/partial_rotary_factor 0\.5/);
    expect(() => readRope({ rope_parameters: { full_attention: { rope_theta: 1 } } }, 64)).toThrow(/'full_attention'/);
  });
});
