// The edits of every slot as the graph reads them: one set of arrays per boundary of the residual stream (blocks.ts names them).
import { NEUTRAL, type PointProgram } from "../../shared/steering.ts";
import { FUNCTION_PARTS, type Shape, SLOTS } from "./blocks.ts";
import type { Buffers } from "./buffers.ts";
import type { Tensor } from "./ort.ts";

/** Programs of one row at one position, by boundary. */
export type Edits = ReadonlyMap<number, PointProgram>;

export class EditSlots {
  private readonly shape: Shape;
  private readonly buffers: Buffers;
  /** Whether the slot's edits need the ordered graph. */
  private readonly ordered: boolean[];
  /** What a slot has of each array: its shape, and the value that changes nothing. */
  private readonly parts: readonly { readonly name: string; readonly shape: readonly number[]; readonly neutral: number }[];

  constructor(shape: Shape, slots: number, buffers: Buffers) {
    this.shape = shape;
    this.buffers = buffers;
    this.ordered = new Array<boolean>(slots).fill(false);
    this.parts = [
      { name: "read", shape: [shape.width, SLOTS], neutral: 0 },
      { name: "write", shape: [SLOTS, shape.width], neutral: 0 },
      { name: "add", shape: [1, shape.width], neutral: 0 },
      { name: "cross", shape: [SLOTS, SLOTS], neutral: 0 },
      ...FUNCTION_PARTS.map((name) => ({ name, shape: [1, SLOTS], neutral: NEUTRAL[name] })),
    ];
    for (let b = 0; b <= shape.layers; b++) {
      for (const { name, shape, neutral } of this.parts) {
        const memory = buffers.allocate(`edit_${name}_${b}`, slots * product(shape));
        if (neutral !== 0) memory.float32().fill(neutral);
      }
    }
  }

  /** Writes the edits that the slot's next calls apply; replaces what was there. */
  set(slot: number, edits: Edits): void {
    const { width, layers } = this.shape;
    this.ordered[slot] = false;
    for (let b = 0; b <= layers; b++) {
      const [read, write, add, cross, ...functions] = this.parts.map(({ name, shape, neutral }) => {
        const size = product(shape);
        return this.buffers
          .float32(`edit_${name}_${b}`)
          .subarray(slot * size, (slot + 1) * size)
          .fill(neutral);
      }) as [Float32Array, Float32Array, Float32Array, Float32Array, ...Float32Array[]];
      const program = edits.get(b);
      if (program === undefined) continue;
      const { slots } = program;
      for (let d = 0; d < width; d++) for (let k = 0; k < slots; k++) read[d * SLOTS + k] = program.read[d * slots + k] as number;
      write.set(program.write);
      add.set(program.add);
      if (program.affine) continue;
      this.ordered[slot] = true;
      for (let j = 0; j < slots; j++) for (let i = 0; i < slots; i++) cross[j * SLOTS + i] = program.cross[j * slots + i] as number;
      program.functions.forEach((f, k) => {
        for (const [i, part] of FUNCTION_PARTS.entries()) (functions[i] as Float32Array)[k] = f[part];
      });
    }
  }

  /** Whether any of `rows` slots from `slot` on needs the ordered graph. */
  needOrder(slot: number, rows: number): boolean {
    return this.ordered.slice(slot, slot + rows).some(Boolean);
  }

  /** The graph's input of that name for `rows` slots from `slot` on. */
  tensor(input: string, slot: number, rows: number): Tensor {
    const part = this.parts.find(({ name }) => input.startsWith(`edit_${name}_`)) as (typeof this.parts)[number];
    return this.buffers.tensor(input, slot * product(part.shape), [rows, ...part.shape]);
  }
}

const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
