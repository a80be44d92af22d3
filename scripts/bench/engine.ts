// The CPU engine below its server: decode and prefill speed, what edits cost, how close both come to what the machine can do.
import path from "node:path";
import type { Storage } from "../../gpu-functions/cpu/blocks.ts";
import { chooseStorage, openDirectory, type Quantise } from "../../gpu-functions/cpu/directory.ts";
import type { FamilyModel } from "../../gpu-functions/cpu/family.ts";
import { blockBytes, blockShape } from "../../gpu-functions/cpu/quantise.ts";
import { CHUNK, DecoderSession } from "../../gpu-functions/cpu/session.ts";
import { openBlocks } from "../../gpu-functions/cpu/sidecar.ts";
import { compilePoint } from "../../shared/steering.ts";
import { measureBandwidth } from "./bandwidth.ts";
import { alternate, median, residentBytes, spread, table } from "./frame.ts";
import { PeakProduct } from "./peak.ts";
import { benchSteps } from "./steps.ts";
import { TorchBaseline } from "./torch.ts";

export interface EngineBench {
  /** Model directory; its name is printed. */
  readonly model: string;
  readonly quantise: Quantise;
  readonly threads: number;
  readonly rounds: number;
  /** Steps of the long run that watches memory and the time outside ONNX Runtime. */
  readonly steps: number;
  readonly python: string;
  readonly say: (line: string) => void;
}

const ROWS = [1, 2, 8, 16] as const;
const MAX_ROWS = 16;
/** Cached positions at the first decoded token. */
const CONTEXT = 128;
/** Tokens decoded per sample: as many as take about this long. */
const SAMPLE_MS = 300;
const MAX_STEPS = 32;
/** Weights smaller than this may stay in the last-level cache between steps. */
const CACHE_BYTES = 64e6;

export async function benchEngine({ model: directory, quantise, threads, rounds, steps, python, say }: EngineBench): Promise<void> {
  const { model, checkpoint } = openDirectory(directory);
  const storage = chooseStorage(checkpoint.parameters, quantise);
  const blocks = storage === "q8" ? await openBlocks(model, checkpoint) : undefined;
  const cacheLength = Math.min(model.shape.context, 256);
  const residentBefore = residentBytes();
  const started = performance.now();
  const session = new DecoderSession(model, checkpoint, { slots: MAX_ROWS, threads, cacheLength, blocks });
  await session.prefill(0, [0], 0, [0]);
  const loadMs = performance.now() - started;
  const residentAfter = residentBytes();
  const { layers, width, vocab } = session.shape;
  const held = storage === "q8" ? "8-bit blocks of 32" : "float32";
  say(`\nengine: ${path.basename(directory)} in ${held}, ${layers} layers of ${width}, vocabulary ${vocab}, ${threads} threads`);
  const torch = await TorchBaseline.start(python, path.join(directory, "config.json"), threads, cacheLength);
  say(typeof torch === "string" ? `  ${torch}` : `  baseline: PyTorch ${torch.description}, the same shape, ${threads} threads`);

  const direction = Float32Array.from({ length: width }, (_, i) => Math.sin(i + 1));
  const program = compilePoint([{ method: "SIMPLE_ADDITIVE", strength: 0.1, direction }], width);
  const edits = new Map(Array.from({ length: layers + 1 }, (_, boundary) => [boundary, program]));
  // Rows without edits run on the same graph, on zeros.
  for (let slot = 1; slot < MAX_ROWS; slot++) session.edits.set(slot, edits);
  const prompt = Array.from({ length: Math.min(CHUNK, CONTEXT) }, (_, i) => (i * 7) % vocab);
  const decode = async (rows: number, count: number, variant: "plain" | "affine"): Promise<number> => {
    session.base = variant;
    const ids = Array.from({ length: rows }, (_, row) => (row * 11 + 1) % vocab);
    const begin = performance.now();
    for (let step = 0; step < count; step++) await session.decode(ids, new Array<number>(rows).fill(CONTEXT + step));
    return (performance.now() - begin) / count;
  };
  const prefill = async (variant: "plain" | "affine"): Promise<number> => {
    session.base = variant;
    const begin = performance.now();
    await session.prefill(MAX_ROWS - 1, prompt, 0, []);
    return performance.now() - begin;
  };
  await session.prefill(0, prompt, 0, []);
  for (let slot = 1; slot < MAX_ROWS; slot++) session.cache.move(0, slot, CONTEXT);
  await decode(1, 1, "plain");
  const count = new Map<number, number>();
  for (const rows of ROWS) count.set(rows, Math.min(MAX_STEPS, Math.max(2, Math.ceil(SAMPLE_MS / (await decode(rows, 2, "affine"))))));
  const peak = new PeakProduct(threads);
  const product: number[] = [];

  const subjects: Record<string, () => Promise<number>> = {
    peak: async () => {
      product.push(peak.measure());
      return 0;
    },
  };
  for (const rows of ROWS) {
    const each = count.get(rows) as number;
    subjects[`plain${rows}`] = () => decode(rows, each, "plain");
    subjects[`edited${rows}`] = () => decode(rows, each, "affine");
    if (typeof torch !== "string") subjects[`torch${rows}`] = () => torch.decode(rows, CONTEXT, each);
  }
  subjects.plainPrefill = () => prefill("plain");
  subjects.editedPrefill = () => prefill("affine");
  if (typeof torch !== "string") subjects.torchPrefill = () => torch.prefill(prompt.length);
  const samples = await alternate(subjects, rounds, 1);
  peak.close();
  if (typeof torch !== "string") torch.close();
  const bandwidth = await measureBandwidth(threads, 5);

  const of = (name: string): readonly number[] => samples[name] ?? [];
  const ratio = (a: readonly number[], b: readonly number[]): string =>
    a.length === 0 || b.length === 0 ? "-" : median(a.map((value, i) => value / (b[i] as number))).toFixed(3);
  const line = (name: string, key: string, tokens: number): string[] => [
    name,
    spread(of(`edited${key}`), 2),
    ((tokens / median(of(`edited${key}`))) * 1000).toFixed(0),
    ratio(of(`edited${key}`), of(`plain${key}`)),
    of(`torch${key}`).length === 0 ? "-" : spread(of(`torch${key}`), 2),
    ratio(of(`torch${key}`), of(`edited${key}`)),
  ];
  const rows = [
    ["edits at every layer", "ms, median (min to max)", "tokens/s", "times no hooks", "PyTorch ms", "times faster"],
    ...ROWS.map((n) => line(n === 1 ? "decode, 1 row" : n === 2 ? "decode, steered pair" : `decode, ${n} rows`, String(n), n)),
    line(`prefill, ${prompt.length} tokens`, "Prefill", prompt.length),
  ];
  for (const text of table(rows)) say(`  ${text}`);
  const gain = (n: number): string => median(of("edited1").map((one, i) => (n * one) / (of(`edited${n}`)[i] as number))).toFixed(2);
  say(`  tokens/s of 1 row times ${gain(2)} in a pair, ${gain(8)} in 8 rows, ${gain(16)} in 16 rows`);

  const { stepBytes, prefillOps } = workOf(model, storage, prompt.length);
  const best = Math.max(...bandwidth);
  for (const [name, key] of [
    ["with edits", "edited1"],
    ["without hooks", "plain1"],
  ] as const) {
    const used = stepBytes / (median(of(key)) / 1000);
    say(
      `  1 row ${name}: ${(stepBytes / 1e6).toFixed(0)} MB of weights a step at ${(used / 1e9).toFixed(1)} GB/s, ` +
        `${((used / best) * 100).toFixed(0)}% of ${(best / 1e9).toFixed(1)} GB/s (memchr over 256 MB per thread, best of 5: ` +
        `${bandwidth.map((rate) => (rate / 1e9).toFixed(1)).join(" ")})${stepBytes < CACHE_BYTES ? "; these weights fit in a processor's cache" : ""}`,
    );
  }
  const [reached, fastest] = [prefillOps / (median(of("editedPrefill")) / 1000), Math.max(...product)];
  say(
    `  prefill: ${(reached / 1e9).toFixed(0)} GFLOP/s, ${((reached / fastest) * 100).toFixed(0)}% of the fastest of ${product.length} ` +
      `float32 products of 1536 x 1536 matrices, ${(fastest / 1e9).toFixed(0)} (median ${(median(product) / 1e9).toFixed(0)})`,
  );
  const memory = (residentAfter - residentBefore) / 1e6;
  say(`  session load ${loadMs.toFixed(0)} ms, memory ${memory.toFixed(0)} MB on top of ${(residentBefore / 1e6).toFixed(0)} MB`);
  session.base = "affine";
  await benchSteps(session, steps, say);
  session.close();
}

/** Bytes of weights that a step reads, and operations of a prompt's forward pass with one row of logits. */
function workOf({ shape, build }: FamilyModel, storage: Storage, tokens: number): { stepBytes: number; prefillOps: number } {
  const { layers, heads, headDim, vocab, width } = shape;
  let stepBytes = 0;
  let matrices = 0;
  let counted = false;
  for (const { dims, tensor, blocks } of build("plain", storage).weights.values()) {
    if (tensor === undefined || dims.length < 2) continue;
    const size = dims.reduce((a, b) => a * b, 1);
    const tabled = dims[0] === vocab && dims[1] === width;
    // Of a table that is only looked up, a step reads one row: of positions, and of tokens where the output has a table of its own.
    if (tensor.endsWith("wpe.weight") || (tabled && counted)) continue;
    counted ||= tabled;
    stepBytes += blocks === undefined ? 4 * size : blockBytes(blockShape(dims, blocks));
    if (!tabled) matrices += size;
  }
  const attention = 2 * layers * heads * headDim * tokens * (tokens + 1);
  return { stepBytes, prefillOps: 2 * matrices * tokens + 2 * vocab * width + attention };
}
