// PyTorch as a baseline: the same shape in a process of its own, asked by turns with the engine.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import path from "node:path";
import { createInterface } from "node:readline";

const SCRIPT = path.join(import.meta.dirname, "torch_baseline.py");

export class TorchBaseline {
  /** As `2.13.0, float32`. */
  readonly description: string;
  private readonly child: ChildProcess;
  private readonly lines: AsyncIterator<string>;

  private constructor(child: ChildProcess, lines: AsyncIterator<string>, description: string) {
    this.child = child;
    this.lines = lines;
    this.description = description;
  }

  /** Builds the model of a config.json. @returns a sentence that says why there is no baseline when there is none. */
  static async start(python: string, configFile: string, threads: number, cacheLength: number): Promise<TorchBaseline | string> {
    if (spawnSync(python, ["-c", "import torch"], { stdio: "ignore" }).status !== 0) {
      return `no PyTorch baseline: '${python}' cannot import torch (name a Python that can with --python)`;
    }
    const child = spawn(python, [SCRIPT, configFile, String(threads), String(cacheLength)], { stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.done === true) return "no PyTorch baseline: its process ended, see above";
    const { version, dtype } = JSON.parse(first.value) as { version: string; dtype: string };
    return new TorchBaseline(child, lines, `${version}, ${dtype}`);
  }

  /** Milliseconds of one prompt. */
  prefill(tokens: number): Promise<number> {
    return this.ask(`prefill ${tokens}`);
  }

  /** Milliseconds per step. */
  decode(rows: number, context: number, steps: number): Promise<number> {
    return this.ask(`decode ${rows} ${context} ${steps}`);
  }

  private async ask(line: string): Promise<number> {
    this.child.stdin?.write(`${line}\n`);
    const answer = await this.lines.next();
    if (answer.done === true) throw new Error("The PyTorch baseline ended; what it printed is above.");
    return Number(answer.value);
  }

  close(): void {
    this.child.stdin?.end();
  }
}
