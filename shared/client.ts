// The client of the HTTP API: what a front end needs of it. How a request travels is given, so that it also works without a network.
import { ERRORS, isErrorCode, TillerError, type TillerErrorOptions } from "./errors.ts";
import type { Method } from "./protocol.ts";
import { parseEvents } from "./sse.ts";

/** Somebody of Discord, for whom a bot acts. */
export interface Person {
  /** A snowflake. */
  readonly id: string;
  readonly name: string;
}

/** Sends a request for a person; undefined = the service's own calls. It rejects when nobody answers. */
export type Send = (request: Request, who: Person | undefined) => Promise<Response>;

export interface Model {
  readonly id: string;
  readonly layers: number;
  readonly width: number;
  /** Tokens of prompt and generation together. */
  readonly context: number;
  readonly chatTemplate: boolean;
  readonly sources: readonly {
    readonly id: string;
    readonly hookName: string;
    readonly width: number;
    readonly labelledFeatures: readonly { readonly index: number; readonly label: string; readonly strength?: number }[];
  }[];
}

/** A feature or kept vector to steer with. */
export interface Feature {
  readonly modelId: string;
  readonly layer: string;
  readonly index: number;
  readonly strength: number;
  readonly method?: string;
}

export interface Preset {
  readonly name: string;
  readonly features: readonly (Feature & { readonly explanation: string })[];
  readonly isUserVector?: boolean;
  readonly listId?: string;
}

export interface Label {
  readonly modelId: string;
  readonly layer: string;
  readonly index: string;
  readonly description: string;
}

export interface Vector {
  readonly modelId: string;
  readonly layer: string;
  readonly index: string;
  readonly vectorLabel: string;
  readonly description: string;
  readonly vectorDefaultSteerStrength: number;
  readonly hookName: string;
  readonly visibility: string;
  readonly version: number;
  /** Empty in lists. */
  readonly vector: readonly number[];
}

export interface SteerBody {
  readonly modelId: string;
  readonly features: readonly Feature[];
  readonly temperature: number;
  readonly n_tokens: number;
  readonly freq_penalty: number;
  readonly seed: number;
  readonly strength_multiplier: number;
  readonly steer_method?: Method;
  readonly n_logprobs?: number;
  readonly steer_special_tokens?: boolean;
  /** Of a steer. */
  readonly prompt?: string;
  /** Of a conversation. */
  readonly defaultChatMessages?: readonly ChatMessage[];
  readonly steeredChatMessages?: readonly ChatMessage[];
}

export interface ChatMessage {
  readonly role: "user" | "assistant" | "system";
  readonly content: string;
}

export interface Sides {
  readonly STEERED: string;
  readonly DEFAULT: string;
}

export interface Job {
  readonly id: string;
  readonly kind: "steer" | "steer-chat";
  readonly modelId: string;
  readonly state: "queued" | "running" | "succeeded" | "failed" | "canceled";
  readonly progress: { readonly tokens: number; readonly of: number };
  readonly error: { readonly code: string; readonly message: string } | null;
}

interface Receipt {
  readonly positions: number;
  readonly positions_changed: number;
}

export interface WholeJob extends Job {
  /** What was generated; null once there is a result. */
  readonly partial: Sides | null;
  readonly result: {
    readonly id: string;
    readonly shareUrl: string;
    /** A text of a steer; of a conversation all of it, in messages. */
    readonly STEERED: string | { readonly chatTemplate: readonly ChatMessage[] };
    readonly DEFAULT: string | { readonly chatTemplate: readonly ChatMessage[] };
    readonly receipts: readonly Receipt[];
    readonly usage: { readonly completionTokens: number };
  } | null;
}

export type JobEvent =
  | { readonly event: "state"; readonly data: Pick<Job, "state" | "progress"> }
  | { readonly event: "tokens"; readonly data: { readonly tokens: readonly { readonly side: keyof Sides; readonly text: string }[] } }
  | { readonly event: "done"; readonly data: WholeJob };

/** A saved steer, as it was asked for. */
export interface SavedSteer {
  readonly id: string;
  readonly shareUrl: string;
  readonly modelId: string;
  readonly inputText: string;
  readonly STEERED: { readonly raw: string; readonly chatTemplate: readonly ChatMessage[] | null };
  readonly settings: Required<Pick<SteerBody, "temperature" | "n_tokens" | "freq_penalty" | "seed" | "strength_multiplier">> & {
    readonly steer_method: Method;
  };
  readonly features: readonly {
    readonly modelId: string;
    readonly layer: string;
    readonly index: string;
    readonly strength: number;
    readonly neuron: { readonly explanations: readonly { readonly description: string }[] };
  }[];
}

export interface Window {
  readonly limit: number;
  readonly used: number;
  readonly remaining: number;
  readonly resetSeconds: number;
}

export interface Usage {
  readonly steers: Window;
  readonly readings: Window;
  readonly lookups: Window;
  readonly kept: { readonly vectors: number; readonly steers: number } | null;
}

/** A failure as the service tells it: a sentence for a person, and the id to report it with. */
export class ServiceError extends TillerError {
  readonly requestId: string | undefined;

  constructor(code: TillerError["code"], message: string, options: TillerErrorOptions & { readonly requestId?: string | undefined } = {}) {
    super(code, message, options);
    this.requestId = options.requestId;
  }
}

const TIMEOUT_MS = 20_000;
const UNREACHABLE = "The steering service does not answer at the moment. Try again in a minute.";

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
    upload(
      file: { readonly name: string; readonly bytes: Uint8Array<ArrayBuffer> },
      fields: Readonly<Record<string, string>>,
    ): Promise<Uploaded>;
    update(at: VectorAt, changes: Record<string, unknown>): Promise<Vector>;
    remove(at: VectorAt): Promise<void>;
  };
  /** Starts a job; the same key and body gives the same job. */
  startJob(kind: Job["kind"], body: SteerBody, key: string): Promise<Job>;
  job(id: string): Promise<WholeJob>;
  cancel(id: string): Promise<Job>;
  /** A job's events to its end, through broken connections. @param signal stops it: then the events end without `done`. */
  follow(id: string, signal: AbortSignal): AsyncGenerator<JobEvent>;
  load(steerId: string): Promise<SavedSteer>;
  share(steerId: string, changes: { readonly visibility: "public" | "unlisted" | "private" }): Promise<{ readonly url: string }>;
  remove(steerId: string): Promise<void>;
}

export interface VectorAt {
  readonly modelId: string;
  readonly source: string;
  readonly index: string;
}

export interface Uploaded {
  readonly vectors: readonly {
    readonly url: string;
    readonly vector: { readonly source: string; readonly index: string; readonly label: string };
  }[];
}

/** Sends over the network, with a service key. */
export function overNetwork(key: string, fetch: (request: Request) => Promise<Response>): Send {
  return (request, who) => {
    request.headers.set("authorization", `Bearer ${key}`);
    if (who !== undefined) {
      request.headers.set("x-acting-for", `discord:${who.id}`);
      request.headers.set("x-acting-name", encodeURIComponent(who.name.toWellFormed()));
    }
    return fetch(request);
  };
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

interface Calls {
  get<T>(path: string): Promise<T>;
  post<T>(path: string, body: object, headers?: Readonly<Record<string, string>>): Promise<T>;
  /** @throws ServiceError for every answer that is no success. */
  send(path: string, init: RequestInit): Promise<Response>;
  /** The JSON of an answer. @throws ServiceError when it is none. */
  read<T>(response: Response): Promise<T>;
}

function newCalls(origin: string, deliver: Send, who: Person | undefined): Calls {
  const send = async (path: string, init: RequestInit): Promise<Response> => {
    let response: Response;
    try {
      response = await deliver(new Request(origin + path, { signal: AbortSignal.timeout(TIMEOUT_MS), ...init }), who);
    } catch (cause) {
      throw new ServiceError("engine_unavailable", UNREACHABLE, { cause });
    }
    if (!response.ok) throw await toServiceError(response);
    return response;
  };
  const read = async <T>(response: Response): Promise<T> => {
    try {
      return (await response.json()) as T;
    } catch (cause) {
      throw new ServiceError("engine_unavailable", UNREACHABLE, { cause });
    }
  };
  return {
    ...{ send, read },
    get: async (path) => read(await send(path, {})),
    post: async (path, body, headers = {}) =>
      read(await send(path, { method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body) })),
  };
}

async function toServiceError(response: Response): Promise<ServiceError> {
  const body = ((await response.json().catch(() => null)) ?? {}) as { code?: unknown; message?: unknown; requestId?: unknown };
  const code = isErrorCode(body.code) ? body.code : "internal";
  const wait = Number(response.headers.get("retry-after"));
  return new ServiceError(code, typeof body.message === "string" ? body.message : ERRORS[code].sentence, {
    ...(wait > 0 ? { retryAfterSeconds: wait } : {}),
    requestId: typeof body.requestId === "string" ? body.requestId : (response.headers.get("x-request-id") ?? undefined),
  });
}

function newUser(calls: Calls, tryAgainMs: number): TillerUser {
  const { get, post, send, read } = calls;
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
      async upload({ name, bytes }, fields) {
        const form = new FormData();
        for (const [field, value] of Object.entries(fields)) form.set(field, value);
        form.set("file", new Blob([bytes]), name);
        return read<Uploaded>(await send("/api/vector/upload", { method: "POST", body: form }));
      },
      update: async (at, changes) => (await post<{ vector: Vector }>("/api/vector/update", { ...at, ...changes })).vector,
      remove: async (at) => void (await post("/api/vector/delete", at)),
    },
    startJob: (kind, body, key) => post(`/api/${kind}`, body, { prefer: "respond-async", "idempotency-key": key }),
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
