// What the engine plans, run by a PyTorch process: requests go to it whole, its tokens become texts here. It is started again when it died.
import { randomUUID } from "node:crypto";
import { TillerError } from "../../shared/errors.ts";
import type { GenerateEvent } from "../../shared/protocol.ts";
import type { EachText } from "../cpu/batch-reading.ts";
import type { Shape } from "../cpu/blocks.ts";
import type { PlacedEdit, RowEdits } from "../cpu/edits.ts";
import type { Generation } from "../cpu/generation.ts";
import type { Runner } from "../cpu/model.ts";
import { remaining } from "../cpu/read-text.ts";
import { type Reading, type Scored, wholeReading } from "../cpu/reading.ts";
import type { Row } from "../cpu/row.ts";
import { notFinite, type RankedToken } from "../cpu/sampler.ts";
import { type Device, deviceFailed, type Told } from "./device.ts";

/** Requests that may wait for slots; more are told to come back. */
const QUEUE_LIMIT = 64;

type Tally = readonly [positions: number, changed: number, relative: number];
type ToldToken = readonly [
  row: number,
  index: number,
  id: number,
  logprob: number,
  top: readonly (readonly [id: number, logprob: number])[],
  kl: number | null,
];
type ToldScore = readonly [logprob: number, top: ToldToken[4], plain?: readonly [logprob: number, kl: number]];

/** Texts that are read at once: the process has the next one when it is done with one. */
const READ_AT_ONCE = 4;

/** Gives the process that computes; starts one where there is none. */
export type DeviceOf = () => Promise<Device>;

/** A request with its place in the queue. */
interface Entry {
  readonly job: Generation | Reading;
  /** Sends it to the process. */
  readonly start: () => void;
  /** Slots that it holds: none while it waits. */
  held: number;
}

export class DeviceRunner implements Runner {
  private readonly deviceOf: DeviceOf;
  private readonly slots: number;
  private readonly shape: Shape;
  private readonly waiting: Entry[] = [];
  private readonly running = new Set<Entry>();
  private closed = false;

  /** @param slots rows that the process runs at once. */
  constructor(deviceOf: DeviceOf, slots: number, shape: Shape) {
    this.deviceOf = deviceOf;
    this.slots = slots;
    this.shape = shape;
  }

  load(): { rows: number; waiting: number } {
    return { rows: [...this.running].reduce((sum, { held }) => sum + held, 0), waiting: this.waiting.length };
  }

  async *run(generation: Generation, signal: AbortSignal, deadlineMs?: number): AsyncGenerator<GenerateEvent> {
    const { request, rows } = generation;
    const base = rows.findIndex(({ name }) => name === request.kl_baseline);
    // KL is told up to the last token that the baseline took part in.
    let compared = Number.POSITIVE_INFINITY;
    const taken = rows.map(() => 0);
    const heard = (told: Told, { device, id, free }: Running) => {
      if (told.event === "failed") return generation.fail(notFinite());
      if (told.event === "finished") {
        for (const [i, tallies] of (told.tallies as Tally[][]).entries()) rows[i]?.edits.adopt(tallies);
        Object.assign(generation.timing, told.timing, { queue_ms: generation.timing.queue_ms });
        return generation.conclude();
      }
      for (const [place, index, token, logprob, top, kl] of told.tokens as ToldToken[]) {
        const row = rows[place] as Row;
        if (row.ended || generation.ended) continue;
        taken[place] = index + 1;
        generation.told(row, { id: token, logprob, top: rankedOf(top) }, base < 0 ? undefined : index > compared ? null : kl);
        if (!row.ended) continue;
        if (place === base) compared = index;
        // It has ended for a stop string, which is found in texts: nobody else knows.
        device.send({ do: "end", id, row: place });
        // The last one is held until the receipts are here: only then is it over.
        if (!generation.allFinished) free(1);
      }
      if (!generation.ended && generation.allFinished) device.send({ do: "finish", id, tokens: taken });
    };
    const { sampling } = request;
    const job = {
      do: "generate",
      ...planRows(rows),
      sampling: { ...sampling, stop: undefined },
      max_tokens: request.max_tokens,
      eos: [...generation.eosIds],
      base: base < 0 ? null : base,
    };
    const leave = await this.submit(generation, job, vectorsOf(rows), heard, signal, deadlineMs);
    try {
      yield* generation.events();
    } finally {
      leave();
    }
  }

  async read(reading: Reading, signal: AbortSignal, deadlineMs?: number): Promise<void> {
    const { wish, rows } = reading;
    const { ids, edits, targets = [], scoreFrom = 0, top = 0, boundaries = [] } = wish;
    let target = 0;
    const heard = (told: Told, _: Running, binary: Uint8Array) => {
      if (told.event === "failed") return reading.fail(notFinite());
      if (told.event === "finished") {
        edits.adopt((told.tallies as Tally[][]).at(-1) ?? []);
        return reading.prefilled();
      }
      const [from, to] = [told.start as number, told.end as number];
      reading.tell(() => {
        for (const score of told.scored as ToldScore[]) wish.scored?.(target++, scoredOf(score));
      });
      if (boundaries.length === 0) return;
      const streams = new Float32Array(binary.buffer, binary.byteOffset, binary.byteLength / 4);
      const size = streams.length / boundaries.length;
      reading.tellResiduals(from, to, (boundary) => {
        const at = boundaries.indexOf(boundary) * size;
        return streams.subarray(at, at + size);
      });
    };
    // Rows of one prompt are read together: the same positions of all of them.
    const planned = rows.map((row) => ({ prompt: ids, edits: row.edits }));
    const start = targets.length === 0 ? ids.length : scoreFrom;
    const job = { do: "read", ...planRows(planned), targets, start, top, boundaries };
    const leave = await this.submit(reading, job, vectorsOf(planned), heard, signal, deadlineMs);
    try {
      await reading.done;
    } finally {
      leave();
    }
  }

  async readTexts(
    texts: readonly (readonly number[])[],
    boundaries: readonly number[],
    each: EachText,
    signal: AbortSignal,
    deadlineMs?: number,
  ): Promise<void> {
    const began = performance.now();
    const failed = new AbortController();
    const ended = AbortSignal.any([signal, failed.signal]);
    const left = texts.entries();
    let given = Promise.resolve();
    const readSome = async () => {
      for (const [text, ids] of left) {
        const { reading, residuals } = wholeReading(ids, boundaries, this.shape);
        await this.read(reading, ended, remaining(deadlineMs, began));
        // One after the other, and none after one that threw.
        given = given.then(() => {
          ended.throwIfAborted();
          return each(text, residuals);
        });
        await given;
      }
    };
    const readers = Array.from({ length: Math.min(READ_AT_ONCE, this.slots, texts.length) }, () => readSome());
    try {
      await Promise.all(readers);
    } finally {
      failed.abort();
      await Promise.allSettled(readers);
    }
  }

  /** Ends every job with an error. */
  close(): void {
    this.closed = true;
    for (const { job } of [...this.waiting, ...this.running]) job.fail(shuttingDown());
  }

  /** Queues a job; the function that is returned ends it, whatever it is doing. */
  private async submit(
    job: Generation | Reading,
    fields: object,
    binary: readonly Uint8Array[],
    heard: (told: Told, running: Running, binary: Uint8Array) => void,
    signal: AbortSignal,
    deadlineMs: number | undefined,
  ): Promise<() => void> {
    if (this.closed) throw shuttingDown();
    if (this.waiting.length >= QUEUE_LIMIT) {
      throw new TillerError("engine_busy", `${QUEUE_LIMIT} requests wait for this model already. Try again in a few seconds.`, {
        retryAfterSeconds: 5,
      });
    }
    const id = randomUUID();
    let device: Device | undefined;
    const entry: Entry = {
      job,
      held: 0,
      start: () => {
        job.admitted();
        void this.deviceOf().then(
          (found) => {
            if (job.ended) return;
            device = found;
            void found.ended.then((reason) => job.fail(deviceFailed(reason)));
            const free = (rows: number) => {
              entry.held -= rows;
              this.admit();
            };
            found.ask(id, fields, binary, (told, bytes) => heard(told, { device: found, id, free }, bytes));
          },
          (error: unknown) => job.fail(deviceFailed(String(error))),
        );
      },
    };
    const cancel = () => job.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    if (signal.aborted) cancel();
    const late = () => job.fail(new TillerError("engine_timeout", `The request was not done after its deadline of ${deadlineMs} ms.`));
    const deadline = deadlineMs === undefined ? undefined : setTimeout(late, deadlineMs);
    const leave = () => {
      clearTimeout(deadline);
      signal.removeEventListener("abort", cancel);
      job.cancel();
      device?.forget(id);
      device?.send({ do: "drop", id });
      const place = this.waiting.indexOf(entry);
      if (place >= 0) this.waiting.splice(place, 1);
      this.running.delete(entry);
      this.admit();
    };
    // Its slots are free as soon as it is over, however long its caller takes to read.
    void job.over.then(leave);
    this.waiting.push(entry);
    this.admit();
    return leave;
  }

  private admit(): void {
    for (;;) {
      const next = this.waiting[0];
      if (next === undefined || next.job.rows.length > this.slots - this.load().rows) return;
      this.waiting.shift();
      next.held = next.job.rows.length;
      this.running.add(next);
      next.start();
    }
  }
}

const rankedOf = (top: ToldToken[4]): RankedToken[] => top.map(([id, logprob]) => ({ id, logprob }));

const scoredOf = ([logprob, top, plain]: ToldScore): Scored => ({
  ...{ logprob, top: rankedOf(top) },
  ...(plain && { plain: { logprob: plain[0], kl: plain[1] } }),
});

/** A job that the process has. `free` gives back slots of rows that ended. */
interface Running {
  readonly device: Device;
  readonly id: string;
  free(rows: number): void;
}

const shuttingDown = () => new TillerError("engine_unavailable", "The engine is shutting down.", { retryAfterSeconds: 5 });

interface PlannedRow {
  readonly prompt: readonly number[];
  readonly edits: RowEdits;
  readonly known?: readonly number[];
}

/** Rows as worker.py takes them: prompts and vectors that are shared are sent once. */
function planRows(rows: readonly PlannedRow[]): { prompts: (readonly number[])[]; rows: object[] } {
  const prompts = [...new Set(rows.map(({ prompt }) => prompt))];
  const vectors = distinctVectors(rows);
  const planned = rows.map(({ prompt, edits, known }) => ({
    prompt: prompts.indexOf(prompt),
    generated_from: edits.promptLength,
    untouched: [...edits.untouched],
    known: known ?? [],
    edits: edits.edits.map((edit) => planEdit(edit, vectors)),
  }));
  return { prompts, rows: planned };
}

function planEdit(
  { method, strength, min, max, positions, schedule, boundary, direction, latent }: PlacedEdit,
  vectors: readonly Float32Array[],
): object {
  const { zero, edge } = latent ?? {};
  return {
    ...{ method, strength, min, max, positions, schedule, boundary, direction: vectors.indexOf(direction as Float32Array) },
    ...(latent === undefined ? {} : { latent: { zero, edge, read: vectors.indexOf(latent.read as Float32Array) } }),
  };
}

const distinctVectors = (rows: readonly PlannedRow[]): Float32Array[] => [
  ...new Set(
    rows.flatMap(({ edits }) =>
      edits.edits.flatMap(({ direction, latent }) => [
        direction as Float32Array,
        ...(latent === undefined ? [] : [latent.read as Float32Array]),
      ]),
    ),
  ),
];

const vectorsOf = (rows: readonly PlannedRow[]): Uint8Array[] =>
  distinctVectors(rows).map(({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength));
