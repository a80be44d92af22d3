// What texts are like, counted in words: how many different n-grams they have, and how much they repeat themselves.

/** The words of a text, in lower case: runs of letters, digits and apostrophes. */
export const wordsOf = (text: string): string[] => text.toLowerCase().match(/[\p{L}\p{N}]+(?:['’][\p{L}\p{N}]+)*/gu) ?? [];

const gramsOf = (words: readonly string[], n: number): string[] =>
  Array.from({ length: Math.max(0, words.length - n + 1) }, (_, i) => words.slice(i, i + n).join(" "));

/**
 * dist-n: distinct n-grams of some texts together, divided by their words (Li et al. 2016, as NeuroSteer and DExperts count it over the
 * texts of one prompt). undefined where there is no word.
 */
export function distinct(texts: readonly string[], n: number): number | undefined {
  const all = texts.map(wordsOf);
  const words = all.reduce((sum, each) => sum + each.length, 0);
  return words === 0 ? undefined : new Set(all.flatMap((each) => gramsOf(each, n))).size / words;
}

/** Share of a text's 4-grams that stood in it before; undefined where it has none. */
export function repetition(text: string): number | undefined {
  const grams = gramsOf(wordsOf(text), 4);
  return grams.length === 0 ? undefined : 1 - new Set(grams).size / grams.length;
}

/** The mean of what is known; undefined where nothing is. */
export function mean(values: readonly (number | undefined | null)[]): number | undefined {
  const known = values.filter((value): value is number => value !== undefined && value !== null);
  return known.length === 0 ? undefined : known.reduce((sum, value) => sum + value, 0) / known.length;
}
