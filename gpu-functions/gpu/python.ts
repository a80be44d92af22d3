// Which Python computes, and with what environment.
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";

/** Where scripts/test/install-torch.sh puts PyTorch. */
const INSTALLED = path.join(import.meta.dirname, "..", "..", ".tiller", "torch");

export interface Python {
  readonly command: string;
  readonly env: NodeJS.ProcessEnv;
}

/** PYTHON, or python3; with the PyTorch of this checkout where it was installed. */
export function findPython(environment: NodeJS.ProcessEnv = process.env): Python {
  const paths = [...(existsSync(INSTALLED) ? [INSTALLED] : []), environment.PYTHONPATH ?? ""].filter((part) => part !== "");
  return {
    command: environment.PYTHON || "python3",
    env: { ...environment, PYTHONDONTWRITEBYTECODE: "1", ...(paths.length === 0 ? {} : { PYTHONPATH: paths.join(path.delimiter) }) },
  };
}

/** Whether it has what the engine needs. */
export const hasTorch = (python: Python): Promise<boolean> => hasModule(python, "torch, safetensors");

export const hasModule = ({ command, env }: Python, names: string): Promise<boolean> =>
  new Promise((resolve) => {
    execFile(command, ["-c", `import ${names}`], { env }, (error) => resolve(error === null));
  });
