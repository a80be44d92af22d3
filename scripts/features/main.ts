import { runCommand } from "../long-run.ts";
import { runFeatures } from "./index.ts";

runCommand(runFeatures);
