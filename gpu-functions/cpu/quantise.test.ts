import { describe, expect, it } from "vitest";
import { DataType, GraphWriter } from "./onnx.ts";
import { NativeMemory, PrepackedWeights, Session, Tensor } from "./ort.ts";
import { BLOCK, blockShape, dequantise, type Layout, quantisePart } from "./quantise.ts";
import { uniform } from "./random.ts";

/** Of the sizes weights have: mostly small, a few outliers. */
const random = (count: number, seed: number) =>
  Float32Array.from({ length: count }, (_, i) => (uniform(seed, i) - 0.5) * 0.1 * (uniform(seed + 1, i) > 0.98 ? 20 : 1));

function quantised(values: Float32Array, dims: readonly [number, number], layout: Layout, step = dims[0]) {
  const shape = blockShape(dims, layout);
  const blocks = new Uint8Array(shape.outputs * shape.perOutput * BLOCK);
  const scales = new Float32Array(shape.outputs * shape.perOutput);
  for (let first = 0; first < dims[0]; first += step) {
    quantisePart(values.subarray(first * dims[1], (first + step) * dims[1]), shape, layout, first, blocks, scales);
  }
  return { shape, blocks, scales };
}

function transpose(values: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from({ length: rows * columns }, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)] as number);
}

describe("8-bit blocks", () => {
  it.each([64, 40, 8])("are wrong by at most half a step in the mean of each block, with %i inputs", (inputs) => {
    const outputs = 24;
    const values = random(outputs * inputs, 1);
    const { shape, blocks, scales } = quantised(values, [outputs, inputs], "rows");
    const back = dequantise(blocks, scales, shape);
    for (let output = 0; output < outputs; output++) {
      for (let k = 0; k < inputs; k += BLOCK) {
        const part = [output * inputs + k, output * inputs + Math.min(k + BLOCK, inputs)] as const;
        const wanted = values.subarray(...part);
        const half = Math.max(...wanted.map(Math.abs)) / 127 / 2;
        const square = back.subarray(...part).reduce((sum, value, i) => sum + (value - (wanted[i] as number)) ** 2, 0);
        expect(Math.sqrt(square / wanted.length)).toBeLessThanOrEqual(half * (1 + 1e-5));
      }
    }
  });

  it("have scales that leave less error than the largest value alone would choose", () => {
    const values = random(64 * 64, 3);
    const { shape, blocks, scales } = quantised(values, [64, 64], "rows");
    const error = (with_: Float32Array) =>
      dequantise(blocks, with_, shape).reduce((sum, v, i) => sum + (v - (values[i] as number)) ** 2, 0);
    const plain = scales.map((_, b) => Math.max(...values.subarray(b * BLOCK, (b + 1) * BLOCK).map(Math.abs)) / 127);
    expect(error(scales)).toBeLessThan(error(plain));
  });

  it("are the same from a matrix and from its transpose, whole or in parts", () => {
    const [outputs, inputs] = [20, 72];
    const values = random(outputs * inputs, 5);
    const rows = quantised(values, [outputs, inputs], "rows");
    const columns = quantised(transpose(values, outputs, inputs), [inputs, outputs], "columns");
    expect(columns).toEqual(rows);
    expect(quantised(values, [outputs, inputs], "rows", 7)).toEqual(rows);
    expect(quantised(transpose(values, outputs, inputs), [inputs, outputs], "columns", 32)).toEqual(rows);
  });

  it("hold zeros, and values as small as float32 has them, without a value that is not a number", () => {
    const values = new Float32Array(96);
    values.fill(1e-45, 32, 64);
    values.fill(-3e38, 64, 96);
    const { shape, blocks, scales } = quantised(values, [1, 96], "rows");
    const back = dequantise(blocks, scales, shape);
    back.forEach((value, i) =>
      expect(Math.abs(value - (values[i] as number))).toBeLessThanOrEqual(Math.abs(values[i] as number) * 1e-6 + 1e-44),
    );
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])("refuse %s", (bad) => {
    const values = random(64, 7);
    values[40] = bad;
    expect(() => quantised(values, [2, 32], "rows")).toThrow("a weight is not a finite number");
  });
});

describe("MatMulNBits", () => {
  // With accuracy_level 4 activations become int8 in blocks of 32 too: value k of a block is wrong by at most max|x| / 254, so an
  // output is wrong by at most sum_blocks max|x_block| / 254 * sum_k |w_k|, the bound here, plus float32 rounding.
  it.each([
    [1, 64],
    [5, 256],
    [3, 40],
    [17, 48],
  ])("multiplies %i rows of %i inputs as the blocks say, within the error of 8-bit activations", (rows, inputs) => {
    const outputs = 24;
    const { shape, blocks, scales } = quantised(random(outputs * inputs, 11), [outputs, inputs], "rows");
    const weights = dequantise(blocks, scales, shape);
    const x = random(rows * inputs, 13);
    const y = multiply(x, rows, { shape, blocks, scales });
    for (let row = 0; row < rows; row++) {
      for (let output = 0; output < outputs; output++) {
        let wanted = 0;
        let bound = 1e-6;
        for (let k = 0; k < inputs; k += BLOCK) {
          const xs = x.subarray(row * inputs + k, row * inputs + Math.min(k + BLOCK, inputs));
          const ws = weights.subarray(output * inputs + k, output * inputs + Math.min(k + BLOCK, inputs));
          wanted += xs.reduce((sum, value, i) => sum + value * (ws[i] as number), 0);
          bound += (Math.max(...xs.map(Math.abs)) / 254) * ws.reduce((sum, value) => sum + Math.abs(value), 0);
        }
        expect(Math.abs((y[row * outputs + output] as number) - wanted)).toBeLessThanOrEqual(bound);
      }
    }
  });
});

function multiply(x: Float32Array, rows: number, { shape, blocks, scales }: ReturnType<typeof quantised>): Float32Array {
  const { outputs, inputs, perOutput } = shape;
  const writer = new GraphWriter();
  writer.input("x", DataType.FLOAT, ["M", inputs]);
  writer.external("b", [outputs, perOutput, BLOCK], "package.json", DataType.UINT8);
  writer.external("s", [outputs * perOutput], "package.json");
  const attributes = { K: inputs, N: outputs, bits: 8, block_size: BLOCK, accuracy_level: 4 };
  const [y] = writer.contribMany("MatMulNBits", ["x", "b", "s"], attributes, ["y"]) as [string];
  writer.output(y, DataType.FLOAT, ["M", outputs]);
  const memories = [x.length * 4, blocks.length, scales.length * 4, rows * outputs * 4].map((bytes) => new NativeMemory(bytes));
  const [mx, mb, ms, my] = memories as [NativeMemory, NativeMemory, NativeMemory, NativeMemory];
  mx.float32().set(x);
  mb.uint8().set(blocks);
  ms.float32().set(scales);
  const weights = new Map([
    ["b", new Tensor(mb, 0, [outputs, perOutput, BLOCK], DataType.UINT8)],
    ["s", new Tensor(ms, 0, [outputs * perOutput], DataType.FLOAT)],
  ]);
  const prepacked = new PrepackedWeights();
  const session = new Session(writer.model(), { threads: 1, weightsFolder: process.cwd(), weights, prepacked });
  const input = new Tensor(mx, 0, [rows, inputs], DataType.FLOAT);
  const output = new Tensor(my, 0, [rows, outputs], DataType.FLOAT);
  session.runSync(session.bind(new Map([["x", input]]), new Map([["y", output]])));
  const result = my.float32().slice(0, rows * outputs);
  session.release();
  for (const tensor of [input, output, ...weights.values()]) tensor.release();
  prepacked.release();
  for (const memory of memories) memory.free();
  return result;
}
