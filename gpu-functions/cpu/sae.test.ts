import { cpSync, mkdtempSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { applyEdits } from "../../shared/steering.ts";
import type { Shape } from "./blocks.ts";
import { fixtures } from "./fixture.ts";
import { ENCODED, notScalar } from "./sae.ts";
import { SaeEncoder } from "./sae-encoder.ts";
import { openSafetensors, readTensor } from "./safetensors.ts";
import { openSources } from "./sources.ts";

const shape: Shape = { layers: 4, width: 48, heads: 3, kvHeads: 3, headDim: 16, vocab: 320, context: 160 };
const root = path.join(fixtures, "saes");
const file = openSafetensors(path.join(root, "expected.safetensors"));
const residuals = readTensor(file, "residuals");
const tokens = residuals.length / shape.width;
const store = openSources(root, shape);
const ids = store.info().map(({ id }) => id);
/** [T, N] as the format's own library has them. */
const expected = (id: string) => readTensor(file, id);
const feature = (source: string, index: number) => ({ model: "saes", source, index });

describe.each(ids)("the autoencoder %s", (id) => {
  const sae = store.sae(id);
  let encoder: SaeEncoder;
  beforeAll(() => {
    encoder = new SaeEncoder(sae, 1);
  });
  afterAll(() => encoder.close());

  it("encodes to what its own library computes, all latents in one product", async () => {
    const { activations, greatest, top } = await encoder.encode(residuals);
    const wanted = expected(id);
    const worst = wanted.reduce((most, value, i) => Math.max(most, Math.abs(value - (activations[i] as number)) / Math.max(1, value)), 0);
    expect(worst).toBeLessThan(2e-5);
    for (let t = 0; t < tokens; t++) {
      const row = activations.subarray(t * sae.latents, (t + 1) * sae.latents);
      const active = Array.from(row, (activation, index) => ({ index, activation })).filter(({ activation }) => activation > 0);
      expect(top(t)).toEqual(active.sort((a, b) => b.activation - a.activation || a.index - b.index));
    }
    const most = (i: number) => Math.max(...Array.from({ length: tokens }, (_, t) => activations[t * sae.latents + i] as number));
    expect(Array.from(greatest)).toEqual(Array.from(greatest, (_, i) => most(i)));
  });

  it("encodes every number of tokens to the same values", async () => {
    const all = (await encoder.encode(residuals)).activations.slice();
    const one = (await encoder.encode(residuals.subarray(0, shape.width))).activations;
    one.forEach((value, i) => expect(Math.abs(value - (all[i] as number))).toBeLessThan(1e-5 * Math.max(1, value)));
    expect(tokens).toBeLessThan(ENCODED);
  });

  it("has latents that are functions of one projection, where it can", () => {
    if (notScalar(sae) !== undefined) {
      expect(() => store.latent(feature(id, 0))).toThrow(/LATENT_CLAMP is not possible here.*SIMPLE_ADDITIVE/s);
      return;
    }
    const wanted = expected(id);
    for (let index = 0; index < sae.latents; index++) {
      const { latent, direction } = store.latent(feature(id, index));
      expect(latent.zero).toBeLessThanOrEqual(latent.edge);
      expect(Math.hypot(...direction)).toBeCloseTo(1, 5);
      for (let t = 0; t < tokens; t++) {
        const h = residuals.subarray(t * shape.width, (t + 1) * shape.width);
        const activation = wanted[t * sae.latents + index] as number;
        const edited = applyEdits(h, [{ method: "LATENT_CLAMP", strength: 2, direction, latent }]);
        for (let d = 0; d < shape.width; d++)
          expect(Math.abs((edited[d] as number) - (h[d] as number) - (2 - activation) * (direction[d] as number))).toBeLessThan(2e-5);
      }
    }
  });
});

describe("autoencoders", () => {
  it("are there in every format and architecture", () => {
    expect(store.info().map(({ id, architecture, point }) => [id, architecture, point])).toEqual([
      ["1-gated", "gated", "blocks.1.hook_resid_pre"],
      ["1-gemma-scope", "jumprelu", "blocks.1.hook_resid_post"],
      ["1-gemma-scope-2", "jumprelu", "blocks.1.hook_resid_post"],
      ["1-llama-scope", "jumprelu", "blocks.1.hook_resid_post"],
      ["2-openai-relu", "standard", "blocks.2.hook_resid_post"],
      ["2-openai-topk", "topk", "blocks.2.hook_resid_post"],
      ["2-res-jb", "standard", "blocks.2.hook_resid_pre"],
      ["2-rescaled", "standard", "blocks.2.hook_resid_pre"],
      ["2-scaled", "standard", "blocks.2.hook_resid_pre"],
      ["2-standard", "standard", "blocks.2.hook_resid_pre"],
      ["2-topk", "topk", "blocks.2.hook_resid_pre"],
      ["2-topk-rescaled", "topk", "blocks.2.hook_resid_pre"],
      ["3-jumprelu-half", "jumprelu", "blocks.3.hook_resid_post"],
    ]);
  });

  describe("that do not fit", () => {
    let copy: string;
    const open = (id: string, change: (directory: string) => void) => () => {
      rmSync(path.join(copy, "sources"), { recursive: true, force: true });
      const directory = path.join(copy, "sources", id);
      cpSync(path.join(root, "sources", id), directory, { recursive: true });
      change(directory);
      openSources(copy, shape);
    };
    beforeAll(() => {
      copy = mkdtempSync(path.join(tmpdir(), "saes-"));
    });
    afterAll(() => rmSync(copy, { recursive: true }));
    const config =
      (name: string, values: object) =>
      (directory: string): void => {
        const file = path.join(directory, name);
        writeFileSync(file, JSON.stringify({ ...(JSON.parse(readFileSync(file, "utf8")) as object), ...values }));
      };

    it.each([
      [
        "a truncated npz",
        "1-gemma-scope",
        (d: string) => truncateSync(path.join(d, "params.npz"), 9000),
        /params\.npz: not a ZIP archive, or the end/,
      ],
      [
        "an npz that is none",
        "1-gemma-scope",
        (d: string) => writeFileSync(path.join(d, "params.npz"), "no"),
        /params\.npz: not a ZIP archive/,
      ],
      [
        "truncated weights",
        "2-standard",
        (d: string) => truncateSync(path.join(d, "sae_weights.safetensors"), 5000),
        /sae_weights.*truncated/,
      ],
      ["no weights", "2-standard", (d: string) => rmSync(path.join(d, "sae_weights.safetensors")), /cannot be read/],
      ["another width", "2-standard", config("cfg.json", { d_in: 64 }), /cfg\.json: d_in is 64, the model's residual stream has 48 values/],
      ["another number of latents", "2-standard", config("cfg.json", { d_sae: 33 }), /W_dec must have shape \[33, 48\]; it is \[32,48\]/],
      ["one head's", "2-standard", config("cfg.json", { hook_head_index: 3 }), /hook_head_index/],
      ["reshaped", "2-standard", config("cfg.json", { reshape_activations: "hook_z" }), /reshape_activations 'hook_z' is not supported/],
      [
        "normalised otherwise",
        "2-standard",
        config("cfg.json", { normalize_activations: "magic" }),
        /normalize_activations 'magic'.*layer_norm/,
      ],
      ["finetuned", "2-standard", config("cfg.json", { finetuning_scaling_factor: true }), /finetuning_scaling_factor/],
      [
        "of another activation function",
        "2-standard",
        config("cfg.json", { activation_fn_str: "tanh-relu" }),
        /'tanh-relu' is not supported/,
      ],
      ["without k", "2-topk", config("cfg.json", { k: undefined }), /k must be a whole number from 1 to 32/],
      ["of another kind", "2-standard", config("cfg.json", { architecture: "crosscoder" }), /cfg\.json.*architecture/s],
      [
        "at the MLP's output",
        "2-standard",
        config("cfg.json", { metadata: { hook_name: "blocks.2.hook_mlp_out" } }),
        /hook_mlp_out' is not a point/,
      ],
      ["a transcoder", "1-llama-scope", config("hyperparams.json", { hook_point_out: "blocks.1.hook_mlp_out" }), /that is a transcoder/],
      ["of another activation", "1-llama-scope", config("hyperparams.json", { act_fn: "topk" }), /act_fn/],
      [
        "of an MLP",
        "1-gemma-scope-2",
        config("config.json", { hf_hook_point_in: "model.layers.1.mlp.output" }),
        /only the residual stream/,
      ],
      ["empty", "1-gated", (d: string) => renameSync(path.join(d, "cfg.json"), path.join(d, "x")), /cfg\.json, params\.npz/],
    ])("(%s) are refused with the file and the reason", (_, id, change, message) => {
      expect(open(id, change)).toThrow(message);
    });
  });

  it("name the point that a source is called after", () => {
    const other = mkdtempSync(path.join(tmpdir(), "saes-"));
    cpSync(path.join(root, "sources", "2-standard"), path.join(other, "sources", "1-standard"), { recursive: true });
    expect(() => openSources(other, shape)).toThrow(/belongs to blocks\.2\.hook_resid_pre, but the source is called 1-standard/);
    rmSync(other, { recursive: true });
  });
});
