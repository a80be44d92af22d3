// The vectors of a run: one of each method, made from the same texts at the same place.
import type { Engine } from "../../gpu-functions/cpu/engine.ts";
import { type DirectionMethod, DirectionsRequest, type LayerDirection } from "../../shared/directions.ts";
import type { Sides } from "./inputs.ts";
import type { Settings } from "./settings.ts";

export interface Vector extends LayerDirection {
  readonly method: DirectionMethod;
  /** Made with the sides exchanged: it points to the negative one. */
  readonly exchanged: boolean;
}

/** A vector that is to be made. */
interface Wanted {
  readonly method: DirectionMethod;
  readonly exchanged: boolean;
}

/** With the sides exchanged, mean difference, principal component and probe only turn around: of the autoencoder's latents others are chosen. */
function wantedOf({ methods, exchange }: Settings): Wanted[] {
  return methods.flatMap((method) => [
    { method, exchanged: false },
    ...(exchange && method === "sae" ? [{ method, exchanged: true }] : []),
  ]);
}

/** How many texts are read for all of them. */
export const readingsOf = (settings: Settings, { positive, negative }: Sides): number =>
  wantedOf(settings).length * (positive.length + negative.length);

/**
 * @param read called with how many texts were read, again and again.
 * @returns undefined when the signal came first.
 * @throws TillerError of the engine.
 */
export async function makeVectors(
  engine: Engine,
  settings: Settings,
  { positive, negative }: Sides,
  signal: AbortSignal,
  read: (texts: number) => void,
): Promise<Vector[] | undefined> {
  const vectors: Vector[] = [];
  for (const { method, exchanged } of wantedOf(settings)) {
    const { model, layer, hook, sae } = settings;
    const request = DirectionsRequest.parse({
      ...{ model, layers: [layer], hook, method, tokens: "all" },
      ...(exchanged ? { positive: negative, negative: positive } : { positive, negative }),
      ...(method === "sae" && sae !== null ? { sae: { set: sae.set, top_k: sae.latents, values: "dif_mean" } } : {}),
    });
    let before = 0;
    try {
      const { layers } = await engine.directions(request, signal, ({ texts }) => {
        read(texts - before);
        before = texts;
      });
      vectors.push({ ...(layers[0] as LayerDirection), method, exchanged });
    } catch (error) {
      if (signal.aborted) return undefined;
      throw error;
    }
  }
  return vectors;
}
