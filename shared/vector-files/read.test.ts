import { describe, expect, it } from "vitest";
import { TillerError } from "../errors.ts";
import fixtures from "./fixtures.json" with { type: "json" };
import { type FileVector, readVectorFile, writeVectorFile } from "./index.ts";

interface Fixture {
  readonly base64: string;
  readonly vectors: readonly (Omit<FileVector, "values"> & { readonly values: readonly number[] })[];
}
const FILES = new Map<string, Fixture>(Object.entries(fixtures as Readonly<Record<string, Fixture>>));
const bytesOf = (name: string): Uint8Array => Uint8Array.from(atob(FILES.get(name)?.base64 ?? ""), (char) => char.charCodeAt(0));
const plain = (vectors: readonly FileVector[]) => vectors.map(({ values, ...rest }) => ({ ...rest, values: [...values] }));
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** The sentence that refuses a file; fails on any other kind of error. */
function refusal(bytes: Uint8Array, name?: string): string | undefined {
  try {
    readVectorFile(bytes, name);
    return undefined;
  } catch (error) {
    if (!(error instanceof TillerError) || error.code !== "invalid_request") throw error;
    return error.message;
  }
}

describe("files that NumPy, safetensors, PyTorch and gguf wrote", () => {
  const [good, bad] = [
    [...FILES].filter(([, { vectors }]) => vectors.length > 0),
    [...FILES].filter(([, { vectors }]) => vectors.length === 0),
  ];

  it.each(good)("%s gives the vectors that went in, to the bit", (name, { vectors }) => {
    expect(plain(readVectorFile(bytesOf(name)))).toEqual(vectors.toSorted((a, b) => (a.layer ?? 0) - (b.layer ?? 0)));
  });

  it("is all of the formats", () => {
    expect([good.length, bad.length]).toEqual([31, 12]);
  });

  it.each([
    ["rows-fortran.npy", /Fortran order\): save np\.ascontiguousarray/],
    ["objects.npy", /Python objects, which is a pickle and is never read/],
    ["complex.npy", /'<c16'; float16, float32, float64, int32 and int64 are read/],
    ["archive.npz", /\.npz\); save one array with numpy\.save/],
    ["compressed.npz", /'values\.npy' in the archive is compressed/],
    ["integers.safetensors", /'v' is of the type 'I64'; F64, F32, F16, BF16 are read/],
    ["strided.pt", /shape \[2\] that is not contiguous: save tensor\.contiguous\(\)/],
    ["shared.pt", /goes beyond its bytes or shares them with others: save tensor\.clone\(\)/],
    ["layer-beside.pt", /'layer' in the PyTorch file is a number; only tensors may be in it/],
    ["runs-code.pt", /wants to use 'posix\.system', which is refused/],
    ["legacy.pt", /bare pickle, which is never read/],
    ["a-model.gguf", /architecture 'llama'; only control vectors/],
  ])("%s is refused with the reason", (name, sentence) => {
    expect(refusal(bytesOf(name))).toMatch(sentence);
  });

  it.each([...FILES.keys()])("%s cut off anywhere is refused", (name) => {
    const whole = bytesOf(name);
    for (let length = 0; length < whole.length; length++) {
      const cut = whole.slice(0, length);
      const sentence = refusal(cut, name);
      // What is cut off may be padding behind the last tensor, which is nobody's.
      if (sentence === undefined) expect(plain(readVectorFile(cut)), `${length} bytes`).toEqual(plain(readVectorFile(whole)));
    }
  });

  it.each([...FILES.keys()])("%s with any byte changed is read or refused, and nothing else", (name) => {
    const whole = bytesOf(name);
    for (let at = 0; at < whole.length; at++) {
      for (const value of [0, 0x28, 0xff]) {
        const bytes = whole.slice();
        bytes[at] = value;
        expect(() => refusal(bytes, name)).not.toThrow();
      }
    }
  });
});

describe("text", () => {
  it.each([
    ["[1, -2.5, 3e-5]", [{ name: "vector", values: [1, -2.5, 3e-5] }]],
    [
      "[[1, 2], [3, 4]]",
      [
        { name: "row 0", values: [1, 2] },
        { name: "row 1", values: [3, 4] },
      ],
    ],
    ["[[1], [2], [3]]", [{ name: "vector", values: [1, 2, 3] }]],
    ['{"vector": [1, 2]}', [{ name: "vector", values: [1, 2] }]],
    [
      '{"values": [1], "label": "up", "layer": "6-res", "hookName": "hook_resid_pre"}',
      [{ name: "up", layer: 6, hook: "resid_pre", values: [1] }],
    ],
    [
      '{"vectors": [{"vector": [1], "hookName": "blocks.2.hook_resid_post"}]}',
      [{ name: "vector 0", layer: 2, hook: "resid_post", values: [1] }],
    ],
    [
      '{"a": [1, 2], "b": [[3, 4]]}',
      [
        { name: "a", values: [1, 2] },
        { name: "b", values: [3, 4] },
      ],
    ],
    [" 1, 2\n-.5\t+4e2;5. ", [{ name: "vector", values: [1, 2, -0.5, 400, 5] }]],
    ["\ufeff7", [{ name: "vector", values: [7] }]],
  ])("%j is read", (content, vectors) => {
    expect(plain(readVectorFile(text(content)))).toEqual(vectors);
  });

  it.each([
    ["", undefined, /empty/],
    [" \n", undefined, /empty/],
    ["[]", undefined, /at least one number/],
    ["{}", undefined, /no vectors/],
    ["[1, 2", undefined, /not valid JSON: it may be truncated/],
    ["[1, NaN]", undefined, /NaN or Infinity at character 4/],
    ["[1, 1e999]", undefined, /Value 1 of 'vector' \(the first is 0\) is Infinity/],
    ["1 2 nan", undefined, /Value 2 of the text \(the first is 0\) is 'nan'/],
    ["1 2 1e999", undefined, /Value 2 of 'vector' .* is Infinity/],
    ['[1, "2"]', undefined, /Value 1 of 'vector' .* is not a number/],
    ["[[1, 2], [3]]", undefined, /Row 1 of 'vector' is not an array of 2 values/],
    ["[1, [2]]", undefined, /Value 1 of 'vector' .* is not a number/],
    ['{"a": [1], "b": 2}', undefined, /'b' must be an array/],
    ['{"vector": [1], "values": [2]}', undefined, /both vector and values/],
    ['{"vector": [1], "layer": 1.5}', undefined, /must be an integer from 0 on/],
    ['{"vector": [1], "layer": 5, "hookName": "blocks.6.hook_resid_pre"}', undefined, /layer 5 and at blocks\.6\.hook_resid_pre/],
    ['{"vector": [1], "hookName": "blocks.6.attn.hook_z"}', undefined, /not a point that can be steered/],
    ["3", "a.json", /holds no array/],
    ["1 2", "a.gguf", /does not begin as a \.gguf file does/],
  ])("%j is refused", (content, name, sentence) => {
    expect(refusal(text(content), name)).toMatch(sentence);
  });

  it("is not every sequence of bytes", () => {
    expect(refusal(new Uint8Array([0xff, 0xfe, 0x00]))).toMatch(/no known format; NumPy/);
  });
});

describe("limits", () => {
  it("are 24,576 values a vector and 256 vectors a file", () => {
    expect(readVectorFile(text("1 ".repeat(24_576)))[0]?.values.length).toBe(24_576);
    expect(refusal(text("1 ".repeat(24_577)))).toMatch(/24577 values; a vector has at most 24576/);
    expect(readVectorFile(text(JSON.stringify(Array(256).fill([1, 2]))))).toHaveLength(256);
    expect(refusal(text(JSON.stringify(Array(257).fill([1, 2]))))).toMatch(/more than 256 vectors/);
  });

  it("hold for safetensors: the header's length, overlaps, holes", () => {
    const file = (header: string, data: number, length = header.length) => {
      const bytes = new Uint8Array(8 + header.length + data);
      new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
      bytes.set(text(header), 8);
      return bytes;
    };
    const tensor = (start: number, end: number) => `{"dtype":"F32","shape":[${(end - start) / 4}],"data_offsets":[${start},${end}]}`;
    expect(refusal(file("{}", 0, 2_000_000))).toMatch(/header has 2000000 bytes; at most 1048576/);
    expect(refusal(file("{}", 0, 100))).toMatch(/truncated/);
    expect(refusal(file("{}", 0))).toMatch(/no tensors/);
    expect(refusal(file(`{"a":${tensor(0, 8)},"b":${tensor(4, 8)}}`, 8))).toMatch(/'b' overlap others or leave a hole/);
    expect(refusal(file(`{"a":${tensor(4, 8)}}`, 8))).toMatch(/overlap others or leave a hole/);
    expect(refusal(file(`{"a":${tensor(0, 8)}}`, 7))).toMatch(/truncated/);
    expect(refusal(file(`{"a":${tensor(0, 8)}}`, 9))).toMatch(/1 bytes behind its tensors/);
    expect(refusal(file('{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', 4))).toMatch(/shape \[\]; a vector has the shape/);
  });

  it("keep lying counts of a GGUF file from costing time or memory", () => {
    const huge = "\xff\xff\xff\xff\xff\xff\xff\x7f";
    const u64 = (value: number) => String.fromCharCode(value, 0, 0, 0, 0, 0, 0, 0);
    const file = (rest: string) => Uint8Array.from(`GGUF\x03\0\0\0${rest}`, (char) => char.charCodeAt(0));
    expect(refusal(file(huge + u64(0)))).toMatch(/architecture 'undefined'/);
    expect(refusal(file(u64(1) + huge))).toMatch(/metadata keys; at most 4096/);
    expect(refusal(file(u64(1) + u64(1) + huge))).toMatch(/truncated/);
    for (const type of ["\0", "\x08", "\x09"])
      expect(refusal(file(`${u64(1)}${u64(1)}${u64(1)}k\x09\0\0\0${type}\0\0\0${huge}`))).toMatch(/truncated/);
    const nested = `\x09\0\0\0${`\x09\0\0\0${u64(1)}`.repeat(9)}`;
    expect(refusal(file(`${u64(1)}${u64(1)}${u64(1)}k${nested}`))).toMatch(/metadata value of type 9/);
    expect(refusal(Uint8Array.from("GGUF\0\0\0\x03", (char) => char.charCodeAt(0)))).toMatch(/of version 50331648; little-endian/);
  });

  it("keep the tensors of a GGUF file from sharing bytes", () => {
    const one = { name: "", hook: "resid_post" as const, values: new Float64Array(64).fill(1), label: "", modelId: "", strength: 1 };
    const whole = writeVectorFile(
      "gguf",
      [0, 1, 2].map((layer) => ({ ...one, layer })),
    ).bytes;
    const view = new DataView(whole.buffer);
    // Behind a name: the number of dimensions, the width, the type, and the offset of the tensor.
    for (let layer = 1; layer < 3; layer++) view.setBigUint64(String.fromCharCode(...whole).indexOf(`direction.${layer}`) + 27, 0n, true);
    expect(readVectorFile(whole)).toHaveLength(3);
    expect(refusal(whole.slice(0, -2 * 256))).toMatch(/ends before 'direction\.1' does/);
  });
});
