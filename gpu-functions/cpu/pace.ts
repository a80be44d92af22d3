// Long work on the JavaScript thread, in parts: decode steps and sockets have their turn between them.
import { TillerError } from "../../shared/errors.ts";

/** Waits for the next turn. @throws DOMException when the signal was aborted, TillerError `engine_timeout` after the deadline. */
export type Pace = () => Promise<void>;

/** @param deadlineMs from now on; undefined: none. */
export function newPace(signal: AbortSignal, deadlineMs: number | undefined): Pace {
  const began = performance.now();
  return async () => {
    await new Promise<void>((resolve) => setImmediate(resolve));
    if (signal.aborted) throw new DOMException("The work was cancelled.", "AbortError");
    if (deadlineMs !== undefined && performance.now() - began > deadlineMs)
      throw new TillerError("engine_timeout", `The request was not done after its deadline of ${deadlineMs} ms.`);
  };
}
