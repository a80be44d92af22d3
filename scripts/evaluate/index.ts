// `npm run evaluate`: NeuroSteer's protocol on files of one's own: vectors by several methods, steered side by side, and what each did.
import path from "node:path";
import { QUANTISE } from "../../gpu-functions/cpu/directory.ts";
import { loadEngine } from "../../gpu-functions/cpu/engine.ts";
import { ROOT } from "../edge-bundle.ts";
import { filesOf, findModel } from "../features/inputs.ts";
import { type Outcome, type RunOptions, STOPPED } from "../long-run.ts";
import { digestInputs, drawInputs, gatherFiles } from "./inputs.ts";
import { run } from "./run.ts";
import { readArguments, readSettings } from "./settings.ts";
import { classifierOf, findTask } from "./tasks.ts";

export const HELP = `npm run evaluate -- --task TASK --data FILE... [options]

Makes steering vectors from texts with labels, by several methods, steers a model with each, both ways and at several strengths, and
reports beside the unsteered model: success by a classifier that counts words, perplexity, diversity, repetition, KL, and how well each
vector separates texts it was not made from. Strengths below 0 steer to the negative side.

  --task TASK          sentiment, politeness, toxicity, stance, or custom with a --lexicon
  --data FILE...       texts with labels: NLTK's sentence_polarity (ZIP or folder), a table or JSONL with a text and a label, as SST and the
                       Stanford politeness corpus; and prompts: JSONL with a prompt, as DExperts
  --positive FILE      texts of one side, one a line; may be repeated
  --negative FILE      texts of the other
  --prompts FILE       prompts: one a line, JSONL or a JSON list; may be repeated. Without any, openings of stories are taken
  --lexicon FILE       words of the classifier: a marker, a tab and a weight a line, above 0 for the positive side
  --model ID           the bundled model, or one of npm run models -- list (tiller-tales)
  --judge ID           whose perplexity is told: another of these models; without it the model's own, unsteered
  --methods LIST       mean_difference, pca, sae, probe (the first three; sae where the model has an autoencoder)
  --layer N            where vectors are made and act (that of the autoencoder, or the middle)
  --sae SOURCE         the autoencoder, as 3-tales-res (the first one)
  --latents N          latents that the method sae adds up (100)
  --strengths LIST     numbers above 0, each also run below 0 (0.1,0.2,0.3,0.4)
  --unit U             share: strengths are shares of the residual stream's mean length (this); vector: they multiply the vector
  --exchange           strengths below 0 steer by a vector made with the sides exchanged, which is another for sae
  --positions P        all, prompt or prompt_except_last (all)
  --texts N            texts of each side that vectors are made from; a fifth of them is held out (400)
  --prompt-count N     prompts (50)
  --samples N          continuations of each (2)
  --tokens N           tokens of each (40)
  --temperature T, --top-p P, --frequency-penalty F     how they are drawn (0.7, 1, 0)
  --seed N             of the draw of texts and prompts, and of the continuations (16)
  --neurosteer         NeuroSteer's settings where no option says otherwise: sae alone, its strengths for the task in lengths of the vector,
                       sides exchanged, prompt_except_last, 50 tokens, temperature 0.9, top-p 0.3, frequency penalty 1
  --out DIR            where the results go (.tiller/evaluate/TASK-MODEL)
  --restart            do not go on with a run that was stopped, nor keep its results
  --help               this text

It writes results.json (every text with its numbers), table.md and dose-response.svg. Ctrl-C stops it; the same command goes on from there.
QUANTISE holds the model as it does for the engine.`;

const MODEL = "tiller-tales";

/** @throws Error saying what is wrong with the arguments, the model or the files; TillerError of the engine. */
export async function runEvaluate(args: readonly string[], options: RunOptions): Promise<Outcome> {
  const { values, positionals } = readArguments(args);
  const { environment, say, signal } = options;
  if (values.help || args.length === 0) {
    say(HELP);
    return "done";
  }
  const task = findTask(values.task);
  const classifier = classifierOf(task, values.lexicon);
  const quantise = QUANTISE.find((known) => known === (environment.QUANTISE || "auto"));
  if (quantise === undefined) throw new Error(`QUANTISE must be ${QUANTISE.join(", ")}, not '${environment.QUANTISE}'.`);
  const gathered = gatherFiles({ ...values, data: [...(values.data ?? []), ...positionals] }, task);
  const { model = MODEL, judge = model } = values;
  const directories = [...new Set([model, judge])].map((id) => findModel(id, environment));
  const engine = await loadEngine({ directories, quantise, warm: 0 });
  try {
    const info = engine.models().find(({ id }) => id === model);
    if (info === undefined) throw new Error(`the engine does not have '${model}'`);
    const settings = readSettings(values, info);
    const inputs = await drawInputs(gathered, settings, engine);
    const models = directories.map((directory) => filesOf(directory, new Set(["README.md"])));
    const digest = digestInputs(settings, inputs, classifier, [models, quantise]);
    const out = path.resolve(values.out ?? path.join(ROOT, ".tiller", "evaluate", `${task}-${info.id}`));
    if (signal.aborted) return STOPPED;
    return await run({ ...{ engine, settings, inputs, digest, classifier, out }, restart: values.restart === true }, options);
  } finally {
    await engine.close();
  }
}
