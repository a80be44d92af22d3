// A model directory that loads in a moment, with a demonstration: the engine's random fixture model.
import { cp, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { ROOT } from "../edge-bundle.ts";

export const TINY_WIDTH = 48;

/** Makes the directory `<temporary folder>/tiny`. Returns it and an empty folder for the edge's state beside it. */
export async function makeTinyModel(): Promise<{ readonly model: string; readonly state: string; readonly folder: string }> {
  const folder = await mkdtemp(path.join(tmpdir(), "tiller-"));
  const model = path.join(folder, "tiny");
  await cp(path.join(ROOT, "gpu-functions", "fixtures", "tiny-gpt2"), model, { recursive: true });
  const vector = Array.from({ length: TINY_WIDTH }, (_, i) => (i % 3) - 1);
  const demo = {
    prompt: "Once upon a time",
    features: [],
    vectors: [{ vector, hookName: "blocks.1.hook_resid_pre", strength: 6 }],
    temperature: 0.7,
    n_tokens: 12,
    freq_penalty: 1,
    seed: 16,
    strength_multiplier: 1,
  };
  await writeFile(path.join(model, "tiller.json"), JSON.stringify({ id: "tiny", demo }));
  return { model, state: path.join(folder, "state"), folder };
}
