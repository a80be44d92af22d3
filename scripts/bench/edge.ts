// What the edge adds: the same steer through the edge and straight to the engine, by turns, under the tuned local runner.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { findDemonstration, type SteerBody } from "../demonstration.ts";
import { startEdge } from "../local-edge.ts";
import { startEngine } from "../local-engine.ts";
import { createLocalKey, ensureLocalUser } from "../local-user.ts";
import { alternate, percentile, spread, table } from "./frame.ts";

export interface EdgeBench {
  readonly model: string;
  readonly threads: number;
  readonly rounds: number;
  readonly say: (line: string) => void;
}

const TOKENS = 4;
/** The edge writes to its database after an answer. A caller who pauses does not wait for that; back to back, the next call does. */
const PAUSE_MS = 10;
const BURST = 10;
const ENGINE_TOKEN = "bench";

export async function benchEdge({ model, threads, rounds, say }: EdgeBench): Promise<void> {
  const demonstration = await findDemonstration([model]);
  if (demonstration === undefined) throw new Error(`${model} has no demonstration in its tiller.json, which the edge's benchmark sends.`);
  const state = await mkdtemp(path.join(tmpdir(), "tiller-bench-"));
  const engine = await startEngine({ port: 0, token: ENGINE_TOKEN, models: [model], threads });
  const edge = await startEdge({ port: 0, engine: { url: engine.url, token: ENGINE_TOKEN }, state });
  try {
    await ensureLocalUser(edge.db, Date.now());
    const key = await createLocalKey(edge.db, Date.now());
    await edge.db.prepare("UPDATE users SET hourly_limit = 1000000000").run();
    say(
      `\nedge: ${path.basename(model)}, ${TOKENS} tokens, one caller, both ways by turns: ${rounds} calls with pauses of ${PAUSE_MS} ms, ${rounds} in bursts of ${BURST}`,
    );
    const body: SteerBody = { ...demonstration, n_tokens: TOKENS };
    const throughEdge = { url: `${edge.url}/api/steer`, headers: { "x-api-key": key } };
    const direct = { url: `${engine.url}/generate`, headers: { authorization: `Bearer ${ENGINE_TOKEN}` } };
    const engineBody = toEngineRequest(body);
    const answers = { direct: () => timeAnswer(direct, engineBody), edge: () => timeAnswer(throughEdge, body) };
    const paused = await alternate(
      { direct: () => setTimeout(PAUSE_MS).then(answers.direct), edge: () => setTimeout(PAUSE_MS).then(answers.edge) },
      rounds,
      20,
    );
    const bursts = await alternate(answers, Math.ceil(rounds / BURST), 2, BURST);
    const first = await alternate(
      {
        direct: () => timeFirstEvent(direct, engineBody),
        edge: () => timeFirstEvent(throughEdge, { ...body, stream: true }),
      },
      Math.ceil(rounds / BURST),
      2,
      BURST,
    );
    const line = (name: string, samples: readonly number[], baseline: readonly number[]): string[] => {
      const [p50, p99] = [percentile(samples, 0.5), percentile(samples, 0.99)];
      const added = (p: number): string => (percentile(samples, p) - percentile(baseline, p)).toFixed(2);
      return [
        name,
        spread(samples),
        p50.toFixed(2),
        p99.toFixed(2),
        samples === baseline ? "" : added(0.5),
        samples === baseline ? "" : added(0.99),
      ];
    };
    const rows = [
      ["ms", "median (min to max)", "p50", "p99", "added p50", "added p99"],
      line("whole answer, engine", paused.direct, paused.direct),
      line("whole answer, edge", paused.edge, paused.direct),
      line("whole answer in a burst, engine", bursts.direct, bursts.direct),
      line("whole answer in a burst, edge", bursts.edge, bursts.direct),
      line("first token of a stream in a burst, engine", first.direct, first.direct),
      line("first token of a stream in a burst, edge", first.edge, first.direct),
    ];
    for (const text of table(rows)) say(`  ${text}`);
  } finally {
    await Promise.all([edge.close(), engine.stop()]);
    await rm(state, { recursive: true, force: true });
  }
}

interface Target {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
}

async function post(target: Target, body: unknown, accept: string): Promise<Response> {
  const response = await fetch(target.url, {
    method: "POST",
    // The engine does not compress; the local runtime does when it may, which a caller of this machine would not ask for.
    headers: { "content-type": "application/json", "accept-encoding": "identity", accept, ...target.headers },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${target.url} answered ${response.status}: ${await response.text()}`);
  return response;
}

async function timeAnswer(target: Target, body: unknown): Promise<number> {
  const begin = performance.now();
  const response = await post(target, body, "application/json");
  await response.arrayBuffer();
  return performance.now() - begin;
}

async function timeFirstEvent(target: Target, body: unknown): Promise<number> {
  const begin = performance.now();
  const response = await post(target, body, "text/event-stream");
  const decoder = new TextDecoder();
  let text = "";
  let took = 0;
  for await (const chunk of response.body as ReadableStream<Uint8Array>) {
    text += decoder.decode(chunk, { stream: true });
    if (took === 0 && text.includes("data: ")) took = performance.now() - begin;
  }
  if (took === 0 || /^event: error$/m.test(text)) throw new Error(`${target.url} streamed no answer: ${text.slice(-300)}`);
  return took;
}

/** What the edge asks of the engine for this body. */
function toEngineRequest(body: SteerBody): unknown {
  const multiplier = Number(body.strength_multiplier);
  const vectors = (body.vectors ?? []) as { vector: number[]; hookName: string; strength: number }[];
  const edits = [
    ...body.features.map(({ modelId, layer, index, strength }) => ({
      feature: { model: modelId, source: layer, index },
      method: "SIMPLE_ADDITIVE",
      strength: strength * multiplier,
    })),
    ...vectors.map(({ vector, hookName, strength }) => ({
      vector: Buffer.from(Float32Array.from(vector).buffer).toString("base64"),
      point: hookName,
      method: "SIMPLE_ADDITIVE",
      strength: strength * multiplier,
    })),
  ];
  return {
    model: body.modelId,
    prompt: body.prompt,
    rows: [
      { name: "DEFAULT", edits: [] },
      { name: "STEERED", edits },
    ],
    sampling: { temperature: body.temperature, frequency_penalty: body.freq_penalty, seed: body.seed, logprobs: 5 },
    max_tokens: body.n_tokens,
  };
}
