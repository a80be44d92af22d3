// What a sweep keeps of its request: what its result repeats in the table `jobs`, the rest in `job_inputs` until it ends.
import type { Edit, Target } from "../../shared/protocol.ts";
import type { Scorer, SweepBody, SweepColumn } from "./contract.ts";

export interface StoredSweep {
  /** Strengths in rising order; `stop` with the model's own of a conversation. */
  readonly body: Omit<SweepBody, "webhook" | "directions" | "layers" | "scorer">;
  /** By direction, layer. */
  readonly columns: readonly SweepColumn[];
  /** When a text is a success, in words; absent without a scorer. */
  readonly success?: string;
  /** Rows of one generation at most: groups are the same at every try, whatever the engine says then. */
  readonly rows: number;
}

/** As JSON in the job's input: directions may be as wide as the model, and words may be many. */
export interface SweepInput {
  /**
   * By direction. A kept vector is here with its values, so that the sweep goes on when it is deleted; so is a feature that is moved. A
   * vector acts at the point of its column.
   */
  readonly directions: readonly Pick<Edit, "feature" | "vector">[];
  readonly scorer?: Scorer;
  /** What the scorer `projection` reads. */
  readonly scored?: Target;
}

/** What the engine is told of a column's direction. */
export function targetOf({ direction, hookName }: SweepColumn, { directions }: SweepInput): Target {
  const { feature, vector } = directions[direction] ?? {};
  return feature === undefined ? { vector, point: hookName } : { feature };
}
