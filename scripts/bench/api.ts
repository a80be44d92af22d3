// How much the API takes under the tuned local runner: calls a second with several callers at once, and how long each waits. Every call
// is measured beside one that touches neither database nor engine, by turns.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { findDemonstration } from "../demonstration.ts";
import { startEdge } from "../local-edge.ts";
import { startEngine } from "../local-engine.ts";
import { createLocalKey, ensureLocalUser } from "../local-user.ts";
import { median, percentile, table } from "./frame.ts";

export interface ApiBench {
  readonly model: string;
  readonly threads: number;
  /** How often each call is measured. */
  readonly rounds: number;
  readonly say: (line: string) => void;
}

const CALLERS = 8;
/** Calls of one caller in a round. */
const CALLS = 25;
const STEERED_TOKENS = 4;
/** Vectors there are before anything is measured; those that are made are deleted between rounds. */
const KEPT = 100;
const ENGINE_TOKEN = "bench";

/** One round of a call: how long it took and how long each answer did. */
interface Round {
  readonly seconds: number;
  readonly waits: readonly number[];
}

export async function benchApi({ model, threads, rounds, say }: ApiBench): Promise<void> {
  const demonstration = await findDemonstration([model]);
  if (demonstration === undefined) throw new Error(`${model} has no demonstration in its tiller.json, which the benchmark sends.`);
  const state = await mkdtemp(path.join(tmpdir(), "tiller-bench-"));
  const engine = await startEngine({ port: 0, token: ENGINE_TOKEN, models: [model], threads });
  const edge = await startEdge({ port: 0, engine: { url: engine.url, token: ENGINE_TOKEN }, state });
  try {
    await ensureLocalUser(edge.db, Date.now());
    const key = await createLocalKey(edge.db, Date.now());
    await edge.db.prepare("UPDATE users SET hourly_limit = 1000000000").run();
    const headers = { "x-api-key": key, "content-type": "application/json", "accept-encoding": "identity" };
    const post = (at: string, body: unknown): Promise<Response> =>
      fetch(`${edge.url}${at}`, { method: "POST", headers, body: JSON.stringify(body) });
    const { models } = (await (await fetch(`${edge.url}/api/models`)).json()) as { models: { id: string; width: number }[] };
    const { id = "", width = 0 } = models[0] ?? {};
    const vector = Array.from({ length: width }, (_, i) => Math.sin(i) / 3);
    const fresh = {
      ...{ modelId: id, layerNumber: 1, hookType: "hook_resid_pre", vector },
      ...{ vectorDefaultSteerStrength: 4, vectorLabel: "bench" },
    };
    const kept: { source: string; index: string }[] = [];
    for (let i = 0; i < KEPT; i++)
      kept.push(((await (await post("/api/vector/new", fresh)).json()) as { vector: (typeof kept)[0] }).vector);
    const pick = (n: number) => kept[n % kept.length] as (typeof kept)[0];
    const steer = { ...demonstration, n_tokens: STEERED_TOKENS };
    const calls: Readonly<Record<string, (n: number) => Promise<Response>>> = {
      "GET /api/models (baseline)": () => fetch(`${edge.url}/api/models`, { headers }),
      "vector/new": () => post("/api/vector/new", fresh),
      "vector/get": (n) => post("/api/vector/get", { modelId: id, source: pick(n).source, index: pick(n).index }),
      "vector/list-owned, 20 of them": () => post("/api/vector/list-owned", { limit: 20 }),
      [`steer, ${STEERED_TOKENS} tokens`]: () => post("/api/steer", steer),
      [`steer with a kept vector, ${STEERED_TOKENS} tokens`]: (n) =>
        post("/api/steer", { ...steer, features: [{ modelId: id, layer: pick(n).source, index: pick(n).index, strength: 4 }] }),
    };
    const found = new Map(Object.keys(calls).map((name) => [name, [] as Round[]]));
    for (let round = -1; round < rounds; round++) {
      const names = Object.keys(calls);
      for (const name of round % 2 === 0 ? names : names.toReversed()) {
        const measured = await measure(calls[name] as (n: number) => Promise<Response>);
        if (round >= 0) found.get(name)?.push(measured);
        await edge.db.prepare(`DELETE FROM vectors WHERE "index" NOT IN (${kept.map(({ index }) => Number(index)).join()})`).run();
      }
    }
    say(
      `\napi: ${path.basename(model)}, ${width} values a vector, ${CALLERS} callers at once, ${CALLS} calls each, medians of ${rounds} rounds by turns`,
    );
    for (const line of table(rowsOf(found))) say(`  ${line}`);
  } finally {
    await Promise.all([edge.close(), engine.stop()]);
    await rm(state, { recursive: true, force: true });
  }
}

/** All callers at once, each with one call after another. */
async function measure(call: (n: number) => Promise<Response>): Promise<Round> {
  const waits: number[] = [];
  const begin = performance.now();
  await Promise.all(
    Array.from({ length: CALLERS }, async (_, caller) => {
      for (let i = 0; i < CALLS; i++) {
        const asked = performance.now();
        const response = await call(caller * CALLS + i);
        const text = await response.text();
        if (!response.ok) throw new Error(`${response.url} answered ${response.status}: ${text.slice(0, 300)}`);
        waits.push(performance.now() - asked);
      }
    }),
  );
  return { seconds: (performance.now() - begin) / 1000, waits };
}

function rowsOf(found: ReadonlyMap<string, readonly Round[]>): string[][] {
  const rate = (rounds: readonly Round[]): number => median(rounds.map(({ seconds, waits }) => waits.length / seconds));
  const wait = (rounds: readonly Round[], p: number): number => median(rounds.map(({ waits }) => percentile(waits, p)));
  const baseline = [...found.values()][0] ?? [];
  return [
    ["call", "calls/s", "p50 ms", "p99 ms", "of the baseline's calls/s"],
    ...[...found].map(([name, rounds]) => [
      name,
      rate(rounds).toFixed(0),
      wait(rounds, 0.5).toFixed(1),
      wait(rounds, 0.99).toFixed(1),
      (rate(rounds) / rate(baseline)).toFixed(2),
    ]),
  ];
}
