// A call for directions as events: how far it is, a few times a second, then what it found.
import type { DirectionsProgress, DirectionsResult } from "../../../shared/directions.ts";

export type DirectionsEvent =
  | { readonly event: "progress"; readonly data: DirectionsProgress }
  | { readonly event: "done"; readonly data: DirectionsResult };

const PROGRESS_MS = 250;

/** @param run the call; its failure ends the events. */
export async function* directionsEvents(
  run: (progress: (told: DirectionsProgress) => void) => Promise<DirectionsResult>,
): AsyncGenerator<DirectionsEvent> {
  let last = Number.NEGATIVE_INFINITY;
  let told: DirectionsProgress | undefined;
  let wake: () => void = () => undefined;
  const work = run((progress) => {
    const now = performance.now();
    if (now - last < PROGRESS_MS && progress.texts < progress.of) return;
    last = now;
    told = progress;
    wake();
  });
  for (;;) {
    const woken = new Promise<undefined>((resolve) => {
      wake = () => resolve(undefined);
    });
    const result = told === undefined ? await Promise.race([work, woken]) : undefined;
    const progress = told;
    told = undefined;
    if (progress !== undefined) {
      yield { event: "progress", data: progress };
    } else if (result !== undefined) {
      yield { event: "done", data: result };
      return;
    }
  }
}
