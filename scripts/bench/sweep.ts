// What a sweep costs beside steering one by one: cells as rows of shared calls and their texts judged, against a call for every cell.
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { type Engine, loadEngine } from "../../gpu-functions/cpu/engine.ts";
import { encodeFloat32 } from "../../shared/base64.ts";
import { Edit, GenerateRequest, type ModelInfo } from "../../shared/protocol.ts";
import { alternate, median, spread, table } from "./frame.ts";

export interface SweepBench {
  /** Model directory; its name is printed. */
  readonly model: string;
  readonly threads: number;
  readonly rounds: number;
  readonly say: (line: string) => void;
}

const CELLS = 20;
const TOKENS = 48;
const PROMPT = "The children walked home and saw a small brown dog in the park beside their school";
/** Rows that a sweep leaves to whoever steers meanwhile. */
const LEFT = 2;

export async function benchSweep({ model: directory, threads, rounds, say }: SweepBench): Promise<void> {
  await giveTokenizer(directory);
  const engine = await loadEngine({ directories: [directory], threads });
  try {
    const info = engine.models()[0] as ModelInfo;
    const { tokenizer } = engine.model(info.id);
    const prompt = tokenizer.encodePrompt(PROMPT).length;
    say(`\nsweep: ${info.id}, ${info.layers} layers of ${info.width}, ${threads} threads, ${info.rows} rows at once`);
    say(`  ${CELLS} strengths of a vector before layer ${middle(info)}, a prompt of ${prompt} tokens, ${TOKENS} new ones`);
    const samples = await alternate(
      {
        sweep: () => seconds(() => sweep(engine, info, true)),
        written: () => seconds(() => sweep(engine, info, false)),
        steers: () => seconds(() => steerEach(engine, info)),
      },
      rounds,
      1,
    );
    const [whole, each] = [samples.sweep, samples.steers];
    const line = (name: string, values: readonly number[]) => [name, spread(values, 2)];
    const lines = [
      ["", "s, median (min to max)"],
      line(`${CELLS} separate steers`, each),
      line("the sweep", whole),
      line("  its texts alone, not judged", samples.written),
    ];
    for (const text of table(lines)) say(`  ${text}`);
    const ratio = median(whole.map((value, i) => value / (each[i] as number)));
    say(`  the sweep takes ${ratio.toFixed(3)} of the time of ${CELLS} separate steers`);
  } finally {
    await engine.close();
  }
}

const middle = (info: ModelInfo): number => Math.floor(info.layers / 2);
const vectorOf = (info: ModelInfo) => ({
  vector: encodeFloat32(Array.from({ length: info.width }, (_, i) => Math.sin(i * 1.7))),
  point: `blocks.${middle(info)}.hook_resid_pre`,
});
const editsOf = (info: ModelInfo): Edit[] =>
  Array.from({ length: CELLS }, (_, i) => Edit.parse({ ...vectorOf(info), method: "SIMPLE_ADDITIVE", strength: (i + 1) / CELLS }));

type Row = GenerateRequest["rows"][number];

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return (performance.now() - began) / 1000;
}

async function generate(engine: Engine, info: ModelInfo, rows: readonly Row[], judged: boolean): Promise<void> {
  const sampling = { temperature: 0.7, seed: 16 };
  const compare = judged ? { compare: { targets: [vectorOf(info)] } } : {};
  const request = GenerateRequest.parse({ model: info.id, prompt: PROMPT, rows, sampling, max_tokens: TOKENS, ...compare });
  for await (const { event, data } of engine.generate(request, new AbortController().signal))
    if (event === "done" && judged && !data.rows.every(({ compared }) => compared?.plain.perplexity !== undefined))
      throw new Error("a text was not judged");
}

const BASELINE: Row = { name: "DEFAULT", edits: [] };

async function steerEach(engine: Engine, info: ModelInfo): Promise<void> {
  for (const edit of editsOf(info)) await generate(engine, info, [BASELINE, { name: "STEERED", edits: [edit] }], false);
}

async function sweep(engine: Engine, info: ModelInfo, judged: boolean): Promise<void> {
  const rows = [BASELINE, ...editsOf(info).map((edit, i) => ({ name: `cell ${i}`, edits: [edit] }))];
  const most = Math.ceil(rows.length / Math.ceil(rows.length / (info.rows - LEFT)));
  for (let start = 0; start < rows.length; start += most) await generate(engine, info, rows.slice(start, start + most), judged);
}

/** A shape with random weights has no tokenizer: it gets one of words, those of the prompt and as many more as its vocabulary has. */
async function giveTokenizer(directory: string): Promise<void> {
  const file = path.join(directory, "tokenizer.json");
  if (existsSync(file)) return;
  const { vocab_size: size } = JSON.parse(await readFile(path.join(directory, "config.json"), "utf8")) as { vocab_size: number };
  const words = [...new Set(PROMPT.split(" "))];
  const vocab = Object.fromEntries(Array.from({ length: size }, (_, id) => [words[id] ?? `word${id}`, id]));
  const model = { type: "WordLevel", vocab, unk_token: "The" };
  const json = {
    ...{ version: "1.0", added_tokens: [], normalizer: null, pre_tokenizer: { type: "WhitespaceSplit" }, post_processor: null },
    ...{ decoder: { type: "Fuse" }, model },
  };
  await writeFile(file, JSON.stringify(json));
}
