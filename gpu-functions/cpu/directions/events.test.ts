import { expect, it } from "vitest";
import type { DirectionsResult } from "../../../shared/directions.ts";
import { type DirectionsEvent, directionsEvents } from "./events.ts";

const result: DirectionsResult = {
  layers: [],
  best: 0,
  counts: { positive: { texts: 1, held_out: 0, tokens: 1 }, negative: { texts: 1, held_out: 0, tokens: 1 } },
  timing: { tokens: 2, read_ms: 1, total_ms: 1 },
};
const OF = 2000;

async function collect(events: AsyncIterable<DirectionsEvent>): Promise<DirectionsEvent[]> {
  const found: DirectionsEvent[] = [];
  for await (const event of events) found.push(event);
  return found;
}

it("tell the beginning, the end and little between, then the result", async () => {
  const events = await collect(
    directionsEvents(async (progress) => {
      for (let texts = 1; texts <= OF; texts++) {
        progress({ texts, of: OF });
        if (texts % 100 === 0) await new Promise<void>((resolve) => setImmediate(resolve));
      }
      return result;
    }),
  );
  const progress = events.flatMap((each) => (each.event === "progress" ? [each.data] : []));
  expect(progress[0]).toEqual({ texts: 1, of: OF });
  expect(progress.at(-1)).toEqual({ texts: OF, of: OF });
  expect(progress.length).toBeLessThan(10);
  expect(events.at(-1)).toEqual({ event: "done", data: result });
  expect(events).toHaveLength(progress.length + 1);
});

it("end with the failure of the call, after what it told", async () => {
  const told: DirectionsEvent[] = [];
  const events = directionsEvents(async (progress) => {
    progress({ texts: 1, of: 2 });
    await new Promise<void>((resolve) => setImmediate(resolve));
    throw new Error("it broke");
  });
  await expect(
    (async () => {
      for await (const event of events) told.push(event);
    })(),
  ).rejects.toThrow("it broke");
  expect(told).toEqual([{ event: "progress", data: { texts: 1, of: 2 } }]);
});
