import { handOver } from "./install.mjs";

await handOver("scripts/start.ts", process.argv.slice(2));
