// What `npm start` can be told.
import { parseArgs } from "node:util";

export interface StartOptions {
  readonly help: boolean;
  readonly once: boolean;
  readonly newKey: boolean;
  readonly botKey: boolean;
  readonly port: number;
  readonly enginePort: number;
  /** Model directories; empty = the bundled and the pulled ones. */
  readonly models: readonly string[];
  readonly threads: number | undefined;
  /** Folder of the local database; undefined = the checkout's own. */
  readonly state: string | undefined;
}

export const HELP = `npm start -- [options]

Starts the edge and an engine on this machine, steers a model once, and keeps serving until Ctrl-C.

  --once             stop after the demonstration: exit code 0 when it worked, 1 when it did not
  --port N           where the edge listens (8787; 0 = any free port)
  --engine-port N    where the engine listens (8788; 0 = any free port)
  --model DIR        serve this model directory instead of the bundled and the pulled ones; may be repeated
  --threads N        threads of the engine (all cores)
  --state DIR        where the local database lives (.wrangler/state/v3)
  --new-key          make and print another API key for the local user
  --bot-key          make and print a service key for a Discord bot (npm run bot)
  --help             this text`;

/**
 * Reads the command line.
 * @throws Error, one sentence, for an option that does not exist or a value that makes no sense.
 */
export function parseStartOptions(args: readonly string[]): StartOptions {
  const { values } = readArguments(args);
  return {
    help: values.help ?? false,
    once: values.once ?? false,
    newKey: values["new-key"] ?? false,
    botKey: values["bot-key"] ?? false,
    port: whole("--port", values.port ?? "8787", 0, 65_535),
    enginePort: whole("--engine-port", values["engine-port"] ?? "8788", 0, 65_535),
    models: values.model ?? [],
    threads: values.threads === undefined ? undefined : whole("--threads", values.threads, 1, 1024),
    state: values.state,
  };
}

function readArguments(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        help: { type: "boolean", short: "h" },
        once: { type: "boolean" },
        "new-key": { type: "boolean" },
        "bot-key": { type: "boolean" },
        port: { type: "string" },
        "engine-port": { type: "string" },
        model: { type: "string", multiple: true },
        threads: { type: "string" },
        state: { type: "string" },
      },
    });
  } catch (error) {
    const [sentence] = (error as Error).message.split(". ");
    throw new Error(`${sentence}. See npm start -- --help.`);
  }
}

function whole(option: string, text: string, min: number, max: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= min && value <= max)) throw new Error(`${option} takes a whole number from ${min} to ${max}, not '${text}'.`);
  return value;
}
