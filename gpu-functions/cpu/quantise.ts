// 8-bit weights in blocks of 32, as ONNX Runtime's MatMulNBits reads them: the arithmetic, and nothing of files or graphs.
//
// A matrix of N outputs and K inputs is cut along K into blocks of 32 values w that share one float32 scale s. A value is stored as
// the byte q = round(w / s0) + 128 with s0 = max|w| / 127 and stands for (q - 128) s. With the bytes fixed, the sum of squared errors
// of the block is least at s = sum w (q - 128) / sum (q - 128)^2, so that is the scale stored: the root mean square error is at most
// s0 / 2, the bound of plain rounding. 128 is the zero point that MatMulNBits assumes when it is given none.

export const BLOCK = 32;
/** The byte that stands for 0. */
export const ZERO = 128;
const LARGEST = 127;

/** How a matrix lies in the checkpoint: "rows" [outputs, inputs] as torch's Linear, "columns" [inputs, outputs] as Conv1D. */
export type Layout = "rows" | "columns";

export interface BlockShape {
  readonly outputs: number;
  readonly inputs: number;
  /** Blocks of one output; the last is filled up with zeros when `inputs` is no multiple of 32. */
  readonly perOutput: number;
}

export function blockShape(dims: readonly number[], layout: Layout): BlockShape {
  const [first = 0, second = 0] = dims;
  const [outputs, inputs] = layout === "rows" ? [first, second] : [second, first];
  return { outputs, inputs, perOutput: Math.ceil(inputs / BLOCK) };
}

/** Of the blocks with their scales. */
export const blockBytes = ({ outputs, perOutput }: BlockShape): number => outputs * perOutput * (BLOCK + 4);

/**
 * Quantises a part of a matrix: whole rows of it, `values` [rows, columns] from row `first` on. In "columns" layout a part starts and
 * (unless it is the last) ends at a multiple of 32 rows.
 * @param blocks [outputs, perOutput, 32] and `scales` [outputs, perOutput] of the whole matrix, filled where the part lies.
 * @throws RangeError when a value is not finite: no block could hold it.
 */
export function quantisePart(
  values: Float32Array,
  shape: BlockShape,
  layout: Layout,
  first: number,
  blocks: Uint8Array,
  scales: Float32Array,
): void {
  const { outputs, inputs, perOutput } = shape;
  if (layout === "rows") {
    for (let row = 0; row < values.length / inputs; row++) {
      for (let b = 0; b < perOutput; b++) {
        const at = (first + row) * perOutput + b;
        const count = Math.min(BLOCK, inputs - b * BLOCK);
        scales[at] = quantiseBlock(values, row * inputs + b * BLOCK, 1, count, blocks, at * BLOCK);
      }
    }
    return;
  }
  const rows = values.length / outputs;
  for (let row = 0; row < rows; row += BLOCK) {
    for (let output = 0; output < outputs; output++) {
      const at = output * perOutput + (first + row) / BLOCK;
      scales[at] = quantiseBlock(values, row * outputs + output, outputs, Math.min(BLOCK, rows - row), blocks, at * BLOCK);
    }
  }
}

/** Writes the bytes of one block, values `start`, `start + stride`, ..., and returns its scale. */
function quantiseBlock(values: Float32Array, start: number, stride: number, count: number, blocks: Uint8Array, at: number): number {
  let largest = 0;
  for (let i = 0, j = start; i < count; i++, j += stride) {
    const size = Math.abs(values[j] as number);
    if (size > largest) largest = size;
  }
  const inverse = largest > 0 ? LARGEST / largest : 0;
  let product = 0;
  let square = 0;
  for (let i = 0, j = start; i < count; i++, j += stride) {
    const value = values[j] as number;
    // Truncation rounds to nearest here: the sum is positive.
    const q = (value * inverse + ZERO + 0.5) | 0;
    blocks[at + i] = q;
    product += value * (q - ZERO);
    square += (q - ZERO) * (q - ZERO);
  }
  for (let i = count; i < BLOCK; i++) blocks[at + i] = ZERO;
  if (!Number.isFinite(product)) throw new RangeError("a weight is not a finite number");
  return square === 0 ? 0 : product / square;
}

/** The matrix that the blocks stand for, [outputs, inputs]. */
export function dequantise(blocks: Uint8Array, scales: Float32Array, { outputs, inputs, perOutput }: BlockShape): Float32Array {
  const values = new Float32Array(outputs * inputs);
  for (let output = 0; output < outputs; output++) {
    for (let k = 0; k < inputs; k++) {
      const block = output * perOutput + Math.floor(k / BLOCK);
      values[output * inputs + k] = ((blocks[block * BLOCK + (k % BLOCK)] as number) - ZERO) * (scales[block] as number);
    }
  }
  return values;
}
