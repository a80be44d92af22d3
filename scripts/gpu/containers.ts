// `warm` and `stats`: the containers that run the models.
import { z } from "zod";
import { table } from "../bench/frame.ts";
import type { Io } from "./io.ts";
import { type Modal, NotDeployed, openModal } from "./modal.ts";
import { GPU_MODELS, type GpuModel } from "./models.ts";

/** What `ready` answers, as /health does, as far as it is shown: by model, when each phase of its start was over, in milliseconds. */
const Ready = z.object({ phases: z.record(z.string(), z.record(z.string(), z.number())) });

/** Starts a container, if none is up, and shows the phases of its start. `keep` containers stay up; 0 lets them go and starts none. */
export async function warm(model: GpuModel, keep: number | undefined, { say, now }: Io): Promise<void> {
  const deployed = await (await openModal()).getClass(model);
  if (keep !== undefined) {
    await deployed.keep(keep);
    if (keep === 0) return say(`No container of '${model.id}' stays up: each stops when nobody has called it for a while.`);
  }
  const asked = now();
  const phases = Ready.safeParse(await deployed.call("ready")).data?.phases[model.id];
  const waited = now() - asked;
  if (phases === undefined)
    throw new Error(`'${model.id}' is up and does not say what its start took: deploy it again with npm run gpu -- deploy.`);
  const ends = Object.entries(phases).sort(([, a], [, b]) => a - b);
  const durations = ends.map(([phase, end], i) => [phase.replace(/_ms$/, "").replaceAll("_", " "), end - (ends[i - 1]?.[1] ?? 0)] as const);
  const rows = [...durations, ["total", ends.at(-1)?.[1] ?? 0] as const];
  for (const line of table(rows.map(([phase, ms]) => [phase, `${Math.round(ms)} ms`]))) say(line);
  say(`'${model.id}' on ${model.gpu} is up; it answered after ${(waited / 1000).toFixed(1)} s.`);
  if (keep !== undefined) say(`${keep === 1 ? "1 container stays" : `${keep} containers stay`} up until --keep says another number.`);
}

/** One line per model. */
export async function stats(models: readonly GpuModel[], { say }: Io): Promise<void> {
  const modal = await openModal();
  const shown = models.length > 0 ? models : GPU_MODELS;
  const width = Math.max(...shown.map(({ id }) => id.length)) + 2;
  const lines = await Promise.all(shown.map(async (model) => model.id.padEnd(width) + (await describe(model, modal))));
  for (const line of lines) say(line);
}

async function describe(model: GpuModel, modal: Modal): Promise<string> {
  try {
    const { backlog, runners } = await (await modal.getClass(model)).stats();
    return `backlog ${backlog}, runners ${runners}`;
  } catch (error) {
    if (error instanceof NotDeployed) return "not deployed";
    throw error;
  }
}
