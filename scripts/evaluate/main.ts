import { runEvaluate } from "./index.ts";
import { STOPPED } from "./run.ts";

const controller = new AbortController();
// A terminal sends Ctrl-C to this process and to the one that started it, which passes it on: twice means no more than once.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => controller.abort());

runEvaluate(process.argv.slice(2), {
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
