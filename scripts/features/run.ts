// A run from its texts to its file: reads what was not read yet, then describes every feature.
import { renameSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import type { FeaturesHeader } from "../../gpu-functions/cpu/feature-file.ts";
import type { KnownModel } from "../../gpu-functions/cpu/model.ts";
import { type OpenModel, openModel } from "../../gpu-functions/cpu/open-model.ts";
import { UnitRows } from "../../gpu-functions/cpu/unit-rows.ts";
import { type Outcome, type RunOptions, STOPPED } from "../long-run.ts";
import { Progress } from "../models/progress.ts";
import { LISTED, writeFeatures } from "./describe.ts";
import { gather } from "./gather.ts";
import { digestInputs, type Settings } from "./inputs.ts";
import { dropPartial, loadPartial, type Position, savePartial } from "./partial.ts";
import { Tally } from "./tally.ts";
import { readWindows, type TextFile, type Window } from "./texts.ts";

/** What is to be done, found good. */
export interface Plan {
  readonly known: KnownModel;
  /** An autoencoder of the model. */
  readonly source: string;
  readonly settings: Settings;
  /** Where the result goes. */
  readonly out: string;
  readonly files: readonly TextFile[];
  /** Whether what an earlier run left is of no interest. */
  readonly restart: boolean;
}

/** State is written after so much work, and never for more than a small share of the time. */
const SAVE_MS = 30_000;
const SAVE_SHARE = 0.05;

/** @throws Error when the texts hold nothing, or something cannot be read or written. */
export async function run(plan: Plan, options: RunOptions): Promise<Outcome> {
  const { known, source, settings, files, out } = plan;
  const { say, signal } = options;
  const { tokenizer } = known;
  const encode = (text: string) => tokenizer.encode(text).filter((token) => token !== tokenizer.bosId);
  const windows = () => readWindows(files, encode, { ...settings, limit: settings.limit ?? Number.POSITIVE_INFINITY });
  const total = await countTokens(windows(), signal);
  if (signal.aborted) {
    say("Stopped before anything was read.");
    return STOPPED;
  }
  if (total.tokens === 0) throw new Error(`There is no text in ${files.map((file) => file.path).join(", ")}.`);
  // Beside the result, and called like it.
  const partial = `${out.replace(/\.jsonl$/, "")}.partial`;
  const inputs = digestInputs(known, source, settings, files);
  const { tally, position } = begin(plan, partial, inputs, say);
  const save = () => savePartial(partial, inputs, position, tally);
  const model = await openModel(known, availableParallelism());
  try {
    const whole = await readTexts(windows(), { plan, model, tally, position, total: total.tokens, save }, options);
    const header = { model: known.info.id, source, ...total, created: options.date().toISOString(), settings: headed(plan) };
    if (!whole || !(await describe(header, plan, model, tally, options))) {
      say(`Stopped at ${thousands(position.tokens)} of ${thousands(total.tokens)} tokens. The same command goes on from there.`);
      return STOPPED;
    }
  } finally {
    await model.close();
  }
  dropPartial(partial);
  const silent = tally.state.active.filter((count) => count === 0).length;
  say(`${out}: ${tally.latents} features on ${total.tokens} tokens of ${total.texts} texts; ${silent} were active nowhere.`);
  return "done";
}

/** What the file says of its own making. */
const headed = ({ settings, files }: Plan) => ({ ...settings, files: files.map((file) => path.basename(file.path)) });

/** Where a run begins: at the start, or where one of the same inputs was stopped. */
function begin({ known, source, settings, restart }: Plan, partial: string, inputs: string, say: (line: string) => void) {
  const { latents } = known.sources.sae(source);
  const found = restart ? undefined : loadPartial(partial, inputs, latents, settings.examples);
  if (found === "other") say(`${partial} is of another model, source, option or text, or damaged: starting anew.`);
  if (found !== undefined && found !== "other") {
    say(`Going on after ${thousands(found.position.tokens)} tokens.`);
    return found;
  }
  return { tally: new Tally(latents, settings.examples), position: { windows: 0, tokens: 0 } };
}

async function countTokens(windows: AsyncIterable<Window>, signal: AbortSignal): Promise<{ tokens: number; texts: number }> {
  const total = { tokens: 0, texts: 0 };
  for await (const { ids, document } of windows) {
    if (signal.aborted) break;
    total.tokens += ids.length;
    total.texts = document + 1;
  }
  return total;
}

interface Reading {
  readonly plan: Plan;
  readonly model: OpenModel;
  readonly tally: Tally;
  readonly position: Position;
  /** Tokens of all texts. */
  readonly total: number;
  /** Notes how far it is. */
  readonly save: () => void;
}

/** @returns false when the signal came first; what was read is noted either way. */
async function readTexts(
  windows: AsyncIterable<Window>,
  { plan, model, tally, position, total, save }: Reading,
  { progress, signal }: RunOptions,
): Promise<boolean> {
  const bar = new Progress("Reading", total, progress, (count) => `${thousands(count)} tokens`);
  bar.skip(position.tokens);
  let saved = progress.now();
  let took = 0;
  const read = (count: number) => {
    bar.add(count);
    const began = progress.now();
    if (began - saved <= Math.max(SAVE_MS, took / SAVE_SHARE)) return;
    save();
    saved = progress.now();
    took = saved - began;
  };
  const sae = plan.known.sources.sae(plan.source);
  const whole = await gather(windows, { model, sae, position, tally, signal, read });
  bar.end();
  save();
  return whole;
}

/** Writes the result in one piece. @returns false when the signal came first, and nothing was written. */
async function describe(
  header: FeaturesHeader,
  { known, source, out }: Plan,
  model: OpenModel,
  tally: Tally,
  options: RunOptions,
): Promise<boolean> {
  const { decoder, latents, width } = known.sources.sae(source);
  const rows = new UnitRows(decoder, latents, width, LISTED, availableParallelism());
  const draft = `${out}.part`;
  try {
    const bar = new Progress("Directions", latents, options.progress, (count) => `${thousands(count)} features`);
    const whole = await writeFeatures(draft, header, { model, tally, rows, signal: options.signal, each: (count) => bar.add(count) });
    bar.end();
    if (whole) renameSync(draft, out);
    return whole;
  } finally {
    rmSync(draft, { force: true });
    rows.close();
  }
}

const thousands = (count: number): string => (count < 1e4 ? String(Math.round(count)) : `${(count / 1e3).toFixed(0)}k`);
