// Which models there are, learned from the engines and remembered for a minute in this isolate. Only answers are remembered,
// never promises: a Worker may not wait on another request's I/O.
import { TillerError } from "../shared/errors.ts";
import type { ModelInfo } from "../shared/protocol.ts";
import type { ColdStart } from "./cold-start.ts";
import type { Config, EngineAddress } from "./config.ts";
import { findEngine, listModels } from "./engine.ts";

const FRESH_MS = 60_000;
/** A list at least this old is asked for again when a model is not in it: a new model appears, guesses do not hammer the engine. */
const MISS_MS = 2000;
/** Whoever only looks at a list wakes no engine on Modal whose models are known for less than this, and waits for none for long. */
const ASLEEP_MS = 3_600_000;
const LIST_WAITS = 5;

export interface ServedModel {
  readonly info: ModelInfo;
  readonly engine: EngineAddress;
}

export interface Models {
  /**
   * The model and its engine, which starts when it is not running. Aborting `signal` ends the wait, `cold` is told of it.
   * @throws TillerError `model_not_found` naming the models there are, or `engine_unavailable`; the signal's reason.
   */
  get(id: string, signal?: AbortSignal, cold?: ColdStart): Promise<ServedModel>;
  /** Every model of every engine that answers, and of those that are asleep what is known; throws when there is none. */
  list(): Promise<readonly ModelInfo[]>;
  /** Like `get`, for a model that only lends its sources: undefined when there is none. */
  find(id: string): Promise<ServedModel | undefined>;
}

export function newModels(config: Config, now: () => number = Date.now): Models {
  const known = new Map<EngineAddress, { readonly at: number; readonly models: readonly ModelInfo[] }>();

  async function fetchFrom(
    engine: EngineAddress,
    maxAgeMs: number,
    ask: () => Promise<readonly ModelInfo[]>,
  ): Promise<readonly ModelInfo[]> {
    const cached = known.get(engine);
    if (cached !== undefined && now() - cached.at < maxAgeMs) return cached.models;
    const models = await ask();
    known.set(engine, { at: now(), models });
    return models;
  }

  async function find(id: string, signal?: AbortSignal, cold?: ColdStart): Promise<ServedModel | undefined> {
    const engine = findEngine(config, id);
    if (engine === undefined) return undefined;
    for (const maxAgeMs of [FRESH_MS, MISS_MS]) {
      const models = await fetchFrom(engine, maxAgeMs, () => listModels(engine, config, signal, cold));
      const info = models.find((model) => model.id === id);
      if (info !== undefined) return { info, engine };
    }
    return undefined;
  }

  async function list(): Promise<readonly ModelInfo[]> {
    const briefly = { ...config, coldStartMs: Math.min(config.coldStartMs, LIST_WAITS * config.coldStartWaitMs) };
    const answers = await Promise.allSettled(
      config.engines.map((engine) =>
        fetchFrom(engine, engine.modal === undefined ? FRESH_MS : ASLEEP_MS, () => listModels(engine, briefly)),
      ),
    );
    const failed = answers.find((answer) => answer.status === "rejected");
    if (failed !== undefined && answers.every((answer) => answer.status === "rejected")) throw failed.reason;
    return answers.flatMap((answer, i) =>
      answer.status === "fulfilled" ? answer.value.filter(({ id }) => findEngine(config, id) === config.engines[i]) : [],
    );
  }

  async function get(id: string, signal?: AbortSignal, cold?: ColdStart): Promise<ServedModel> {
    const served = await find(id, signal, cold);
    if (served !== undefined) return served;
    const names = (await list()).map((model) => model.id);
    throw new TillerError("model_not_found", `There is no model '${id}'. The models are: ${names.join(", ") || "none"}.`);
  }

  return { get, list, find };
}
