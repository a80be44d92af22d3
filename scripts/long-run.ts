// A command that runs for long: stopped by a signal it ends well, with what it has found so far kept.
import type { ProgressOptions } from "./models/progress.ts";

/** The outcome of a run whose signal came before its end. */
export const STOPPED = "stopped";
export type Outcome = "done" | typeof STOPPED;

export interface RunOptions {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly progress: ProgressOptions;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
  readonly date: () => Date;
}

/** Runs a command with this process's arguments and terminal; its exit status is the process's. */
export function runCommand(command: (args: readonly string[], options: RunOptions) => Promise<Outcome>): void {
  const controller = new AbortController();
  // A terminal sends Ctrl-C to this process and to the one that started it, which passes it on: twice means no more than once.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => controller.abort());
  command(process.argv.slice(2), {
    environment: process.env,
    progress: { live: process.stdout.isTTY === true, write: (text) => process.stdout.write(text), now: () => performance.now() },
    say: (line) => console.log(line),
    signal: controller.signal,
    date: () => new Date(),
  }).then(
    (outcome) => {
      if (outcome === STOPPED) process.exitCode = 130;
    },
    (error: unknown) => {
      console.error((error as Error).message);
      process.exit(1);
    },
  );
}
