// The process that computes one model's numbers with PyTorch (worker.py has the messages): started, spoken to, and noticed when it dies.
import { type ChildProcess, spawn } from "node:child_process";
import path from "node:path";
import type { Readable, Writable } from "node:stream";
import { TillerError } from "../../shared/errors.ts";
import type { Python } from "./python.ts";

const PACKAGE = path.join(import.meta.dirname, "..");
const LENGTHS = 8;

export interface DeviceSettings {
  readonly directory: string;
  readonly device: "cpu" | "cuda";
  /** As torch calls it. */
  readonly dtype: "float32" | "bfloat16" | "float16";
  readonly slots: number;
  /** Positions of each slot. */
  readonly context: number;
  /** Whether a GPU's steps may go through the fused kernels, where they agree with PyTorch. */
  readonly kernels: boolean;
  /** Threads on a CPU; 0 = torch's own choice. */
  readonly threads: number;
}

/** What comes back: `event` and its fields, and bytes that belong to it. */
export interface Told {
  readonly event: string;
  readonly id?: string;
  readonly [field: string]: unknown;
}
export type Listener = (told: Told, binary: Uint8Array) => void;

/** Milliseconds from the start of the process to the end of each phase, in order. */
export type Phases = Readonly<Record<string, number>>;

export class Device {
  readonly phases: Phases;
  /** What it computes on, in words. */
  readonly name: string;
  readonly pid: number | undefined;
  /** Resolves with the reason when the process has ended, however it did. */
  readonly ended: Promise<string>;
  private readonly child: ChildProcess;
  private readonly listeners = new Map<string, Listener>();

  private constructor(child: ChildProcess, ready: Told, ended: Promise<string>) {
    this.child = child;
    this.pid = child.pid;
    this.phases = ready.phases as Phases;
    this.name = ready.device as string;
    this.ended = ended;
  }

  /** @param log receives what the process writes to its standard error. @throws Error with one sentence when it cannot start. */
  static async start(settings: DeviceSettings, python: Python, log: (line: string) => void): Promise<Device> {
    const child = spawn(python.command, ["-m", "gpu.worker"], { cwd: PACKAGE, env: python.env, stdio: ["pipe", "pipe", "pipe"] });
    const ended = endOf(child, python.command);
    (child.stderr as Readable).setEncoding("utf8").on("data", (text: string) => log(text.trimEnd()));
    const frames = readFrames(child.stdout as Readable);
    // A process that is gone takes no input; `ended` says why.
    (child.stdin as Writable).on("error", () => undefined);
    // It runs in a directory of its own.
    write(child, { ...settings, directory: path.resolve(settings.directory) }, []);
    const first = await Promise.race([frames.next(), ended]);
    if (typeof first === "string") throw new Error(first);
    const ready = first.value?.told;
    if (ready === undefined) throw new Error(await ended);
    if (ready.event !== "ready") throw new Error(String(ready.reason));
    const device = new Device(child, ready, ended);
    void device.listen(frames);
    return device;
  }

  /** Sends a job, and hears of it until `forget`. */
  ask(id: string, fields: object, binary: readonly Uint8Array[], listener: Listener): void {
    this.listeners.set(id, listener);
    this.send({ ...fields, id }, binary);
  }

  send(fields: object, binary: readonly Uint8Array[] = []): void {
    write(this.child, fields, binary);
  }

  forget(id: string): void {
    this.listeners.delete(id);
  }

  /** Ends the process. */
  async close(): Promise<void> {
    (this.child.stdin as Writable).end();
    const timer = setTimeout(() => this.child.kill("SIGKILL"), 5000);
    await this.ended;
    clearTimeout(timer);
  }

  private async listen(frames: AsyncGenerator<Frame>): Promise<void> {
    try {
      for await (const { told, binary } of frames) this.listeners.get(told.id ?? "")?.(told, binary);
    } catch (error) {
      // What cannot be read is never understood again.
      this.child.kill("SIGKILL");
      throw error;
    }
  }
}

/** The failure of everything that ran on a process that is gone. */
export const deviceFailed = (reason: string): TillerError => new TillerError("engine_failed", undefined, { cause: reason });

function endOf(child: ChildProcess, python: string): Promise<string> {
  return new Promise((resolve) => {
    child.once("error", (error: NodeJS.ErrnoException) => {
      const missing = `There is no ${python}: set PYTHON to a Python with PyTorch, or install one (gpu-functions/gpu/README.md)`;
      resolve(error.code === "ENOENT" ? missing : `${python} cannot be started: ${error.message}`);
    });
    child.once("close", (code, signal) => resolve(`The PyTorch process ended (${signal ?? `exit code ${code}`})`));
  });
}

function write(child: ChildProcess, fields: object, binary: readonly Uint8Array[]): void {
  const text = Buffer.from(JSON.stringify(fields));
  const head = Buffer.alloc(LENGTHS);
  head.writeUInt32LE(text.length, 0);
  head.writeUInt32LE(
    binary.reduce((sum, part) => sum + part.length, 0),
    4,
  );
  const stdin = child.stdin as Writable;
  stdin.cork();
  for (const part of [head, text, ...binary]) stdin.write(part);
  stdin.uncork();
}

interface Frame {
  readonly told: Told;
  readonly binary: Uint8Array;
}

async function* readFrames(stream: Readable): AsyncGenerator<Frame> {
  let parts: Buffer[] = [];
  let size = 0;
  let wanted = LENGTHS;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    parts.push(chunk);
    size += chunk.length;
    while (size >= wanted) {
      const all = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
      const [text, binary] = [all.readUInt32LE(0), all.readUInt32LE(4)];
      wanted = LENGTHS + text + binary;
      parts = [all];
      if (size < wanted) break;
      const end = LENGTHS + text;
      // Copied: numbers are read from it as they lie, which needs them aligned.
      const bytes = Uint8Array.prototype.slice.call(all, end, wanted);
      yield { told: JSON.parse(all.toString("utf8", LENGTHS, end)) as Told, binary: bytes };
      parts = [all.subarray(wanted)];
      size -= wanted;
      wanted = LENGTHS;
    }
  }
}
