// The CPU engine as a child process: started, watched, started again when it dies, stopped.
import { type ChildProcess, spawn } from "node:child_process";
import path from "node:path";
import { createInterface } from "node:readline";
import { ROOT } from "./edge-bundle.ts";
import { HOST } from "./ports.ts";

const ENTRY = path.join(ROOT, "gpu-functions", "cpu", "main.ts");
/** After SIGTERM an engine has this long to end its streams. */
const STOP_MS = 5000;
const RESTARTS = 3;
/** An engine that ran this long was well: its next death is a new story. */
const HEALTHY_MS = 60_000;

export interface EngineSettings {
  /** 0 = any free port. */
  readonly port: number;
  readonly token: string;
  /** Model directories. */
  readonly models: readonly string[];
  /** How many of them are loaded at the start, in order; absent = all that fit. */
  readonly warm?: number | undefined;
  /** Absent = every core. */
  readonly threads?: number | undefined;
  /** The program to run; absent = the CPU engine. */
  readonly entry?: string | undefined;
}

export interface LocalEngine {
  readonly url: string;
  /** Ids of the models it serves. */
  readonly models: readonly string[];
  readonly pid: number;
  /** Resolves when the process is gone, with why. */
  readonly exited: Promise<string>;
  stop(): Promise<void>;
  /** Stops it without waiting for anything. */
  kill(): void;
}

/**
 * Starts the engine and waits until it serves.
 * @throws Error, one sentence, when it ends before that.
 */
export async function startEngine(settings: EngineSettings): Promise<LocalEngine> {
  const child = spawn(process.execPath, [settings.entry ?? ENTRY], {
    // The channel tells the engine when this process is gone, however it went.
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    // Its own process group: Ctrl-C in the terminal reaches this process alone, which then stops things in order.
    detached: process.platform !== "win32",
    env: {
      ...process.env,
      HOST,
      PORT: String(settings.port),
      ENGINE_TOKEN: settings.token,
      MODELS: settings.models.join(","),
      ...(settings.threads === undefined ? {} : { THREADS: String(settings.threads) }),
      ...(settings.warm === undefined ? {} : { WARM: String(settings.warm) }),
    },
  });
  let ready = false;
  let complaint = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    if (ready) process.stderr.write(chunk);
    else complaint += chunk.toString();
  });
  const exited = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`));
  });
  const started = new Promise<{ port: number; models: string[] }>((resolve) => {
    const lines = createInterface({ input: child.stdout as NonNullable<ChildProcess["stdout"]> });
    lines.on("line", (line) => {
      if (ready || !line.startsWith("{")) process.stdout.write(`${line}\n`);
      else {
        ready = true;
        resolve(JSON.parse(line) as { port: number; models: string[] });
      }
    });
  });
  const failed = exited.then((why) => {
    throw new Error(lastWords(complaint) ?? `The engine did not start: ${why}.`);
  });
  const { port, models } = await Promise.race([started, failed]);
  failed.catch(() => undefined);
  return {
    url: `http://${HOST}:${port}`,
    models,
    pid: child.pid as number,
    exited,
    kill: () => child.kill("SIGKILL"),
    async stop() {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
      await exited;
      clearTimeout(timer);
    },
  };
}

/** The last line that says something; a stack's own lines do not. */
function lastWords(complaint: string): string | undefined {
  const lines = complaint.split("\n").map((line) => line.trim());
  return lines.findLast((line) => line !== "" && !line.startsWith("at ") && !/^Node\.js v|^[{}]/.test(line))?.replace(/^\w*Error: /, "");
}

/** Keeps an engine alive: after a death it is started again on the same port, a few times, a little later each time. */
export class EngineKeeper {
  current: LocalEngine;
  private stopping = false;
  private readonly settings: EngineSettings;
  private readonly say: (sentence: string) => void;
  private readonly giveUp: (sentence: string) => void;

  constructor(first: LocalEngine, settings: EngineSettings, say: (sentence: string) => void, giveUp: (sentence: string) => void) {
    this.current = first;
    this.settings = { ...settings, port: Number(new URL(first.url).port) };
    this.say = say;
    this.giveUp = giveUp;
    void this.watch();
  }

  private async watch(): Promise<void> {
    for (let restarts = 0; ; restarts++) {
      const since = performance.now();
      const why = await this.current.exited;
      if (this.stopping) return;
      if (performance.now() - since > HEALTHY_MS) restarts = 0;
      if (restarts >= RESTARTS)
        return this.giveUp(`The engine stopped again (${why}); it was restarted ${RESTARTS} times, so this is the end.`);
      this.say(`The engine stopped (${why}); starting it again.`);
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** restarts));
      if (this.stopping) return;
      try {
        this.current = await startEngine(this.settings);
      } catch (error) {
        return this.giveUp((error as Error).message);
      }
      // Stopped while it was starting: `stop` saw the engine before this one.
      if (this.stopping) {
        await this.current.stop();
        return;
      }
      this.say("The engine is back.");
    }
  }

  async stop(): Promise<void> {
    this.stopping = true;
    await this.current.stop();
  }

  kill(): void {
    this.stopping = true;
    this.current.kill();
  }
}
