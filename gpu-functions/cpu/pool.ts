// The models of one process: all are known, those in use are loaded, the least recently used make room for others.
import { TillerError } from "../../shared/errors.ts";
import type { ModelInfo } from "../../shared/protocol.ts";
import { describePlan, planBytes } from "./memory.ts";
import type { KnownModel, Model } from "./model.ts";

export interface PoolSettings {
  /** Loads a model. @throws Error with the file and the reason. */
  readonly open: (known: KnownModel) => Promise<Model>;
  /** What the plans of all loaded models may sum to. */
  readonly memoryBytes: number;
  /** Receives a line when a model is loaded or unloaded. */
  readonly log: (line: string) => void;
}

/** A loaded model that stays loaded until it is released. */
export interface Lease {
  readonly model: Model;
  release(): void;
}

interface Entry {
  readonly known: KnownModel;
  /** The one load that everybody waits for who asks meanwhile. */
  loading: Promise<Model> | undefined;
  model: Model | undefined;
  users: number;
  /** Grows with every release: the smallest is the least recently used. */
  lastUsed: number;
}

const RETRY_SECONDS = 10;

export class ModelPool {
  private readonly entries = new Map<string, Entry>();
  private readonly settings: PoolSettings;
  private clock = 0;
  /** Plans of models that are loaded or being loaded. */
  private taken = 0;
  /** Loads and unloads one after another: each needs to know what the others left. */
  private turn: Promise<unknown> = Promise.resolve();

  /** @throws Error when two models share an id, or one can never fit the budget. */
  constructor(models: readonly KnownModel[], settings: PoolSettings) {
    this.settings = settings;
    for (const known of models) {
      const { id } = known.info;
      if (this.entries.has(id)) throw new Error(`two model directories are called '${id}': rename one`);
      if (planBytes(known.plan) > settings.memoryBytes) {
        const megabytes = (bytes: number) => Math.ceil(bytes / 1e6);
        throw new Error(
          `model '${id}' needs ${megabytes(planBytes(known.plan))} MB, and all models together may take ${megabytes(settings.memoryBytes)} MB`,
        );
      }
      this.entries.set(id, { known, loading: undefined, model: undefined, users: 0, lastUsed: 0 });
    }
  }

  infos(): ModelInfo[] {
    // Labels and what was found out on texts may have changed since the directory was read.
    return [...this.entries.values()].map(({ known }) => ({ ...known.info, sources: known.sources.info() }));
  }

  /** @throws TillerError `model_not_found` naming the models there are. */
  known(id: string): KnownModel {
    return this.entry(id).known;
  }

  /** The model with this id if it is loaded now. */
  loaded(id: string): Model | undefined {
    return this.entry(id).model;
  }

  /** Loads the first `count` models, as long as all fit together. @throws Error with the file and the reason when one cannot be loaded. */
  async warm(count: number): Promise<void> {
    for (const [id, { known }] of [...this.entries].slice(0, count)) {
      if (this.taken + planBytes(known.plan) > this.settings.memoryBytes) return;
      (await this.acquire(id)).release();
    }
  }

  /**
   * The model, loaded if it is not. Callers that ask while it loads share the load.
   * @throws TillerError `model_not_found`, or `engine_busy` when models that are in use leave no room.
   */
  async acquire(id: string): Promise<Lease> {
    const entry = this.entry(id);
    entry.users++;
    try {
      entry.loading ??= this.inTurn(() => this.load(entry));
      const model = await entry.loading;
      let held = true;
      const release = () => {
        if (held) this.release(entry);
        held = false;
      };
      return { model, release };
    } catch (error) {
      entry.loading = undefined;
      this.release(entry);
      throw error;
    }
  }

  /** Ends what runs and frees everything. */
  async close(): Promise<void> {
    await Promise.all([...this.entries.values()].map(async ({ loading }) => (await loading?.catch(() => undefined))?.close()));
  }

  private entry(id: string): Entry {
    const entry = this.entries.get(id);
    if (entry === undefined) {
      throw new TillerError(
        "model_not_found",
        `There is no model '${id}' on this engine. It serves: ${[...this.entries.keys()].join(", ")}.`,
      );
    }
    return entry;
  }

  private release(entry: Entry): void {
    entry.users--;
    entry.lastUsed = ++this.clock;
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.turn.then(work);
    this.turn = result.catch(() => undefined);
    return result;
  }

  private async load(entry: Entry): Promise<Model> {
    const { known } = entry;
    const bytes = planBytes(known.plan);
    await this.makeRoom(known.info.id, bytes);
    const began = performance.now();
    const model = await this.settings.open(known);
    this.taken += bytes;
    entry.model = model;
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    this.settings.log(`${known.info.id}: ${describePlan(known.plan, known.shape.context)}, loaded in ${seconds} s.`);
    return model;
  }

  private async makeRoom(id: string, bytes: number): Promise<void> {
    while (this.taken + bytes > this.settings.memoryBytes) {
      const idle = [...this.entries.values()].filter(({ model, users }) => model !== undefined && users === 0);
      const oldest = idle.sort((a, b) => a.lastUsed - b.lastUsed)[0];
      if (oldest === undefined) {
        throw new TillerError("engine_busy", `There is no room for model '${id}' beside the models in use. Try again in a moment.`, {
          retryAfterSeconds: RETRY_SECONDS,
        });
      }
      const { model } = oldest;
      oldest.model = undefined;
      oldest.loading = undefined;
      this.taken -= planBytes(oldest.known.plan);
      await model?.close();
      this.settings.log(`${oldest.known.info.id}: unloaded to make room for ${id}.`);
    }
  }
}
