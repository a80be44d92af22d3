// The tasks: which sides each has, and how texts are told to be on one of them.
import { readFileSync } from "node:fs";
import path from "node:path";
import { type Classifier, parseLexicon, type Verdict } from "./lexicon.ts";

export interface Task {
  readonly sides: { readonly positive: string; readonly negative: string };
  /** Whether high numbers in data are of the negative side, as scores of toxicity are. */
  readonly highIsNegative: boolean;
  readonly negation: boolean;
  readonly silent: Verdict;
  /** NeuroSteer's strengths, in lengths of its vector; undefined where it has none. */
  readonly neurosteer: readonly number[] | undefined;
}

export const TASKS = {
  sentiment: {
    sides: { positive: "positive", negative: "negative" },
    highIsNegative: false,
    negation: true,
    silent: 0,
    neurosteer: [50, 100, 200],
  },
  politeness: {
    sides: { positive: "polite", negative: "rude" },
    highIsNegative: false,
    negation: false,
    silent: 0,
    neurosteer: [10, 20, 30],
  },
  // Nobody insulted is what non-toxic means.
  toxicity: {
    sides: { positive: "non-toxic", negative: "toxic" },
    highIsNegative: true,
    negation: false,
    silent: 1,
    neurosteer: [100],
  },
  stance: {
    sides: { positive: "supporting", negative: "opposing" },
    highIsNegative: false,
    negation: true,
    silent: 0,
    neurosteer: [10, 20, 30],
  },
  custom: {
    sides: { positive: "positive", negative: "negative" },
    highIsNegative: false,
    negation: true,
    silent: 0,
    neurosteer: undefined,
  },
} as const satisfies Record<string, Task>;
export type TaskName = keyof typeof TASKS;

/** @throws Error naming the tasks there are. */
export function findTask(name: string | undefined): TaskName {
  if (name !== undefined && Object.hasOwn(TASKS, name)) return name as TaskName;
  const known = Object.keys(TASKS).join(", ");
  throw new Error(name === undefined ? `Say which task: --task takes ${known}.` : `There is no task '${name}': --task takes ${known}.`);
}

/**
 * The task's classifier.
 * @param file markers to use instead of the task's own.
 * @throws Error when the task has none of its own, or the file is no lexicon.
 */
export function classifierOf(name: TaskName, file: string | undefined): Classifier {
  if (file === undefined && name === "custom")
    throw new Error("--task custom needs --lexicon FILE: the words that tell its sides apart, one a line with a tab and a weight.");
  const place = file ?? path.join(import.meta.dirname, "lexicons", `${name}.txt`);
  const { negation, silent } = TASKS[name];
  return { lexicon: parseLexicon(readLexicon(place), place), negation, silent };
}

function readLexicon(place: string): string {
  try {
    return readFileSync(place, "utf8");
  } catch (cause) {
    throw new Error(`${place} cannot be read: ${(cause as Error).message}.`, { cause });
  }
}
