// One line that says how far something is, how fast it goes and when it will be done.

export interface ProgressOptions {
  /** Whether the line may be written over; otherwise a line is written now and then. */
  readonly live: boolean;
  readonly write: (text: string) => void;
  /** Milliseconds. */
  readonly now: () => number;
}

const LIVE_MS = 200;
const PLAIN_MS = 5000;
/** The rate is that of so much of the past. */
const WINDOW_MS = 10_000;

/** No rate is told from less time than this. */
const SHORTEST_S = 0.3;

export class Progress {
  private readonly what: string;
  private readonly total: number;
  private readonly options: ProgressOptions;
  private readonly show: (count: number) => string;
  private done = 0;
  private readonly samples: { at: number; done: number }[] = [];
  private shown = Number.NEGATIVE_INFINITY;

  /** @param show a count in words. */
  constructor(what: string, total: number, options: ProgressOptions, show: (count: number) => string = bytes) {
    this.show = show;
    this.what = what;
    this.total = total;
    this.options = options;
    this.samples.push({ at: options.now(), done: 0 });
  }

  add(count: number): void {
    this.done += count;
    const now = this.options.now();
    if (now - this.shown < (this.options.live ? LIVE_MS : PLAIN_MS)) return;
    this.shown = now;
    this.samples.push({ at: now, done: this.done });
    while (this.samples.length > 2 && now - (this.samples[0]?.at ?? now) > WINDOW_MS) this.samples.shift();
    this.print();
  }

  /** What was on the disk before counts as done, not as fast. */
  skip(count: number): void {
    this.done += count;
    for (const sample of this.samples) sample.done += count;
  }

  end(): void {
    this.print();
    if (this.options.live) this.options.write("\n");
  }

  private print(): void {
    const { live, write, now } = this.options;
    const { show } = this;
    const first = this.samples[0] as { at: number; done: number };
    const seconds = (now() - first.at) / 1000;
    const rate = seconds >= SHORTEST_S ? (this.done - first.done) / seconds : 0;
    const left = rate > 0 && this.done < this.total ? `, ${duration((this.total - this.done) / rate)} left` : "";
    const share = this.total === 0 ? 100 : Math.floor((100 * this.done) / this.total);
    const line = `  ${this.what} ${share}%, ${show(this.done)} of ${show(this.total)}${rate > 0 ? `, ${show(rate)}/s` : ""}${left}`;
    write(live ? `\r\x1b[K${line}` : `${line}\n`);
  }
}

export function bytes(count: number): string {
  if (count < 1e6) return `${(count / 1e3).toFixed(0)} kB`;
  return count < 1e9 ? `${(count / 1e6).toFixed(0)} MB` : `${(count / 1e9).toFixed(2)} GB`;
}

function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  return seconds < 5400 ? `${Math.ceil(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

export const millions = (count: number): string => `${(count / 1e6).toFixed(count < 1e7 ? 1 : 0)} million`;
