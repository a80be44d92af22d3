// Prints the Worker's options for Miniflare as JSON. A process of its own: importing wrangler takes a second and more, which only
// a changed configuration has to pay.
import path from "node:path";
import { unstable_getMiniflareWorkerOptions } from "wrangler";

const { workerOptions } = unstable_getMiniflareWorkerOptions(path.join(path.dirname(import.meta.dirname), "wrangler.toml"));
process.stdout.write(JSON.stringify(workerOptions));
