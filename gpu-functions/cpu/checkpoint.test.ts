import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { openCheckpoint } from "./checkpoint.ts";
import { fixtures, loadFamily } from "./fixture.ts";
import { DecoderSession } from "./session.ts";

const INDEX = "model.safetensors.index.json";

describe("a checkpoint", () => {
  function copy(name: string): string {
    const folder = mkdtempSync(path.join(tmpdir(), "checkpoint-"));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    cpSync(path.join(fixtures, name), folder, { recursive: true });
    return folder;
  }

  function editIndex(folder: string, change: (weights: Record<string, string>) => void): void {
    const file = path.join(folder, INDEX);
    const index = JSON.parse(readFileSync(file, "utf8")) as { weight_map: Record<string, string> };
    change(index.weight_map);
    writeFileSync(file, JSON.stringify(index));
  }

  it("in shards is read as one", () => {
    const checkpoint = openCheckpoint(path.join(fixtures, "tiny-mistral"));
    expect(path.basename(checkpoint.path)).toBe(INDEX);
    expect(checkpoint.tensors.get("model.embed_tokens.weight")).toMatchObject({ dtype: "BF16", shape: [320, 48] });
    expect(checkpoint.read("lm_head.weight")).toHaveLength(320 * 48);
    expect(new Set(Object.values(JSON.parse(readFileSync(checkpoint.path, "utf8")).weight_map)).size).toBeGreaterThan(1);
  });

  it("names everything that a model misses, and then every tensor of another shape or type, at once", () => {
    const checkpoint = openCheckpoint(path.join(fixtures, "tiny-llama"));
    const embedding = { dims: [320, 40], tensor: "model.embed_tokens.weight" };
    checkpoint.check([embedding, { dims: [1], compute: () => new Float32Array(1) }]);
    expect(() => checkpoint.check([embedding, { dims: [1], tensor: "a" }, { dims: [1], tensor: "b" }])).toThrow(
      /tiny-llama.model\.safetensors has no tensor 'a', 'b'$/,
    );
    const wrong = [
      { dims: [2, 2], tensor: "model.norm.weight" },
      { dims: [320], tensor: "lm_head.weight" },
    ];
    expect(() => checkpoint.check(wrong)).toThrow(
      /'model\.norm\.weight' has shape \[40\], the configuration asks for \[2,2\]; tensor 'lm_head\.weight' has shape \[320,40\]/,
    );
    const many = Array.from({ length: 25 }, (_, i) => ({ dims: [1], tensor: `t${i}` }));
    expect(() => checkpoint.check(many)).toThrow(/'t19' and 5 more$/);
  });

  it("with fewer layers than the configuration says is refused with the names of all their tensors", () => {
    const folder = copy("tiny-qwen3");
    const file = path.join(folder, "config.json");
    const config = JSON.parse(readFileSync(file, "utf8")) as object;
    writeFileSync(file, JSON.stringify({ ...config, num_hidden_layers: 4, layer_types: Array(4).fill("full_attention") }));
    const { family, checkpoint } = loadFamily(folder);
    expect(() => new DecoderSession(family, checkpoint, { slots: 1, threads: 1, cacheLength: 16 })).toThrow(
      /model\.safetensors has no tensor ('model\.layers\.3\.[a-z_.]+'(, )?){11}$/,
    );
  });

  it("whose index does not fit its shards is refused with the file and the reason", () => {
    const moved = copy("tiny-mistral");
    editIndex(moved, (weights) => {
      weights["model.norm.weight"] = "model-00001-of-00007.safetensors";
    });
    expect(() => openCheckpoint(moved)).toThrow(/index\.json does not match its shards: 'model\.norm\.weight' is not in model-00001/);
    const shardless = copy("tiny-mistral");
    rmSync(path.join(shardless, "model-00003-of-00007.safetensors"));
    expect(() => openCheckpoint(shardless)).toThrow(/model-00003-of-00007\.safetensors: the file cannot be read/);
    const outside = copy("tiny-mistral");
    editIndex(outside, (weights) => {
      weights["model.norm.weight"] = "../other.safetensors";
    });
    expect(() => openCheckpoint(outside)).toThrow(/index\.json.*is no file of the directory/s);
    writeFileSync(path.join(outside, INDEX), "{");
    expect(() => openCheckpoint(outside)).toThrow(/index\.json cannot be read as JSON/);
    writeFileSync(path.join(outside, INDEX), '{"weight_map":{}}');
    expect(() => openCheckpoint(outside)).toThrow(/lists no tensors/);
  });

  it("that is not there at all is asked for by its usual name", () => {
    const folder = copy("tiny-llama");
    rmSync(path.join(folder, "model.safetensors"));
    expect(() => openCheckpoint(folder)).toThrow(/model\.safetensors: the file cannot be read/);
  });
});
