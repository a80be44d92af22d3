// How often and how strongly every latent of an autoencoder fires on the tokens of two sides, and the direction that NeuroSteer makes of it:
// of the latents that fire more often on the positive side, those with the greatest difference, decoded.
import type { ChosenLatent, DirectionsRequest } from "../../../shared/directions.ts";
import type { EncoderStore } from "../model.ts";
import type { Pace } from "../pace.ts";
import { decoderRow, ENCODED, type Sae } from "../sae.ts";
import { addScaled } from "./vectors.ts";

type Settings = NonNullable<DirectionsRequest["sae"]>;
type Chosen = Omit<ChosenLatent, "label">;

interface SideCounts {
  /** Tokens that were counted. */
  tokens: number;
  /** Of every latent: tokens on which it fires, and the sum of its activations. */
  readonly fired: Float64Array;
  readonly sum: Float64Array;
}

export interface LatentCounts {
  readonly positive: SideCounts;
  readonly negative: SideCounts;
}

/** Residuals that wait to be encoded, at most: where a model has more autoencoders than it keeps, each is loaded once for so many. */
const WAITING = 1024;
/** What those of all layers may take. */
const WAITING_BYTES = 2 ** 26;

/** Encodes tokens of texts of both sides and counts. Memory depends on the autoencoder, not on the tokens. */
export class LatentCounter {
  readonly counts: LatentCounts;
  private readonly encoders: EncoderStore;
  private readonly sae: Sae;
  private readonly waiting: Float32Array;
  private readonly sides: boolean[] = [];

  /** @param layers that count at the same time. */
  constructor(encoders: EncoderStore, sae: Sae, layers: number) {
    this.encoders = encoders;
    this.sae = sae;
    const side = () => ({ tokens: 0, fired: new Float64Array(sae.latents), sum: new Float64Array(sae.latents) });
    this.counts = { positive: side(), negative: side() };
    const fit = Math.floor(WAITING_BYTES / (4 * sae.width * layers * ENCODED)) * ENCODED;
    this.waiting = new Float32Array(Math.min(WAITING, Math.max(ENCODED, fit)) * sae.width);
  }

  /** @param stream residuals [T, width] of a text. @param counted positions of it. */
  async add(stream: Float32Array, counted: readonly number[], positive: boolean): Promise<void> {
    const { width } = this.sae;
    for (const t of counted) {
      this.waiting.set(stream.subarray(t * width, (t + 1) * width), this.sides.length * width);
      this.sides.push(positive);
      if (this.sides.length * width === this.waiting.length) await this.flush();
    }
  }

  /** Encodes what waits. */
  async flush(): Promise<void> {
    const { width, latents } = this.sae;
    await this.encoders.use(this.sae, async (encoder) => {
      for (let start = 0; start < this.sides.length; start += ENCODED) {
        const sides = this.sides.slice(start, start + ENCODED);
        const { activations } = await encoder.encode(this.waiting.subarray(start * width, (start + sides.length) * width));
        for (const [t, positive] of sides.entries())
          count(positive ? this.counts.positive : this.counts.negative, activations.subarray(t * latents, (t + 1) * latents));
      }
    });
    this.sides.length = 0;
  }
}

function count(side: SideCounts, activations: Float32Array): void {
  const { fired, sum } = side;
  side.tokens++;
  for (let i = 0; i < activations.length; i++) {
    const value = activations[i] as number;
    if (value === 0) continue;
    fired[i] = (fired[i] as number) + 1;
    sum[i] = (sum[i] as number) + value;
  }
}

/** The latents whose frequency grows most from the negative to the positive side, the lower index first among equals. */
export function chooseLatents({ positive, negative }: LatentCounts, { top_k, values }: Pick<Settings, "top_k" | "values">): Chosen[] {
  const frequency = ({ fired, tokens }: SideCounts, i: number) => (fired[i] as number) / Math.max(1, tokens);
  const mean = ({ fired, sum }: SideCounts, i: number) => (fired[i] === 0 ? 0 : (sum[i] as number) / (fired[i] as number));
  const gain = positive.fired.map((_, i) => frequency(positive, i) - frequency(negative, i));
  const indexes = Array.from(gain, (_, i) => i).filter((i) => (gain[i] as number) > 0);
  indexes.sort((a, b) => (gain[b] as number) - (gain[a] as number) || a - b);
  return indexes.slice(0, top_k).map((index) => {
    const means = { positive: mean(positive, index), negative: mean(negative, index) };
    return {
      index,
      value: values === "tar_mean" ? means.positive : Math.max(0, means.positive - means.negative),
      frequency: { positive: frequency(positive, index), negative: frequency(negative, index) },
      mean: means,
    };
  });
}

/** Sum of the decoder rows, each times its latent's value: activations are in units of the rows as they steer. */
export async function decodeLatents(sae: Sae, chosen: readonly Chosen[], pace: Pace): Promise<Float64Array> {
  const vector = new Float64Array(sae.width);
  for (const { index, value } of chosen) {
    // Where a file has latents as columns, a row takes one read for each of its values.
    await pace();
    if (value !== 0) addScaled(vector, value, decoderRow(sae, index).direction);
  }
  return vector;
}
