// `npm run bench -- [engine] [derive] [sweep] [edge] [api]`: measures on this machine, now; compares within the run only.
import { availableParallelism } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { QUANTISE } from "../../gpu-functions/cpu/directory.ts";
import { ROOT } from "../edge-bundle.ts";
import { benchApi } from "./api.ts";
import { benchDerive } from "./derive.ts";
import { benchEdge } from "./edge.ts";
import { benchEngine } from "./engine.ts";
import { describeMachine } from "./frame.ts";
import { makeShape, SHAPES } from "./shapes.ts";
import { benchSweep } from "./sweep.ts";

const BENCHMARKS: readonly string[] = ["engine", "derive", "sweep", "edge", "api"];

const HELP = `npm run bench -- [engine] [derive] [sweep] [edge] [api] [options]

  engine          decode, prefill, cost of edits, memory bandwidth, load time, beside PyTorch where there is one
  derive          two sides of 200 sentences, as a derivation reads them: in batches, one by one, and beside prefill
  sweep           20 cells of a sweep beside 20 separate steers
  edge            what the edge adds to a call
  api             calls a second, and waits: vectors and steers, several callers at once
  --model M       a model directory, or for engine, derive and sweep a shape with random weights: ${Object.keys(SHAPES).join(", ")}
                  (the bundled model; for engine all shapes but the large too, for derive and sweep gpt2-small)
  --all           the large shapes too
  --quantise Q    auto, none or q8: how the engine holds matrices (auto: 8 bits above 200M parameters)
  --steps N       engine: decode so many more steps and watch the memory (0)
  --python P      engine: the Python that has torch ($PYTHON or python3)
  --threads N     threads of the engine (all cores)
  --rounds N      how often each thing is measured (engine 7, derive 5, sweep 3, edge 200, api 9)
  --help          this text`;

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: "boolean", short: "h" },
      model: { type: "string" },
      all: { type: "boolean" },
      quantise: { type: "string" },
      steps: { type: "string" },
      python: { type: "string" },
      threads: { type: "string" },
      rounds: { type: "string" },
    },
  });
  const unknown = positionals.find((name) => !BENCHMARKS.includes(name));
  if (unknown !== undefined) throw new Error(`There is no benchmark '${unknown}': there are ${BENCHMARKS.join(", ")}.`);
  const say = (line: string): void => console.log(line);
  if (values.help) return say(HELP);
  const wanted = (name: string): boolean => positionals.length === 0 || positionals.includes(name);
  const count = (option: "threads" | "rounds" | "steps", fallback: number): number => {
    const value = Number(values[option] ?? fallback);
    if (!Number.isInteger(value) || value < Math.min(1, fallback)) {
      throw new Error(`--${option} takes a whole number above 0, not '${values[option]}'.`);
    }
    return value;
  };
  const threads = count("threads", availableParallelism());
  const bundled = path.join(ROOT, "gpu-functions", "bundled", "tiller-tales");
  for (const line of describeMachine()) say(line);
  const quantise = QUANTISE.find((known) => known === (values.quantise ?? "auto"));
  if (quantise === undefined) throw new Error(`--quantise takes ${QUANTISE.join(", ")}, not '${values.quantise}'.`);
  if (wanted("engine")) {
    const python = values.python ?? (process.env.PYTHON || "python3");
    const shapes = Object.keys(SHAPES).filter((name) => values.all || SHAPES[name]?.large === undefined);
    for (const name of values.model === undefined ? [bundled, ...shapes] : [values.model]) {
      const model = Object.hasOwn(SHAPES, name) ? await makeShape(name, say) : name;
      await benchEngine({ model, quantise, threads, rounds: count("rounds", 7), steps: count("steps", 0), python, say });
    }
  }
  if (wanted("derive")) {
    for (const name of values.model === undefined ? [bundled, "gpt2-small"] : [values.model]) {
      const model = Object.hasOwn(SHAPES, name) ? await makeShape(name, say) : name;
      await benchDerive({ model, quantise, threads, rounds: count("rounds", 5), say });
    }
  }
  if (wanted("sweep")) {
    for (const name of values.model === undefined ? [bundled, "gpt2-small"] : [values.model]) {
      const model = Object.hasOwn(SHAPES, name) ? await makeShape(name, say) : name;
      await benchSweep({ model, threads, rounds: count("rounds", 3), say });
    }
  }
  if (wanted("api")) await benchApi({ model: values.model ?? bundled, threads, rounds: count("rounds", 9), say });
  if (wanted("edge")) await benchEdge({ model: values.model ?? bundled, threads, rounds: count("rounds", 200), say });
}

main().catch((error: unknown) => {
  console.error((error as Error).message);
  process.exitCode = 1;
});
