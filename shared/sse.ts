// Server-sent events, both directions: https://html.spec.whatwg.org/multipage/server-sent-events.html

export interface ServerSentEvent {
  /** The `event:` field; "message" when there was none, as the specification says. */
  readonly event: string;
  readonly data: string;
  /** The last `id:` field that came, with this event or before it; absent when there was none. */
  readonly id?: string;
}

/** One event as text. Data must be one line (JSON is). */
export const formatEvent = (event: string, data: unknown): string => `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;

/** A comment line: keeps a connection alive and shows the writer that its reader is gone. */
export const PING = ": ping\n\n";

/** Parses a byte stream into events. Comments are dropped; an unfinished last event is not delivered, as the specification says. */
export async function* parseEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerSentEvent> {
  const decoder = new TextDecoder();
  let pending = "";
  let event = "message";
  let data: string[] = [];
  let id: string | undefined;
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      pending += decoder.decode(value, { stream: true });
      const lines = pending.split(/\r\n|\n|\r(?!$)/);
      pending = lines.pop() as string;
      for (const line of lines) {
        if (line === "") {
          if (data.length > 0) yield { event, data: data.join("\n"), ...(id === undefined ? {} : { id }) };
          event = "message";
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        } else if (line.startsWith("id:")) {
          id = line.slice(line[3] === " " ? 4 : 3);
        } else if (line.startsWith("event:")) {
          event = line.slice(line[6] === " " ? 7 : 6);
        }
      }
    }
  } finally {
    // Leaving the loop early (a thrown error, a consumer that stops) must close the connection, or the sender works on.
    await reader.cancel().catch(() => undefined);
  }
}
