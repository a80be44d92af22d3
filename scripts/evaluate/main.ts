import { runCommand } from "../long-run.ts";
import { runEvaluate } from "./index.ts";

runCommand(runEvaluate);
