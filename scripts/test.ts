// `npm test`: the checks, then every test of both vitest projects. Stops at the first check that fails. Its last line is
// "N passed, N failed" and, when there are any, ", N skipped".
//
// npm run check                    runs the checks alone.
// npm test -- <vitest arguments>   runs vitest alone, with these arguments.
import { spawn } from "node:child_process";
import { readFile, rm } from "node:fs/promises";
import path from "node:path";
import { CHECKS } from "./checks.ts";
import { QUIET, ROOT } from "./edge-bundle.ts";
import { countTests, type VitestReport } from "./test-count.ts";

const REPORT = path.join(ROOT, ".tiller", "vitest.json");

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`;

async function main(args: readonly string[]): Promise<number> {
  const begin = performance.now();
  const checksOnly = args.length === 1 && args[0] === "--checks";
  if (args.length === 0 || checksOnly) {
    for (const check of CHECKS) {
      const since = performance.now();
      const complaint = await check.run();
      console.log(`${complaint === undefined ? "ok    " : "FAILED"}  ${check.name} (${seconds(since)})`);
      if (complaint !== undefined) {
        console.error(`\n${complaint}\n`);
        if (!checksOnly) console.log("0 passed, 1 failed");
        return 1;
      }
    }
    if (checksOnly) return 0;
  } else console.log(`Only vitest ${args.join(" ")}; npm test without arguments checks everything.`);
  await rm(REPORT, { force: true });
  const code = await runVitest(args);
  const report = await readFile(REPORT, "utf8").then(
    (json) => JSON.parse(json) as VitestReport,
    () => undefined,
  );
  const { line, failed } = countTests(report, code);
  console.log(`\nAll of it took ${seconds(begin)}.\n${line}`);
  return failed === 0 ? code : 1;
}

function runVitest(args: readonly string[]): Promise<number> {
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${REPORT}`];
  const child = spawn(process.execPath, [path.join(ROOT, "node_modules", "vitest", "vitest.mjs"), "run", ...reporters, ...args], {
    cwd: ROOT,
    env: { ...process.env, ...QUIET },
    stdio: "inherit",
  });
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => resolve(code ?? 1));
  });
}

process.exit(await main(process.argv.slice(2)));
