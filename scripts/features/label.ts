// A label for a feature that nobody has named: the tokens it is most active on.

/**
 * @param peaks the most active token of every example, the most active example first.
 * @returns null when there is no example.
 */
export function automaticLabel(peaks: readonly string[]): string | null {
  if (peaks.length === 0) return null;
  const words = peaks.map(wordOf);
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  for (const [word, count] of counts) if (2 * count > words.length) return `the token ${JSON.stringify(word)}`;
  const first = [...counts.keys()].slice(0, 3).map((word) => JSON.stringify(word));
  return `the tokens ${first.join(", ")}`;
}

/** White space that is all of a token stays. */
function wordOf(token: string): string {
  return (token.trim() || token).toLowerCase();
}
