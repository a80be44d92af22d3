// A process that is killed.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { ROOT } from "../edge-bundle.ts";
import { descendantsOf } from "../test/program.ts";

/** A process that is killed and started again at the same address. */
export class Victim {
  readonly name: string;
  kills = 0;
  private readonly args: readonly string[];
  private readonly env: Readonly<Record<string, string>>;
  private readonly ready: RegExp;
  private child: ReturnType<typeof spawn> | undefined;

  constructor(name: string, args: readonly string[], env: Readonly<Record<string, string>>, ready: RegExp) {
    this.name = name;
    this.args = args;
    this.env = env;
    this.ready = ready;
  }

  async start(): Promise<void> {
    const child = spawn(process.execPath, [...this.args], {
      cwd: ROOT,
      env: { ...process.env, ...this.env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.child = child;
    let printed = "";
    await new Promise<void>((resolve, reject) => {
      const look = (chunk: Buffer) => {
        printed += chunk.toString();
        if (this.ready.test(printed)) resolve();
      };
      child.stdout?.on("data", look);
      child.stderr?.on("data", look);
      child.once("exit", () => reject(new Error(`${this.name} ended: ${printed.slice(-500)}`)));
    });
    child.removeAllListeners("exit");
  }

  /** SIGKILL for it and all that it started, and nothing is waited for but its death. */
  async kill(): Promise<void> {
    const { child } = this;
    if (child?.pid === undefined) return;
    const all = [child.pid, ...descendantsOf(child.pid).map(({ pid }) => pid)];
    const gone = once(child, "close");
    for (const pid of all) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has gone with the one before.
      }
    }
    await gone;
    this.kills++;
  }
}
