// The models that Modal has a class for: the table that gpu-functions/gpu/modal_app.py reads too.
import table from "../../gpu-functions/gpu/models.json" with { type: "json" };

export interface GpuModel {
  readonly id: string;
  /** Name of its Modal class. */
  readonly class: string;
  /** What the class runs on, in Modal's words. */
  readonly gpu: string;
  /** Repository on the Hugging Face hub. */
  readonly repo: string;
  readonly dtype: string;
}

export const GPU_MODELS: readonly GpuModel[] = Object.entries(table).map(([id, row]) => ({ id, ...row }));

/** @throws Error naming the models there are. */
export function getGpuModel(id: string): GpuModel {
  const found = GPU_MODELS.find((model) => model.id === id);
  if (found !== undefined) return found;
  throw new Error(
    `There is no model '${id}' in gpu-functions/gpu/models.json: ${GPU_MODELS.map((model) => model.id).join(", ")} are there.`,
  );
}
