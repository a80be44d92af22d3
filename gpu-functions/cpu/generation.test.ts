import path from "node:path";
import { describe, expect, it } from "vitest";
import { GenerateRequest } from "../../shared/protocol.ts";
import { RowEdits } from "./edits.ts";
import { fixtures, loadFamily } from "./fixture.ts";
import { Generation } from "./generation.ts";
import { predict } from "./sampler.ts";
import { loadTokenizer } from "./tokenizer.ts";

describe("a row", () => {
  const directory = path.join(fixtures, "tiny-qwen2");
  const tokenizer = loadTokenizer(directory);
  const { shape } = loadFamily(directory).family;

  function rowAfter(id: number) {
    const sampling = { temperature: 0, seed: 0 };
    const request = GenerateRequest.parse({ model: "m", prompt: "x", rows: [{ name: "A", edits: [] }], sampling, max_tokens: 4 });
    const generation = new Generation(request, [{ name: "A", prompt: [5], edits: new RowEdits([], 1, new Set(), shape) }], tokenizer);
    generation.advance(() =>
      predict(
        Array.from({ length: shape.vocab }, (_, token) => (token === id ? 1 : 0)),
        0,
      ),
    );
    return generation.rows[0];
  }

  it("ends at each of the tokens that generation_config.json lists, which are no part of it", () => {
    expect(tokenizer.eosIds.size).toBe(2);
    for (const id of tokenizer.eosIds) expect(rowAfter(id)).toMatchObject({ reason: "stop", finished: true, generated: [] });
    expect(rowAfter(7)).toMatchObject({ reason: undefined, finished: undefined, generated: [7] });
  });
});
