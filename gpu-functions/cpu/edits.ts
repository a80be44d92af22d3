// One row's edits while it runs: which of them act at which position, their folded programs, and the receipts that prove it.

import { boundaryOf, formatPoint, parsePoint } from "../../shared/address.ts";
import { decodeFloat32 } from "../../shared/base64.ts";
import { TillerError } from "../../shared/errors.ts";
import { type Edit, type Positions, type Receipt, type Schedule, shareAt } from "../../shared/protocol.ts";
import { compilePoint, editDeltas, isNeutral, type PointProgram, type ResolvedEdit } from "../../shared/steering.ts";
import type { Shape } from "./blocks.ts";
import type { Edits } from "./edit-slots.ts";
import type { SourceStore } from "./sources.ts";
import type { Measured } from "./step.ts";

/** An edit with its numbers, its boundary and its positions. */
export interface PlacedEdit extends ResolvedEdit {
  readonly boundary: number;
  /** As the receipt shows it. */
  readonly point: string;
  readonly positions: Positions;
  readonly schedule: Schedule;
  /** Index of the edit in the row's list. */
  readonly index: number;
}

/** An edit that acts at a position, and with which share of its change. */
interface Active {
  readonly i: number;
  readonly share: number;
}

/** Where features are looked up, whatever model they belong to; throws `feature_not_found` (sources.ts). */
export type Features = Pick<SourceStore, "direction" | "latent">;

/**
 * Looks up an edit's direction and checks everything that can be checked before work starts. An edit at all layers becomes one for
 * every boundary.
 * @throws TillerError naming what is wrong and what is allowed.
 */
export function placeEdit(edit: Edit, index: number, shape: Shape, features: Features): PlacedEdit[] {
  const found = edit.feature === undefined ? inlineDirection(edit, shape.width) : features.direction(edit.feature);
  const latent = edit.method === "LATENT_CLAMP" && edit.feature !== undefined ? features.latent(edit.feature).latent : undefined;
  if (edit.point !== undefined && edit.feature !== undefined && edit.point !== found.point) {
    throw new TillerError(
      "invalid_request",
      `Source '${edit.feature.source}' is a direction at ${found.point}; it cannot be used at ${edit.point}.`,
    );
  }
  const { direction } = found;
  if (direction.length !== shape.width) {
    throw new TillerError(
      "invalid_request",
      `The direction has ${direction.length} values; this model's residual stream has ${shape.width}.`,
    );
  }
  if (!direction.every(Number.isFinite)) throw new TillerError("invalid_request", "The direction has a value that is not a finite number.");
  if (direction.every((value) => value === 0))
    throw new TillerError("invalid_request", "The direction is zero: there is nothing to steer along.");
  const { method, strength, min, max, positions, schedule } = edit;
  const at = (boundary: number, point: string): PlacedEdit => ({
    ...{ method, strength, min, max, positions, schedule, direction, latent },
    ...{ boundary, point, index },
  });
  if (edit.layers === "all")
    return Array.from({ length: shape.layers + 1 }, (_, boundary) => at(boundary, pointAt(boundary, shape.layers)));
  const point = parsePoint(found.point);
  return [at(boundaryOf(point, shape.layers), formatPoint(point))];
}

/** A name of a boundary: the stream before a layer, or after the last. */
const pointAt = (boundary: number, layers: number): string =>
  boundary < layers ? `blocks.${boundary}.hook_resid_pre` : `blocks.${layers - 1}.hook_resid_post`;

/** @throws TillerError when the vector is no base64 of float32. */
export function inlineDirection(edit: Pick<Edit, "vector" | "point">, width: number): { direction: Float32Array; point: string } {
  const direction = decodeFloat32(edit.vector as string);
  if (direction === undefined) {
    throw new TillerError("invalid_request", `A vector is base64 of little-endian float32, ${width} values for this model.`);
  }
  return { direction, point: edit.point ?? pointAt(0, 1) };
}

const keyOf = (active: readonly Active[]): string => active.map(({ i, share }) => `${i}*${share}`).join();
/** Compiled combinations of edits that are kept: prompt, ranges and the current step of a schedule. */
const KEPT_PROGRAMS = 16;

interface Tally {
  positions: number;
  changed: number;
  relative: number;
}

/** The edits of one row over its whole life. Positions are absolute; 0 is the first token of the prompt. */
export class RowEdits {
  readonly edits: readonly PlacedEdit[];
  readonly promptLength: number;
  /** Positions of the prompt that no edit touches. */
  readonly untouched: ReadonlySet<number>;
  private readonly shape: Shape;
  private readonly tallies: Tally[];
  private readonly programs = new Map<string, Edits>();

  constructor(edits: readonly PlacedEdit[], promptLength: number, untouched: ReadonlySet<number>, shape: Shape) {
    this.edits = edits;
    this.promptLength = promptLength;
    this.untouched = untouched;
    this.shape = shape;
    this.tallies = edits.map(() => ({ positions: 0, changed: 0, relative: 0 }));
    // Every combination that can occur is a subset of all: what compiles together compiles apart.
    this.compile(edits.map((_, i) => ({ i, share: 1 })));
  }

  private covers(edit: PlacedEdit, position: number): boolean {
    if (this.untouched.has(position)) return false;
    if (typeof edit.positions !== "string") return edit.positions.some(([start, end]) => position >= start && position < end);
    switch (edit.positions) {
      case "all":
        return true;
      case "prompt":
        return position < this.promptLength;
      case "generated":
        return position >= this.promptLength;
      case "prompt_except_last":
        return position < this.promptLength - 1;
    }
  }

  private activeAt(position: number): Active[] {
    return this.edits.flatMap((edit, i) => {
      if (!this.covers(edit, position)) return [];
      const share = position < this.promptLength ? 1 : shareAt(edit.schedule, position - this.promptLength);
      return share === 0 ? [] : [{ i, share }];
    });
  }

  /** The lowest boundary that an edit of the prompt acts at; undefined when none does. */
  firstPromptBoundary(): number | undefined {
    const positions = Array.from({ length: this.promptLength }, (_, position) => position);
    const acting = this.edits.filter((edit) => positions.some((position) => this.covers(edit, position)));
    return acting.length === 0 ? undefined : Math.min(...acting.map(({ boundary }) => boundary));
  }

  /** The first position after `from`, at most `limit`, at which other edits are active than at `from`. */
  changesAt(from: number, limit: number): number {
    const key = keyOf(this.activeAt(from));
    for (let position = from + 1; position < limit; position++) if (keyOf(this.activeAt(position)) !== key) return position;
    return limit;
  }

  /** The programs that act at a position, by boundary. The same object comes back while nothing changes. */
  at(position: number): Edits {
    return this.compile(this.activeAt(position));
  }

  private compile(active: readonly Active[]): Edits {
    const key = keyOf(active);
    const known = this.programs.get(key);
    if (known !== undefined) return known;
    const compiled = new Map<number, PointProgram>();
    for (const boundary of new Set(active.map(({ i }) => this.edit(i).boundary))) {
      const here = active.filter(({ i }) => this.edit(i).boundary === boundary).map(({ i, share }) => ({ ...this.edit(i), share }));
      compiled.set(boundary, compilePoint(here, this.shape.width));
    }
    // A schedule's programs are of no use once its token is past.
    if (this.programs.size >= KEPT_PROGRAMS) this.programs.delete(this.programs.keys().next().value as string);
    this.programs.set(key, compiled);
    return compiled;
  }

  private edit(i: number): PlacedEdit {
    return this.edits[i] as PlacedEdit;
  }

  /** Adds what one call measured at a position (token `token` of row `row` of that call) to the receipts. */
  record(position: number, measured: Measured, row: number, token: number): void {
    const active = this.activeAt(position);
    for (const [boundary, program] of this.at(position)) {
      const here = active.filter(({ i }) => this.edit(i).boundary === boundary);
      const deltas = editDeltas(program, measured.reads(row, token, boundary));
      const residual = Math.sqrt(measured.residualSquared(row, token, boundary));
      const written = measured.deltaSquared(row, token, boundary) > 0;
      here.forEach(({ i }, order) => {
        const tally = this.tallies[i] as Tally;
        const delta = deltas[order] as number;
        tally.positions++;
        // What the host computes must have been written by the graph too: a receipt never claims more than was measured.
        if (delta > 0 && written) tally.changed++;
        if (written) tally.relative += delta / residual;
      });
    }
  }

  /** Takes over what another process recorded: of every edit, its positions, those it changed, and the sum of its relative changes. */
  adopt(tallies: readonly (readonly [positions: number, changed: number, relative: number])[]): void {
    for (const [i, [positions, changed, relative]] of tallies.entries())
      Object.assign(this.tallies[i] as Tally, { positions, changed, relative });
  }

  receipts(): Receipt[] {
    return this.edits.map((edit, i) => {
      const { positions, changed, relative } = this.tallies[i] as Tally;
      return {
        edit: edit.index,
        point: edit.point,
        method: edit.method,
        strength: edit.strength,
        positions,
        positions_changed: changed,
        mean_relative_delta: positions === 0 ? 0 : relative / positions,
      };
    });
  }

  /** @throws TillerError `steering_not_applied` when edits that should have changed something changed nothing. */
  requireEffect(name: string): void {
    const meant = this.edits.flatMap((edit, i) => (isNeutral(edit) ? [] : [i]));
    if (meant.length === 0 || meant.some((i) => (this.tallies[i] as Tally).changed > 0)) return;
    throw new TillerError("steering_not_applied", `The edits of row '${name}' ${this.whyNothing(meant)}`);
  }

  private whyNothing(meant: readonly number[]): string {
    if (!meant.some((i) => (this.tallies[i] as Tally).positions > 0))
      return "met no position: their positions lie outside the prompt and the generated text.";
    if (meant.every((i) => this.edit(i).method === "LATENT_CLAMP"))
      return "changed nothing: the latents already had the activations they are clamped to, as one that is never active has 0. Clamp to another value.";
    return "changed nothing: no position's projection went past the bound, or the strength is too small to change a float32. Use a tighter bound or a larger strength.";
  }
}
