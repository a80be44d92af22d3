// An engine: models behind the calls of the engine protocol. No HTTP here, and nothing of what computes.
import type { DirectionsProgress, DirectionsRequest, DirectionsResult } from "../../shared/directions.ts";
import type { FeaturesRequest, FeaturesResult, RowsRequest, RowsResult, SimilarRequest, SimilarResult } from "../../shared/features.ts";
import type { GenerateEvent, GenerateRequest, ModelInfo } from "../../shared/protocol.ts";
import type {
  ActivationsRequest,
  ActivationsResult,
  LatentsRequest,
  LatentsResult,
  ScoreRequest,
  ScoreResult,
  TokenizeRequest,
  TokenizeResult,
} from "../../shared/readings.ts";
import { readActivations } from "./activations.ts";
import { compareRows } from "./compare.ts";
import { deriveDirections, planDirections } from "./directions/index.ts";
import { readDensities, readFeatures } from "./features.ts";
import type { Generation } from "./generation.ts";
import { readLatents } from "./latents.ts";
import { type Model, planGeneration } from "./model.ts";
import { RunningNames } from "./names.ts";
import { newPace } from "./pace.ts";
import type { Lease, ModelPool } from "./pool.ts";
import { planTexts } from "./read-text.ts";
import { readDecoderRows } from "./rows.ts";
import { planScore, scoreTexts } from "./score.ts";
import type { EngineService } from "./server.ts";
import { findSimilar } from "./similar.ts";
import { tokenize } from "./tokenize.ts";

export interface Engine extends EngineService {
  /** A model that is loaded now; throws `model_not_found` naming the models there are. */
  model(id: string): Model;
  close(): Promise<void>;
}

/** The calls of the protocol, answered by the models of a pool. */
export function newEngine(pool: ModelPool): Engine {
  const names = new RunningNames();
  const withModel = async <T>(id: string, work: (model: Model) => Promise<T>): Promise<T> => {
    const { model, release } = await pool.acquire(id);
    try {
      return await work(model);
    } finally {
      release();
    }
  };
  return {
    model(id) {
      const model = pool.loaded(id);
      if (model === undefined) throw new Error(`model '${id}' is not loaded`);
      return model;
    },
    models: (): ModelInfo[] => pool.infos(),
    async *generate(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<GenerateEvent> {
      // Planned first: a request that is refused loads nothing.
      const generation = planGeneration(pool.known(request.model), request, (id) => pool.known(id));
      const forget = names.take(request.id, generation);
      let lease: Lease | undefined;
      // Also before it has a model: a caller that left waits for nothing.
      signal.addEventListener("abort", () => generation.cancel(), { once: true });
      try {
        lease = await leaseFor(generation, pool.acquire(request.model));
        const events = lease === undefined ? generation.events() : lease.model.scheduler.run(generation, signal, request.deadline_ms);
        for await (const next of events) {
          if (next.event !== "done" || generation.probes === undefined || lease === undefined) yield next;
          else yield { ...next, data: await compareRows(lease.model, generation, next.data, (id) => pool.known(id), signal) };
        }
      } finally {
        lease?.release();
        forget();
      }
    },
    cancel: (id: string) => names.cancel(id),
    async score(request: ScoreRequest, signal: AbortSignal): Promise<ScoreResult> {
      const plan = planScore(pool.known(request.model), request, (id) => pool.known(id));
      return withModel(request.model, (model) => scoreTexts(model, plan, signal));
    },
    async latents(request: LatentsRequest, signal: AbortSignal): Promise<LatentsResult> {
      const known = pool.known(request.model);
      known.sources.sae(request.source);
      planTexts(known, request.texts);
      const densities = request.max_density === undefined ? undefined : await readDensities(known, request.source);
      return withModel(request.model, (model) => readLatents(model, request, densities, signal));
    },
    async activations(request: ActivationsRequest, signal: AbortSignal): Promise<ActivationsResult> {
      planTexts(pool.known(request.model), request.texts);
      return withModel(request.model, (model) => readActivations(model, request, (id) => pool.known(id), signal));
    },
    async directions(
      request: DirectionsRequest,
      signal: AbortSignal,
      progress: (progress: DirectionsProgress) => void,
    ): Promise<DirectionsResult> {
      const course = { signal, progress, pace: newPace(signal, request.deadline_ms), began: performance.now() };
      const plan = await planDirections(pool.known(request.model), request, course.pace);
      return withModel(request.model, (model) => deriveDirections(model, request, plan, course));
    },
    async tokenize(request: TokenizeRequest): Promise<TokenizeResult> {
      return tokenize(pool.known(request.model), request);
    },
    // Directions and what is known of them lie in files: the model need not be loaded.
    async rows(request: RowsRequest, signal: AbortSignal): Promise<RowsResult> {
      return readDecoderRows(pool.known(request.model), request, signal);
    },
    async similar(request: SimilarRequest, signal: AbortSignal): Promise<SimilarResult> {
      return findSimilar(pool.known(request.model), request, signal);
    },
    async features(request: FeaturesRequest): Promise<FeaturesResult> {
      return readFeatures(pool.known(request.model), request);
    },
    close: () => pool.close(),
  };
}

/** The model for a generation; undefined when the generation was given up before: it does not wait for a model to load. */
async function leaseFor(generation: Generation, coming: Promise<Lease>): Promise<Lease | undefined> {
  const lease = await Promise.race([coming, generation.givenUp]);
  if (lease !== undefined) return lease;
  coming.then(
    (late) => late.release(),
    // Nobody waits for the model any more: why it cannot be had is of no interest.
    () => undefined,
  );
  return undefined;
}
