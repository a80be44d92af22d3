// The arithmetic of design 4 on plain numbers: what an edit is (a read direction u, a write direction w, a scalar function f),
// how a point's edits fold into one low-rank map, and what each of them did. Both engines follow this file.
import { TillerError } from "./errors.ts";
import { LIMITS, type Method } from "./protocol.ts";

/**
 * One SAE latent as a function of the residual h alone: with s = h . read, its activation is a(h) = s > edge ? s - zero : 0, where
 * zero <= edge. ReLU with bias b: zero = edge = -b. JumpReLU with threshold t >= 0: zero = -b, edge = t - b. Gated: `read` is the
 * column scaled by exp(r_mag), zero = -b_mag, edge the greater of -b_mag and -exp(r_mag) b_gate. Scales of the input and the
 * decoder row's norm are folded in.
 */
export interface Latent {
  /** [width] */
  readonly read: Float32Array;
  readonly zero: number;
  readonly edge: number;
}

/** An edit whose direction has been looked up: `direction` is v [width], finite and not zero. */
export interface ResolvedEdit {
  readonly method: Method;
  /** c = strength x strength_multiplier. */
  readonly strength: number;
  readonly min?: number | undefined;
  readonly max?: number | undefined;
  readonly direction: Float32Array;
  /** LATENT_CLAMP: the latent whose activation becomes `strength`; `direction` is its decoder row. */
  readonly latent?: Latent | undefined;
  /** Share of the edit's change that is made; 1 when absent. A schedule varies it from token to token. */
  readonly share?: number | undefined;
}

/** g = scale * s + offset + (s > edge ? clamp(s, low, high) - s : 0); the edit adds g w, where s = h . u. */
export interface ScalarFunction {
  readonly scale: number;
  readonly offset: number;
  readonly low: number;
  readonly high: number;
  readonly edge: number;
}

/** Read direction u, write direction w and scalar function of one edit. */
interface ReadWrite {
  readonly read: Float64Array;
  readonly write: Float64Array;
  readonly f: ScalarFunction;
}

/** What a point's slot holds while no edit uses it: g = s, whatever s is (blocks.ts, orderedGains). */
export const NEUTRAL: ScalarFunction = {
  scale: 1,
  offset: 0,
  low: Number.NEGATIVE_INFINITY,
  high: Number.POSITIVE_INFINITY,
  edge: Number.NEGATIVE_INFINITY,
};
const IDENTITY: ScalarFunction = { ...NEUTRAL, scale: 0 };

function scalarFunction(edit: ResolvedEdit): ScalarFunction {
  switch (edit.method) {
    case "SIMPLE_ADDITIVE":
      return { ...IDENTITY, offset: edit.strength };
    case "ORTHOGONAL_DECOMP":
      return { ...IDENTITY, scale: edit.strength - 1 };
    case "ABLATE":
      return { ...IDENTITY, scale: -1 };
    case "PROJECTION_CAP":
      return { ...IDENTITY, high: edit.strength };
    case "PROJECTION_CLAMP":
      return { ...IDENTITY, low: edit.min ?? Number.NEGATIVE_INFINITY, high: edit.max ?? Number.POSITIVE_INFINITY };
    case "LATENT_CLAMP": {
      // c - a(h): where the latent is active, clamp(s, -inf, zero) - s = -(s - zero).
      const { zero, edge } = latentOf(edit);
      return { ...IDENTITY, offset: edit.strength, high: zero, edge };
    }
  }
}

function latentOf({ latent }: ResolvedEdit): Latent {
  if (latent === undefined) throw new TillerError("invalid_request", "LATENT_CLAMP needs a latent of a sparse autoencoder.");
  return latent;
}

const evaluate = (f: ScalarFunction, s: number): number =>
  f.scale * s + f.offset + (s > f.edge ? Math.min(Math.max(s, f.low), f.high) - s : 0);
const isAffine = (f: ScalarFunction): boolean => f.low === Number.NEGATIVE_INFINITY && f.high === Number.POSITIVE_INFINITY;
const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
};
const norm = (a: ArrayLike<number>): number => Math.sqrt(dot(a, a));

function readWrite(edit: ResolvedEdit): ReadWrite {
  const length = norm(edit.direction);
  if (!(length > 0 && Number.isFinite(length))) {
    throw new TillerError("invalid_request", "A direction must have finite values and must not be zero.");
  }
  const unit = Float64Array.from(edit.direction, (value) => value / length);
  const share = edit.share ?? 1;
  // The additive edit keeps the length of v, a latent reads along its own column; the others are defined on the unit direction.
  const write = edit.method === "SIMPLE_ADDITIVE" ? Float64Array.from(edit.direction) : unit;
  const read = edit.method === "LATENT_CLAMP" ? Float64Array.from(latentOf(edit).read) : unit;
  return { read, write: share === 1 ? write : write.map((value) => share * value), f: scalarFunction(edit) };
}

/** Whether the edit cannot change anything whatever h is: zero strength, or a scale of one. */
export const isNeutral = (edit: Pick<ResolvedEdit, "method" | "strength">): boolean =>
  (edit.method === "SIMPLE_ADDITIVE" && edit.strength === 0) || (edit.method === "ORTHOGONAL_DECOMP" && edit.strength === 1);

/**
 * Applies edits to one residual vector h [width], in order, each on the already edited h: the definition, in float64, that
 * every faster form is tested against.
 */
export function applyEdits(h: ArrayLike<number>, edits: readonly ResolvedEdit[]): Float64Array {
  const result = Float64Array.from(h);
  for (const edit of edits) {
    const { read, write, f } = readWrite(edit);
    const g = evaluate(f, dot(result, read));
    for (let i = 0; i < result.length; i++) result[i] = (result[i] as number) + g * (write[i] as number);
  }
  return result;
}

/**
 * One point's edits in the one-read-one-write form. With `affine`:
 *   h' = h + add + (h U) W,
 * and otherwise, with s = h U, iterated `slots` times from s' = s (exact, because M is strictly upper triangular):
 *   s' = s + g(s') M,  h' = h + g(s') W,  g_i(x) = scale_i x + offset_i + (x > edge_i ? clamp(x, low_i, high_i) - x : 0).
 */
export interface PointProgram {
  readonly affine: boolean;
  /** Edits that read h; the others only add. U is [width, slots], W is [slots, width], row-major. */
  readonly slots: number;
  readonly read: Float32Array;
  readonly write: Float32Array;
  /** [width]; zero unless affine. */
  readonly add: Float32Array;
  /** [slots, slots]; M[j][i] = w_j . u_i for j < i. Empty when affine. */
  readonly cross: Float32Array;
  /** One per slot; empty when affine. */
  readonly functions: readonly ScalarFunction[];
  /** Per edit: its slot in `read` (undefined = it reads nothing), for `editDeltas`. */
  readonly slotOf: readonly (number | undefined)[];
  /** Per pair (j, i): w_j . u_i, [edits, edits] row-major, float64. */
  readonly interaction: Float64Array;
  readonly writeNorms: readonly number[];
  readonly scalarFunctions: readonly ScalarFunction[];
}

/**
 * Folds the edits of one point, in order, into one program.
 * @throws TillerError `invalid_request` for a zero or non-finite direction, or more reading edits than the graph has slots.
 */
export function compilePoint(edits: readonly ResolvedEdit[], width: number): PointProgram {
  const parts = edits.map(readWrite);
  const n = parts.length;
  const affine = parts.every((part) => isAffine(part.f));
  const reads = (part: ReadWrite) => !affine || part.f.scale !== 0;
  const slotted = parts.flatMap((part, i) => (reads(part) ? [i] : []));
  if (slotted.length > LIMITS.editsPerPoint) {
    throw new TillerError(
      "invalid_request",
      `${slotted.length} edits read the residual at one point, the limit is ${LIMITS.editsPerPoint}: merge directions or use fewer.`,
    );
  }
  const interaction = new Float64Array(n * n);
  for (let j = 0; j < n; j++) {
    for (let i = j + 1; i < n; i++) interaction[j * n + i] = dot((parts[j] as ReadWrite).write, (parts[i] as ReadWrite).read);
  }
  const slots = slotted.length;
  const read = new Float32Array(width * slots);
  slotted.forEach((edit, slot) => {
    const part = parts[edit] as ReadWrite;
    for (let d = 0; d < width; d++) read[d * slots + slot] = part.read[d] as number;
  });
  const folded = affine ? foldAffine(parts, slotted, interaction, width) : keepOrder(parts, slotted, interaction, width);
  const slotOf = parts.map((_, i) => (slotted.includes(i) ? slotted.indexOf(i) : undefined));
  return {
    affine,
    slots,
    read,
    ...folded,
    slotOf,
    interaction,
    writeNorms: parts.map((part) => norm(part.write)),
    scalarFunctions: parts.map((part) => part.f),
  };
}

type Folded = Pick<PointProgram, "write" | "add" | "cross" | "functions">;

/** g_i = scale_i s_i' + offset_i is linear in s: solve the order out once, so that the graph needs no recursion. */
function foldAffine(parts: readonly ReadWrite[], slotted: readonly number[], interaction: Float64Array, width: number): Folded {
  const n = parts.length;
  const slots = slotted.length;
  // gain[i] is the row of d g_i / d s over the slots, bias[i] the part of g_i that does not depend on h.
  const gain = parts.map(() => new Float64Array(slots));
  const bias = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const { scale, offset } = (parts[i] as ReadWrite).f;
    const row = gain[i] as Float64Array;
    const own = slotted.indexOf(i);
    if (own >= 0) row[own] = scale;
    bias[i] = offset;
    for (let j = 0; j < i; j++) {
      const coupling = scale * (interaction[j * n + i] as number);
      for (let k = 0; k < slots; k++) row[k] = (row[k] as number) + coupling * ((gain[j] as Float64Array)[k] as number);
      bias[i] = (bias[i] as number) + coupling * (bias[j] as number);
    }
  }
  const write = new Float64Array(slots * width);
  const add = new Float64Array(width);
  parts.forEach((part, i) => {
    for (let d = 0; d < width; d++) {
      const w = part.write[d] as number;
      add[d] = (add[d] as number) + (bias[i] as number) * w;
      for (let k = 0; k < slots; k++)
        write[k * width + d] = (write[k * width + d] as number) + ((gain[i] as Float64Array)[k] as number) * w;
    }
  });
  return { write: Float32Array.from(write), add: Float32Array.from(add), cross: new Float32Array(0), functions: [] };
}

function keepOrder(parts: readonly ReadWrite[], slotted: readonly number[], interaction: Float64Array, width: number): Folded {
  const slots = slotted.length;
  const write = new Float32Array(slots * width);
  slotted.forEach((edit, slot) => write.set((parts[edit] as ReadWrite).write, slot * width));
  return { write, add: new Float32Array(width), cross: Float32Array.from(interaction), functions: parts.map((part) => part.f) };
}

/**
 * ||delta|| of every edit at one position, from the reads s = h U [slots] that the engine measured: the same recursion, on the
 * host, in float64.
 */
export function editDeltas(program: PointProgram, reads: ArrayLike<number>): Float64Array {
  const n = program.scalarFunctions.length;
  const g = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const slot = program.slotOf[i];
    let s = slot === undefined ? 0 : (reads[slot] as number);
    if (slot !== undefined) for (let j = 0; j < i; j++) s += (g[j] as number) * (program.interaction[j * n + i] as number);
    g[i] = evaluate(program.scalarFunctions[i] as ScalarFunction, s);
  }
  return g.map((value, i) => Math.abs(value) * (program.writeNorms[i] as number));
}

/** `compilePoint`'s arithmetic on one h [width], as the graph does it: used by tests and by engines' self-tests. */
export function runProgram(program: PointProgram, h: ArrayLike<number>): Float64Array {
  const width = h.length;
  const { slots } = program;
  const s = new Float64Array(slots);
  for (let d = 0; d < width; d++)
    for (let k = 0; k < slots; k++) s[k] = (s[k] as number) + (h[d] as number) * (program.read[d * slots + k] as number);
  let g = s;
  if (!program.affine) {
    let current = s;
    const apply = () => current.map((value, k) => evaluate(program.functions[k] as ScalarFunction, value));
    for (let round = 1; round < slots; round++) {
      g = apply();
      current = s.map((value, i) => value + g.reduce((sum, gj, j) => sum + gj * (program.cross[j * slots + i] as number), 0));
    }
    g = apply();
  }
  return Float64Array.from(h, (value, d) =>
    g.reduce((sum, gk, k) => sum + gk * (program.write[k * width + d] as number), value + (program.add[d] as number)),
  );
}
