// What a direction of the residual stream does to the logits by itself: read by the model's own last norm and output table.
import type { OpenModel } from "./open-model.ts";

/** Directions of one call. */
const ROWS = 32;
/** Mean square of what is normed: beside it a norm's epsilon is nothing. */
const LOUD = 2 ** 20;

/**
 * Logits of directions d of length one, as if the last norm were linear: W_U (g * (d - mean d)), without the mean where the norm takes
 * none away; g are the norm's gains, W_U is the output table. The model's graph from its last boundary on computes it as
 * (cap^-1(logits(s d)) - cap^-1(logits(0))) r: s is so great that the norm's epsilon does not matter, logits(0) is what the norm's
 * bias alone gives, cap^-1 undoes a soft cap, and r, the root of the mean square of d (or d - mean d), undoes the norm's division.
 * A direction that the norm takes away whole has logits of 0.
 */
export class Unembedding {
  private readonly model: OpenModel;
  private readonly zero: Float32Array;
  private readonly found: Float32Array;

  private constructor(model: OpenModel) {
    this.model = model;
    this.zero = new Float32Array(model.shape.vocab);
    this.found = new Float32Array(ROWS * model.shape.vocab);
  }

  /** @param model idle for as long as this is used: its session is. */
  static async open(model: OpenModel): Promise<Unembedding> {
    const made = new Unembedding(model);
    await made.run(new Float32Array(model.shape.width), 1);
    made.zero.set(made.found.subarray(0, made.zero.length));
    return made;
  }

  /** Calls `each` with the logits [V] of every direction of [rows, width], in order; a view that dies when it returns. */
  async read(directions: Float32Array, each: (row: number, logits: Float32Array) => void): Promise<void> {
    const { width, vocab } = this.model.shape;
    const { found, zero } = this;
    const scaled = new Float32Array(ROWS * width);
    for (let start = 0; start < directions.length / width; start += ROWS) {
      const rows = Math.min(ROWS, directions.length / width - start);
      const spread: number[] = [];
      for (let row = 0; row < rows; row++) {
        const direction = directions.subarray((start + row) * width, (start + row + 1) * width);
        const r = this.spreadOf(direction);
        spread.push(r);
        const factor = r === 0 ? 0 : Math.sqrt(LOUD) / r;
        for (let d = 0; d < width; d++) scaled[row * width + d] = factor * (direction[d] as number);
      }
      await this.run(scaled.subarray(0, rows * width), rows);
      for (let row = 0; row < rows; row++) {
        const logits = found.subarray(row * vocab, (row + 1) * vocab);
        const r = spread[row] as number;
        for (let v = 0; v < vocab; v++) logits[v] = r * ((logits[v] as number) - (zero[v] as number));
        each(start + row, logits);
      }
    }
  }

  /** The root of the mean square that the norm divides by; 0 where only rounding is left. */
  private spreadOf(direction: Float32Array): number {
    const { width } = this.model.shape;
    const mean = this.model.family.output.centred ? direction.reduce((a, b) => a + b, 0) / width : 0;
    let [squares, rest] = [0, 0];
    for (const value of direction) {
      squares += value * value;
      rest += (value - mean) ** 2;
    }
    return rest <= 1e-12 * squares ? 0 : Math.sqrt(rest / width);
  }

  /** Logits before their cap of residuals [rows, width] into `found`. */
  private async run(residuals: Float32Array, rows: number): Promise<void> {
    const { session, shape, family } = this.model;
    const { cap } = family.output;
    const ids = new Array<number>(rows).fill(0);
    session.edits.set(0, new Map());
    const step = await session.prefillFrom(shape.layers, residuals, 0, ids, 0, [...ids.keys()]);
    for (let row = 0; row < rows; row++) {
      const logits = step.logits(row);
      const target = this.found.subarray(row * shape.vocab, (row + 1) * shape.vocab);
      if (cap === null) target.set(logits);
      else for (let v = 0; v < target.length; v++) target[v] = cap * Math.atanh((logits[v] as number) / cap);
    }
  }
}
