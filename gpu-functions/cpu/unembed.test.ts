import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { fixtures } from "./fixture.ts";
import { readModel } from "./model.ts";
import { type OpenModel, openModel } from "./open-model.ts";
import { encodeHeader, openSafetensors, readTensor } from "./safetensors.ts";
import { openSources } from "./sources.ts";
import { Unembedding } from "./unembed.ts";
import { UnitRows } from "./unit-rows.ts";

async function open(name: string): Promise<OpenModel> {
  const model = await openModel(readModel(path.join(fixtures, name), 2 ** 24), 1);
  onTestFinished(() => model.close());
  return model;
}

/** More than one call's directions of length one, the last of them all the same value. */
function directions(width: number, count: number): Float32Array {
  const found = Float32Array.from({ length: width * count }, (_, i) => Math.sin(i * 0.37) + 0.2 * Math.cos(i * i));
  found.fill(1, (count - 1) * width);
  for (let row = 0; row < count; row++) {
    const part = found.subarray(row * width, (row + 1) * width);
    const norm = Math.hypot(...part);
    part.forEach((value, d) => {
      part[d] = value / norm;
    });
  }
  return found;
}

describe("logits of a direction", () => {
  it.each([
    ["tiny-gpt2", "transformer.ln_f.weight", "transformer.wte.weight", true, 0],
    ["tiny-gpt-neo", "transformer.ln_f.weight", "transformer.wte.weight", true, 0],
    ["tiny-llama", "model.norm.weight", "lm_head.weight", false, 0],
    // Its gains are stored as their difference from 1, and its logits have a soft cap.
    ["tiny-gemma2", "model.norm.weight", "model.embed_tokens.weight", false, 1],
  ])("are the product with the norm's gains and the output table in %s", async (name, gainName, tableName, centred, plus) => {
    const model = await open(name);
    const { width, vocab } = model.shape;
    const [gain, table] = [model.checkpoint.read(gainName), model.checkpoint.read(tableName)];
    const count = 40;
    const all = directions(width, count);
    const rows: number[] = [];
    let greatest = 0;
    await (await Unembedding.open(model)).read(all, (row, logits) => {
      rows.push(row);
      const direction = all.subarray(row * width, (row + 1) * width);
      const mean = centred ? direction.reduce((a, b) => a + b, 0) / width : 0;
      for (let token = 0; token < vocab; token++) {
        let wanted = 0;
        for (let d = 0; d < width; d++)
          wanted += (table[token * width + d] as number) * ((gain[d] as number) + plus) * ((direction[d] as number) - mean);
        greatest = Math.max(greatest, Math.abs(wanted));
        expect(Math.abs((logits[token] as number) - wanted)).toBeLessThan(2e-5);
      }
      if (centred && row === count - 1) expect(logits.every((value) => value === 0)).toBe(true);
    });
    expect(rows).toEqual(Array.from({ length: count }, (_, row) => row));
    expect(greatest).toBeGreaterThan(0.01);
  });
});

describe("rows at length one", () => {
  const folder = () => {
    const made = mkdtempSync(path.join(tmpdir(), "unit-rows-"));
    onTestFinished(() => rmSync(made, { recursive: true }));
    return made;
  };
  it.each(["2-standard", "1-llama-scope", "2-openai-topk"])("know their neighbours in %s", async (source) => {
    const root = folder();
    cpSync(path.join(fixtures, "saes", "sources", source), path.join(root, "sources", source), { recursive: true });
    const { shape } = readModel(path.join(fixtures, "tiny-gpt2"), 2 ** 24);
    const sources = openSources(root, shape);
    const { decoder, latents, width } = sources.sae(source);
    const rows = new UnitRows(decoder, latents, width, 5, 1);
    onTestFinished(() => rows.close());
    const values = readTensor(decoder.file, decoder.name);
    const unit = (index: number) => {
      const row = Float64Array.from({ length: width }, (_, d) =>
        decoder.latentsFirst ? (values[index * width + d] as number) : (values[d * latents + index] as number),
      );
      const norm = Math.hypot(...row);
      return row.map((value) => value / norm);
    };
    for (const start of [0, 13]) {
      const found = await rows.nearest(start, 10);
      for (const [row, near] of found.entries()) {
        const own = unit(start + row);
        rows.row(start + row).forEach((value, d) => expect(value).toBeCloseTo(own[d] as number, 6));
        const wanted = Array.from({ length: latents }, (_, index) => ({
          index,
          cosine: unit(index).reduce((sum, x, d) => sum + x * (own[d] as number), 0),
        }))
          .filter(({ index }) => index !== start + row)
          .sort((a, b) => b.cosine - a.cosine)
          .slice(0, 5);
        expect(near.map(({ index }) => index)).toEqual(wanted.map(({ index }) => index));
        for (const [i, { cosine }] of near.entries()) expect(cosine).toBeCloseTo(wanted[i]?.cosine as number, 5);
      }
    }
  });

  it("have none where they are zero or not finite, and are nobody's", async () => {
    const file = path.join(folder(), "rows.safetensors");
    const values = Float32Array.from([1, 0, 0, 0, Number.NaN, 1, -1, 0, 3, 4, 3, 4]);
    writeFileSync(file, Buffer.concat([encodeHeader([{ name: "rows", dtype: "F32", shape: [6, 2] }]), new Uint8Array(values.buffer)]));
    const rows = new UnitRows({ file: openSafetensors(file), name: "rows", latentsFirst: true }, 6, 2, 10, 1);
    onTestFinished(() => rows.close());
    const near = await rows.nearest(0, 6);
    expect(near.map((list) => list.map(({ index }) => index))).toEqual([[4, 5, 3], [], [], [4, 5, 0], [5, 0, 3], [4, 0, 3]]);
    expect(near[4]?.[0]?.cosine).toBeCloseTo(1, 6);
    expect(rows.row(1).every((value) => value === 0)).toBe(true);
  });
});
