import { run } from "./index.ts";

run(process.argv.slice(2), {
  environment: process.env,
  say: (line) => console.log(line),
  stdio: "inherit",
  now: () => performance.now(),
}).then(
  // Not left to the event loop: the SDK's close() leaves its channel open.
  (code) => process.exit(code),
  (error: unknown) => {
    console.error((error as Error).message);
    process.exit(1);
  },
);
