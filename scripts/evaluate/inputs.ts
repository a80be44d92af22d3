// What a run depends on: its texts and prompts, drawn from the files, and a digest of everything that can change the result.
import { createHash } from "node:crypto";
import path from "node:path";
import type { Engine } from "../../gpu-functions/cpu/engine.ts";
import { uniform } from "../../gpu-functions/cpu/random.ts";
import { type Found, readData, readLines, readPrompts } from "./data.ts";
import type { Classifier } from "./lexicon.ts";
import { LEAST_TEXTS, type Settings, type Values } from "./settings.ts";
import { TASKS, type TaskName } from "./tasks.ts";

export interface Sides {
  readonly positive: readonly string[];
  readonly negative: readonly string[];
}

export interface Inputs {
  /** As many of each side, in pairs. */
  readonly texts: Sides;
  /** What the classifier is judged on: other texts of the same files, where there are enough. */
  readonly judged: Sides;
  readonly prompts: readonly string[];
  /** What was found in the files, and what was left out: one sentence each. */
  readonly notes: readonly string[];
}

/** Texts of a side that the classifier is judged on. */
const MOST_JUDGED = 2000;
/** Raised when a run of the same inputs would give another result. */
const VERSION = 1;
/** Seeds of what is drawn, apart from each other and from those of generations. */
const DRAWS = { positive: 1, negative: 2, prompts: 3 } as const;
/** Where no prompts are given. */
const PROMPTS = path.join(import.meta.dirname, "prompts.txt");

type Files = Pick<Values, "positive" | "negative" | "prompts"> & { readonly data: readonly string[] };

export interface Gathered extends Sides {
  readonly prompts: readonly string[];
  readonly notes: string[];
}

/** Everything that the files have. @throws Error naming the file, or what is missing and how to give it. */
export function gatherFiles({ data, positive = [], negative = [], prompts = [] }: Files, task: TaskName): Gathered {
  const notes: string[] = [];
  const note = (file: string, found: Found) => {
    const sides = found.positive.length + found.negative.length > 0;
    const counts = sides ? `${found.positive.length} positive, ${found.negative.length} negative` : `${found.prompts.length} prompts`;
    notes.push(`${path.basename(file)}: ${found.says}; ${counts}.`);
    return found;
  };
  const found = data.map((file) => note(file, readData(file, TASKS[task].highIsNegative)));
  const all = {
    positive: unique([...found.flatMap((each) => each.positive), ...positive.flatMap(readLines)]),
    negative: unique([...found.flatMap((each) => each.negative), ...negative.flatMap(readLines)]),
  };
  for (const side of ["positive", "negative"] as const)
    if (all[side].length < LEAST_TEXTS)
      throw new Error(
        `There are ${all[side].length} ${side} texts (${TASKS[task].sides[side]}), and at least ${LEAST_TEXTS} are needed: give data with labels (--data FILE), or --${side} FILE with one text a line.`,
      );
  const given = [...found.flatMap((each) => each.prompts), ...prompts.flatMap(readPrompts)];
  if (given.length === 0) notes.push("No prompts were given: those of scripts/evaluate/prompts.txt are taken.");
  return { ...all, prompts: unique(given.length === 0 ? readLines(PROMPTS) : given), notes };
}

const unique = (texts: readonly string[]): string[] => [...new Set(texts)];

/**
 * Draws the texts and prompts of a run, of those that fit the model.
 * @throws Error when too few fit.
 */
export async function drawInputs(all: Gathered, settings: Settings, engine: Engine): Promise<Inputs> {
  const { seed, positions, tokens, model } = settings;
  const context = engine.models().find(({ id }) => id === model)?.context ?? 0;
  const notes = [...all.notes];
  const lengthOf = async (text: string) => (await engine.tokenize({ model, text })).ids.length;
  // The last position of a prompt is not steered then: one position more is.
  const least = positions === "prompt_except_last" ? 2 : 1;
  const prompts = await take(shuffled(all.prompts, seed, DRAWS.prompts), settings.prompts, async (prompt) => {
    const length = await lengthOf(prompt);
    return length >= least && length + tokens <= context;
  });
  if (prompts.out > 0)
    notes.push(`${prompts.out} prompts were left out: they do not fit the model's ${context} tokens with ${tokens} more.`);
  if (prompts.taken.length === 0)
    throw new Error(`No prompt fits: with ${tokens} more tokens it must fit the model's context of ${context}. Ask for fewer --tokens.`);
  const fits = async (text: string) => (await lengthOf(text)) <= context;
  const [positive, negative] = await Promise.all([
    take(shuffled(all.positive, seed, DRAWS.positive), settings.texts, fits),
    take(shuffled(all.negative, seed, DRAWS.negative), settings.texts, fits),
  ]);
  const out = positive.out + negative.out;
  if (out > 0) notes.push(`${out} texts were left out: they are longer than the model's context of ${context} tokens.`);
  const count = Math.min(positive.taken.length, negative.taken.length);
  if (count < LEAST_TEXTS)
    throw new Error(`${count} texts of a side fit the model's context of ${context} tokens; at least ${LEAST_TEXTS} are needed.`);
  const cut = { positive: positive.taken.slice(0, count), negative: negative.taken.slice(0, count) };
  return { texts: cut, judged: judgedOf(all, cut, notes), prompts: prompts.taken, notes };
}

/** The same order for the same texts and seed. */
function shuffled(texts: readonly string[], seed: number, draw: number): string[] {
  const list = [...texts];
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(uniform(2 ** 40 * draw + seed, i) * (i + 1));
    [list[i], list[j]] = [list[j] as string, list[i] as string];
  }
  return list;
}

/** The first texts that fit; and how many before them did not. */
async function take(
  texts: readonly string[],
  most: number,
  fits: (text: string) => Promise<boolean>,
): Promise<{ taken: string[]; out: number }> {
  const taken: string[] = [];
  let out = 0;
  for (const text of texts) {
    if (taken.length === most) break;
    if (await fits(text)) taken.push(text);
    else out++;
  }
  return { taken, out };
}

/** Texts that no vector is made from; all of them where there are too few others. The classifier was made from none. */
function judgedOf(all: Sides, used: Sides, notes: string[]): Sides {
  const others = (side: keyof Sides) => {
    const taken = new Set(used[side]);
    return all[side].filter((text) => !taken.has(text)).slice(0, MOST_JUDGED);
  };
  const rest = { positive: others("positive"), negative: others("negative") };
  if (Math.min(rest.positive.length, rest.negative.length) >= LEAST_TEXTS) return rest;
  notes.push("There are no other texts to judge the classifier on: it is judged on all, those that the vectors are made from too.");
  return { positive: all.positive.slice(0, MOST_JUDGED), negative: all.negative.slice(0, MOST_JUDGED) };
}

/** @param models the files of every model that takes part: names, sizes, times. */
export function digestInputs(settings: Settings, { texts, judged, prompts }: Inputs, classifier: Classifier, models: unknown): string {
  const { lexicon, ...rest } = classifier;
  const inputs = [VERSION, settings, texts, judged, prompts, [...lexicon.weights], rest, models];
  return createHash("sha256").update(JSON.stringify(inputs)).digest("hex");
}
