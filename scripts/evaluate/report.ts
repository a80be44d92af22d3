// The results as a person reads them: settings, how far the classifier can be trusted, vectors, a row for each cell, examples.
import type { Inputs } from "./inputs.ts";
import type { Accuracy } from "./lexicon.ts";
import { type CellResult, MOST_PERPLEXITY } from "./metrics.ts";
import type { Settings } from "./settings.ts";
import { TASKS } from "./tasks.ts";
import type { Vector } from "./vectors.ts";

/** What results.json holds. */
export interface Results {
  /** Digest of everything that they depend on. */
  readonly inputs: string;
  readonly created: string;
  readonly settings: Settings;
  readonly notes: readonly string[];
  readonly prompts: readonly string[];
  readonly classifier: Accuracy;
  readonly vectors: readonly Vector[];
  readonly cells: readonly CellResult[];
}

const percent = (value: number | null): string => (value === null ? "" : `${(100 * value).toFixed(0)}%`);
const decimals = (value: number | null | undefined, digits = 2): string =>
  value === null || value === undefined ? "" : value.toFixed(digits);

export function unitOf({ unit }: Pick<Settings, "unit">): string {
  return unit === "share" ? "share of the stream's mean length" : "lengths of the vector";
}

export function tableOf(results: Results): string {
  const { settings } = results;
  const sides = TASKS[settings.task].sides;
  return [
    `# ${settings.task} with ${settings.model}`,
    ...settled(results),
    "## Classifier",
    judged(results.classifier, sides),
    "## Vectors",
    vectorTable(results.vectors),
    "## Results",
    `Strengths are in: ${unitOf(settings)}. Above 0 they steer to ${sides.positive}, below 0 to ${sides.negative}; success is the share of texts that the classifier gives that side.`,
    resultTable(results),
    `Perplexity is ${settings.judge === null ? "the unsteered model's" : `${settings.judge}'s`}, of the continuation given the prompt, mean over texts; those above ${MOST_PERPLEXITY} are dropped; geometric: exp of the mean logarithm, of all of them, and its ratio to the baseline's. dist-n: distinct n-grams by words, over the texts of a prompt. Repetition: share of a text's 4-grams that stood in it before. KL: steered from unsteered, nats a token. Change: mean size of the edit against the residual stream.`,
    "## Examples",
    examples(results),
  ].join("\n\n");
}

function settled({ settings, notes }: Results): string[] {
  const { positions, tokens, temperature, top_p, frequency_penalty, seed, samples, layer, hook, exchange } = settings;
  const below = exchange ? "strengths below 0 steer by vectors made with the sides exchanged" : "strengths below 0 turn the vector around";
  return [
    notes.map((note) => `- ${note}`).join("\n"),
    `Vectors and edits at blocks.${layer}.hook_${hook}; ${below}; positions ${positions}. ${tokens} tokens, samples of each prompt: ${samples}, temperature ${temperature}, top_p ${top_p}, frequency penalty ${frequency_penalty}, seed ${seed}.`,
  ];
}

function judged(
  { texts, positive, negative, balanced, decided, right_of_decided }: Accuracy,
  sides: { positive: string; negative: string },
): string {
  return `The words of the classifier, on ${texts.positive} ${sides.positive} and ${texts.negative} ${sides.negative} texts of the data: it calls ${percent(positive)} of the former ${sides.positive} and ${percent(negative)} of the latter ${sides.negative} (mean ${percent(balanced)}). It gives a side to ${percent(decided)}, and of those the right one to ${percent(right_of_decided)}.`;
}

const row = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [row(head), row(head.map(() => "---")), ...rows.map(row)].join("\n");

function vectorTable(vectors: readonly Vector[]): string {
  return table(
    ["method", "AUC held out", "AUC train", "effect", "length", "stream's mean length"],
    vectors.map(({ method, exchanged, auc_held_out, auc_train, effect, norm, mean_norm }) => [
      exchanged ? `${method}, sides exchanged` : method,
      ...[decimals(auc_held_out, 3), decimals(auc_train, 3), decimals(effect), decimals(norm), decimals(mean_norm, 1)],
    ]),
  );
}

function resultTable({ cells, settings }: Results): string {
  const { sides } = TASKS[settings.task];
  const head = [
    "method",
    "strength",
    "success",
    sides.positive,
    sides.negative,
    "perplexity",
    "geometric",
    "ratio",
    "dropped",
    "dist-1",
    "dist-2",
    "dist-3",
  ];
  return table(
    [...head, "repetition", "KL", "change"],
    cells.map(({ method, strength, metrics }) => [
      method,
      strength === 0 ? "" : signed(strength),
      ...[metrics.success, metrics.positive, metrics.negative].map(percent),
      ...[metrics.perplexity, metrics.perplexity_geometric, metrics.perplexity_ratio].map((value) => decimals(value)),
      String(metrics.dropped),
      ...[metrics.dist1, metrics.dist2, metrics.dist3, metrics.repetition, metrics.kl].map((value) => decimals(value)),
      percent(metrics.change),
    ]),
  );
}

const signed = (strength: number): string => (strength > 0 ? `+${strength}` : String(strength));

/** The first text of the baseline and of each method's cells. */
function examples({ cells, prompts }: Results): string {
  const prompt = prompts[0] ?? "";
  const lines = cells.map(({ method, strength, texts }) => {
    const text = (texts[0]?.text ?? "").replace(/\s+/g, " ").trim().replaceAll("|", "\\|");
    return [method, strength === 0 ? "" : signed(strength), text];
  });
  return `The first prompt of those drawn: *${prompt.replace(/\s+/g, " ")}*\n\n${table(["method", "strength", "goes on with"], lines)}\n`;
}

/** What a run is the result of besides its settings. */
export const notesOf = ({ notes, texts, prompts }: Inputs): string[] => [
  ...notes,
  `Drawn: ${texts.positive.length} texts of each side, a fifth of them held out, and ${prompts.length} prompts.`,
];
