// What POST /directions answers: directions of the residual stream that tell positive texts from negative ones. The texts are read once:
// those that the direction is made from first, then those that it is judged on, of which only scores are kept.
import { formatPoint } from "../../../shared/address.ts";
import { encodeFloat32 } from "../../../shared/base64.ts";
import type { DirectionsProgress, DirectionsRequest, DirectionsResult, LayerDirection } from "../../../shared/directions.ts";
import type { Model } from "../model.ts";
import type { Pace } from "../pace.ts";
import { remaining } from "../read-text.ts";
import { areaUnderCurve, effectSize, type Scores } from "./judge.ts";
import { type Found, LayerReader } from "./layer.ts";
import type { Plan, PlannedText } from "./plan.ts";
import { openSpools } from "./spool.ts";
import { dot, norm, scaled } from "./vectors.ts";

export { planDirections } from "./plan.ts";

/** How one call goes on and what it tells. */
export interface Course {
  readonly signal: AbortSignal;
  readonly pace: Pace;
  /** When the call began (performance.now()). */
  readonly began: number;
  readonly progress: (progress: DirectionsProgress) => void;
}

/** Share of the residual stream's mean length that the suggested strength changes. */
const SUGGESTED_SHARE = 0.25;

/** @throws TillerError `invalid_request` where the texts give no direction, and what reading them throws. */
export async function deriveDirections(model: Model, request: DirectionsRequest, plan: Plan, course: Course): Promise<DirectionsResult> {
  const { layers, train, heldOut } = plan;
  const { pace, began } = course;
  const spools = openSpools(layers.length, model.shape.width, train.length);
  try {
    const readers = spools.map((spool, i) => new LayerReader(model, request, layers[i] as Plan["layers"][number], train, spool));
    const texts = new TextReader(model, plan, request.deadline_ms, course);
    await texts.read(train, async (row, counted, streams) => {
      for (const [i, reader] of readers.entries()) await reader.add(row, counted, streams[i] as Float32Array);
    });
    const found: Found[] = [];
    for (const reader of readers) found.push(await reader.find(pace));
    const units = found.map(({ vector }) => scaled(vector, 1 / norm(vector)));
    const judged = units.map(() => new Float64Array(heldOut.length));
    await texts.read(heldOut, (row, counted, streams) => {
      for (const [i, scores] of judged.entries()) scores[row] = scoreOf(counted, streams[i] as Float32Array, units[i] as Float64Array);
    });
    const described: LayerDirection[] = [];
    for (const [i, reader] of readers.entries()) {
      const trained = await reader.scores(units[i] as Float64Array, pace);
      described.push(describe(reader, found[i] as Found, bySide(train, trained), bySide(heldOut, judged[i] as Float64Array)));
    }
    return {
      layers: described,
      best: bestOf(described),
      counts: { positive: countSide(plan, true), negative: countSide(plan, false) },
      timing: { ...texts.timing, total_ms: performance.now() - began },
    };
  } finally {
    for (const spool of spools) spool.close();
  }
}

type Each = (row: number, counted: readonly number[], streams: readonly Float32Array[]) => void | Promise<void>;

/** Reads texts of a plan at its layers, and keeps count of it. */
class TextReader {
  readonly timing = { tokens: 0, read_ms: 0 };
  private readonly model: Model;
  private readonly plan: Plan;
  private readonly deadlineMs: number | undefined;
  private readonly course: Course;
  private done = 0;

  constructor(model: Model, plan: Plan, deadlineMs: number | undefined, course: Course) {
    this.model = model;
    this.plan = plan;
    this.deadlineMs = deadlineMs;
    this.course = course;
  }

  /** @param each gets a text's place, its positions that count, and its residuals [T, width] at every layer. */
  async read(texts: readonly PlannedText[], each: Each): Promise<void> {
    if (texts.length === 0) return;
    const { layers, train, heldOut, counted } = this.plan;
    const { signal, began, progress } = this.course;
    const of = train.length + heldOut.length;
    const start = performance.now();
    await this.model.scheduler.readTexts(
      texts.map(({ ids }) => ids),
      layers.map(({ boundary }) => boundary),
      async (row, streams) => {
        const text = texts[row] as PlannedText;
        await each(row, counted(text), streams);
        this.timing.tokens += text.ids.length;
        progress({ texts: ++this.done, of });
      },
      signal,
      remaining(this.deadlineMs, began),
    );
    this.timing.read_ms += performance.now() - start;
  }
}

/** Mean over counted tokens of h . unit. */
function scoreOf(counted: readonly number[], stream: Float32Array, unit: Float64Array): number {
  const width = unit.length;
  let sum = 0;
  for (const t of counted) sum += dot(stream.subarray(t * width, (t + 1) * width), unit);
  return sum / counted.length;
}

function bySide(texts: readonly PlannedText[], scores: Float64Array): Scores {
  const of = (positive: boolean) => Array.from(scores).filter((_, i) => texts[i]?.positive === positive);
  return { positive: of(true), negative: of(false) };
}

function describe({ planned }: LayerReader, found: Found, trained: Scores, judged: Scores): LayerDirection {
  const { vector, meanNorm, ...more } = found;
  const length = norm(vector);
  const enough = Math.min(judged.positive.length, judged.negative.length) >= 2;
  return {
    ...{ layer: planned.layer, point: formatPoint(planned.point), vector: encodeFloat32(vector), norm: length, mean_norm: meanNorm },
    auc_held_out: areaUnderCurve(judged),
    auc_train: areaUnderCurve(trained) as number,
    effect: effectSize(enough ? judged : trained),
    strength: Number(((SUGGESTED_SHARE * meanNorm) / length).toPrecision(3)),
    ...more,
  };
}

/** The first of the layers that separate best. */
function bestOf(layers: readonly LayerDirection[]): number {
  const rank = ({ auc_held_out, auc_train, effect }: LayerDirection) => [auc_held_out ?? auc_train, effect ?? Number.NEGATIVE_INFINITY];
  const better = (a: LayerDirection, b: LayerDirection) => {
    const [[aucA = 0, effectA = 0], [aucB = 0, effectB = 0]] = [rank(a), rank(b)];
    return aucA > aucB || (aucA === aucB && effectA > effectB);
  };
  return layers.reduce((best, each) => (better(each, best) ? each : best)).layer;
}

function countSide({ train, heldOut }: Plan, positive: boolean): DirectionsResult["counts"]["positive"] {
  const of = (texts: readonly PlannedText[]) => texts.filter((text) => text.positive === positive);
  return {
    texts: of(train).length,
    held_out: of(heldOut).length,
    tokens: of(train).reduce((sum, { tokens }) => sum + tokens, 0),
  };
}
