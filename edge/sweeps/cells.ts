// The grid: its cells by number, and the groups in which they are written.
import type { Edit, Method } from "../../shared/protocol.ts";
import { isNeutral } from "../../shared/steering.ts";
import { type StoredSweep, type SweepInput, targetOf } from "./stored.ts";

/** The baseline, where a cell's number is asked for. */
export const BASELINE = -1;

/** Cells of one group at most: their texts, the baseline's and all their targets fit into one reading. */
const GROUP_CELLS = 30;

export interface Cell {
  readonly column: number;
  readonly method: Method;
  readonly strength: number;
}

export const countCells = ({ columns, body }: Pick<StoredSweep, "columns" | "body">): number =>
  columns.length * body.methods.length * body.strengths.length;

/** By column, method, strength. */
export function cellAt({ body: { methods, strengths } }: StoredSweep, number: number): Cell {
  return {
    column: Math.floor(number / (methods.length * strengths.length)),
    method: methods[Math.floor(number / strengths.length) % methods.length] as Method,
    strength: strengths[number % strengths.length] as number,
  };
}

/** The edits of a cell; none where they would change nothing whatever the text is. */
export function editsOf(sweep: StoredSweep, input: SweepInput, number: number): Edit[] {
  if (number === BASELINE) return [];
  const { column, method, strength } = cellAt(sweep, number);
  const at = sweep.columns[column];
  if (at === undefined || isNeutral({ method, strength })) return [];
  const { positions, schedule } = sweep.body;
  return [{ ...targetOf(at, input), method, strength, positions, schedule }];
}

/** Cells that are written together: of one prompt and one seed. */
export interface Group {
  /** Place in `prompts`. */
  readonly prompt: number;
  readonly seed: number;
  /** By number; the baseline first, where the group has it. */
  readonly cells: readonly number[];
}

/**
 * All groups, in the order of their work: for each prompt and seed the baseline, cells that change nothing (one row serves them all), then
 * the others, so many that they fit into one generation with the baseline.
 */
export function groupsOf(sweep: StoredSweep): Group[] {
  const { prompts, seeds } = sweep.body;
  const isPlain = (number: number) => number === BASELINE || isNeutral(cellAt(sweep, number));
  const numbers = Array.from({ length: countCells(sweep) }, (_, number) => number);
  const ordered = [BASELINE, ...numbers.filter(isPlain), ...numbers.filter((number) => !isPlain(number))];
  // Parts of one size: a step of a few rows costs nearly as much as one of many.
  const all = 1 + numbers.filter((number) => !isPlain(number)).length;
  const most = Math.ceil(all / Math.ceil(all / sweep.rows));
  const parts: number[][] = [];
  let rows = 0;
  for (const number of ordered) {
    const part = parts.at(-1);
    // Cells that change nothing, and the baseline, are one row.
    const more = isPlain(number) && rows > 0 ? 0 : 1;
    if (part === undefined || part.length > GROUP_CELLS || rows + more > most) {
      parts.push([number]);
      rows = 1;
    } else {
      part.push(number);
      rows += more;
    }
  }
  return prompts.flatMap((_, prompt) => seeds.flatMap((seed) => parts.map((cells) => ({ prompt, seed, cells }))));
}
