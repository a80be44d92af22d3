// Texts that are read in batches of nearly equal length: which come next, and whom their residuals are given to.

/** Gets a text's place and its residuals [T, width] at every wanted boundary. */
export type EachText = (text: number, residuals: readonly Float32Array[]) => void | Promise<void>;

/** Positions of padding in a batch: a call costs about as much as computing so many, whatever else it computes. */
const PADDING = 16;
/** Batches that wait for their reader: one is taken while the next is computed. */
const HELD = 2;

export class BatchReading {
  readonly boundaries: readonly number[];
  /** Resolves when every text was given, rejects as soon as it is known that they will not be. */
  readonly done: Promise<void>;
  /** No more work is wanted: done, failed or cancelled. */
  ended = false;
  private readonly texts: ReadonlyMap<number, readonly number[]>;
  /** Places of the texts that were not read yet, the longest last. */
  private readonly left: number[];
  private readonly each: EachText;
  private readonly wake: () => void;
  private held = 0;
  /** Resolves when nobody is being given anything. */
  given: Promise<void> = Promise.resolve();
  private settle: { resolve: () => void; reject: (error: Error) => void } = { resolve: () => undefined, reject: () => undefined };

  /** @param texts token ids by place. @param wake is called when the next batch may be read. */
  constructor(texts: ReadonlyMap<number, readonly number[]>, boundaries: readonly number[], each: EachText, wake: () => void) {
    this.texts = texts;
    this.boundaries = boundaries;
    this.each = each;
    this.wake = wake;
    this.left = [...texts.keys()].sort((a, b) => this.ids(a).length - this.ids(b).length);
    this.done = new Promise((resolve, reject) => {
      this.settle = { resolve, reject };
    });
  }

  ids(text: number): readonly number[] {
    return this.texts.get(text) as readonly number[];
  }

  /** Whether a batch may be read now. */
  get ready(): boolean {
    return !this.ended && this.left.length > 0 && this.held < HELD;
  }

  /** Takes the places of the next batch: its rows times its longest text are at most `most` positions, or it is one text. */
  take(most: number): number[] {
    const batch: number[] = [];
    const longest = this.ids(this.left.at(-1) as number).length;
    for (let padding = 0; this.left.length > 0; ) {
      padding += longest - this.ids(this.left.at(-1) as number).length;
      if (batch.length > 0 && ((batch.length + 1) * longest > most || padding > PADDING)) break;
      batch.push(this.left.pop() as number);
    }
    this.held++;
    return batch;
  }

  /** The residuals of a batch that was taken, by row and boundary; its texts are given one after the other, after those before it. */
  give(batch: readonly number[], residuals: readonly (readonly Float32Array[])[]): void {
    this.given = this.given.then(async () => {
      try {
        for (const [row, text] of batch.entries()) if (!this.ended) await this.each(text, residuals[row] as readonly Float32Array[]);
      } catch (error) {
        this.fail(error as Error);
      }
      this.held--;
      if (this.held === 0 && this.left.length === 0) this.finish();
      this.wake();
    });
  }

  private finish(): void {
    this.ended = true;
    this.settle.resolve();
  }

  cancel(): void {
    this.fail(new DOMException("The reading was cancelled.", "AbortError"));
  }

  fail(error: Error): void {
    if (this.ended) return;
    this.ended = true;
    // Whoever is told of the end may free what a reader that is at work still uses.
    void this.given.then(() => this.settle.reject(error));
  }
}
