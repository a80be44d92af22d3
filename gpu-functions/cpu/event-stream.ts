// An answer of server-sent events (node:http).
import type { ServerResponse } from "node:http";
import { formatEvent, PING } from "../../shared/sse.ts";

const PING_MS = 1000;
/**
 * A stream's headers wait this long for the first event: a refusal found while the request is planned still gets its status, and a
 * caller behind a long queue learns soon that it is being served.
 */
const HEADERS_MS = 250;

/**
 * Sends events until they end; comments in between keep the connection. The last one ends the answer.
 * @throws whatever the events throw; the answer is not ended then.
 */
export async function sendEvents(
  events: AsyncIterator<{ readonly event: string; readonly data: unknown }>,
  response: ServerResponse,
): Promise<void> {
  const open = () => {
    if (response.headersSent) return;
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache, no-transform" });
    response.flushHeaders();
  };
  // The events of one decode step come in one turn of the event loop and leave in one write.
  let batch = "";
  let flushing: NodeJS.Immediate | undefined;
  const flush = () => {
    clearImmediate(flushing);
    flushing = undefined;
    if (batch !== "") response.write(batch);
    batch = "";
  };
  const headers = setTimeout(open, HEADERS_MS);
  const ping = setInterval(() => response.headersSent && response.write(PING), PING_MS);
  try {
    for (;;) {
      const next = await events.next();
      if (next.done) break;
      open();
      const { event, data } = next.value;
      batch += formatEvent(event, data);
      flushing ??= setImmediate(flush);
      if (response.writableNeedDrain) await drained(response);
    }
    flush();
    response.end();
  } finally {
    // After a failure: what came before it goes out before its own event.
    flush();
    clearTimeout(headers);
    clearInterval(ping);
    await events.return?.(undefined);
  }
}

/** Waits until a slow reader has taken what was written, or is gone. */
function drained(response: ServerResponse): Promise<void> {
  if (response.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      response.off("drain", done).off("close", done);
      resolve();
    };
    response.on("drain", done).on("close", done);
  });
}
