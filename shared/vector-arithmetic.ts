// Arithmetic of directions, in float64: sums with weights, the part of a vector that is orthogonal to others, lengths, cosines.

export type Values = ArrayLike<number>;

/** A vector that is so small a share of what it was made of is rounding, not a direction: float32 holds seven digits. */
const NEGLIGIBLE = 1e-6;

export function dot(a: Values, b: Values): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}

/** Euclidean length. */
export const lengthOf = (values: Values): number => Math.sqrt(dot(values, values));

/** a . b / (||a|| ||b||), from -1 to 1; null where one of them is zero. */
export function cosine(a: Values, b: Values): number | null {
  const product = lengthOf(a) * lengthOf(b);
  return product === 0 ? null : Math.min(1, Math.max(-1, dot(a, b) / product));
}

/**
 * The sum of the terms, each times its weight. All are equally wide.
 * @returns undefined when nothing but rounding is left of them.
 */
export function weightedSum(terms: readonly { readonly values: Values; readonly weight: number }[]): Float64Array | undefined {
  const sum = new Float64Array(terms[0]?.values.length ?? 0);
  let size = 0;
  for (const { values, weight } of terms) {
    addScaled(sum, values, weight);
    size += Math.abs(weight) * lengthOf(values);
  }
  return lengthOf(sum) <= NEGLIGIBLE * size ? undefined : sum;
}

/**
 * The part of a vector that is orthogonal to each of the others, and so to their span: Gram-Schmidt, each projection taken off twice, which
 * is as exact as float64 allows (Giraud et al. 2005, "twice is enough"). Others that depend on each other are fine.
 * @returns undefined when nothing but rounding is left: the vector lies in the span.
 */
export function orthogonalPart(vector: Values, others: readonly Values[]): Float64Array | undefined {
  const basis: Float64Array[] = [];
  for (const other of others) {
    const rest = withoutParts(other, basis);
    const length = lengthOf(rest);
    if (length > NEGLIGIBLE * lengthOf(other)) basis.push(rest.map((value) => value / length));
  }
  const rest = withoutParts(vector, basis);
  return lengthOf(rest) <= NEGLIGIBLE * lengthOf(vector) ? undefined : rest;
}

/** The vector brought to a length. It is not zero. */
export function withLength(vector: Values, length: number): Float64Array {
  const scale = length / lengthOf(vector);
  return Float64Array.from(vector, (value) => value * scale);
}

/** @param basis orthonormal. */
function withoutParts(vector: Values, basis: readonly Float64Array[]): Float64Array {
  const rest = Float64Array.from(vector);
  for (let pass = 0; pass < 2; pass++) for (const unit of basis) addScaled(rest, unit, -dot(rest, unit));
  return rest;
}

function addScaled(sum: Float64Array, values: Values, scale: number): void {
  for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + scale * (values[i] as number);
}
