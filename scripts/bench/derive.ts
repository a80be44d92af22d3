// What deriving a direction reads: two sides of sentences, once through the CPU engine. Texts in batches are measured beside one text
// after the other and beside the engine's prefill of whole parts, by turns.
import path from "node:path";
import { chooseStorage, openDirectory, type Quantise } from "../../gpu-functions/cpu/directory.ts";
import { wholeReading } from "../../gpu-functions/cpu/reading.ts";
import { Scheduler } from "../../gpu-functions/cpu/scheduler.ts";
import { CHUNK, DecoderSession } from "../../gpu-functions/cpu/session.ts";
import { openBlocks } from "../../gpu-functions/cpu/sidecar.ts";
import { alternate, median, spread, table } from "./frame.ts";

export interface DeriveBench {
  /** Model directory; its name is printed. */
  readonly model: string;
  readonly quantise: Quantise;
  readonly threads: number;
  readonly rounds: number;
  readonly say: (line: string) => void;
}

/** Sentences of each side. */
const SIDE = 200;
/** Tokens of sentences, as often as reviews and stories have them; the shapes have no tokenizer that would find them. */
const LENGTHS = [24, 11, 31, 19, 8, 27, 15, 38, 22, 13, 45, 17, 29, 9, 25, 20, 34, 12, 41, 23] as const;
const SLOTS = 8;
/** Of the sentences, those that are read one by one, and parts that are prefilled: a round need not take longer. */
const EVERY = 8;
const PARTS = 8;

export async function benchDerive({ model: directory, quantise, threads, rounds, say }: DeriveBench): Promise<void> {
  const { model, checkpoint } = openDirectory(directory);
  const storage = chooseStorage(checkpoint.parameters, quantise);
  const blocks = storage === "q8" ? await openBlocks(model, checkpoint) : undefined;
  const cacheLength = Math.min(model.shape.context, 256);
  const session = new DecoderSession(model, checkpoint, { slots: SLOTS, threads, cacheLength, blocks });
  const scheduler = new Scheduler(session);
  const { layers, width, vocab } = session.shape;
  const never = new AbortController().signal;
  const texts = Array.from({ length: 2 * SIDE }, (_, text) =>
    Array.from({ length: LENGTHS[text % LENGTHS.length] as number }, (_, i) => (text * 31 + i * 7) % vocab),
  );
  const some = texts.filter((_, text) => text % EVERY === 0);
  const tokensOf = (all: readonly (readonly number[])[]): number => all.reduce((sum, { length }) => sum + length, 0);
  /** Tokens a second. */
  const rate = async (tokens: number, work: () => Promise<unknown>): Promise<number> => {
    const began = performance.now();
    await work();
    return (tokens / (performance.now() - began)) * 1000;
  };
  /** Sums of both sides: what a difference of means is made of. */
  const sums = [new Float64Array(width), new Float64Array(width)] as const;
  const add = (text: number, residual: Float32Array): void => {
    const sum = sums[text < SIDE ? 0 : 1];
    for (let i = 0; i < residual.length; i++) sum[i % width] = (sum[i % width] as number) + (residual[i] as number);
  };
  const batches = (boundary: number) => () =>
    rate(tokensOf(texts), () => scheduler.readTexts(texts, [boundary], (text, [residual]) => add(text, residual as Float32Array), never));
  const oneByOne = async (): Promise<void> => {
    for (const [text, ids] of some.entries()) {
      const { reading, residuals } = wholeReading(ids, [layers], session.shape);
      await scheduler.read(reading, never);
      add(text * EVERY, residuals[0] as Float32Array);
    }
  };
  const part = Array.from({ length: Math.min(CHUNK, cacheLength) }, (_, i) => (i * 7) % vocab);
  const prefill = async (): Promise<void> => {
    for (let i = 0; i < PARTS; i++) await session.prefill(0, part, 0, []);
  };
  const middle = layers >> 1;
  const samples = await alternate(
    {
      ...{ last: batches(layers), middle: batches(middle) },
      one: () => rate(tokensOf(some), oneByOne),
      prefill: () => rate(PARTS * part.length, prefill),
    },
    rounds,
    1,
  );
  await scheduler.close();
  session.close();

  const line = (name: string, rates: readonly number[]): string[] => [
    name,
    spread(rates, 0),
    median(rates.map((value, i) => value / (samples.prefill[i] as number))).toFixed(2),
    median(rates.map((value, i) => value / (samples.one[i] as number))).toFixed(2),
    (tokensOf(texts) / median(rates)).toFixed(1),
  ];
  const held = storage === "q8" ? "8-bit blocks of 32" : "float32";
  say(`\nderive: ${path.basename(directory)} in ${held}, ${layers} layers of ${width}, ${threads} threads`);
  say(`  2 x ${SIDE} sentences of ${Math.min(...LENGTHS)} to ${Math.max(...LENGTHS)} tokens, ${tokensOf(texts)} in all`);
  const rows = [
    ["", "tokens/s, median (min to max)", "times prefill", "times one by one", "seconds for all"],
    line("batches, up to the last boundary", samples.last),
    line(`batches, up to boundary ${middle}`, samples.middle),
    line("one by one", samples.one),
    line(`prefill, ${part.length} tokens a call`, samples.prefill),
  ];
  for (const text of table(rows)) say(`  ${text}`);
}
