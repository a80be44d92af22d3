// Generations that nobody waits for: they report to an address (shared/protocol.ts, callback_url and EngineReport), signed with the
// engine's token, and say the same when they are asked.
import { Webhook } from "standardwebhooks";
import { TillerError } from "../../shared/errors.ts";
import { type EngineReport, type GenerateEvent, type GenerateRequest, type TokenEvent, toEngineError } from "../../shared/protocol.ts";

/** A request that can be answered later: it has a name and an address. */
export type CallbackRequest = GenerateRequest & { readonly id: string; readonly callback_url: string };

export interface Callbacks {
  /** Begins a generation; one that cannot be run says so in its report. @throws TillerError `engine_unavailable` when none can begin. */
  accept(request: CallbackRequest): Promise<void>;
  /** Runs one to its end; resolves when its end was told, or could not be for long enough. */
  run(request: CallbackRequest, signal: AbortSignal): Promise<void>;
  /** What is known of a generation; undefined when nothing is. */
  find(id: string): Promise<EngineReport | undefined>;
}

export interface CallbackSettings {
  readonly generate: (request: GenerateRequest, signal: AbortSignal) => AsyncIterable<GenerateEvent>;
  /** The engine's token: reports are signed with it. */
  readonly token: string;
  readonly log: (line: string) => void;
  /** Milliseconds between two reports of tokens. */
  readonly everyMs?: number;
  /** Milliseconds before each new try of telling the end. */
  readonly retryMs?: readonly number[];
  /** Gives a generation to another process instead, which calls `run`; absent: this one runs it. */
  readonly elsewhere?: Pick<Callbacks, "accept" | "find"> | undefined;
}

const EVERY_MS = 2000;
const RETRY_MS = [1000, 5000, 15_000, 60_000, 120_000, 300_000];
/** Ends that are kept for those who ask. */
const KEPT = 256;
/** A report whose receiver says nothing for so long is sent again. */
const ANSWER_MS = 30_000;
/** States of a job that need no more tokens (edge/jobs-schema.ts). */
const FINAL: ReadonlySet<unknown> = new Set(["succeeded", "failed", "canceled"]);

export function newCallbacks({ generate, token, log, everyMs = EVERY_MS, retryMs = RETRY_MS, elsewhere }: CallbackSettings): Callbacks {
  const reports = new Map<string, EngineReport>();
  const sign = new Webhook(btoa(token));

  /** @returns whether it was taken, and whether more is wanted. */
  const send = async (
    { id, callback_url }: CallbackRequest,
    number: number,
    report: EngineReport,
  ): Promise<{ taken: boolean; over: boolean }> => {
    const body = JSON.stringify(report);
    const at = new Date();
    const name = `${id}-${number}`;
    try {
      const response = await fetch(callback_url, {
        ...{ method: "POST", body, redirect: "error", signal: AbortSignal.timeout(ANSWER_MS) },
        headers: {
          "content-type": "application/json",
          "webhook-id": name,
          "webhook-timestamp": String(Math.floor(at.getTime() / 1000)),
          "webhook-signature": sign.sign(name, at, body),
        },
      });
      const answer = (await response.json().catch(() => undefined)) as { state?: unknown } | undefined;
      // Whoever does not know the job, or not us, will not change its mind.
      if (response.status === 404 || response.status === 401 || response.status === 410) return { taken: true, over: true };
      return { taken: response.ok, over: response.ok && FINAL.has(answer?.state) };
    } catch (error) {
      log(`report ${name}: ${(error as Error).message}`);
      return { taken: false, over: false };
    }
  };

  const keep = (id: string, report: EngineReport) => {
    reports.delete(id);
    reports.set(id, report);
    if (reports.size > KEPT) reports.delete(reports.keys().next().value as string);
  };

  const run = async (request: CallbackRequest, signal: AbortSignal): Promise<void> => {
    const { callback_url: _, ...plain } = request;
    const unwanted = new AbortController();
    const all: TokenEvent[] = [];
    let [number, told] = [0, 0];
    let sending: Promise<void> | undefined;
    keep(request.id, { tokens: all });
    const tell = () => {
      if (sending !== undefined || all.length === told) return;
      const until = all.length;
      sending = send(request, ++number, { tokens: all.slice(told, until) }).then(({ taken, over }) => {
        if (taken) told = until;
        if (over) unwanted.abort();
        sending = undefined;
      });
    };
    const timer = setInterval(tell, everyMs);
    let end: Omit<EngineReport, "tokens"> = {};
    try {
      for await (const event of generate(plain, AbortSignal.any([signal, unwanted.signal]))) {
        if (event.event === "token") all.push(event.data);
        if (event.event === "done") end = { done: event.data };
      }
    } catch (error) {
      end = toEngineError(TillerError.from(error));
    } finally {
      clearInterval(timer);
    }
    await sending;
    // Without an end it was aborted: nobody wants to hear of it.
    if (end.done === undefined && end.error === undefined) return;
    keep(request.id, { tokens: all, ...end });
    for (const wait of [0, ...retryMs]) {
      await new Promise((resolve) => setTimeout(resolve, wait));
      if (signal.aborted || (await send(request, ++number, { tokens: all.slice(told), ...end })).taken) return;
    }
    log(`${request.id}: its end could not be told`);
  };

  return {
    run,
    accept: async (request) => {
      if (elsewhere !== undefined) return elsewhere.accept(request);
      void run(request, new AbortController().signal).catch((error: Error) => log(`${request.id}: ${error.message}`));
    },
    find: async (id) => reports.get(id) ?? (await elsewhere?.find(id)),
  };
}

/** Callbacks that another process of this machine begins (gpu/modal_app.py): it is told at `url`. */
export function remoteCallbacks(url: string): Pick<Callbacks, "accept" | "find"> {
  const failed = (cause: unknown) => new TillerError("engine_unavailable", undefined, { cause, retryAfterSeconds: 5 });
  return {
    async accept(request) {
      const response = await fetch(url, { method: "POST", body: JSON.stringify(request) }).catch((error: unknown) => {
        throw failed(error);
      });
      if (!response.ok) throw failed(`${url} answered ${response.status}`);
    },
    async find(id) {
      const response = await fetch(`${url}/${id}`).catch((error: unknown) => {
        throw failed(error);
      });
      if (response.status === 404) return undefined;
      if (!response.ok) throw failed(`${url} answered ${response.status}`);
      return (await response.json()) as EngineReport;
    },
  };
}
