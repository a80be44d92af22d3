import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { GenerateRequest } from "../../shared/protocol.ts";
import { type Engine, loadEngine } from "./engine.ts";
import { fixtures } from "./fixture.ts";
import { describePlan, planBytes, planMemory } from "./memory.ts";
import { readModel } from "./model.ts";

const MIB = 2 ** 20;
const NAMES = ["tiny-gpt2", "tiny-llama", "tiny-qwen3"] as const;
const directories = NAMES.map((name) => path.join(fixtures, name));
const bytesOf = Object.fromEntries(NAMES.map((name, i) => [name, planBytes(readModel(directories[i] as string, 64 * MIB).plan)])) as Record<
  (typeof NAMES)[number],
  number
>;
const largest = Math.max(...Object.values(bytesOf));

let engine: Engine | undefined;
let lines: string[];
afterEach(() => engine?.close());

async function start(memoryBytes: number): Promise<Engine> {
  lines = [];
  engine = await loadEngine({ directories, threads: 1, cacheBytes: 64 * MIB, memoryBytes, log: (line) => lines.push(line) });
  return engine;
}

const request = (model: string, max_tokens = 2) =>
  GenerateRequest.parse({
    model,
    prompt: "one two",
    rows: [{ name: "A", edits: [] }],
    sampling: { temperature: 0, seed: 1, logprobs: 1 },
    max_tokens,
  });

async function run(model: string): Promise<string[]> {
  const tokens: string[] = [];
  for await (const event of (engine as Engine).generate(request(model), new AbortController().signal))
    if (event.event === "token") tokens.push(`${event.data.id} ${event.data.logprob}`);
  return tokens;
}

describe("several models in one process", () => {
  it("are all loaded when they fit, each with a line that says what it takes", async () => {
    await start(3 * largest);
    expect(lines).toHaveLength(3);
    expect(lines[0]).toMatch(/^tiny-gpt2: weights \d+ MB, KV cache of 16 rows of 160 tokens \d+ MB, loaded in /);
  });

  it("make room for the one that is asked for, the least recently used first, and answer as before when they come back", async () => {
    await start(bytesOf["tiny-gpt2"] + bytesOf["tiny-llama"]);
    expect(lines).toHaveLength(2);
    const before = await run("tiny-gpt2");
    await run("tiny-qwen3");
    expect(lines.slice(2).map((line) => line.split(",")[0])).toEqual([
      "tiny-llama: unloaded to make room for tiny-qwen3.",
      expect.stringMatching(/^tiny-qwen3: weights/),
    ]);
    await run("tiny-llama");
    expect(lines.at(-2)).toBe("tiny-gpt2: unloaded to make room for tiny-llama.");
    expect(await run("tiny-gpt2")).toEqual(before);
    expect(engine?.models().map(({ id }) => id)).toEqual([...NAMES]);
  });

  it("load once for two requests that come at the same time", async () => {
    await start(largest);
    const [first, second] = await Promise.all([run("tiny-llama"), run("tiny-llama")]);
    expect(second).toEqual(first);
    expect(lines.filter((line) => line.startsWith("tiny-llama: weights"))).toHaveLength(1);
  });

  it("are never unloaded while they are used: who asks for another is told when to come back", async () => {
    await start(largest);
    const long = (engine as Engine).generate(request("tiny-gpt2", 100), new AbortController().signal)[Symbol.asyncIterator]();
    await long.next();
    await expect(run("tiny-llama")).rejects.toMatchObject({ code: "engine_busy", retryAfterSeconds: 10 });
    await long.return?.();
    expect(await run("tiny-llama")).toHaveLength(2);
  });

  it("load nothing for a request that is refused", async () => {
    await start(largest);
    await expect(run("tiny-gpt9")).rejects.toMatchObject({ code: "model_not_found" });
    const refused = (engine as Engine).generate(request("tiny-llama", 100_000), new AbortController().signal);
    await expect(refused[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: "prompt_too_long" });
    expect(lines).toHaveLength(1);
  });

  it("are refused at the start when one needs more than all may take, or two share a name", async () => {
    await expect(start(largest - 1)).rejects.toThrow(/needs \d+ MB, and all models together may take/);
    const twice = loadEngine({ directories: [directories[0] as string, directories[0] as string] });
    await expect(twice).rejects.toThrow(/two model directories are called 'tiny-gpt2'/);
  });
});

describe("a memory plan", () => {
  const shape = { layers: 2, width: 32, heads: 4, kvHeads: 2, headDim: 16, vocab: 100, context: 1024 };
  const perToken = 8 * 2 * 2 * 16;

  it("has 16 rows of the whole context where they fit, fewer where not, 8 at least", () => {
    expect(planMemory(shape, 0, 99 * 1024 * perToken)).toMatchObject({ slots: 16, cacheLength: 1024, cacheBytes: 16 * 1024 * perToken });
    expect(planMemory(shape, 0, 11 * 1024 * perToken)).toMatchObject({ slots: 11, cacheLength: 1024 });
    expect(planMemory(shape, 0, 4 * 1024 * perToken)).toMatchObject({ slots: 8, cacheLength: 512 });
  });

  it("says when the context is cut, and refuses what is no use", () => {
    expect(describePlan(planMemory(shape, 2e9, 4 * 1024 * perToken), 1024)).toBe(
      "weights 2.0 GB, KV cache of 8 rows of 512 tokens of the 1024 it was trained for 2 MB",
    );
    expect(() => planMemory(shape, 0, 1000)).toThrow(/too small for this model: give it at least 1 MiB/);
  });
});
