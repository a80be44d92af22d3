// The cells of a run, and what they write: rows of shared batches that continue one prompt, then read under the unsteered model.
import type { Engine } from "../../gpu-functions/cpu/engine.ts";
import type { Edit, GenerateRequest, GenerateResult } from "../../shared/protocol.ts";
import { GenerateRequest as GenerateSchema, LIMITS } from "../../shared/protocol.ts";
import { ScoreRequest, type ScoreResult } from "../../shared/readings.ts";
import type { Settings } from "./settings.ts";
import type { Vector } from "./vectors.ts";

/** One way to steer; the first of a run is the baseline, which does not. */
export interface Cell {
  readonly name: string;
  readonly method: Vector["method"] | "baseline";
  /** As it was asked for, below 0 towards the negative side; 0 for the baseline. */
  readonly strength: number;
  readonly edits: readonly Edit[];
}

/** What a cell wrote for one prompt and sample. */
export interface Written {
  readonly text: string;
  readonly tokens: number;
  /** Of the tokens given the prompt, under the unsteered model or the judge; null where there is no token. */
  readonly perplexity: number | null;
  /** KL(steered || unsteered) of the next token in nats, mean over the tokens. */
  readonly kl: number | null;
  /** Mean size of the edits against the residual stream. */
  readonly change: number;
}

export function cellsOf(vectors: readonly Vector[], settings: Settings): Cell[] {
  const signed = [...settings.strengths.map((strength) => -strength).reverse(), ...settings.strengths];
  const steered = settings.methods.flatMap((method) => signed.map((strength) => cellOf(vectors, method, strength, settings)));
  return [{ name: "baseline", method: "baseline", strength: 0, edits: [] }, ...steered];
}

function cellOf(vectors: readonly Vector[], method: Vector["method"], strength: number, settings: Settings): Cell {
  const exchanged = vectors.find((each) => each.method === method && each.exchanged);
  const turned = strength < 0 && exchanged !== undefined;
  const found = turned ? exchanged : vectors.find((each) => each.method === method && !each.exchanged);
  if (found === undefined) throw new Error(`there is no vector of the method ${method}`);
  const { vector, point, norm, mean_norm } = found;
  const unit = settings.unit === "share" ? mean_norm / norm : 1;
  const coefficient = (turned ? Math.abs(strength) : strength) * unit;
  const edit = {
    vector,
    point,
    method: "SIMPLE_ADDITIVE",
    strength: coefficient,
    positions: settings.positions,
    schedule: "constant",
  } as const;
  return { name: `${method} ${strength}`, method, strength, edits: [edit] };
}

/** A prompt, and which of its continuations. */
export interface Unit {
  readonly prompt: number;
  readonly sample: number;
}

export function unitsOf(prompts: number, samples: number): Unit[] {
  return Array.from({ length: prompts * samples }, (_, i) => ({ prompt: Math.floor(i / samples), sample: i % samples }));
}

/** All cells draw alike, so that they differ by their edits alone; no two units do. */
const seedOf = ({ prompt, sample }: Unit, { seed, samples }: Settings): number => seed + prompt * samples + sample;

/**
 * What every cell writes after a prompt, in the order of the cells.
 * @returns undefined when the signal came first.
 * @throws TillerError of the engine.
 */
export async function write(
  { engine, settings, rows }: { readonly engine: Engine; readonly settings: Settings; readonly rows: number },
  cells: readonly Cell[],
  prompt: string,
  unit: Unit,
  signal: AbortSignal,
): Promise<Written[] | undefined> {
  const written: Written[] = [];
  for (let start = 0; start < cells.length; start += rows) {
    const part = cells.slice(start, start + rows);
    const generated = await generate(engine, part, prompt, unit, settings, signal);
    if (generated === undefined) return undefined;
    written.push(...(await read(engine, part, prompt, generated, settings, signal)));
  }
  return written;
}

interface Generated {
  readonly text: string;
  readonly ids: readonly number[];
  readonly change: number;
}

async function generate(
  engine: Engine,
  cells: readonly Cell[],
  prompt: string,
  unit: Unit,
  settings: Settings,
  signal: AbortSignal,
): Promise<Generated[] | undefined> {
  const { model, tokens, temperature, top_p, frequency_penalty } = settings;
  const request: GenerateRequest = GenerateSchema.parse({
    ...{ model, prompt, max_tokens: tokens },
    rows: cells.map(({ name, edits }) => ({ name, edits })),
    sampling: { temperature, top_p, frequency_penalty, seed: seedOf(unit, settings) },
  });
  const ids = new Map<string, number[]>(cells.map(({ name }) => [name, []]));
  let result: GenerateResult | undefined;
  for await (const { event, data } of engine.generate(request, signal)) {
    if (event === "token") ids.get(data.row)?.push(data.id);
    if (event === "done") result = data;
  }
  return result?.rows.map(({ name, text, receipts }) => ({
    text,
    ids: ids.get(name) ?? [],
    change: receipts.reduce((sum, receipt) => sum + receipt.mean_relative_delta, 0),
  }));
}

/** Reads the texts again, steered and not; and with the judge, where there is one. */
async function read(
  engine: Engine,
  cells: readonly Cell[],
  prompt: string,
  generated: readonly Generated[],
  { model, judge }: Settings,
  signal: AbortSignal,
): Promise<Written[]> {
  const compared = await score(engine, { model, compare: true }, generated, signal, ({ ids }, i) =>
    ids.length === 0 ? undefined : { prompt, ids: [...ids], edits: [...(cells[i]?.edits ?? [])] },
  );
  const judged =
    judge === null
      ? undefined
      : await score(engine, { model: judge, compare: false }, generated, signal, ({ text }) =>
          text.trim() === "" ? undefined : { prompt, text },
        );
  return generated.map(({ text, ids, change }, i) => ({
    ...{ text, tokens: ids.length, change },
    perplexity: (judged === undefined ? compared[i]?.plain?.perplexity : judged[i]?.perplexity) ?? null,
    kl: compared[i]?.plain?.kl ?? null,
  }));
}

type Scored = ScoreResult["items"][number];

/** Scores in batches what has something to score; undefined at the place of what has not. */
async function score(
  engine: Engine,
  request: { readonly model: string; readonly compare: boolean },
  generated: readonly Generated[],
  signal: AbortSignal,
  itemOf: (each: Generated, index: number) => object | undefined,
): Promise<(Scored | undefined)[]> {
  const items = generated.map(itemOf);
  const asked = items.filter((item) => item !== undefined);
  const scored: Scored[] = [];
  for (let start = 0; start < asked.length; start += LIMITS.texts) {
    const part = ScoreRequest.parse({ ...request, items: asked.slice(start, start + LIMITS.texts) });
    scored.push(...(await engine.score(part, signal)).items);
  }
  return items.map((item) => (item === undefined ? undefined : scored.shift()));
}
