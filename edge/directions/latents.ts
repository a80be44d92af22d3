// Labels of the latents that a derivation chose: those that people see and vote on, and else the engine's.
import type { DirectionsResult } from "../../shared/directions.ts";
import type { Labels } from "../features/labels.ts";
import { placeOf } from "../features/store.ts";
import { LIMITS } from "../limits.ts";
import type { DeriveSettings } from "./contract.ts";

/** What was found, its latents with their best labels. */
export async function withLabels(
  found: DirectionsResult,
  { modelId, sourceSet }: Pick<DeriveSettings, "modelId" | "sourceSet">,
  labels: Labels,
): Promise<DirectionsResult> {
  if (sourceSet === undefined) return found;
  const placed = (layer: number, index: number) => ({ modelId, source: `${layer}-${sourceSet}`, index });
  const at = found.layers.flatMap(({ layer, latents = [] }) => latents.map(({ index }) => placed(layer, index)));
  let known: Awaited<ReturnType<Labels["of"]>>;
  try {
    await labels.sync();
    known = await labels.of(at);
  } catch {
    // A vector is not lost for want of a label.
    return found;
  }
  const labelled = (layer: number, latents: NonNullable<DirectionsResult["layers"][number]["latents"]>) =>
    latents.map((latent) => {
      const label = known.get(placeOf(placed(layer, latent.index)))?.[0]?.description ?? latent.label;
      // All of a report has to fit into a row of the database.
      return { ...latent, label: label?.slice(0, LIMITS.labelChars) ?? null };
    });
  return {
    ...found,
    layers: found.layers.map((each) => (each.latents === undefined ? each : { ...each, latents: labelled(each.layer, each.latents) })),
  };
}
