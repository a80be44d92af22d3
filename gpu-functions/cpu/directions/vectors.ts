// Arithmetic on vectors of numbers, in float64.

/** Rows of one length, visited in order, as often as it is called. What a visit is given dies when it returns. */
export type Pass = (visit: (row: number, values: ArrayLike<number>) => void) => Promise<void>;

export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}

export const norm = (a: ArrayLike<number>): number => Math.sqrt(dot(a, a));

/** to += factor x from. */
export function addScaled(to: Float64Array, factor: number, from: ArrayLike<number>): void {
  for (let i = 0; i < to.length; i++) to[i] = (to[i] as number) + factor * (from[i] as number);
}

/** factor x a. */
export const scaled = (a: Float64Array, factor: number): Float64Array => a.map((value) => factor * value);

/** Mean of the rows, and how many there are. */
export async function meanOf(width: number, pass: Pass): Promise<{ mean: Float64Array; count: number }> {
  const sum = new Float64Array(width);
  let count = 0;
  await pass((_, values) => {
    addScaled(sum, 1, values);
    count++;
  });
  return { mean: scaled(sum, 1 / Math.max(1, count)), count };
}
