// A run from its texts to its results: vectors, then every prompt under every cell, then the table and the plot.
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Engine } from "../../gpu-functions/cpu/engine.ts";
import { type Outcome, type RunOptions, STOPPED } from "../long-run.ts";
import { Progress } from "../models/progress.ts";
import { type Cell, cellsOf, type Unit, unitsOf, write } from "./cells.ts";
import type { Inputs } from "./inputs.ts";
import { accuracyOf, type Classifier } from "./lexicon.ts";
import { resultsOf } from "./metrics.ts";
import { addPartial, beginPartial, type Done, dropPartial, loadPartial } from "./partial.ts";
import { plot } from "./plot.ts";
import { notesOf, type Results, tableOf, unitOf } from "./report.ts";
import type { Settings } from "./settings.ts";
import { TASKS } from "./tasks.ts";
import { makeVectors, readingsOf, type Vector } from "./vectors.ts";

/** What is to be done, found good. */
export interface Plan {
  readonly engine: Engine;
  readonly settings: Settings;
  readonly inputs: Inputs;
  /** Of everything that the result depends on. */
  readonly digest: string;
  readonly classifier: Classifier;
  /** The folder of the results. */
  readonly out: string;
  /** Whether what an earlier run left is of no interest. */
  readonly restart: boolean;
}

export const FILES = { results: "results.json", table: "table.md", plot: "dose-response.svg", partial: "results.partial" } as const;

/** Prompts that are in work at once: while the texts of one are read, others are written. */
const AT_ONCE = 3;

/** @throws TillerError of the engine, or Error when something cannot be written. */
export async function run(plan: Plan, options: RunOptions): Promise<Outcome> {
  const { settings, digest, out, restart } = plan;
  const { say } = options;
  const place = (name: keyof typeof FILES) => path.join(out, FILES[name]);
  if (!restart && digestOf(place("results")) === digest) {
    say(`${place("table")} is the result of this very run. --restart makes it again.`);
    return "done";
  }
  mkdirSync(out, { recursive: true });
  const found = restart ? undefined : loadPartial(place("partial"), digest);
  if (found === "other") say(`${place("partial")} is of another model, option or text, or damaged: starting anew.`);
  const begun = found === "other" ? undefined : found;
  const vectors = begun?.vectors ?? (await derive(plan, options));
  if (vectors === undefined) {
    say("Stopped before the vectors were made.");
    return STOPPED;
  }
  if (begun === undefined) beginPartial(place("partial"), { inputs: digest, vectors });
  const cells = cellsOf(vectors, settings);
  const units = unitsOf(plan.inputs.prompts.length, settings.samples);
  const done = begun?.done ?? [];
  if (done.length > 0) say(`Going on after ${done.length} of ${units.length} continuations of prompts.`);
  await steer(plan, options, cells, units, done, (each) => addPartial(place("partial"), each));
  if (done.length < units.length) {
    say(`Stopped at ${done.length} of ${units.length} continuations of prompts. The same command goes on from there.`);
    return STOPPED;
  }
  done.sort((a, b) => a.prompt - b.prompt || a.sample - b.sample);
  const results = concluded(plan, vectors, cells, done, options.date());
  const table = tableOf(results);
  const task = TASKS[settings.task];
  writeWhole(place("plot"), plot(results.cells, `${settings.task} with ${settings.model}`, task.sides, unitOf(settings)));
  writeWhole(place("table"), table);
  writeWhole(place("results"), `${JSON.stringify(results, null, 1)}\n`);
  dropPartial(place("partial"));
  say(table);
  say(`${out}: ${Object.values(FILES).slice(0, 3).join(", ")}`);
  return "done";
}

/** Of the results that are there; undefined where there are none that can be read. */
function digestOf(file: string): string | undefined {
  if (!existsSync(file)) return undefined;
  try {
    return (JSON.parse(readFileSync(file, "utf8")) as Results).inputs;
  } catch {
    return undefined;
  }
}

/** A file that is there is whole. */
function writeWhole(file: string, text: string): void {
  writeFileSync(`${file}.part`, text);
  renameSync(`${file}.part`, file);
}

async function derive({ engine, settings, inputs }: Plan, { progress, signal }: RunOptions): Promise<Vector[] | undefined> {
  const bar = new Progress("Vectors", readingsOf(settings, inputs.texts), progress, (count) => `${Math.round(count)} texts`);
  const vectors = await makeVectors(engine, settings, inputs.texts, signal, (texts) => bar.add(texts));
  bar.end();
  return vectors;
}

/** Runs the units that are not done yet, some at once; whatever ends is noted, also when the signal comes. */
async function steer(
  { engine, settings, inputs }: Plan,
  { progress, signal }: RunOptions,
  cells: readonly Cell[],
  units: readonly Unit[],
  done: Done[],
  note: (done: Done) => void,
): Promise<void> {
  const ready = new Set(done.map(({ prompt, sample }) => `${prompt} ${sample}`));
  const left = units.filter(({ prompt, sample }) => !ready.has(`${prompt} ${sample}`)).values();
  const bar = new Progress("Steering", units.length * cells.length, progress, (count) => `${Math.round(count)} texts`);
  bar.skip(done.length * cells.length);
  const most = engine.models().find(({ id }) => id === settings.model)?.rows ?? 1;
  // Parts that fit beside each other keep the model's slots in use: whole batches would wait for each other.
  const rows = Math.max(1, Math.floor(most / 2));
  const failed = new AbortController();
  const over = AbortSignal.any([signal, failed.signal]);
  const work = async (): Promise<void> => {
    for (const unit of left) {
      if (over.aborted) return;
      const written = await write({ engine, settings, rows }, cells, inputs.prompts[unit.prompt] as string, unit, over);
      if (written === undefined) return;
      const each = { ...unit, written };
      note(each);
      done.push(each);
      bar.add(cells.length);
    }
  };
  const workers = Array.from({ length: AT_ONCE }, work);
  try {
    await Promise.all(workers);
  } catch (error) {
    failed.abort();
    await Promise.allSettled(workers);
    // What was under way when the signal came fails because of it.
    if (!signal.aborted) throw error;
  }
  bar.end();
}

function concluded(plan: Plan, vectors: readonly Vector[], cells: readonly Cell[], done: readonly Done[], date: Date): Results {
  const { settings, inputs, digest, classifier } = plan;
  return {
    ...{ inputs: digest, created: date.toISOString(), settings, notes: notesOf(inputs), prompts: inputs.prompts },
    classifier: accuracyOf(inputs.judged.positive, inputs.judged.negative, classifier),
    vectors,
    cells: resultsOf(cells, done, classifier),
  };
}
