// What is gathered at one layer while texts are read, in memory that does not grow with them, and the direction it gives.
import { formatPoint } from "../../../shared/address.ts";
import type { ChosenLatent, DirectionsRequest } from "../../../shared/directions.ts";
import { TillerError } from "../../../shared/errors.ts";
import type { Model } from "../model.ts";
import type { Pace } from "../pace.ts";
import { chooseLatents, decodeLatents, LatentCounter } from "./latent-counts.ts";
import { principalComponent } from "./pca.ts";
import type { PlannedLayer, PlannedText } from "./plan.ts";
import { fitProbe } from "./probe.ts";
import type { Spool } from "./spool.ts";
import { addScaled, dot, norm, type Pass, scaled } from "./vectors.ts";

/** A difference shorter than this share of the residual stream's mean length is what rounding leaves of equal numbers. */
const NOTHING = 1e-6;

export interface Found {
  /** [width], finite and not zero. */
  readonly vector: Float64Array;
  /** Mean length of the residual stream at the counted tokens. */
  readonly meanNorm: number;
  readonly explained?: number;
  readonly latents?: ChosenLatent[];
}

/** Sum of what a side's texts weigh in the mean difference. */
interface SideSum {
  readonly sum: Float64Array;
  weight: number;
}

export class LayerReader {
  readonly planned: PlannedLayer;
  private readonly model: Model;
  private readonly request: DirectionsRequest;
  private readonly train: readonly PlannedText[];
  /** Means over the counted tokens, one row for each text. */
  private readonly spool: Spool;
  private readonly width: number;
  private readonly positive: SideSum;
  private readonly negative: SideSum;
  private readonly latents: LatentCounter | undefined;
  private readonly text: Float64Array;
  private lengths = 0;
  private tokens = 0;

  /** @param train the texts that will be read. @param spool for their means; whoever made it closes it. */
  constructor(model: Model, request: DirectionsRequest, planned: PlannedLayer, train: readonly PlannedText[], spool: Spool) {
    const { width } = model.shape;
    this.planned = planned;
    this.model = model;
    this.request = request;
    this.train = train;
    this.spool = spool;
    this.width = width;
    this.text = new Float64Array(width);
    this.positive = { sum: new Float64Array(width), weight: 0 };
    this.negative = { sum: new Float64Array(width), weight: 0 };
    this.latents = planned.sae === undefined ? undefined : new LatentCounter(model.encoders, planned.sae.sae, request.layers.length);
  }

  /** @param row its place among the texts. @param counted its positions that count. @param stream residuals [T, width]. */
  async add(row: number, counted: readonly number[], stream: Float32Array): Promise<void> {
    const { width, text } = this;
    const { positive } = this.train[row] as PlannedText;
    text.fill(0);
    for (const t of counted) {
      let squares = 0;
      for (let d = 0, at = t * width; d < width; d++, at++) {
        const value = stream[at] as number;
        text[d] = (text[d] as number) + value;
        squares += value * value;
      }
      this.lengths += Math.sqrt(squares);
    }
    this.tokens += counted.length;
    // Every token counts the same; of pairs, every pair.
    const side = positive ? this.positive : this.negative;
    const share = this.request.pairs === undefined ? 1 : 1 / counted.length;
    addScaled(side.sum, share, text);
    side.weight += share * counted.length;
    this.spool.write(
      row,
      Float32Array.from(text, (value) => value / counted.length),
    );
    await this.latents?.add(stream, counted, positive);
  }

  /** The direction, once every text was added. @throws TillerError `invalid_request` when there is none. */
  async find(pace: Pace): Promise<Found> {
    const meanNorm = this.lengths / this.tokens;
    // Sums that are not finite stay so: nothing below has to look again.
    if (!Number.isFinite(meanNorm))
      throw new TillerError("engine_failed", `The residual stream at ${formatPoint(this.planned.point)} is not finite.`);
    const { vector, ...more } = await this.findBy(meanNorm, pace);
    return { vector: this.request.unit ? scaled(vector, 1 / norm(vector)) : vector, meanNorm, ...more };
  }

  /** Scores of the texts that were added: means over counted tokens, along the vector at length one. */
  async scores(vector: Float64Array, pace: Pace): Promise<Float64Array> {
    const length = norm(vector);
    const scores = new Float64Array(this.train.length);
    await this.spool.pass(pace)((row, values) => {
      scores[row] = dot(values, vector) / length;
    });
    return scores;
  }

  private async findBy(meanNorm: number, pace: Pace): Promise<Omit<Found, "meanNorm">> {
    const { width, train } = this;
    const means = this.spool.pass(pace);
    const least = NOTHING * meanNorm;
    switch (this.request.method) {
      case "mean_difference": {
        const vector = scaled(this.positive.sum, 1 / this.positive.weight);
        addScaled(vector, -1 / this.negative.weight, this.negative.sum);
        if (norm(vector) <= least) throw this.nothing("both sides have the same mean");
        return { vector };
      }
      case "pca": {
        const found = await principalComponent(width, differencesOf(width, means));
        if (found === undefined || Math.sqrt(found.variance) <= least)
          throw this.nothing("all pairs differ by the same, which mean_difference finds");
        return { vector: found.direction, explained: found.share };
      }
      case "probe": {
        const found = await fitProbe(width, means, (row) => (train[row] as PlannedText).positive);
        const length = found === undefined ? 0 : norm(found.weights);
        if (found === undefined || found.scale <= least || length === 0) throw this.nothing("nothing tells the texts of both sides apart");
        return { vector: scaled(found.weights, 1 / length) };
      }
      case "sae":
        return this.findLatents(pace);
    }
  }

  private async findLatents(pace: Pace): Promise<Omit<Found, "meanNorm">> {
    const { latents, planned, request, model } = this;
    if (latents === undefined || planned.sae === undefined || request.sae === undefined) throw new Error("planned without an autoencoder");
    await latents.flush();
    const { sae, source } = planned.sae;
    const chosen = chooseLatents(latents.counts, request.sae);
    if (chosen.length === 0) throw this.nothing(`no latent of '${source}' fires more often on the positive side`);
    const vector = await decodeLatents(sae, chosen, pace);
    if (norm(vector) === 0) {
      const more = request.sae.values === "dif_mean" ? ", though they fire more often: values tar_mean takes their own means" : "";
      throw this.nothing(`the ${chosen.length} chosen latents of '${source}' are no more active on the positive side${more}`);
    }
    const labels = model.sources.features(source).labels.current();
    return { vector, latents: chosen.map((each) => ({ ...each, label: labels.get(each.index)?.label ?? null })) };
  }

  private nothing(why: string): TillerError {
    return new TillerError("invalid_request", `There is no direction at ${formatPoint(this.planned.point)}: ${why}.`);
  }
}

/** Of rows that are pairs, the first minus the second of each. */
const differencesOf =
  (width: number, rows: Pass): Pass =>
  (visit) => {
    const difference = new Float64Array(width);
    return rows((row, values) => {
      if (row % 2 === 0) {
        difference.set(values);
        return;
      }
      addScaled(difference, -1, values);
      visit((row - 1) / 2, difference);
    });
  };
