// The texts of a run, read by the model: every latent's activation on every token goes through a tally.
import type { Model } from "../../gpu-functions/cpu/model.ts";
import { readText } from "../../gpu-functions/cpu/read-text.ts";
import type { Sae } from "../../gpu-functions/cpu/sae.ts";
import { ENCODED } from "../../gpu-functions/cpu/sae.ts";
import type { Position } from "./partial.ts";
import type { Tally } from "./tally.ts";
import type { Window } from "./texts.ts";

export interface Gathering {
  readonly model: Model;
  readonly sae: Sae;
  /** Where it begins, and how far it has come. */
  readonly position: Position;
  readonly tally: Tally;
  readonly signal: AbortSignal;
  /** Called after every window. */
  readonly read: (tokens: number) => void;
}

/** Reads the windows that `position` has not passed yet. @returns whether all were read; false when the signal came first. */
export async function gather(windows: AsyncIterable<Window>, { model, sae, position, tally, signal, read }: Gathering): Promise<boolean> {
  let activations = new Float32Array();
  let number = -1;
  for await (const { ids } of windows) {
    number++;
    if (number < position.windows) continue;
    if (signal.aborted) return false;
    const values = ids.length * sae.latents;
    if (activations.length < values) activations = new Float32Array(values);
    try {
      await readWindow(model, sae, ids, activations, signal);
    } catch (error) {
      if (signal.aborted) return false;
      throw error;
    }
    tally.add(number, ids, activations);
    position.windows++;
    position.tokens += ids.length;
    read(ids.length);
  }
  return true;
}

/** Activations [ids.length, latents] of a window, which the model reads after BOS where its texts begin with it. */
async function readWindow(model: Model, sae: Sae, ids: readonly number[], activations: Float32Array, signal: AbortSignal): Promise<void> {
  const prompt = model.tokenizer.withBos([...ids]);
  const { residuals } = await readText(model, prompt, [sae.point], signal, undefined);
  const stream = (residuals[0] as Float32Array).subarray((prompt.length - ids.length) * sae.width);
  await model.encoders.use(sae, async (encoder) => {
    for (let start = 0; start < ids.length; start += ENCODED) {
      const end = Math.min(start + ENCODED, ids.length);
      const found = await encoder.encode(stream.subarray(start * sae.width, end * sae.width));
      activations.set(found.activations, start * sae.latents);
    }
  });
}
