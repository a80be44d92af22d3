// `npm run models`: the models this checkout serves besides the bundled one.
import path from "node:path";
import { parseArgs } from "node:util";
import { QUANTISE } from "../../gpu-functions/cpu/directory.ts";
import { CATALOG } from "../../shared/catalog.ts";
import { hubSettings } from "./hub.ts";
import { bytes } from "./progress.ts";
import { pull } from "./pull.ts";
import { addModel, problemOf, removeModel, type StoredModel, storedModels, storeFolder } from "./store.ts";

export const HELP = `npm run models -- list | pull NAME | add DIR | remove ID

Models that npm start serves besides the bundled one. They lie in .tiller/models, or where TILLER_MODELS says.

  list               the models known by name, and those that are here
  pull NAME          fetch a model of the list, or any repository owner/name of the Hugging Face hub
    --source S:L     autoencoders too: a set of the list and its layers, as res-jb:6,7 or res-jb:all; may be repeated
    --revision R     branch, tag or commit of the model's repository (main)
    --quantise Q     auto, none or q8: make 8-bit blocks now (auto: above 200M parameters)
  add DIR            link a model directory of your own
  remove ID          delete a pulled model, or the link to an added one
  --help             this text

HF_TOKEN is sent to the hub, HF_ENDPOINT names another one.`;

export async function runModels(args: readonly string[], say: (line: string) => void): Promise<void> {
  const { values, positionals } = readArguments(args);
  const [command, name, ...rest] = positionals;
  if (values.help || command === undefined) return say(HELP);
  if (command !== "pull" && (values.source ?? values.revision ?? values.quantise) !== undefined)
    throw new Error(`--source, --revision and --quantise belong to pull, not to ${command}.`);
  if (command === "list" ? name !== undefined : name === undefined || rest.length > 0)
    throw new Error(command === "list" ? "list takes no name." : `${command} takes one name. See npm run models -- --help.`);
  const store = storeFolder();
  switch (command) {
    case "list":
      return list(storedModels(store), store, say);
    case "add":
      return say(`'${addModel(store, name as string)}' is served from ${path.resolve(name as string)} from the next start on.`);
    case "remove":
      return say(`Removed '${name}': ${bytes(removeModel(store, name as string))} are free again.`);
    case "pull": {
      const quantise = QUANTISE.find((known) => known === (values.quantise ?? "auto"));
      if (quantise === undefined) throw new Error(`--quantise takes ${QUANTISE.join(", ")}, not '${values.quantise}'.`);
      const directory = await pull(name as string, {
        hub: hubSettings(process.env),
        store,
        revision: values.revision ?? "main",
        sources: values.source ?? [],
        quantise,
        progress: { live: process.stdout.isTTY === true, write: (text) => process.stdout.write(text), now: () => performance.now() },
        say,
        sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
      });
      const problem = problemOf(directory);
      if (problem !== undefined) return say(`'${path.basename(directory)}' is here (${directory}), but cannot be served: ${problem}.`);
      return say(`'${path.basename(directory)}' is here (${directory}) and is served from the next npm start on.`);
    }
    default:
      throw new Error(`There is no command '${command}': list, pull, add and remove are there.`);
  }
}

function readArguments(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        help: { type: "boolean", short: "h" },
        source: { type: "string", multiple: true },
        revision: { type: "string" },
        quantise: { type: "string" },
      },
    });
  } catch (error) {
    const [sentence] = (error as Error).message.split(". ");
    throw new Error(`${sentence}. See npm run models -- --help.`);
  }
}

function list(stored: readonly StoredModel[], store: string, say: (line: string) => void): void {
  const here = new Map(stored.map((model) => [model.id, model]));
  const width = Math.max(...[...CATALOG, ...stored].map(({ id }) => id.length)) + 2;
  say("Known by name:");
  for (const { id, repo, layers, width: residual, gated, sources = [] } of CATALOG) {
    const sets = sources.map(({ set }) => set).join(", ");
    const state = here.has(id) ? `here, ${bytes(here.get(id)?.bytes ?? 0)}` : gated ? "wants a licence accepted" : "";
    say(
      `  ${id.padEnd(width)}${repo.padEnd(34)}${`${layers} layers of ${residual}`.padEnd(20)}${[state, sets].filter(Boolean).join("; ")}`,
    );
  }
  say(`\nHere, in ${store}:`);
  for (const { id, bytes: size, linked, problem } of stored)
    say(`  ${id.padEnd(width)}${linked ? "linked, " : ""}${bytes(size)}${problem === undefined ? "" : `; cannot be served: ${problem}`}`);
  if (stored.length === 0) say("  none yet");
}
