// How well scores of two sides are told apart.

export interface Scores {
  readonly positive: readonly number[];
  readonly negative: readonly number[];
}

/** Chance that a positive score lies above a negative one, where equal ones count half (Mann and Whitney); null when a side is empty. */
export function areaUnderCurve({ positive, negative }: Scores): number | null {
  if (positive.length === 0 || negative.length === 0) return null;
  const all = [...positive.map((score) => ({ score, positive: true })), ...negative.map((score) => ({ score, positive: false }))];
  all.sort((a, b) => a.score - b.score);
  let [below, above] = [0, 0];
  for (let start = 0; start < all.length; ) {
    let end = start;
    const equal = { positive: 0, negative: 0 };
    for (; end < all.length && all[end]?.score === all[start]?.score; end++) equal[all[end]?.positive ? "positive" : "negative"]++;
    above += equal.positive * (below + equal.negative / 2);
    below += equal.negative;
    start = end;
  }
  return above / (positive.length * negative.length);
}

/**
 * Difference of the means in units of the pooled standard deviation (Cohen's d, with sample variances); null with fewer than two scores a
 * side, or where none differs from its side's mean.
 */
export function effectSize({ positive, negative }: Scores): number | null {
  if (positive.length < 2 || negative.length < 2) return null;
  const [a, b] = [spread(positive), spread(negative)];
  const deviation = Math.sqrt((a.squares + b.squares) / (positive.length + negative.length - 2));
  return deviation > 0 ? (a.mean - b.mean) / deviation : null;
}

function spread(scores: readonly number[]): { mean: number; squares: number } {
  const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
  return { mean, squares: scores.reduce((sum, score) => sum + (score - mean) ** 2, 0) };
}
