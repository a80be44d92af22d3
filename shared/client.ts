// The client of the HTTP API: what a front end needs of it. How a request travels is given, so that it also works without a network.
import { type Calls, type NamedFile, newCalls, type Send } from "./client-calls.ts";
import type {
  Job,
  JobEvent,
  Label,
  Model,
  Person,
  Preset,
  SavedSteer,
  SteerBody,
  SweepBody,
  Uploaded,
  Usage,
  Vector,
  VectorAt,
  WholeJob,
} from "./client-types.ts";
import { ERRORS, TillerError } from "./errors.ts";
import { parseEvents } from "./sse.ts";

/** The service, for those who may act for people. */
export interface Tiller {
  as(person: Person): TillerUser;
  /** What a bot remembers; keys are its own. */
  readonly notes: {
    /**
     * @param options.ttlSeconds how long it is kept; absent = until it is taken.
     * @returns false when there was one and `ifAbsent` was asked for.
     */
    put(key: string, value: unknown, options?: { readonly ttlSeconds?: number; readonly ifAbsent?: boolean }): Promise<boolean>;
    get<T>(key: string): Promise<T | undefined>;
    /** All of a prefix, in the order of their keys. */
    list<T>(prefix: string): Promise<{ readonly key: string; readonly value: T }[]>;
    /** Takes it away; of two takers one gets it. */
    take<T>(key: string): Promise<T | undefined>;
  };
}

/** Everything one person may do. All calls reject with a ServiceError. */
export interface TillerUser {
  models(): Promise<readonly Model[]>;
  presets(modelId: string): Promise<readonly Preset[]>;
  searchLabels(modelId: string, query: string): Promise<readonly Label[]>;
  /** The best label of a feature that exists; undefined when nobody wrote one. */
  labelOf(modelId: string, layer: string, index: number): Promise<string | undefined>;
  usage(): Promise<Usage>;
  /** A one-time address that connects this person with an account of the web. */
  link(): Promise<{ readonly url: string; readonly expiresAt: string }>;
  readonly vectors: {
    /** The newest hundred, or those after `offset`. */
    list(page?: { readonly modelId?: string; readonly query?: string; readonly offset?: number }): Promise<readonly Vector[]>;
    get(at: VectorAt): Promise<Vector>;
    create(
      vector: Record<string, unknown>,
    ): Promise<{ readonly url: string; readonly vector: { readonly source: string; readonly index: string } }>;
    /** @param fields as `POST /api/vector/upload` has them. */
    upload(file: NamedFile, fields: Readonly<Record<string, string>>): Promise<Uploaded>;
    /**
     * Starts a job that makes a vector of texts; the same key and form gives the same job.
     * @param fields and @param files as `POST /api/vector/derive` has them.
     */
    derive(
      fields: Readonly<Record<string, string>>,
      files: { readonly positive: NamedFile; readonly negative: NamedFile },
      key: string,
    ): Promise<Job>;
    update(at: VectorAt, changes: Record<string, unknown>): Promise<Vector>;
    remove(at: VectorAt): Promise<void>;
  };
  /** Starts a job; the same key and body gives the same job. */
  startSteer(kind: "steer" | "steer-chat", body: SteerBody, key: string): Promise<Job>;
  /** The same for a sweep. */
  startSweep(body: SweepBody, key: string): Promise<Job>;
  /** The dose-response plot of a sweep that has ended: a PNG. */
  sweepPlot(id: string): Promise<Uint8Array<ArrayBuffer>>;
  job(id: string): Promise<WholeJob>;
  cancel(id: string): Promise<Job>;
  /** A job's events to its end, through broken connections. @param signal stops it: then the events end without `done`. */
  follow(id: string, signal: AbortSignal): AsyncGenerator<JobEvent>;
  load(steerId: string): Promise<SavedSteer>;
  share(steerId: string, changes: { readonly visibility: "public" | "unlisted" | "private" }): Promise<{ readonly url: string }>;
  remove(steerId: string): Promise<void>;
}

/**
 * @param origin where the service is, without a trailing slash.
 * @param tryAgainMs how long after it broke a job's stream of events is opened again.
 */
export function newTiller(origin: string, send: Send, tryAgainMs: number = TRY_AGAIN_MS): Tiller {
  const own = newCalls(origin, send, undefined);
  return {
    as: (person) => newUser(newCalls(origin, send, person), tryAgainMs),
    notes: {
      put: async (key, value, options) => (await own.post<{ written: boolean }>("/api/bot/notes/put", { key, value, ...options })).written,
      get: async <T>(key: string) => (await own.post<{ note: { value: T } | null }>("/api/bot/notes/get", { key })).note?.value,
      async list<T>(prefix: string) {
        const all: { key: string; value: T }[] = [];
        for (;;) {
          const after = all.at(-1)?.key;
          const { notes } = await own.post<{ notes: typeof all }>("/api/bot/notes/list", {
            prefix,
            ...(after === undefined ? {} : { after }),
          });
          all.push(...notes);
          if (notes.length === 0) return all;
        }
      },
      take: async <T>(key: string) => (await own.post<{ note: { value: T } | null }>("/api/bot/notes/take", { key })).note?.value,
    },
  };
}

const asJob = (key: string) => ({ prefer: "respond-async", "idempotency-key": key });

function newUser(calls: Calls, tryAgainMs: number): TillerUser {
  const { get, post, postForm, send, read, readBytes } = calls;
  return {
    models: async () => (await get<{ models: Model[] }>("/api/models")).models,
    presets: async (modelId) => (await post<{ featurePresets: Preset[] }>("/api/steer/presets", { modelId })).featurePresets,
    searchLabels: async (modelId, query) => (await post<{ results: Label[] }>("/api/explanation/search-model", { modelId, query })).results,
    async labelOf(modelId, layer, index) {
      const path = [modelId, layer, index].map((part) => encodeURIComponent(part)).join("/");
      const { explanations } = await get<{ explanations?: { description: string }[] }>(`/api/feature/${path}`);
      return explanations?.[0]?.description;
    },
    usage: () => get("/api/user/usage"),
    link: () => post("/api/link/new", {}),
    vectors: {
      list: async (page = {}) => (await post<{ vectors: Vector[] }>("/api/vector/list-owned", { ...page, values: false })).vectors,
      get: async (at) => (await post<{ vector: Vector }>("/api/vector/get", at)).vector,
      create: (vector) => post("/api/vector/new", vector),
      upload: (file, fields) => postForm("/api/vector/upload", { fields, files: { file } }),
      derive: (fields, files, key) => postForm("/api/vector/derive", { fields, files }, asJob(key)),
      update: async (at, changes) => (await post<{ vector: Vector }>("/api/vector/update", { ...at, ...changes })).vector,
      remove: async (at) => void (await post("/api/vector/delete", at)),
    },
    startSteer: (kind, body, key) => post(`/api/${kind}`, body, asJob(key)),
    startSweep: (body, key) => post("/api/sweeps", body, asJob(key)),
    sweepPlot: async (id) => readBytes(await send(`/sweep/${id}/plot.png`, {})),
    job: (id) => get(`/api/jobs/${id}`),
    cancel: async (id) => read<Job>(await send(`/api/jobs/${id}`, { method: "DELETE" })),
    follow: (id, signal) => follow(calls, id, signal, tryAgainMs),
    load: (steerOutputId) => post("/api/steer-load", { steerOutputId }),
    share: (id, changes) => post("/api/share/update", { id, ...changes }),
    remove: async (id) => void (await post("/api/share/delete", { id })),
  };
}

/** A connection that breaks is opened again this often in a row, after so long. */
const TRIES = 60;
const TRY_AGAIN_MS = 1000;

async function* follow({ send }: Calls, id: string, signal: AbortSignal, tryAgainMs: number): AsyncGenerator<JobEvent> {
  let last: string | undefined;
  for (let failures = 0; !signal.aborted; ) {
    try {
      const headers: Record<string, string> = last === undefined ? {} : { "last-event-id": last };
      const { body } = await send(`/api/jobs/${id}/events`, { headers, signal });
      for await (const event of parseEvents(body as ReadableStream<Uint8Array>)) {
        failures = 0;
        last = event.id ?? last;
        yield { event: event.event, data: JSON.parse(event.data) } as JobEvent;
        if (event.event === "done") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      const again = !(error instanceof TillerError) || ERRORS[error.code].retry;
      if (!again || ++failures >= TRIES) throw error;
    }
    await pause(tryAgainMs, signal);
  }
}

/** Waits, but not longer than the signal allows. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
  });
}
