// The CPU engine: a set of loaded models behind the calls of the engine protocol. No HTTP here, no ONNX.
import { availableParallelism } from "node:os";
import { TillerError } from "../../shared/errors.ts";
import type { GenerateEvent, GenerateRequest, ModelInfo } from "../../shared/protocol.ts";
import { loadModel, type Model, planGeneration } from "./model.ts";
import type { EngineService } from "./server.ts";

export interface EngineOptions {
  /** Model directories in Hugging Face layout; a model's id is its directory's name. */
  readonly directories: readonly string[];
  /** Threads of the numeric kernels; every core when absent. */
  readonly threads?: number | undefined;
}

export interface Engine extends EngineService {
  /** A loaded model; throws `model_not_found` naming the models there are. */
  model(id: string): Model;
  close(): Promise<void>;
}

/**
 * Loads every model or fails.
 * @throws Error with the file and the reason when a model cannot be served.
 */
export async function loadEngine(options: EngineOptions): Promise<Engine> {
  const models = new Map<string, Model>();
  for (const directory of options.directories) {
    const model = await loadModel(directory, options.threads ?? availableParallelism());
    if (models.has(model.info.id)) throw new Error(`two model directories are called '${model.info.id}': rename one`);
    models.set(model.info.id, model);
  }
  const get = (id: string): Model => {
    const model = models.get(id);
    if (model === undefined) {
      throw new TillerError("model_not_found", `There is no model '${id}' on this engine. It serves: ${[...models.keys()].join(", ")}.`);
    }
    return model;
  };
  return {
    model: get,
    models: (): ModelInfo[] => [...models.values()].map((model) => model.info),
    async *generate(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<GenerateEvent> {
      const model = get(request.model);
      const generation = await planGeneration(model, request, get);
      yield* model.scheduler.run(generation, signal);
    },
    async close() {
      for (const model of models.values()) {
        await model.scheduler.close();
        model.session.close();
      }
    },
  };
}
