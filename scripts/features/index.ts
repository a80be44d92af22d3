// `npm run features`: what the latents of an autoencoder do on texts, written where the engine finds it.
import { accessSync, constants, existsSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { QUANTISE } from "../../gpu-functions/cpu/directory.ts";
import { FEATURES_FILE } from "../../gpu-functions/cpu/feature-file.ts";
import { defaultCacheBytes } from "../../gpu-functions/cpu/memory.ts";
import { type KnownModel, readModel } from "../../gpu-functions/cpu/model.ts";
import type { Outcome, RunOptions } from "../long-run.ts";
import { findModel, type Settings } from "./inputs.ts";
import { run } from "./run.ts";
import { openText, type TextFile } from "./texts.ts";

export const HELP = `npm run features -- MODEL SOURCE FILE...

Runs MODEL on texts and notes what the latents of its autoencoder SOURCE do there: how often and how strongly each is active, the texts
it is most active on, the tokens its direction writes, its nearest neighbours. The engine serves what it finds, without a restart.

  MODEL            the bundled model or one of npm run models -- list
  SOURCE           a folder of its sources/, as 6-res-jb
  FILE             texts in UTF-8; where a file has <|endoftext|>, texts end there, elsewhere at blank lines
  --limit N        read at most N tokens
  --context N      longer texts are read in windows of N tokens (64)
  --examples N     texts to keep of every latent (10)
  --out FILE       write there; without it features.jsonl in the folder of the source
  --restart        do not go on with a run that was stopped
  --help           this text

Ctrl-C stops it; the same command goes on from there. QUANTISE holds the model as it does for the engine.`;

const DEFAULT_CONTEXT = 64;
const DEFAULT_EXAMPLES = 10;
const MOST_EXAMPLES = 100;

/** @throws Error saying what is wrong with the arguments, the model, the source or the texts. */
export async function runFeatures(args: readonly string[], options: RunOptions): Promise<Outcome> {
  const { values, positionals } = readArguments(args);
  const { environment, say } = options;
  const [id, source, ...paths] = positionals;
  if (values.help || id === undefined) {
    say(HELP);
    return "done";
  }
  if (source === undefined || paths.length === 0)
    throw new Error("Say which model, which source and which text files: npm run features -- MODEL SOURCE FILE...");
  const quantise = QUANTISE.find((known) => known === (environment.QUANTISE || "auto"));
  if (quantise === undefined) throw new Error(`QUANTISE must be ${QUANTISE.join(", ")}, not '${environment.QUANTISE}'.`);
  const known = readModel(findModel(id, environment), defaultCacheBytes(), quantise);
  known.sources.sae(source);
  const settings = readSettings(values, known);
  const out = path.resolve(values.out ?? path.join(known.sources.directory(source), FEATURES_FILE));
  checkWritable(out);
  const files: TextFile[] = [];
  for (const file of paths) if (!options.signal.aborted) files.push(await openText(file));
  return run({ known, source, settings, out, files, restart: values.restart === true }, options);
}

function readArguments(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        help: { type: "boolean", short: "h" },
        limit: { type: "string" },
        context: { type: "string" },
        examples: { type: "string" },
        out: { type: "string" },
        restart: { type: "boolean" },
      },
    });
  } catch (error) {
    const [sentence] = (error as Error).message.split(". ");
    throw new Error(`${sentence}. See npm run features -- --help.`);
  }
}

function readSettings(values: ReturnType<typeof readArguments>["values"], { info, tokenizer }: KnownModel): Settings {
  const bos = tokenizer.withBos([]).length;
  const most = info.context - bos;
  const whole = (name: "limit" | "context" | "examples", greatest: number): number | undefined => {
    const text = values[name];
    if (text === undefined) return undefined;
    if (/^\d+$/.test(text) && Number(text) >= 1 && Number(text) <= greatest) return Number(text);
    throw new Error(`--${name} takes a whole number from 1 to ${greatest}, not '${text}'.`);
  };
  return {
    context: whole("context", most) ?? Math.min(DEFAULT_CONTEXT, most),
    examples: whole("examples", MOST_EXAMPLES) ?? DEFAULT_EXAMPLES,
    limit: whole("limit", Number.MAX_SAFE_INTEGER) ?? null,
  };
}

/** @throws Error when the result could not be written after all the work. */
function checkWritable(out: string): void {
  const folder = path.dirname(out);
  try {
    accessSync(folder, constants.W_OK);
  } catch (cause) {
    const reason = existsSync(folder) ? "may not be written to" : "does not exist";
    throw new Error(`${folder} ${reason}: choose another place with --out FILE.`, { cause });
  }
}
