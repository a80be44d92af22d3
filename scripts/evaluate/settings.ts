// What a run is to do, read from its options and found good.
import { parseArgs } from "node:util";
import { parsePoint, parseSource, type ResidualPoint } from "../../shared/address.ts";
import { DIRECTION_LIMITS, DIRECTION_METHODS, type DirectionMethod } from "../../shared/directions.ts";
import type { ModelInfo } from "../../shared/protocol.ts";
import { findTask, TASKS, type TaskName } from "./tasks.ts";

const POSITIONS = ["all", "prompt", "prompt_except_last"] as const;
const UNITS = ["share", "vector"] as const;
/** Shares of the residual stream's mean length: from a change that is hardly felt to one that most models do not bear well. */
const STRENGTHS = [0.1, 0.2, 0.3, 0.4];
const MOST_CELLS = 400;

export interface Settings {
  readonly task: TaskName;
  readonly model: string;
  /** Whose perplexity is told; null: the model itself, unsteered. */
  readonly judge: string | null;
  readonly layer: number;
  readonly hook: ResidualPoint;
  readonly methods: readonly DirectionMethod[];
  /** The autoencoder of the method sae. */
  readonly sae: { readonly source: string; readonly set: string; readonly latents: number } | null;
  /** Each also below 0. */
  readonly strengths: readonly number[];
  /** share: of the residual stream's mean length; vector: the strength multiplies the vector as it was made. */
  readonly unit: (typeof UNITS)[number];
  /** Whether a strength below 0 steers by the vector made with the sides exchanged; otherwise by the vector turned around. */
  readonly exchange: boolean;
  readonly positions: (typeof POSITIONS)[number];
  /** Texts of each side that vectors are made from or judged on, prompts, and continuations of each. */
  readonly texts: number;
  readonly prompts: number;
  readonly samples: number;
  readonly tokens: number;
  readonly temperature: number;
  readonly top_p: number;
  readonly frequency_penalty: number;
  readonly seed: number;
}

const OPTIONS = {
  help: { type: "boolean", short: "h" },
  task: { type: "string" },
  data: { type: "string", multiple: true },
  positive: { type: "string", multiple: true },
  negative: { type: "string", multiple: true },
  prompts: { type: "string", multiple: true },
  lexicon: { type: "string" },
  model: { type: "string" },
  judge: { type: "string" },
  layer: { type: "string" },
  sae: { type: "string" },
  latents: { type: "string" },
  methods: { type: "string" },
  strengths: { type: "string" },
  unit: { type: "string" },
  exchange: { type: "boolean" },
  positions: { type: "string" },
  texts: { type: "string" },
  "prompt-count": { type: "string" },
  samples: { type: "string" },
  tokens: { type: "string" },
  temperature: { type: "string" },
  "top-p": { type: "string" },
  "frequency-penalty": { type: "string" },
  seed: { type: "string" },
  neurosteer: { type: "boolean" },
  out: { type: "string" },
  restart: { type: "boolean" },
} as const;

export type Values = ReturnType<typeof readArguments>["values"];

/** Files behind the options are data too: a shell makes several of one pattern. */
export function readArguments(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], allowPositionals: true, options: OPTIONS });
  } catch (error) {
    const [sentence] = (error as Error).message.split(". ");
    throw new Error(`${sentence}. See npm run evaluate -- --help.`);
  }
}

/** @throws Error naming the option, what it takes and what was given. */
export function readSettings(values: Values, info: ModelInfo): Settings {
  const task = findTask(values.task);
  const own: Partial<Settings> = values.neurosteer === true ? neurosteer(task, values.strengths !== undefined) : {};
  const sae = findSae(values, info);
  const methods = readMethods(values, sae !== null, values.neurosteer === true);
  const whole = (
    name: "texts" | "prompt-count" | "samples" | "tokens" | "seed" | "latents",
    least: number,
    most: number,
    otherwise: number,
  ) => number(values, name, least, most, otherwise, true);
  const real = (name: "temperature" | "top-p" | "frequency-penalty", least: number, most: number, otherwise: number) =>
    number(values, name, least, most, otherwise, false);
  const settings: Settings = {
    ...{ task, model: info.id, judge: values.judge ?? null },
    ...placeOf(values, info, methods.includes("sae") ? sae : null),
    methods,
    sae: sae === null || !methods.includes("sae") ? null : { ...sae, latents: whole("latents", 1, DIRECTION_LIMITS.latents, 100) },
    strengths: readStrengths(values.strengths) ?? own.strengths ?? STRENGTHS,
    unit: oneOf(values, "unit", UNITS) ?? own.unit ?? "share",
    exchange: values.exchange === true || own.exchange === true,
    positions: oneOf(values, "positions", POSITIONS) ?? own.positions ?? "all",
    texts: whole("texts", LEAST_TEXTS, DIRECTION_LIMITS.texts, 400),
    prompts: whole("prompt-count", 1, 10_000, 50),
    samples: whole("samples", 1, 100, 2),
    tokens: whole("tokens", 1, info.context - 2, own.tokens ?? 40),
    temperature: real("temperature", 0, 2, own.temperature ?? 0.7),
    top_p: real("top-p", 0.001, 1, own.top_p ?? 1),
    frequency_penalty: real("frequency-penalty", -2, 2, own.frequency_penalty ?? 0),
    seed: whole("seed", 0, 2 ** 31, 16),
  };
  const cells = 2 * settings.strengths.length * methods.length;
  if (cells > MOST_CELLS)
    throw new Error(
      `${settings.strengths.length} strengths of ${methods.length} methods, both ways, make ${cells} cells: at most ${MOST_CELLS} are run.`,
    );
  return settings;
}

/** Of each side; fewer tell little of anything. */
export const LEAST_TEXTS = 10;

/** What NeuroSteer's runs had. @throws Error when it had no such task, and nobody says how strongly to steer. */
function neurosteer(task: TaskName, strengthsGiven: boolean): Partial<Settings> {
  const strengths = TASKS[task].neurosteer;
  if (strengths === undefined && !strengthsGiven) throw new Error(`NeuroSteer has no task '${task}': say which --strengths it gets.`);
  return {
    ...(strengths === undefined ? {} : { strengths }),
    ...{ unit: "vector", exchange: true, positions: "prompt_except_last", tokens: 50 },
    ...{ temperature: 0.9, top_p: 0.3, frequency_penalty: 1 },
  };
}

function number(
  values: Values,
  name: keyof Values &
    ("texts" | "prompt-count" | "samples" | "tokens" | "seed" | "latents" | "temperature" | "top-p" | "frequency-penalty" | "layer"),
  least: number,
  most: number,
  otherwise: number,
  whole: boolean,
): number {
  const text = values[name];
  if (text === undefined) return otherwise;
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (value >= least && value <= most && (!whole || Number.isInteger(value))) return value;
  throw new Error(`--${name} takes a ${whole ? "whole " : ""}number from ${least} to ${most}, not '${text}'.`);
}

function oneOf<const Known extends readonly string[]>(values: Values, name: "unit" | "positions", known: Known): Known[number] | undefined {
  const text = values[name];
  if (text === undefined) return undefined;
  const found = known.find((each) => each === text);
  if (found !== undefined) return found;
  throw new Error(`--${name} takes ${known.join(", ")}, not '${text}'.`);
}

function readStrengths(text: string | undefined): number[] | undefined {
  if (text === undefined) return undefined;
  const strengths = text.split(",").map((each) => (each.trim() === "" ? Number.NaN : Number(each)));
  if (strengths.every((value) => value > 0 && Number.isFinite(value)) && new Set(strengths).size === strengths.length)
    return strengths.sort((a, b) => a - b);
  throw new Error(`--strengths takes different numbers above 0, as 0.1,0.2,0.4, not '${text}': each is run below 0 too.`);
}

function readMethods({ methods: text, sae: given, latents }: Values, sae: boolean, neurosteer: boolean): DirectionMethod[] {
  const names = text?.split(",") ?? (neurosteer ? ["sae"] : ["mean_difference", "pca", ...(sae ? ["sae"] : [])]);
  const methods = names.map((name) => {
    const found = DIRECTION_METHODS.find((each) => each === name.trim());
    if (found === undefined) throw new Error(`There is no method '${name}': --methods takes ${DIRECTION_METHODS.join(", ")}.`);
    return found;
  });
  if (new Set(methods).size !== methods.length) throw new Error(`--methods names one twice: '${text}'.`);
  if (methods.includes("sae") && !sae)
    throw new Error("The method sae needs an autoencoder, and this model has none: npm run models -- list says which there are.");
  if (!methods.includes("sae") && (given ?? latents) !== undefined) throw new Error("--sae and --latents belong to the method sae.");
  return methods;
}

interface FoundSae extends Place {
  readonly source: string;
  readonly set: string;
}
interface Place {
  readonly layer: number;
  readonly hook: ResidualPoint;
}

/** The autoencoder that is asked for, or the model's first one at the layer that is. */
function findSae({ sae: wanted, layer }: Values, { sources, id }: ModelInfo): FoundSae | null {
  const all = sources.flatMap((source): FoundSae[] => {
    const name = parseSource(source.id);
    if (source.architecture === "directions" || name === undefined) return [];
    return [{ source: source.id, set: name.name, layer: name.layer, hook: parsePoint(source.point).kind }];
  });
  const found =
    wanted === undefined
      ? all.find((each) => layer === undefined || each.layer === Number(layer))
      : all.find(({ source }) => source === wanted);
  if (found !== undefined) return found;
  if (wanted === undefined) return null;
  throw new Error(`Model '${id}' has no autoencoder '${wanted}'. It has: ${all.map(({ source }) => source).join(", ") || "none"}.`);
}

/** Where the vectors are made and act: all methods at one place. */
function placeOf(values: Values, info: ModelInfo, sae: FoundSae | null): Place {
  const layer = number(values, "layer", 0, info.layers - 1, sae?.layer ?? Math.floor(info.layers / 2), true);
  if (sae !== null && sae.layer !== layer)
    throw new Error(`--layer ${layer} and --sae ${sae.source} do not go together: that autoencoder is of layer ${sae.layer}.`);
  return { layer, hook: sae?.hook ?? "resid_pre" };
}
