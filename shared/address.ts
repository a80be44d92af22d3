// The only place that knows how hook points and sources are spelled.
// A point is a TransformerLens name (`blocks.6.hook_resid_pre`); a source is `{layer}-{name}` (`6-res-jb`).
import { TillerError } from "./errors.ts";

export type ResidualPoint = "resid_pre" | "resid_post";

export interface Point {
  readonly layer: number;
  readonly kind: ResidualPoint;
}

const POINT = /^blocks\.(\d{1,4})\.hook_(resid_pre|resid_post)$/;
const SOURCE = /^(\d{1,4})-([A-Za-z0-9][A-Za-z0-9._-]{0,120})$/;

/**
 * Parses `blocks.L.hook_resid_pre` or `blocks.L.hook_resid_post`.
 * @throws TillerError `invalid_request` when the name is not a residual point.
 */
export function parsePoint(name: string): Point {
  const match = POINT.exec(name);
  if (match === null) {
    throw new TillerError(
      "invalid_request",
      `'${name.slice(0, 80)}' is not a point that can be steered: use blocks.L.hook_resid_pre or blocks.L.hook_resid_post, with L a layer of the model.`,
    );
  }
  return { layer: Number(match[1]), kind: match[2] as ResidualPoint };
}

export const formatPoint = (point: Point): string => `blocks.${point.layer}.hook_${point.kind}`;

/**
 * The residual stream has `layers + 1` boundaries: boundary 0 is the (scaled) embedding, boundary `layers` is what the final
 * norm reads. `resid_pre` of L and `resid_post` of L - 1 are the same boundary L.
 * @throws TillerError `invalid_request` when the model has no such layer.
 */
export function boundaryOf(point: Point, layers: number): number {
  if (point.layer >= layers) {
    throw new TillerError("invalid_request", `${formatPoint(point)} is not in this model: its layers are 0 to ${layers - 1}.`);
  }
  return point.kind === "resid_pre" ? point.layer : point.layer + 1;
}

export interface Source {
  readonly layer: number;
  readonly name: string;
}

/** Parses a source id; undefined when it is not one. The layer is the digits before the first `-`. */
export function parseSource(id: string): Source | undefined {
  const match = SOURCE.exec(id);
  return match === null ? undefined : { layer: Number(match[1]), name: match[2] as string };
}
