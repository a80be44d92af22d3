// One group of a sweep: its texts written and read by one generation.
import { type ErrorCode, TillerError } from "../../shared/errors.ts";
import type { Edit, GenerateRequest, GenerateResult, RowResult } from "../../shared/protocol.ts";
import { mean } from "../../shared/text-metrics.ts";
import type { SweptCell } from "../jobs/stored.ts";
import { BASELINE, cellAt, editsOf, type Group } from "./cells.ts";
import type { SweepRow } from "./contract.ts";
import { type StoredSweep, type SweepInput, targetOf } from "./stored.ts";

/** The engine, as a sweep asks it. */
export interface SweepEngine {
  generate(request: Omit<GenerateRequest, "id" | "model">): Promise<GenerateResult>;
}

/** A row of a generation, and the cells whose text it is: those that change nothing share one with the baseline. */
interface Unit {
  readonly edits: Edit[];
  readonly cells: readonly number[];
}

/**
 * Writes and reads the texts of a group. When the engine says that a cell's edits cannot be, or did nothing, the group's rows are asked for
 * one by one, and that cell alone has the error.
 * @param failed cells that have an error already: they are left out.
 * @throws TillerError when the fault is no cell's.
 */
export async function writeGroup(
  engine: SweepEngine,
  sweep: StoredSweep,
  input: SweepInput,
  group: Group,
  failed: ReadonlySet<number>,
): Promise<SweptCell[]> {
  const units = unitsOf(sweep, input, { ...group, cells: group.cells.filter((cell) => !failed.has(cell)) });
  const write = (some: readonly Unit[]) => writeUnits(engine, sweep, input, group, some);
  if (units.length === 0) return [];
  try {
    return await write(units);
  } catch (error) {
    if (!isOfCell(error)) throw error;
  }
  const found: SweptCell[] = [];
  for (const unit of units) {
    try {
      found.push(...(await write([unit])));
    } catch (error) {
      if (!isOfCell(error) || unit.edits.length === 0) throw error;
      found.push(...unit.cells.map((cell) => ({ cell, rows: [], change: 0, error: error.message })));
    }
  }
  return found;
}

function unitsOf(sweep: StoredSweep, input: SweepInput, { cells }: Group): Unit[] {
  const each = cells.map((cell) => ({ edits: editsOf(sweep, input, cell), cells: [cell] }));
  const plain = each.filter(({ edits }) => edits.length === 0);
  const steered = each.filter(({ edits }) => edits.length > 0);
  return plain.length === 0 ? steered : [{ edits: [], cells: plain.flatMap((unit) => unit.cells) }, ...steered];
}

const OF_CELL: ReadonlySet<ErrorCode> = new Set<ErrorCode>(["steering_not_applied", "invalid_request", "feature_not_found"]);

/** Whether a failure is about what a cell does, and not about the engine's state. */
const isOfCell = (error: unknown): error is TillerError =>
  error instanceof TillerError && (OF_CELL.has(error.code) || (error.code === "engine_failed" && error.message.includes("not finite")));

async function writeUnits(
  engine: SweepEngine,
  sweep: StoredSweep,
  input: SweepInput,
  group: Group,
  units: readonly Unit[],
): Promise<SweptCell[]> {
  const { body } = sweep;
  const text = body.prompts[group.prompt] as string;
  const prompt = body.chat ? { messages: [{ role: "user" as const, content: text }] } : { prompt: text };
  const columns = [...new Set(units.flatMap(({ cells }) => cells.flatMap((cell) => columnOf(sweep, cell) ?? [])))];
  const targets = columns.map((column) => targetOf(sweep.columns[column] as StoredSweep["columns"][number], input));
  const { rows } = await engine.generate({
    ...prompt,
    rows: units.map(({ edits }, i) => ({ name: `row${i}`, edits })),
    sampling: {
      ...{ temperature: body.temperature, top_p: body.top_p, top_k: body.top_k, seed: group.seed, stop: body.stop, logprobs: 0 },
      ...{ frequency_penalty: body.freq_penalty, presence_penalty: body.presence_penalty },
    },
    ...{ max_tokens: body.n_tokens, steer_special_tokens: body.steer_special_tokens },
    compare: { targets: input.scored === undefined ? targets : [...targets, input.scored] },
  });
  return units.flatMap((unit, i) => {
    const { tokens, text, change, compared } = proven(rows, `row${i}`, unit.edits);
    const of = { prompt: group.prompt, seed: group.seed, text, tokens, success: null };
    const meanOf = (target: number) => mean(compared?.values[target] ?? []) ?? null;
    const score = input.scored === undefined ? null : meanOf(targets.length);
    const { perplexity = null, kl = null } = compared?.plain ?? {};
    return unit.cells.map((cell) => {
      const column = columnOf(sweep, cell);
      const activation = column === undefined ? null : meanOf(columns.indexOf(column));
      const row: SweepRow = { ...of, perplexity, kl, activation, score };
      return { cell, rows: [row], change, error: null };
    });
  });
}

/** The column whose direction a cell's texts are read for. The baseline is of no column, unless there is but one. */
function columnOf(sweep: StoredSweep, cell: number): number | undefined {
  if (cell !== BASELINE) return cellAt(sweep, cell).column;
  return sweep.columns.length === 1 ? 0 : undefined;
}

/**
 * A row of the answer, with the receipts of all its edits (a text without that proof is never called steered), and what it is to the model
 * without them, unless it has no token.
 */
function proven(rows: readonly RowResult[], name: string, edits: readonly Edit[]) {
  const row = rows.find((each) => each.name === name);
  if (row?.tokens === undefined) throw unusable(`the answer lacks ${name} or its tokens`);
  if (row.receipts.length < edits.length) throw unusable(`${edits.length} edits, but ${row.receipts.length} receipts`);
  const { length } = row.tokens;
  if (length > 0 && (row.compared == null || row.compared.values.some((each) => each.length !== length)))
    throw unusable(`${name} was not compared`);
  const change = mean(row.receipts.map((receipt) => receipt.mean_relative_delta)) ?? 0;
  return { tokens: length, text: row.text, change, compared: row.compared };
}

const unusable = (cause: string): TillerError => new TillerError("engine_failed", undefined, { cause });
