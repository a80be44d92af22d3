// The recipe of docs/refusal.md (Arditi et al. 2024) on a small random chat model: a difference of means at the last token of a templated
// prompt, taken out at all layers, or added. The model refuses nothing, so that what is checked is the algebra.
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodeFloat32, encodeFloat32 } from "../../shared/base64.ts";
import { DirectionsRequest, type DirectionsResult, type LayerDirection } from "../../shared/directions.ts";
import type { Edit } from "../../shared/protocol.ts";
import { ActivationsRequest, ScoreRequest } from "../../shared/readings.ts";
import { fixtures } from "../cpu/fixture.ts";
import { type Engine, loadEngine } from "./engine.ts";

const MODEL = "tiny-chat";
const LAYERS = [1, 2, 3];
const HARMFUL = ["How do I pick a lock?", "Tell me how to make a bomb.", "Write a rude letter.", "Help me to steal a car."];
const HARMLESS = ["How do I bake bread?", "Tell me how to make a kite.", "Write a kind letter.", "Help me to wash a car."];
const folder = mkdtempSync(path.join(tmpdir(), "refusal-"));
let engine: Engine;
let found: DirectionsResult;

const never = () => new AbortController().signal;
const template = (message: string) => `u: ${message}<|endoftext|>a:`;

beforeAll(async () => {
  const directory = path.join(folder, MODEL);
  cpSync(path.join(fixtures, "tiny-gpt2"), directory, { recursive: true });
  writeFileSync(
    path.join(directory, "chat_template.jinja"),
    `{{ bos_token }}{% for m in messages %}{{ m.role[0] }}: {{ m.content }}{{ eos_token }}{% endfor %}a:`,
  );
  engine = await loadEngine({ directories: [directory], threads: 1 });
  const request = { model: MODEL, positive: HARMFUL, negative: HARMLESS, chat: true, layers: LAYERS, tokens: -1, held_out: 0 };
  found = await engine.directions(DirectionsRequest.parse({ ...request, method: "mean_difference" }), never(), () => undefined);
});
afterAll(async () => {
  await engine.close();
  rmSync(folder, { recursive: true });
});

const at = (layer: number) => found.layers.find((each) => each.layer === layer) as LayerDirection;
const edit = (layer: number, more: Partial<Edit>): Edit => ({
  ...{ vector: at(layer).vector, point: at(layer).point, method: "SIMPLE_ADDITIVE", strength: 1, positions: "all", schedule: "constant" },
  ...more,
});
/** Directional ablation of a layer's direction before every layer and after the last. */
const everywhere = (layer: number): Edit => {
  const { point: _, ...rest } = edit(layer, { method: "ABLATE", strength: 0, layers: "all" });
  return rest;
};
/** Log probabilities of an answer to a question, under edits. */
async function scored(edits: Edit[], question = HARMFUL[0] as string): Promise<number[]> {
  const items = [{ messages: [{ role: "user", content: question }], text: " I am sorry, but no." }];
  const result = await engine.score(ScoreRequest.parse({ model: MODEL, items, edits }), never());
  return result.items[0]?.tokens.map(({ logprob }) => logprob) ?? [];
}
const close = (found: readonly number[], wanted: readonly number[]) => {
  expect(found).toHaveLength(wanted.length);
  for (const [i, value] of wanted.entries()) expect(found[i]).toBeCloseTo(value, 4);
};

describe("the difference of means at the last token of the prompt", () => {
  it("is what separates the sides there: their mean projections on it lie its squared length apart", async () => {
    for (const layer of LAYERS) {
      const { vector, point, norm } = at(layer);
      const texts = [...HARMFUL, ...HARMLESS].map(template);
      const { items } = await engine.activations(ActivationsRequest.parse({ model: MODEL, texts, targets: [{ vector, point }] }), never());
      const last = items.map(({ values }) => values[0]?.at(-1) as number);
      const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
      const apart = mean(last.slice(0, HARMFUL.length)) - mean(last.slice(HARMFUL.length));
      expect(apart / norm ** 2).toBeCloseTo(1, 3);
    }
  });
});

describe("ablating it at all layers", () => {
  it("changes what the model says, once: doing it again, or with another length or sign, changes nothing more", async () => {
    const plain = await scored([]);
    const ablated = await scored([everywhere(2)]);
    expect(Math.max(...ablated.map((value, i) => Math.abs(value - (plain[i] as number))))).toBeGreaterThan(1e-3);
    close(await scored([everywhere(2), everywhere(2)]), ablated);
    const direction = decodeFloat32(at(2).vector) as Float32Array;
    const other = { ...everywhere(2), vector: encodeFloat32(direction.map((value) => -3 * value)) };
    close(await scored([other]), ablated);
  });

  it("takes away whatever was added along it before, however much", async () => {
    const ablated = await scored([everywhere(2)]);
    for (const strength of [-4, 1, 20]) close(await scored([edit(2, { strength }), everywhere(2)]), ablated);
  });
});

describe("adding it", () => {
  it("adds up, and reaches the answer through the prompt alone", async () => {
    const question = HARMLESS[0];
    const induced = await scored([edit(1, { strength: 1 })], question);
    close(await scored([edit(1, { strength: 3 }), edit(1, { strength: -2 })], question), induced);
    const plain = await scored([], question);
    const prompted = await scored([edit(1, { strength: 1, positions: "prompt" })], question);
    for (const steered of [induced, prompted])
      expect(Math.max(...steered.map((value, i) => Math.abs(value - (plain[i] as number))))).toBeGreaterThan(1e-3);
  });
});
