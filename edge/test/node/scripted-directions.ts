// The scripted engine's answer to POST /directions. The first positive text may be one of FAULTS.
import type { ServerResponse } from "node:http";
import { encodeFloat32 } from "../../../shared/base64.ts";
import type { DirectionsRequest, DirectionsResult } from "../../../shared/directions.ts";
import { formatEvent } from "../../../shared/sse.ts";
import { FAULTS } from "./faults.ts";

const PROGRESS_MS = 20;
/** Second positive texts of requests that a connection died of already. */
const died = new Set<string | undefined>();

/** Layer L's vector is L + 1 at place L, and the last layer separates best. Its strength is more than may be kept at layer 0. */
const newResult = ({ layers, hook, positive = [], negative = [] }: DirectionsRequest, width: number): DirectionsResult => ({
  layers: layers.map((layer) => ({
    ...{ layer, point: `blocks.${layer}.hook_${hook}` },
    vector: encodeFloat32(Array.from({ length: width }, (_, i) => (i === layer ? layer + 1 : 0))),
    ...{ norm: layer + 1, mean_norm: 10, auc_held_out: 0.5 + layer / 10, auc_train: 1, effect: layer },
    strength: layer === 0 ? 1234 : 4.5678,
  })),
  best: Math.max(...layers),
  counts: {
    positive: { texts: positive.length, held_out: 1, tokens: 3 },
    negative: { texts: negative.length, held_out: 1, tokens: 3 },
  },
  timing: { tokens: 6, read_ms: 1, total_ms: 2 },
});

export function answerDirections(request: DirectionsRequest, width: number, response: ServerResponse): void {
  const [fault, name] = request.positive ?? [];
  const texts = (request.positive?.length ?? 0) + (request.negative?.length ?? 0);
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.flushHeaders();
  let read = 0;
  const tell = () => response.write(formatEvent("progress", { texts: Math.min(++read, texts), of: texts }));
  tell();
  if (fault === FAULTS.errorEvent)
    return void response.end(formatEvent("error", { error: { code: "invalid_request", message: "The texts give no direction." } }));
  if (fault === FAULTS.endsEarly) return void response.end();
  if (fault === FAULTS.wrongShape) return void response.end(formatEvent("done", { layers: "none" }));
  if (fault === FAULTS.diesInStream && !died.has(name)) {
    died.add(name);
    return void setTimeout(() => response.destroy(), PROGRESS_MS);
  }
  if (fault === FAULTS.silentStream) return;
  if (fault === FAULTS.endless) {
    const timer = setInterval(tell, PROGRESS_MS);
    return void response.on("close", () => clearInterval(timer));
  }
  response.end(formatEvent("done", newResult(request, width)));
}
