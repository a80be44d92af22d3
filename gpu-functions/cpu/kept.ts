// What is kept of a row while its text is written, so that the text is read without edits from there on (compare.ts).
import type { Shape } from "./blocks.ts";
import { type Below, WORTH_SHARING } from "./job.ts";

/** Values that a generation keeps; where there would be more, texts are read from their tokens, with their edits and without. */
const MOST = 2 ** 26;

export class Kept {
  /** The boundary whose residuals are kept as they are before its edits; undefined: too few layers lie below it to be worth it. */
  readonly from: number | undefined;
  private readonly shape: Shape;
  private readonly prompt: number;
  private readonly tokens: number;
  private residual: Float32Array | undefined;
  private positions = 0;
  /** Log probabilities that the tokens were chosen from, [tokens, V]; absent where another process chose them. */
  logProbs: Float32Array | undefined;

  /**
   * @param lowest boundary below which the row has no edits and nobody asks for residuals.
   * @param prompt tokens before the text, @param tokens of the text, at most.
   * @param rows of the request that have this boundary: what begins there is loaded once for all.
   */
  constructor(lowest: number, prompt: number, tokens: number, shape: Shape, rows: number) {
    this.from = rows * lowest * (prompt + tokens) >= WORTH_SHARING ? lowest : undefined;
    this.prompt = prompt;
    this.tokens = tokens;
    this.shape = shape;
  }

  /** Whether so many rows may be kept. */
  static fits(rows: number, prompt: number, tokens: number, { vocab, width }: Shape): boolean {
    return rows * (tokens * vocab + (prompt + tokens) * width) <= MOST;
  }

  /** The distribution of the text's token `index`. */
  predicted(index: number, logProbs: ArrayLike<number>): void {
    const { vocab } = this.shape;
    this.logProbs ??= new Float32Array(this.tokens * vocab);
    this.logProbs.set(logProbs, index * vocab);
  }

  /** The residuals [T, width] of the positions that follow those which are here. */
  arrived(residual: Float32Array): void {
    const { width } = this.shape;
    this.residual ??= new Float32Array((this.prompt + this.tokens) * width);
    this.residual.set(residual, this.positions * width);
    this.positions += residual.length / width;
  }

  /** Whether residuals are kept, and those of a text of so many tokens are not all here. */
  lacks(tokens: number): boolean {
    return this.residual !== undefined && this.positions < this.prompt + tokens;
  }

  /** What a text of so many tokens can be read from. */
  below(tokens: number): Below | undefined {
    return this.residual === undefined || this.lacks(tokens) ? undefined : { from: this.from as number, residual: this.residual };
  }
}
