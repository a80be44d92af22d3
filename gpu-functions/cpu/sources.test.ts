import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import type { Shape } from "./blocks.ts";
import { openSafetensors, readRows, readTensor } from "./safetensors.ts";
import { openSources } from "./sources.ts";

const shape: Shape = { layers: 4, width: 4, heads: 1, kvHeads: 1, headDim: 4, vocab: 8, context: 8 };

function folder(): string {
  const made = mkdtempSync(path.join(tmpdir(), "sources-"));
  onTestFinished(() => rmSync(made, { recursive: true }));
  return made;
}

interface Part {
  dtype: string;
  shape: number[];
  bytes: Uint8Array;
}
/** A safetensors file, written by hand so that damage can be written too. */
function write(
  file: string,
  parts: Record<string, Part>,
  damage: (header: Record<string, { data_offsets: number[] }>) => void = () => undefined,
): string {
  let offset = 0;
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: number[] }> = {};
  for (const [name, { dtype, shape, bytes }] of Object.entries(parts)) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  damage(header);
  const json = new TextEncoder().encode(JSON.stringify({ __metadata__: { format: "pt" }, ...header }));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(json.length), true);
  writeFileSync(file, Buffer.concat([length, json, ...Object.values(parts).map((p) => p.bytes)]));
  return file;
}
const f32 = (shape: number[], values: number[]): Part => ({ dtype: "F32", shape, bytes: new Uint8Array(Float32Array.from(values).buffer) });
const u16 = (dtype: string, values: number[]): Part => ({
  dtype,
  shape: [values.length],
  bytes: new Uint8Array(Uint16Array.from(values).buffer),
});

describe("safetensors", () => {
  it("reads float32, float16 and bfloat16, whole and by rows", () => {
    const file = openSafetensors(
      write(path.join(folder(), "a.safetensors"), {
        rows: f32([3, 2], [1, 2, 3, 4, 5, 6]),
        half: u16("F16", [0x3c00, 0xc000, 0x0001, 0x7bff, 0x0000, 0x3555]),
        brain: u16("BF16", [0x3f80, 0xc049, 0x0000]),
      }),
    );
    expect(readTensor(file, "rows")).toEqual(Float32Array.from([1, 2, 3, 4, 5, 6]));
    expect(readRows(file, "rows", 1, 2)).toEqual(Float32Array.from([3, 4, 5, 6]));
    expect(readTensor(file, "half")).toEqual(Float32Array.from([1, -2, 2 ** -24, 65504, 0, 0.333251953125]));
    expect(readTensor(file, "brain")).toEqual(Float32Array.from([1, -3.140625, 0]));
    expect(() => readRows(file, "rows", 2, 2)).toThrow(/rows 0 to 2/);
    expect(() => readTensor(file, "none")).toThrow(/has no tensor 'none'/);
  });

  it("takes a tensor without values for no overlap", () => {
    const file = write(path.join(folder(), "empty"), { a: f32([2], [1, 2]), none: f32([0], []) }, (header) => {
      (header.none as { data_offsets: number[] }).data_offsets = [0, 0];
    });
    expect(readTensor(openSafetensors(file), "none")).toHaveLength(0);
  });

  it("refuses damaged files with the file and the reason", () => {
    const dir = folder();
    const make = (name: string, damage: Parameters<typeof write>[2]) =>
      write(path.join(dir, name), { a: f32([2], [1, 2]), b: f32([2], [3, 4]) }, damage);
    expect(() => openSafetensors(path.join(dir, "none"))).toThrow(/none: the file cannot be read/);
    writeFileSync(path.join(dir, "short"), "abc");
    expect(() => openSafetensors(path.join(dir, "short"))).toThrow(/shorter than the 8 bytes/);
    writeFileSync(path.join(dir, "long"), new Uint8Array(16).fill(255));
    expect(() => openSafetensors(path.join(dir, "long"))).toThrow(/the file cannot hold/);
    const set = (name: string, offsets: number[]) => (header: Record<string, { data_offsets: number[] }>) => {
      (header[name] as { data_offsets: number[] }).data_offsets = offsets;
    };
    expect(() => openSafetensors(make("cut", set("b", [8, 17])))).toThrow(/needs 8 bytes, its offsets span 9/);
    expect(() => openSafetensors(make("beyond", set("b", [16, 24])))).toThrow(/it is truncated/);
    expect(() => openSafetensors(make("over", set("b", [4, 12])))).toThrow(/'a' and 'b' overlap/);
  });
});

describe("sources", () => {
  const config = { architecture: "jumprelu", d_in: 4, d_sae: 2, metadata: { hook_name: "blocks.2.hook_resid_pre" } };
  function model(more: { id?: string; config?: object; decoder?: Part; labels?: object } = {}): string {
    const root = folder();
    const dir = path.join(root, "sources", more.id ?? "2-test-res");
    mkdirSync(dir, { recursive: true });
    writeFileSync(path.join(dir, "cfg.json"), JSON.stringify({ ...config, ...more.config }));
    write(path.join(dir, "sae_weights.safetensors"), {
      W_dec: more.decoder ?? f32([2, 4], [3, 0, 4, 0, 0, 0, 0, 2]),
      W_enc: f32([4, 2], [1, 0, 0, 0, 0, 0, 0, 1]),
      b_enc: f32([2], [0, 0]),
      b_dec: f32([4], [0, 0, 0, 0]),
      threshold: f32([2], [0, 0]),
    });
    if (more.labels !== undefined) writeFileSync(path.join(dir, "labels.json"), JSON.stringify(more.labels));
    return root;
  }
  const feature = { model: "m", source: "2-test-res", index: 0 };

  it("give decoder rows of length one and the source's point", () => {
    const sources = openSources(model(), shape);
    expect(sources.direction(feature)).toEqual({ direction: Float32Array.from([0.6, 0, 0.8, 0]), point: "blocks.2.hook_resid_pre" });
    expect(sources.direction({ ...feature, index: 1 }).direction).toEqual(Float32Array.from([0, 0, 0, 1]));
    expect(sources.direction(feature).direction[0]).toBeCloseTo(0.6);
  });

  it("use named directions as they are, and read hook_name where older SAELens has it", () => {
    const sources = openSources(
      model({ config: { architecture: "directions", hook_name: "blocks.2.hook_resid_pre", metadata: undefined } }),
      shape,
    );
    expect(sources.direction(feature).direction).toEqual(Float32Array.from([3, 0, 4, 0]));
  });

  it("say that named directions have no latents", () => {
    const sources = openSources(
      model({ config: { architecture: "directions", hook_name: "blocks.2.hook_resid_pre", metadata: undefined } }),
      shape,
    );
    expect(() => sources.latent(feature)).toThrow(/named directions and no encoder.*PROJECTION_CLAMP/s);
    expect(() => sources.sae("2-test-res")).toThrow(/\/activations gives projections/);
    expect(() => sources.sae("2-none")).toThrow(/no source '2-none'/);
  });

  it("list their labels in order", () => {
    const sources = openSources(
      model({ labels: { labels: { "1": { label: "b", strength: 4, tokens: [] }, "0": { label: "a" } } } }),
      shape,
    );
    expect(sources.info()).toEqual([
      {
        id: "2-test-res",
        point: "blocks.2.hook_resid_pre",
        width: 2,
        architecture: "jumprelu",
        labelled_features: [
          { index: 0, label: "a" },
          { index: 1, label: "b", strength: 4 },
        ],
        features_revision: expect.any(String),
      },
    ]);
  });

  it("say so when a row is zero or not finite", () => {
    for (const value of [0, Number.NaN]) {
      const sources = openSources(model({ decoder: f32([2, 4], [value, 0, 0, 0, 0, 0, 0, 2]) }), shape);
      expect(() => sources.direction(feature)).toThrow(/Feature 0 of source '2-test-res' cannot steer/);
      expect(sources.direction({ ...feature, index: 1 }).direction).toEqual(Float32Array.from([0, 0, 0, 1]));
    }
  });

  it("are not looked for in hidden files", () => {
    const root = model();
    writeFileSync(path.join(root, "sources", ".DS_Store"), "");
    expect(openSources(root, shape).info()).toHaveLength(1);
  });

  it("say what there is when a feature is not", () => {
    const sources = openSources(model(), shape);
    expect(() => sources.direction({ ...feature, index: 2 })).toThrow(/its features are 0 to 1/);
    expect(() => sources.direction({ ...feature, source: "3-none" })).toThrow(/Its sources are: 2-test-res/);
    expect(() => openSources(folder(), shape).direction(feature)).toThrow(/Its sources are: none/);
  });

  it("that do not fit the model are refused with the file and the reason", () => {
    expect(() => openSources(model({ config: { d_in: 8 } }), shape)).toThrow(/d_in is 8, the model's residual stream has 4/);
    expect(() => openSources(model({ config: { d_sae: 5 } }), shape)).toThrow(/W_dec must have shape \[5, 4\]; it is \[2,4\]/);
    expect(() => openSources(model({ config: { architecture: "crosscoder" } }), shape)).toThrow(/cfg\.json.*architecture/s);
    expect(() => openSources(model({ config: { metadata: { hook_name: "blocks.9.hook_resid_pre" } } }), shape)).toThrow(
      /layers are 0 to 3/,
    );
    expect(() => openSources(model({ config: { metadata: { hook_name: "blocks.2.hook_mlp_out" } } }), shape)).toThrow(
      /cfg\.json: hook_name: 'blocks\.2\.hook_mlp_out' is not a point/,
    );
    expect(() => openSources(model({ decoder: { ...f32([2, 4], []), dtype: "F64", bytes: new Uint8Array(64) } }), shape)).toThrow(
      /sae_weights\.safetensors: W_dec is F64/,
    );
    expect(() => openSources(model({ labels: { labels: { "2": { label: "x" } } } }), shape)).toThrow(
      /labels\.json: there is no feature 2; they are 0 to 1/,
    );
    expect(() => openSources(model({ id: "1-other" }), shape)).toThrow(/the source is called 1-other/);
    expect(() => openSources(model({ id: "nolayer" }), shape)).toThrow(/\{layer\}-\{name\}/);
  });
});
