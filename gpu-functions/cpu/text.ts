// A row's text as it grows: whole characters only, and nothing of a stop string is ever shown.
import type { Tokenizer } from "./tokenizer.ts";

export class TextStream {
  /** A stop string was met: the text ends before it and takes no more tokens. */
  stopped = false;
  private readonly tokenizer: Pick<Tokenizer, "tokenBytes">;
  private readonly stops: readonly string[];
  private readonly decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  /** Decoded text that could still be the beginning of a stop string. */
  private held = "";

  constructor(tokenizer: Pick<Tokenizer, "tokenBytes">, stops: readonly string[]) {
    this.tokenizer = tokenizer;
    this.stops = stops;
  }

  /** Takes the next token; returns the text that is certain now. Incomplete characters wait for their other bytes. */
  push(id: number): string {
    return this.stopped ? "" : this.settle(this.decoder.decode(this.tokenizer.tokenBytes(id), { stream: true }));
  }

  /** No token follows: returns what was held back; bytes that never became a character show as U+FFFD. */
  flush(): string {
    if (this.stopped) return "";
    const text = this.settle(this.decoder.decode()) + (this.stopped ? "" : this.held);
    this.held = "";
    return text;
  }

  private settle(added: string): string {
    const text = this.held + added;
    const ends = this.stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    if (ends.length > 0) {
      this.stopped = true;
      this.held = "";
      return text.slice(0, Math.min(...ends));
    }
    let keep = 0;
    for (const stop of this.stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > keep; length--) {
        if (text.endsWith(stop.slice(0, length))) keep = length;
      }
    }
    this.held = text.slice(text.length - keep);
    return text.slice(0, text.length - keep);
  }
}
