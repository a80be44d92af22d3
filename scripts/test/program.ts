// A program of this repository as a child process: what it prints, how it ends, and whom it started.
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { ROOT } from "../edge-bundle.ts";

export class Program {
  readonly child: ChildProcess;
  /** Resolves with the exit code, or the signal's name. */
  readonly exited: Promise<number | string>;
  stdout = "";
  stderr = "";
  private readonly waiting = new Set<() => void>();

  constructor(args: readonly string[], env: Readonly<Record<string, string | undefined>> = {}) {
    // What somebody pulled into this checkout is no part of a test.
    const isolated = { ...process.env, TILLER_MODELS: path.join(ROOT, ".tiller", "no-models"), ...env };
    this.child = spawn(process.execPath, args, { cwd: ROOT, env: isolated, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of ["stdout", "stderr"] as const) {
      this.child[stream]?.on("data", (chunk: Buffer) => {
        this[stream] += chunk.toString();
        for (const look of this.waiting) look();
      });
    }
    this.exited = new Promise((resolve) => {
      this.child.once("close", (code, signal) => {
        resolve(signal ?? code ?? -1);
        for (const look of this.waiting) look();
      });
    });
  }

  get pid(): number {
    return this.child.pid as number;
  }

  /** Waits until stdout has what the pattern asks for; fails with all that was printed when the program ends before. */
  async prints(pattern: RegExp): Promise<RegExpExecArray> {
    let ended = false;
    void this.exited.then(() => {
      ended = true;
      for (const look of this.waiting) look();
    });
    return await new Promise((resolve, reject) => {
      const look = (): void => {
        const match = pattern.exec(this.stdout);
        if (match === null && !ended) return;
        this.waiting.delete(look);
        if (match !== null) resolve(match);
        else reject(new Error(`ended without printing ${pattern}:\n${this.stdout}\n${this.stderr}`));
      };
      this.waiting.add(look);
      look();
    });
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<number | string> {
    this.child.kill(signal);
    return await this.exited;
  }
}

interface RunningProcess {
  readonly pid: number;
  readonly parent: number;
  readonly command: string;
}

/** Every process that `pid` started, directly or not. Linux only. */
export function descendantsOf(pid: number): RunningProcess[] {
  const all = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, "utf8");
        // The second field is the name in parentheses, which may hold anything.
        const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
        return [{ pid: Number(name), parent, command: readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ") }];
      } catch {
        return [];
      }
    });
  const children = (parent: number): RunningProcess[] =>
    all.filter((each) => each.parent === parent).flatMap((each) => [each, ...children(each.pid)]);
  return children(pid);
}

export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A process that has ended and whom nobody has waited for still has a number.
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}
