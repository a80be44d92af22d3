import { runModels } from "./index.ts";

runModels(process.argv.slice(2), (line) => console.log(line)).catch((error: unknown) => {
  console.error((error as Error).message);
  process.exit(1);
});
