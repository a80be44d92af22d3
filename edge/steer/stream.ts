// A steer as server-sent events: what the engine says, as frames of Neuronpedia's or of our delta form.
import { TillerError } from "../../shared/errors.ts";
import type { GenerateResult, TokenEvent } from "../../shared/protocol.ts";
import { formatEvent, PING } from "../../shared/sse.ts";
import { toErrorBody } from "../answers.ts";
import type { EngineEvent } from "../engine.ts";
import { sideOf, Transcript, toLogprob } from "./answer.ts";
import type { STREAM_MODES } from "./contract.ts";

export interface SteerStream {
  readonly events: AsyncGenerator<EngineEvent>;
  readonly mode: (typeof STREAM_MODES)[number];
  /** A cumulative frame of what was generated so far. */
  frame(transcript: Transcript): object;
  readonly requestId: string;
  /** Aborted once the client has gone. */
  readonly gone: AbortSignal;
  /** Checks and saves the finished steer; its answer is the last frame. */
  finish(result: GenerateResult, transcript: Transcript): object;
  /** Told of a failure before the error frame is written. */
  fail(error: TillerError): Promise<void>;
}

/** The frames, as text. After a failure the last one is an `error` event; a client that has gone gets none. */
export async function* steerFrames(steer: SteerStream): AsyncGenerator<string> {
  const transcript = new Transcript();
  const delta = steer.mode === "delta";
  try {
    for await (const next of steer.events) {
      if (next.event === "token") {
        transcript.add(next.data);
        yield delta ? formatEvent("token", toDelta(next.data)) : dataFrame(steer.frame(transcript));
      } else {
        const result = steer.finish(next.data, transcript);
        yield delta ? formatEvent("done", result) : dataFrame(result);
      }
    }
  } catch (thrown) {
    if (steer.gone.aborted) return;
    const error = TillerError.from(thrown);
    await steer.fail(error);
    yield formatEvent("error", toErrorBody(error, steer.requestId));
  }
}

/** A comment: clients skip it, people who look at the stream read it. */
const COLD = ": the model is starting (cold start)\n\n";

/** A stream that begins before it is known whether there will be frames: a failure is its first and last one. */
export async function* afterColdStart(
  opening: Promise<AsyncGenerator<string>>,
  { gone, requestId, fail }: Pick<SteerStream, "gone" | "requestId" | "fail">,
): AsyncGenerator<string> {
  yield COLD;
  try {
    yield* await opening;
  } catch (thrown) {
    if (gone.aborted) return;
    const error = TillerError.from(thrown);
    await fail(error);
    yield formatEvent("error", toErrorBody(error, requestId));
  }
}

const dataFrame = (value: unknown): string => `data: ${JSON.stringify(value)}\n\n`;

const toDelta = (token: TokenEvent) => ({
  side: sideOf(token),
  index: token.index,
  text: token.text,
  ...toLogprob(token),
  ...(token.kl === undefined ? {} : { kl: token.kl }),
});

/**
 * Frames as a response body. While there is nothing to say a comment is written every `pingMs`: only a failed write tells a
 * Worker that its client has gone.
 */
export function streamBody(frames: AsyncGenerator<string>, pingMs: number, onGone: () => void): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let pending: Promise<IteratorResult<string>> | undefined;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      pending ??= frames.next();
      const next = await orSilence(pending, pingMs);
      if (next === "silence") return controller.enqueue(encoder.encode(PING));
      pending = undefined;
      if (next.done) controller.close();
      else controller.enqueue(encoder.encode(next.value));
    },
    cancel() {
      onGone();
    },
  });
}

async function orSilence<T>(work: Promise<T>, ms: number): Promise<T | "silence"> {
  let timer: ReturnType<typeof setTimeout> | null = null;
  const silence = new Promise<"silence">((resolve) => {
    timer = setTimeout(() => resolve("silence"), ms);
  });
  try {
    return await Promise.race([work, silence]);
  } finally {
    clearTimeout(timer);
  }
}
