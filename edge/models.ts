// Which models there are, learned from the engines and remembered for a minute in this isolate. Only answers are remembered,
// never promises: a Worker may not wait on another request's I/O.
import { TillerError } from "../shared/errors.ts";
import type { ModelInfo } from "../shared/protocol.ts";
import type { Config, EngineAddress } from "./config.ts";
import { findEngine, listModels } from "./engine.ts";

const FRESH_MS = 60_000;
/** A list at least this old is asked for again when a model is not in it: a new model appears, guesses do not hammer the engine. */
const MISS_MS = 2000;

export interface ServedModel {
  readonly info: ModelInfo;
  readonly engine: EngineAddress;
}

export interface Models {
  /**
   * The model and its engine.
   * @throws TillerError `model_not_found` naming the models there are, or `engine_unavailable`.
   */
  get(id: string): Promise<ServedModel>;
  /** Every model of every engine that answers; throws when none does. */
  list(): Promise<readonly ModelInfo[]>;
  /** Like `get`, for a model that only lends its sources: undefined when there is none. */
  find(id: string): Promise<ServedModel | undefined>;
}

export function newModels(config: Config, now: () => number = Date.now): Models {
  const known = new Map<EngineAddress, { readonly at: number; readonly models: readonly ModelInfo[] }>();

  async function fetchFrom(engine: EngineAddress, maxAgeMs: number): Promise<readonly ModelInfo[]> {
    const cached = known.get(engine);
    if (cached !== undefined && now() - cached.at < maxAgeMs) return cached.models;
    const models = await listModels(engine, config);
    known.set(engine, { at: now(), models });
    return models;
  }

  async function find(id: string): Promise<ServedModel | undefined> {
    const engine = findEngine(config, id);
    if (engine === undefined) return undefined;
    for (const maxAgeMs of [FRESH_MS, MISS_MS]) {
      const info = (await fetchFrom(engine, maxAgeMs)).find((model) => model.id === id);
      if (info !== undefined) return { info, engine };
    }
    return undefined;
  }

  async function list(): Promise<readonly ModelInfo[]> {
    const answers = await Promise.allSettled(config.engines.map((engine) => fetchFrom(engine, FRESH_MS)));
    const failed = answers.find((answer) => answer.status === "rejected");
    if (failed !== undefined && answers.every((answer) => answer.status === "rejected")) throw failed.reason;
    return answers.flatMap((answer, i) =>
      answer.status === "fulfilled" ? answer.value.filter(({ id }) => findEngine(config, id) === config.engines[i]) : [],
    );
  }

  async function get(id: string): Promise<ServedModel> {
    const served = await find(id);
    if (served !== undefined) return served;
    const names = (await list()).map((model) => model.id);
    throw new TillerError("model_not_found", `There is no model '${id}'. The models are: ${names.join(", ") || "none"}.`);
  }

  return { get, list, find };
}
