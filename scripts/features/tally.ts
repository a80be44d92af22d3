// What is counted of every latent while texts are read: how often it is active and how strongly, and the windows it is most active in.
// All of it lies in flat arrays, whose size depends on the source and never on the texts.

export const BINS = 40;
/** Tokens of an example, and how many of them come before the most active one where there are so many. */
export const SPAN = 24;
const BEFORE = 15;

export interface Example {
  readonly ids: Int32Array;
  readonly values: Float32Array;
}

/** The arrays, by name: what a run has to keep to go on later. */
export type TallyState = ReturnType<typeof emptyState>;

function emptyState(latents: number, examples: number) {
  const slots = latents * examples;
  return {
    /** Tokens that each latent is active on. */
    active: new Float64Array(latents),
    greatest: new Float32Array(latents),
    /** Width of a latent's bins: the least power of two with which BINS of them reach beyond its greatest activation; 0 before any. */
    binWidth: new Float64Array(latents),
    bins: new Uint32Array(latents * BINS),
    /** Of the latent's examples, in no order: greatest activation (0: the slot is free) and number of the window. */
    peak: new Float32Array(slots),
    window: new Uint32Array(slots),
    length: new Uint8Array(slots),
    ids: new Int32Array(slots * SPAN),
    values: new Float32Array(slots * SPAN),
  };
}

export class Tally {
  readonly latents: number;
  readonly examples: number;
  readonly state: TallyState;
  private readonly windowPeak: Float32Array;
  private readonly windowAt: Int32Array;

  /** @param examples kept of each latent. */
  constructor(latents: number, examples: number) {
    this.latents = latents;
    this.examples = examples;
    this.state = emptyState(latents, examples);
    this.windowPeak = new Float32Array(latents);
    this.windowAt = new Int32Array(latents);
  }

  /**
   * Counts one window; windows come in the order of their numbers.
   * @param activations [ids.length, latents]
   * @throws Error when one is not finite.
   */
  add(window: number, ids: ArrayLike<number>, activations: Float32Array): void {
    const { latents, windowPeak, windowAt } = this;
    const { active } = this.state;
    const touched: number[] = [];
    for (let t = 0, at = 0; t < ids.length; t++) {
      for (let i = 0; i < latents; i++, at++) {
        const value = activations[at] as number;
        if (value === 0) continue;
        if (!(value > 0 && value < Number.POSITIVE_INFINITY)) throw new Error(`the activation of feature ${i} is ${value} on token ${t}`);
        active[i] = (active[i] as number) + 1;
        this.count(i, value);
        if (windowPeak[i] === 0) touched.push(i);
        if (value > (windowPeak[i] as number)) {
          windowPeak[i] = value;
          windowAt[i] = t;
        }
      }
    }
    for (const i of touched) {
      this.offer(i, window, ids, activations);
      windowPeak[i] = 0;
    }
  }

  private count(latent: number, value: number): void {
    const { greatest, binWidth, bins } = this.state;
    if (value > (greatest[latent] as number)) {
      greatest[latent] = value;
      if (value >= BINS * (binWidth[latent] as number)) this.widen(latent, value);
    }
    const bin = latent * BINS + Math.floor(value / (binWidth[latent] as number));
    bins[bin] = (bins[bin] as number) + 1;
  }

  /** Bins twice as wide hold what two held: counts stay exact, and the last width does not depend on the order of values. */
  private widen(latent: number, value: number): void {
    const { binWidth } = this.state;
    const bins = this.state.bins.subarray(latent * BINS, (latent + 1) * BINS);
    let width = binWidth[latent] as number;
    if (width === 0) width = leastWidth(value);
    for (; value >= BINS * width; width *= 2) {
      for (let k = 0; k < BINS; k++) bins[k] = k < BINS / 2 ? (bins[2 * k] as number) + (bins[2 * k + 1] as number) : 0;
    }
    binWidth[latent] = width;
  }

  /** Keeps the window as an example when it is among the most active; of windows that look the same only one. */
  private offer(latent: number, window: number, ids: ArrayLike<number>, activations: Float32Array): void {
    const { state } = this;
    const peak = this.windowPeak[latent] as number;
    const slot = this.weakest(latent);
    if (peak <= (state.peak[slot] as number)) return;
    const start = Math.max(0, Math.min((this.windowAt[latent] as number) - BEFORE, ids.length - SPAN));
    const length = Math.min(SPAN, ids.length - start);
    const twin = this.twin(latent, ids, start, length);
    if (twin !== undefined && peak <= (state.peak[twin] as number)) return;
    const target = twin ?? slot;
    state.peak[target] = peak;
    state.window[target] = window;
    state.length[target] = length;
    for (let k = 0; k < length; k++) {
      state.ids[target * SPAN + k] = ids[start + k] as number;
      state.values[target * SPAN + k] = activations[(start + k) * this.latents + latent] as number;
    }
  }

  /** The slot to give away first: of the least peak, the latest of equals. */
  private weakest(latent: number): number {
    const { peak, window } = this.state;
    let found = latent * this.examples;
    for (let slot = found + 1; slot < (latent + 1) * this.examples; slot++) {
      const [a, b] = [peak[slot] as number, peak[found] as number];
      if (a < b || (a === b && a > 0 && (window[slot] as number) > (window[found] as number))) found = slot;
    }
    return found;
  }

  /** The slot that has the same tokens. */
  private twin(latent: number, ids: ArrayLike<number>, start: number, length: number): number | undefined {
    const { state, examples } = this;
    for (let slot = latent * examples; slot < (latent + 1) * examples; slot++) {
      if (state.peak[slot] === 0 || state.length[slot] !== length) continue;
      let k = 0;
      while (k < length && state.ids[slot * SPAN + k] === ids[start + k]) k++;
      if (k === length) return slot;
    }
    return undefined;
  }

  /** The most active first; of equals the one that came first. */
  examplesOf(latent: number): Example[] {
    const { peak, window, length, ids, values } = this.state;
    return Array.from({ length: this.examples }, (_, k) => latent * this.examples + k)
      .filter((slot) => peak[slot] !== 0)
      .sort((a, b) => (peak[b] as number) - (peak[a] as number) || (window[a] as number) - (window[b] as number))
      .map((slot) => {
        const [start, end] = [slot * SPAN, slot * SPAN + (length[slot] as number)];
        return { ids: ids.slice(start, end), values: values.slice(start, end) };
      });
  }

  /** Counts of a latent's bins up to the last that is not empty. */
  histogramOf(latent: number): { width: number; counts: number[] } {
    const counts = [...this.state.bins.subarray(latent * BINS, (latent + 1) * BINS)];
    while (counts.at(-1) === 0) counts.pop();
    return { width: this.state.binWidth[latent] as number, counts };
  }
}

/** The least power of two w with value < BINS w. */
function leastWidth(value: number): number {
  let width = 2 ** Math.floor(Math.log2(value / BINS));
  while (value >= BINS * width) width *= 2;
  while (value < (BINS / 2) * width) width /= 2;
  return width;
}
