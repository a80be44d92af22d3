// Requests to engines on Modal. A call of more than 150 seconds goes on at another address there; and while no replica runs a request
// waits, or a gateway answers it in the engine's place, so that it has to be sent again until one is up:
// https://modal.com/docs/guide/webhook-timeouts. The headers of its proxy are engine.ts's.
import { TillerError } from "../shared/errors.ts";
import { EngineErrorBody } from "../shared/protocol.ts";
import type { Config } from "./config.ts";

/** The longest wait between two tries, in first ones. An engine that is silent for so long where it answers at once is not there yet. */
const LONGEST = 5;
const MOST_REDIRECTS = 20;
/** Seconds after which a caller should try a model again that did not start in time. */
const RETRY_SECONDS = 15;
const SENTENCE = "The model is starting up (cold start). Try again in a moment.";

/** What the requests of one caller met: whether a replica had to start first, and what that took. */
export class ColdStart {
  /** Resolves at the first sign of one; never when there is none. */
  readonly noticed: Promise<void>;
  readonly #notice: () => void;
  #since: number | undefined;
  #until: number | undefined;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<void>();
    [this.noticed, this.#notice] = [promise, resolve];
  }

  /** Milliseconds from when a request was sent to when it got through, or until now; undefined when there was no cold start. */
  get waitedMs(): number | undefined {
    return this.#since === undefined ? undefined : (this.#until ?? Date.now()) - this.#since;
  }

  /** @param since when the request was sent. */
  begin(since: number): void {
    this.#since ??= since;
    this.#notice();
  }

  end(): void {
    this.#until = Date.now();
  }
}

export interface ModalCall {
  readonly config: Pick<Config, "coldStartMs" | "coldStartWaitMs">;
  /** Whether an engine that runs answers at once: then silence too is a cold start, and ends with its budget. */
  readonly quick: boolean;
  /** Ends everything. */
  readonly signal: AbortSignal;
  /** Ends everything because the caller has gone: then nobody is told of a cold start. */
  readonly gone: AbortSignal | undefined;
  readonly cold: ColdStart | undefined;
}

/**
 * As `fetch`, for an engine on Modal: waits for a replica to start, and follows Modal's redirects.
 * @throws TillerError `engine_unavailable` when none started in time, `engine_failed` for a redirect that is not followed; and as `fetch`.
 */
export async function fetchModal(url: string, init: RequestInit, call: ModalCall): Promise<Response> {
  const { config, quick, signal, gone, cold } = call;
  const started = Date.now();
  const ends = quick ? AbortSignal.any([signal, AbortSignal.timeout(config.coldStartMs)]) : signal;
  let met = false;
  const meet = () => {
    met = true;
    cold?.begin(started);
  };
  const silence = quick ? setTimeout(meet, LONGEST * config.coldStartWaitMs) : undefined;
  let target: Target = { url: new URL(url), init: { ...init, redirect: "manual", signal: ends }, redirects: 0 };
  let waitMs = config.coldStartWaitMs;
  let waiting: string | undefined;
  try {
    for (;;) {
      const response = await fetch(target.url, target.init);
      if (response.status === 303) {
        await response.body?.cancel();
        // What Modal has taken is waited for there, and never sent again.
        target = follow(target, response.headers.get("location"));
        continue;
      }
      if (response.ok || !isGateway(response.status, await peek(response))) return response;
      await response.body?.cancel();
      meet();
      waiting = `the gateway answers ${response.status}`;
      const left = started + config.coldStartMs - Date.now();
      if (left <= 0) throw stillCold(waiting);
      // Those who wait for one replica do not all ask at once.
      await scheduler.wait(Math.min(left, waitMs * (0.75 + Math.random() / 2)), { signal: ends });
      waiting = undefined;
      waitMs = Math.min(2 * waitMs, LONGEST * config.coldStartWaitMs);
    }
  } catch (error) {
    gone?.throwIfAborted();
    // A generation that was sent and is not answered may as well be a slow one: then nothing is said of a start.
    if (ends.aborted && (quick || waiting !== undefined)) throw stillCold(waiting ?? "silence");
    throw error;
  } finally {
    if (silence !== undefined) clearTimeout(silence);
    if (met) cold?.end();
  }
}

/** Where the answer is asked for next. */
interface Target {
  readonly url: URL;
  readonly init: RequestInit;
  readonly redirects: number;
}

/** The keys go nowhere but to the engine's own origin. */
function follow({ url, init, redirects }: Target, location: string | null): Target {
  const next = location === null ? null : URL.parse(location, url);
  if (next?.origin !== url.origin) throw failed("Modal redirected to another origin");
  if (redirects === MOST_REDIRECTS) throw failed(`Modal redirected more than ${MOST_REDIRECTS} times`);
  const headers = new Headers(init.headers);
  headers.delete("content-type");
  return { url: next, init: { ...init, method: "GET", body: null, headers }, redirects: redirects + 1 };
}

/** Whether a gateway answered in the place of an engine, whose own refusals have our error body. */
export const isGateway = (status: number, body: unknown): boolean =>
  status >= 502 && status <= 504 && !EngineErrorBody.safeParse(body).success;

const peek = (response: Response): Promise<unknown> =>
  response
    .clone()
    .json()
    .catch(() => undefined);

const stillCold = (last: string): TillerError =>
  new TillerError("engine_unavailable", SENTENCE, { cause: `no replica has started: ${last}`, retryAfterSeconds: RETRY_SECONDS });
const failed = (cause: string): TillerError => new TillerError("engine_failed", undefined, { cause });
