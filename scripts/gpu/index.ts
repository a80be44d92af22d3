// `npm run gpu`: the engine on Modal: deploying it, waking it, asking it, checking it.
import { parseArgs } from "node:util";
import { type CallOptions, call, showResult, spawnCall } from "./call.ts";
import { conformance } from "./conformance.ts";
import { stats, warm } from "./containers.ts";
import { deploy } from "./deploy.ts";
import type { Io } from "./io.ts";
import { getGpuModel } from "./models.ts";

export const HELP = `npm run gpu -- deploy | warm MODEL | stats [MODEL...] | call MODEL | conformance MODEL

The engine on Modal: one class for every model of gpu-functions/gpu/models.json.

  deploy               modal deploy gpu-functions/gpu/modal_app.py, then the rows of ENGINES for what is deployed
    --model M          this model alone; may be repeated. A deploy replaces the whole app: classes that are left out stop
  warm MODEL           start a container and show how long every phase of its start took
    --keep N           N containers stay up from now on; 0 lets them go again and starts none
  stats [MODEL...]     calls that wait and containers that run, of these models or all
  call MODEL           generate once plain and, with a vector, once steered
    --prompt TEXT      what to continue
    --vector FILE      a direction: JSON, numbers, base64 of float32, .npy, .safetensors, .gguf or .pt
    --layer N          it is added before layer N (blocks.N.hook_resid_pre), where the file does not say another place
    --strength X       times this
    --max-tokens N     (64)
    --temperature T    (0.7)
    --seed N           (16)
    --json             print the whole result
    --spawn            do not wait: print the id of the call
  call --result ID     what such a call answered; exit code 2 while it still runs
  conformance MODEL    check the endpoint against the engine protocol, over HTTP; exit code 1 when a check fails
    --url URL          of any engine, as http://127.0.0.1:8788
  --help               this text

MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or modal token new, give access to Modal. conformance sends ENGINE_TOKEN to the engine, and
MODAL_KEY and MODAL_SECRET (a proxy auth token) to Modal's proxy in front of it.`;

/** Of a call that still runs. */
const NOT_READY = 2;

const OPTIONS = {
  deploy: ["model"],
  warm: ["keep"],
  stats: [],
  call: ["prompt", "vector", "layer", "strength", "max-tokens", "temperature", "seed", "json", "spawn", "result"],
  conformance: ["url"],
} as const satisfies Record<string, readonly string[]>;
type Command = keyof typeof OPTIONS;
type Values = ReturnType<typeof readArguments>["values"];

/**
 * Runs one command.
 * @returns the exit code.
 * @throws Error, one sentence, when it cannot be done.
 */
export async function run(args: readonly string[], io: Io): Promise<number> {
  const { values, positionals } = readArguments(args);
  const [name, ...models] = positionals;
  if (values.help || name === undefined) {
    io.say(HELP);
    return 0;
  }
  if (!Object.hasOwn(OPTIONS, name)) throw new Error(`There is no command '${name}': ${Object.keys(OPTIONS).join(", ")} are there.`);
  const command = name as Command;
  checkOptions(command, values);
  switch (command) {
    case "deploy":
      if (models.length > 0) throw new Error("deploy takes its models as --model M, and no other argument.");
      return deploy(values.model?.map(getGpuModel), io);
    case "warm":
      await warm(getGpuModel(one(command, models)), values.keep === undefined ? undefined : wholeNumber("keep", values.keep, 0), io);
      return 0;
    case "stats":
      await stats(models.map(getGpuModel), io);
      return 0;
    case "call":
      return runCall(models, values, io);
    case "conformance": {
      const id = one(command, models);
      return (await conformance(id, values.url, io)) ? 0 : 1;
    }
  }
}

async function runCall(models: readonly string[], values: Values, io: Io): Promise<number> {
  const { result, json = false } = values;
  if (result !== undefined) {
    const other = OPTIONS.call.find((option) => option !== "result" && option !== "json" && values[option] !== undefined);
    if (other !== undefined || models.length > 0)
      throw new Error(`call --result takes no ${other === undefined ? "model" : `--${other}`}: the call was started with it.`);
    return (await showResult(result, json, io)) ? 0 : NOT_READY;
  }
  const model = getGpuModel(one("call", models));
  if (values.prompt === undefined) throw new Error("call needs --prompt TEXT.");
  const options: CallOptions = {
    prompt: values.prompt,
    vector: values.vector,
    layer: values.layer === undefined ? undefined : wholeNumber("layer", values.layer, 0),
    strength: values.strength === undefined ? undefined : decimal("strength", values.strength),
    maxTokens: wholeNumber("max-tokens", values["max-tokens"] ?? "64", 1),
    temperature: decimal("temperature", values.temperature ?? "0.7"),
    seed: wholeNumber("seed", values.seed ?? "16", Number.MIN_SAFE_INTEGER),
  };
  if (!values.spawn) await call(model, options, json, io);
  else if (json) throw new Error("--json shows a result, and --spawn waits for none: ask for it with call --result ID --json.");
  else await spawnCall(model, options, io);
  return 0;
}

function readArguments(args: readonly string[]) {
  // parseArgs takes "-5" for an option, but here it is the value of the one before it.
  const joined = args.reduce<string[]>((all, arg) => {
    const before = all.at(-1) ?? "";
    if (/^-[\d.]/.test(arg) && /^--[a-z-]+$/.test(before)) all[all.length - 1] = `${before}=${arg}`;
    else all.push(arg);
    return all;
  }, []);
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  try {
    return parseArgs({
      args: joined,
      allowPositionals: true,
      options: {
        ...{ help: { ...flag, short: "h" }, model: { ...text, multiple: true }, keep: text, url: text },
        ...{ prompt: text, vector: text, layer: text, strength: text, "max-tokens": text, temperature: text, seed: text },
        ...{ json: flag, spawn: flag, result: text },
      },
    });
  } catch (error) {
    const [sentence] = (error as Error).message.split(/\.\s/);
    throw new Error(`${sentence}. See npm run gpu -- --help.`);
  }
}

function checkOptions(command: Command, values: Values): void {
  const allowed: readonly string[] = OPTIONS[command];
  for (const option of Object.keys(values)) {
    if (allowed.includes(option)) continue;
    const owner = Object.entries(OPTIONS).find(([, options]) => (options as readonly string[]).includes(option));
    throw new Error(`--${option} belongs to ${owner?.[0]}, not to ${command}.`);
  }
}

function one(command: Command, models: readonly string[]): string {
  const [model, ...rest] = models;
  if (model === undefined || rest.length > 0) throw new Error(`${command} takes one model. See npm run gpu -- --help.`);
  return model;
}

function wholeNumber(name: string, text: string, least: number): number {
  const value = /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new Error(`--${name} takes a whole number${least > Number.MIN_SAFE_INTEGER ? ` from ${least}` : ""}, not '${text}'.`);
}

function decimal(name: string, text: string): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (Number.isFinite(value)) return value;
  throw new Error(`--${name} takes a number, not '${text}'.`);
}
