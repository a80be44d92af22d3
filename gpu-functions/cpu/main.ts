// The CPU engine as a process. Besides what process.ts reads: THREADS (all cores), QUANTISE (auto, none or q8).
import { QUANTISE } from "./directory.ts";
import { loadEngine } from "./engine.ts";
import { oneOfWords, serveEngine, wholeNumber } from "./process.ts";

const threads = wholeNumber("THREADS", undefined, 256);
const quantise = oneOfWords("QUANTISE", QUANTISE);

await serveEngine((environment) => loadEngine({ ...environment, threads: threads === 0 ? undefined : threads, quantise }));
