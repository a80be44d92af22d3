// The real engine, as its own process, with the model that the repository ships.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

export interface CpuEngine {
  readonly url: string;
  readonly token: string;
  /** Ends the process at once, as a crash would. */
  kill(): Promise<void>;
  close(): Promise<void>;
}

const TOKEN = "test-engine-token";

/** Starts `gpu-functions/cpu/main.ts` on a free port and waits until it says that it is ready. */
export async function startCpuEngine(): Promise<CpuEngine> {
  const child = spawn(process.execPath, ["gpu-functions/cpu/main.ts"], {
    env: { ...process.env, PORT: "0", ENGINE_TOKEN: TOKEN },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const port = await readPort(child);
  const end = async (signal: NodeJS.Signals) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill(signal);
    await exited;
  };
  return { url: `http://127.0.0.1:${port}`, token: TOKEN, kill: () => end("SIGKILL"), close: () => end("SIGTERM") };
}

async function readPort(child: ChildProcess): Promise<number> {
  if (child.stdout === null) throw new Error("The engine has no standard output.");
  const lines = createInterface({ input: child.stdout });
  for await (const line of lines) {
    const ready = /"port":\s*(\d+)/.exec(line);
    if (ready === null) continue;
    lines.close();
    child.stdout.resume();
    return Number(ready[1]);
  }
  throw new Error("The CPU engine ended before it was ready.");
}
