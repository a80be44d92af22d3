import { describe, expect, it } from "vitest";
import type { ModelInfo } from "../../shared/protocol.ts";
import { sliderOf, slidersOf } from "./sliders.ts";

describe("a slider", () => {
  it("goes twice as far as the strength that shows, either way, in steps that meet zero", () => {
    expect(sliderOf(11)).toEqual({ min: -22, max: 22, step: 1.1 });
    expect(sliderOf(-0.333)).toEqual({ min: -0.66, max: 0.66, step: 0.033 });
    for (const strength of [0.07, 3, 17, 123.4]) {
      const { min, max, step } = sliderOf(strength);
      expect(max).toBe(-min);
      expect(max / step).toBeCloseTo(20, 9);
    }
  });

  it("is there for named directions with a strength, and for nothing else", () => {
    const source = (architecture: string) => ({
      ...{ id: `3-${architecture}`, point: "blocks.3.hook_resid_pre", width: 3, architecture },
      labelled_features: [
        { index: 0, label: "happy", strength: 11 },
        { index: 1, label: "nothing known" },
      ],
    });
    const model = { sources: [source("directions"), source("jumprelu")] } as unknown as ModelInfo;
    expect(slidersOf(model).map(({ name, label }) => [name, label])).toEqual([["3-directions/0", "happy"]]);
  });
});
