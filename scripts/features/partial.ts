// How far a run has come, in a file of tensors beside its result: a run that was stopped goes on where it was.
import { existsSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { encodeHeader, openSafetensors, readBytes } from "../../gpu-functions/cpu/safetensors.ts";
import { Tally, type TallyState } from "./tally.ts";

/** Counts of what was read. */
export interface Position {
  windows: number;
  tokens: number;
}

const DTYPES = { Float64Array: "F64", Float32Array: "F32", Uint32Array: "I32", Int32Array: "I32", Uint8Array: "U8" } as const;
const arraysOf = (state: TallyState) => Object.entries(state) as [keyof TallyState, TallyState[keyof TallyState]][];
const bytesOf = (array: TallyState[keyof TallyState]) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** @param inputs digest of everything the result depends on. */
export function savePartial(file: string, inputs: string, position: Position, { state }: Tally): void {
  const header = encodeHeader(
    arraysOf(state).map(([name, array]) => ({
      name,
      dtype: DTYPES[array.constructor.name as keyof typeof DTYPES],
      shape: [array.length],
    })),
    { inputs, windows: String(position.windows), tokens: String(position.tokens) },
  );
  const draft = `${file}.part`;
  writeFileSync(draft, header);
  for (const [, array] of arraysOf(state)) writeFileSync(draft, bytesOf(array), { flag: "a" });
  renameSync(draft, file);
}

/** What was saved for the same inputs; "other" when it is of other inputs or damaged, undefined when there is none. */
export function loadPartial(
  file: string,
  inputs: string,
  latents: number,
  examples: number,
): { tally: Tally; position: Position } | "other" | undefined {
  if (!existsSync(file)) return undefined;
  try {
    const saved = openSafetensors(file);
    if (saved.metadata.get("inputs") !== inputs) return "other";
    const tally = new Tally(latents, examples);
    for (const [name, array] of arraysOf(tally.state)) readBytes(saved, name, bytesOf(array));
    return { tally, position: { windows: Number(saved.metadata.get("windows")), tokens: Number(saved.metadata.get("tokens")) } };
  } catch {
    return "other";
  }
}

export function dropPartial(file: string): void {
  rmSync(file, { force: true });
  rmSync(`${file}.part`, { force: true });
}
