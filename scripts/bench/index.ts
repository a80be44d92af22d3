// `npm run bench -- [engine] [edge]`: measures on this machine, now; compares within the run only.
import { availableParallelism } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { ROOT } from "../edge-bundle.ts";
import { benchEdge } from "./edge.ts";
import { benchEngine } from "./engine.ts";
import { describeMachine } from "./frame.ts";
import { makeGpt2Small } from "./shapes.ts";

const HELP = `npm run bench -- [engine] [edge] [options]

  engine          decode, prefill, cost of edits, memory bandwidth, load time
  edge            what the edge adds to a call
  --model DIR     the model to run (the bundled one, and for engine also GPT-2 small's shape with random weights)
  --threads N     threads of the engine (all cores)
  --rounds N      how often each thing is measured (engine 15, edge 200)
  --help          this text`;

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: "boolean", short: "h" },
      model: { type: "string" },
      threads: { type: "string" },
      rounds: { type: "string" },
    },
  });
  const unknown = positionals.find((name) => name !== "engine" && name !== "edge");
  if (unknown !== undefined) throw new Error(`There is no benchmark '${unknown}': engine and edge are the ones there are.`);
  const say = (line: string): void => console.log(line);
  if (values.help) return say(HELP);
  const wanted = (name: string): boolean => positionals.length === 0 || positionals.includes(name);
  const count = (option: "threads" | "rounds", fallback: number): number => {
    const value = Number(values[option] ?? fallback);
    if (!Number.isInteger(value) || value < 1) throw new Error(`--${option} takes a whole number above 0, not '${values[option]}'.`);
    return value;
  };
  const threads = count("threads", availableParallelism());
  const bundled = path.join(ROOT, "gpu-functions", "bundled", "tiller-tales");
  for (const line of describeMachine()) say(line);
  if (wanted("engine")) {
    const models = values.model === undefined ? [bundled, await makeGpt2Small()] : [values.model];
    for (const model of models) await benchEngine({ model, threads, rounds: count("rounds", 15), say });
  }
  if (wanted("edge")) await benchEdge({ model: values.model ?? bundled, threads, rounds: count("rounds", 200), say });
}

main().catch((error: unknown) => {
  console.error((error as Error).message);
  process.exitCode = 1;
});
