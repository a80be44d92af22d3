// The model that comes with the repository does what its card says: small, steerable both ways, by directions and by latents.
import { readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Edit, GenerateRequest, type Message } from "../../shared/protocol.ts";
import { ActivationsRequest } from "../../shared/readings.ts";
import { type Engine, loadEngine } from "./engine.ts";
import { FEATURES_FILE } from "./feature-file.ts";

const directory = path.join(import.meta.dirname, "..", "bundled", "tiller-tales");
const MODEL = "tiller-tales";
let engine: Engine;
beforeAll(async () => {
  engine = await loadEngine({ directories: [directory] });
});
afterAll(() => engine.close());

const source = (architecture: string) => {
  const found = engine.model(MODEL).info.sources.find((s) => s.architecture === architecture);
  if (found === undefined) throw new Error(`there is no ${architecture} source`);
  return found;
};
const edit = (architecture: string, index: number, strength: number): Edit => ({
  feature: { model: MODEL, source: source(architecture).id, index },
  method: "SIMPLE_ADDITIVE",
  strength,
  positions: "all",
  schedule: "constant",
});

/** The words of several texts written with the same edits. */
async function words(edits: Edit[], prompts: readonly string[], seeds: number): Promise<string[]> {
  const texts = await Promise.all(
    prompts.flatMap((prompt) =>
      Array.from({ length: seeds }, async (_, seed) => {
        const request = GenerateRequest.parse({
          model: MODEL,
          prompt,
          rows: [{ name: "ROW", edits }],
          sampling: { temperature: 0.7, seed },
          max_tokens: 40,
        });
        for await (const event of engine.generate(request, new AbortController().signal))
          if (event.event === "done") return event.data.rows[0]?.text ?? "";
        throw new Error("no result");
      }),
    ),
  );
  return (
    texts
      .join(" ")
      .toLowerCase()
      .match(/[a-z']+/g) ?? []
  );
}

const POSITIVE = new Set(
  "happy glad joy joyful cheerful excited proud delighted smile smiled laugh laughed fun wonderful love loved hug hugged best great hooray cheered danced sang".split(
    " ",
  ),
);
const NEGATIVE = new Set(
  "sad lonely upset unhappy gloomy sorry miserable hurt afraid heartbroken cry cried crying tears sob sobbed wept terrible worst awful pain alone broken lost cold".split(
    " ",
  ),
);
const PROMPTS = ["The children", "One day, Anna", "In the morning, the boy", "My friend and I"];

describe("the bundled model", () => {
  it("takes at most 12 MB of the repository, and what its latents do on texts 4 MB more", () => {
    const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    const bytes = (found: boolean) =>
      files
        .filter(({ name }) => (name === FEATURES_FILE) === found)
        .reduce((sum, entry) => sum + statSync(path.join(entry.parentPath, entry.name)).size, 0);
    expect(bytes(false)).toBeLessThanOrEqual(12_000_000);
    expect(bytes(true)).toBeLessThanOrEqual(4_000_000);
  });

  it("writes happier words along the mood direction and sadder ones against it", async () => {
    const share = async (strength: number) => {
      const all = await words(strength === 0 ? [] : [edit("directions", 0, strength)], PROMPTS, 8);
      const positive = all.filter((word) => POSITIVE.has(word)).length;
      const negative = all.filter((word) => NEGATIVE.has(word)).length;
      return positive / (positive + negative);
    };
    const strength = source("directions").labelled_features.find(({ index }) => index === 0)?.strength ?? Number.NaN;
    const [against, plain, along] = [await share(-strength), await share(0), await share(strength)];
    expect(against).toBeLessThan(plain);
    expect(along).toBeGreaterThan(plain);
    expect(against).toBeLessThan(0.25);
    expect(along).toBeGreaterThan(0.75);
  });

  it("has named directions and labelled latents, all of which can be read", () => {
    expect(source("directions").labelled_features).toHaveLength(4);
    const { labelled_features, id } = source("jumprelu");
    expect(labelled_features.length).toBeGreaterThan(100);
    for (const { index } of labelled_features) {
      const { direction } = engine.model(MODEL).sources.direction({ model: MODEL, source: id, index });
      expect(Math.hypot(...direction)).toBeCloseTo(1, 5);
    }
  });

  it("takes a conversation as a story in which a mother answers her child, and says where a system message belongs", async () => {
    const { chat_template } = JSON.parse(readFileSync(path.join(directory, "tokenizer_config.json"), "utf8")) as { chat_template: string };
    expect(chat_template).toBe(readFileSync(path.join(directory, "..", "..", "train", "chat.jinja"), "utf8"));
    const tokens = (messages: Message[]) => engine.tokenize({ model: MODEL, messages });
    const talk: Message[] = [
      { role: "user", content: ' I saw a "dragon". ' },
      { role: "assistant", content: "Where was it?" },
      { role: "user", content: "In the garden." },
    ];
    const { ids, text } = await tokens(talk);
    expect(text).toBe(
      `<|endoftext|>Once upon a time, there was a girl named Lily.
Lily said, "I saw a 'dragon'."
Her mom smiled and said, "Where was it?"
Lily said, "In the garden."
Her mom smiled and said, "`,
    );
    expect(ids.filter((id) => id === 0)).toHaveLength(1);
    expect((await tokens([{ role: "system", content: "It was dark." }, ...talk])).text).toMatch(/^<\|endoftext\|>It was dark\.\nLily said/);
    await expect(tokens([...talk, { role: "system", content: "It was dark." }])).rejects.toThrow(/Only the first message/);
    const request = GenerateRequest.parse({
      model: MODEL,
      messages: talk,
      rows: [{ name: "ROW", edits: [] }],
      sampling: { temperature: 0, seed: 1, stop: ['"'] },
      max_tokens: 40,
    });
    for await (const { event, data } of engine.generate(request, new AbortController().signal))
      if (event === "done") expect(data.rows[0]).toMatchObject({ finish_reason: "stop", text: expect.stringMatching(/^[A-Z].{4,}/) });
  });

  it("knows what its latents do on texts, as readings of the examples show it", async () => {
    const { id, width, densities } = source("jumprelu");
    expect(densities).toBe(true);
    const indexes = Array.from({ length: 64 }, (_, i) => Math.floor((i * width) / 64));
    const { features } = await engine.features({ model: MODEL, source: id, indexes, limit: 1 });
    const known = features.flatMap(({ index, stats }) => (stats?.examples[0] === undefined ? [] : [{ index, ...stats }]));
    expect(known.length).toBeGreaterThan(60);
    const request = ActivationsRequest.parse({
      model: MODEL,
      texts: known.map(({ examples }) => examples[0]?.tokens.join("") ?? ""),
      targets: known.map(({ index }) => ({ feature: { model: MODEL, source: id, index } })),
    });
    const { items } = await engine.activations(request, new AbortController().signal);
    // An example is a part of a longer text: without what came before it the values differ, but not beyond recognition.
    const near = known.filter(({ max_activation }, i) => Math.max(...(items[i]?.values[i]?.slice(1) ?? [])) > max_activation / 2);
    expect(near.length).toBeGreaterThan(0.9 * known.length);
  });

  it("has no demonstration prompt in the scripts that made its stories, and a demonstration that shows", async () => {
    const { demo } = JSON.parse(readFileSync(path.join(directory, "tiller.json"), "utf8")) as { demo: { prompt: string } };
    const train = path.join(directory, "..", "..", "train");
    expect(readFileSync(path.join(train, "fragments.py"), "utf8")).not.toContain(demo.prompt);
    expect(readFileSync(path.join(train, "corpus.py"), "utf8")).toContain(`DEMO_PROMPT = ${JSON.stringify(demo.prompt)}`);
  });
});
