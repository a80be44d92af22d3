// Named directions of a model as sliders: each goes from twice its known strength against it to twice along it.
import type { ModelInfo } from "../../shared/protocol.ts";

export interface Slider {
  /** `source/index`. */
  readonly name: string;
  readonly source: string;
  readonly index: number;
  readonly label: string;
  /** One that shows. */
  readonly strength: number;
  readonly min: number;
  readonly max: number;
  readonly step: number;
}

/** How far a slider goes, in strengths that show; and steps of one such strength. */
const REACH = 2;
const STEPS = 10;

/** Twice a strength either way, in tenths of it rounded to two digits, so that 0 and the strength itself lie about where a hand stops. */
export function sliderOf(strength: number): Pick<Slider, "min" | "max" | "step"> {
  const step = Number((Math.abs(strength) / STEPS).toPrecision(2));
  const max = Number((REACH * STEPS * step).toPrecision(12));
  return { min: -max, max, step };
}

/** One for every direction of a source without an encoder that has a label and a strength. */
export const slidersOf = ({ sources }: ModelInfo): Slider[] =>
  sources
    .filter(({ architecture }) => architecture === "directions")
    .flatMap(({ id, labelled_features }) =>
      labelled_features.flatMap(({ index, label, strength }) =>
        strength === undefined || strength === 0
          ? []
          : [{ ...{ name: `${id}/${index}`, source: id, index, label, strength: Math.abs(strength) }, ...sliderOf(strength) }],
      ),
    );
