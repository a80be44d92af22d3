// A long run of the engine's scheduler: what a step costs outside ONNX Runtime, and whether memory stays where it is.

import { RowEdits } from "../../gpu-functions/cpu/edits.ts";
import { Generation } from "../../gpu-functions/cpu/generation.ts";
import { Scheduler } from "../../gpu-functions/cpu/scheduler.ts";
import type { DecoderSession } from "../../gpu-functions/cpu/session.ts";
import type { Tokenizer } from "../../gpu-functions/cpu/tokenizer.ts";
import { GenerateRequest } from "../../shared/protocol.ts";
import { median, residentBytes, spread } from "./frame.ts";

const PROMPT = 8;
const READINGS = 10;

/** Shapes with random weights have no tokenizer: every token is a letter. */
const LETTERS: Tokenizer = {
  encodePrompt: () => [],
  encode: () => [],
  withBos: (ids) => [...ids],
  spans: () => [],
  tokenString: () => "a",
  tokenBytes: () => Uint8Array.of(97),
  specialIds: new Set(),
  eosIds: new Set(),
  bosId: undefined,
};

export async function benchSteps(session: DecoderSession, steps: number, say: (line: string) => void): Promise<void> {
  const scheduler = new Scheduler(session);
  const { vocab, width, layers } = session.shape;
  const tokens = session.settings.cacheLength - PROMPT;
  const direction = Float32Array.from({ length: width }, (_, i) => Math.cos(i + 1));
  const middle = Math.floor(layers / 2);
  const edit = {
    method: "SIMPLE_ADDITIVE",
    strength: 0.1,
    direction,
    boundary: middle,
    point: "",
    positions: "all",
    schedule: "constant",
    index: 0,
  } as const;
  const prompt = Array.from({ length: PROMPT }, (_, i) => (i * 5) % vocab);
  /** Milliseconds per step outside ONNX Runtime of one generation. */
  const generate = async (names: readonly string[], count: number, temperature: number): Promise<number> => {
    const request = GenerateRequest.parse({
      model: "bench",
      prompt: "x",
      rows: names.map((name) => ({ name, edits: [] })),
      sampling: { temperature, seed: 1 },
      max_tokens: count,
    });
    const rows = names.map((name, i) => ({ name, prompt, edits: new RowEdits(i === 0 ? [] : [edit], PROMPT, new Set(), session.shape) }));
    const generation = new Generation(request, rows, LETTERS);
    const [began, inside] = [performance.now(), session.runMs];
    for await (const _ of scheduler.run(generation, new AbortController().signal));
    return (performance.now() - began - (session.runMs - inside)) / count;
  };
  await generate(["A", "B"], tokens, 1);
  const sample = async (names: readonly string[], temperature: number): Promise<string> => {
    const outside: number[] = [];
    for (let i = 0; i < READINGS; i++) outside.push(await generate(names, Math.min(tokens, 24), temperature));
    return spread(outside, 3);
  };
  say(
    `  outside ONNX Runtime, ms a step (scheduler, sampling, events): ${await sample(["A"], 0)} for 1 row, ` +
      `${await sample(["A"], 1)} at temperature 1, ${await sample(["A", "B"], 1)} for a steered pair`,
  );
  if (steps > 0) {
    const resident: number[] = [];
    for (let done = 0; done < steps; ) {
      const count = Math.min(tokens, steps - done);
      await generate(["A"], count, 0);
      done += count;
      if (done >= (steps * (resident.length + 1)) / READINGS) resident.push(residentBytes() / 1e6);
    }
    const half = resident.length >> 1;
    const growth = median(resident.slice(half)) - median(resident.slice(0, half));
    say(
      `  memory over ${steps} steps, MB: ${resident.map((mb) => mb.toFixed(0)).join(" ")}; later half minus earlier ${growth.toFixed(1)}`,
    );
  }
  await scheduler.close();
}
