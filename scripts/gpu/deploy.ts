// `deploy`: Modal's own command line deploys the app; then the rows that make the edge use it.
import { spawn, spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { constants as system } from "node:os";
import path from "node:path";
import { ROOT } from "../edge-bundle.ts";
import type { Io } from "./io.ts";
import { NotDeployed, openModal } from "./modal.ts";
import { GPU_MODELS, type GpuModel } from "./models.ts";

const APP_FILE = path.join("gpu-functions", "gpu", "modal_app.py");
/** Names of the secrets that the edge reads the credentials from. */
const SECRETS = { token: "ENGINE_TOKEN", modal: { key: "MODAL_KEY", secret: "MODAL_SECRET" } };

/**
 * Deploys the app with these models, or with all.
 * @returns Modal's exit code.
 * @throws Error, one sentence, when Modal's command line is not here or the app cannot be looked up.
 */
export async function deploy(models: readonly GpuModel[] | undefined, io: Io): Promise<number> {
  const command = findModal(io.environment);
  const chosen = models === undefined ? {} : { GPU_MODELS: models.map(({ id }) => id).join(",") };
  const code = await runProgram([...command, "deploy", APP_FILE], { ...io.environment, ...chosen }, io);
  if (code === 0) await sayRows(models ?? GPU_MODELS, io);
  return code;
}

/** The program and its first arguments. */
function findModal(environment: Io["environment"]): readonly [string, ...string[]] {
  if (isOnPath("modal", environment)) return ["modal"];
  const search = "import importlib.util, sys; sys.exit(importlib.util.find_spec('modal') is None)";
  if (spawnSync("python3", ["-c", search], { env: environment, stdio: "ignore" }).status === 0) return ["python3", "-m", "modal"];
  throw new Error("Modal's command line is not here: pip install modal, then modal token new.");
}

function isOnPath(program: string, { PATH = "" }: Io["environment"]): boolean {
  return PATH.split(path.delimiter).some((folder) => {
    try {
      accessSync(path.join(folder, program), constants.X_OK);
      return folder !== "";
    } catch {
      return false;
    }
  });
}

function runProgram([program, ...args]: readonly [string, ...string[]], env: Io["environment"], { stdio }: Io): Promise<number> {
  const child = spawn(program, args, { cwd: ROOT, env, stdio });
  // Ctrl-C reaches the child too: this process stays until it has cleaned up.
  const wait = () => undefined;
  process.on("SIGINT", wait);
  return new Promise<number>((resolve, reject) => {
    child.once("error", (error) => reject(new Error(`${program} cannot be started: ${error.message}.`)));
    child.once("close", (code, signal) => resolve(signal === null ? (code ?? 1) : 128 + system.signals[signal]));
  }).finally(() => process.off("SIGINT", wait));
}

/** One row of ENGINES a line. */
async function sayRows(models: readonly GpuModel[], { say }: Io): Promise<void> {
  const modal = await openModal();
  say(`\nFor ENGINES of the edge, whose secrets are ENGINE_TOKEN, and MODAL_KEY and MODAL_SECRET of a proxy auth token:`);
  for (const model of models) {
    try {
      const url = await (await modal.getClass(model)).getUrl();
      say(JSON.stringify({ models: model.id, url, ...SECRETS }));
    } catch (error) {
      if (!(error instanceof NotDeployed)) throw error;
      say(`${model.id}: not deployed`);
    }
  }
}
