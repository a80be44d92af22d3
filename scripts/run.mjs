// `node scripts/run.mjs scripts/x.ts ...`: any TypeScript entry, with what it needs installed.
import { handOver } from "./install.mjs";

const [entry, ...args] = process.argv.slice(2);
if (entry === undefined) {
  console.error("Say which file to run: node scripts/run.mjs scripts/bench/index.ts");
  process.exit(1);
}
await handOver(entry, args);
