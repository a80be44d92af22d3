// Makes the presets of the bundled model with the service's own calls, so that anybody can make such directions: POST /api/vector/derive
// for each, from the texts that presets.py writes, then POST /api/sweeps for its strength.
//
//   npm start                                                     (in another terminal; it prints a key)
//   TILLER_KEY=... node scripts/run.mjs gpu-functions/train/presets.ts [http://127.0.0.1:8787]
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { encodeHeader } from "../cpu/safetensors.ts";

const MODEL = "tiller-tales";
const LAYER = 3;
const SOURCE = `${LAYER}-tales-presets`;
const OUT = path.join(import.meta.dirname, "..", "bundled", MODEL, "sources", SOURCE);
const LOOK_MS = 500;

interface Preset {
  readonly file: string;
  readonly label: string;
  /** Which tokens of the texts count. */
  readonly tokens: "all" | "answer";
  /** What success is, and its opposite. */
  readonly words: string;
  readonly against: string;
  readonly prompts: readonly string[];
}

const STORIES = ["The children walked home and", "One day, Anna", "Ben opened the door and", "In the morning, the boy"];
const TALK = ['Lily looked at Tom. "', 'Ben took the ball. "', 'Mom came into the room and said, "', 'The old man turned around. "'];
const ASKED = [
  '"Can we go to the park?" asked Lily. "',
  '"I want to play outside," said Ben. "',
  '"Shall we bake a cake?" asked Mia. "',
  '"May I have the kite?" asked Tom. "',
];

const PRESETS: readonly Preset[] = [
  {
    ...{ file: "sentiment", label: "sentiment: happy - sad", tokens: "all", prompts: STORIES },
    words:
      "happy glad joyful cheerful excited proud merry smile smiled laugh laughed fun wonderful love loved hug hugged best great beautiful danced enjoyed",
    against:
      "sad lonely upset unhappy gloomy sorry hurt afraid scared cry cried tears terrible worst bad broken hated alone lost cold sick",
  },
  {
    ...{ file: "politeness", label: "politeness: polite - plain", tokens: "all", prompts: TALK },
    words: "please thank thanks kind kindly politely welcome pardon excuse gently dear pleasure bowed",
    against: "stupid shut fool idiot shouted yelled snapped",
  },
  {
    ...{ file: "toxicity", label: "toxicity: rude - plain", tokens: "all", prompts: TALK },
    words: "stupid shut fool dumb idiot shouted yelled snapped barked ugly rudely grabbed pushed mine hate",
    against: "please thank thanks kind welcome",
  },
  {
    ...{ file: "stance", label: "stance: support - oppose", tokens: "answer", prompts: ASKED },
    words: "yes agree agreed good great course let's sure happy",
    against: "no never not bad wrong stop can't don't",
  },
];

/** Strengths that are tried, as shares of the residual stream's mean length. */
const SHARES = [-0.5, -0.4, -0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3, 0.4, 0.5];
const MOST_PERPLEXITY = 1.5;

type Json = Record<string, never>;
const [url = "http://127.0.0.1:8787"] = process.argv.slice(2);

async function call<T = Json>(pathname: string, body?: object): Promise<T> {
  const headers = { "x-api-key": process.env.TILLER_KEY ?? "", "content-type": "application/json" };
  const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const response = await fetch(url + pathname, { headers, ...init });
  const answer = (await response.json()) as { message?: string };
  if (!response.ok) throw new Error(`${pathname}: ${answer.message}`);
  return answer as T;
}

interface Derived {
  readonly vectors: readonly { readonly source: string; readonly index: string }[];
  readonly report: { readonly layers: readonly { readonly aucHeldOut: number; readonly effect: number; readonly meanNorm: number }[] };
}
interface Cell {
  readonly strength: number;
  readonly metrics: { readonly success: number; readonly perplexityRatio: number };
}
interface SweepJob {
  readonly id: string;
  readonly state: string;
  readonly error: { readonly message: string } | null;
  readonly result: { readonly cells: readonly Cell[]; readonly suggested: { readonly cell: number } | null } | null;
}

async function make({ file, label, tokens, words, against, prompts }: Preset) {
  const rows = readFileSync(path.join(import.meta.dirname, "presets", `${file}.jsonl`), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const sideOf = (side: string) => rows.filter((row) => row.label === side).map(({ text }) => text);
  const texts = tokens === "answer" ? { pairs: rows } : { positive: sideOf("positive"), negative: sideOf("negative") };
  const settings = { modelId: MODEL, layer: LAYER, tokens, unit: true, vectorLabel: label, visibility: "private" };
  const { vectors, report } = await call<Derived>("/api/vector/derive", { ...settings, ...texts });
  const [vector, found] = [vectors[0], report.layers[0]];
  if (vector === undefined || found === undefined) throw new Error(`${label}: nothing was derived`);
  const address = { modelId: MODEL, source: vector.source, index: vector.index };
  const sweep = {
    ...{ modelId: MODEL, prompts, seeds: [1, 2, 3], n_tokens: 40, maxPerplexityRatio: MOST_PERPLEXITY },
    directions: [{ layer: vector.source, index: vector.index }],
    strengths: SHARES.map((share) => Math.round(share * found.meanNorm)),
    scorer: { kind: "words", words: words.split(" "), against: against.split(" ") },
  };
  let job = await call<SweepJob>("/api/sweeps", sweep);
  while (job.state === "queued" || job.state === "running") {
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    job = await call<SweepJob>(`/api/jobs/${job.id}`);
  }
  if (job.result === null) throw new Error(`${label}: ${job.error?.message ?? job.state}`);
  const { cells, suggested } = job.result;
  const chosen = suggested === null ? undefined : cells[suggested.cell];
  if (chosen === undefined || chosen.strength <= 0) throw new Error(`${label}: no strength shows`);
  const { vector: kept } = await call<{ vector: { vector: readonly number[] } }>("/api/vector/get", address);
  await call("/api/vector/delete", address);
  const shown = cells.map(
    ({ strength, metrics }) => `${strength}: ${Math.round(100 * metrics.success)}% (${metrics.perplexityRatio.toFixed(2)})`,
  );
  console.log(
    `${label}: AUC ${found.aucHeldOut.toFixed(3)}, effect ${found.effect.toFixed(1)}, strength ${chosen.strength}\n  ${shown.join(", ")}`,
  );
  return { label, strength: chosen.strength, values: kept.vector };
}

const made = [];
for (const preset of PRESETS) made.push(await make(preset));
const width = made[0]?.values.length ?? 0;
mkdirSync(OUT, { recursive: true });
const tensor = { name: "W_dec", dtype: "F32", shape: [made.length, width] } as const;
const data = Float32Array.from(made.flatMap(({ values }) => values));
writeFileSync(path.join(OUT, "sae_weights.safetensors"), Buffer.concat([encodeHeader([tensor]), new Uint8Array(data.buffer)]));
const config = {
  architecture: "directions",
  d_in: width,
  d_sae: made.length,
  dtype: "float32",
  hook_name: `blocks.${LAYER}.hook_resid_pre`,
  model_name: MODEL,
};
writeFileSync(path.join(OUT, "cfg.json"), `${JSON.stringify(config, undefined, 2)}\n`);
const labels = Object.fromEntries(made.map(({ label, strength }, i) => [String(i), { label, strength }]));
writeFileSync(path.join(OUT, "labels.json"), `${JSON.stringify({ labels }, undefined, 2)}\n`);
