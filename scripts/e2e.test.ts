import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { curlOf, type SteerBody } from "./demonstration.ts";
import { ROOT } from "./edge-bundle.ts";
import { addModel } from "./models/store.ts";
import { descendantsOf, isRunning, Program } from "./test/program.ts";
import { makeTinyModel } from "./test/tiny-model.ts";

// Whole processes start here, several at a time on a busy machine: what a test of one function may take is no measure.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const START = path.join(ROOT, "scripts", "start.ts");
const ANY_PORTS = ["--port", "0", "--engine-port", "0"];
const SERVING = /Edge on (http:\S+)[\s\S]*Serving until Ctrl-C/;

let tiny: Awaited<ReturnType<typeof makeTinyModel>>;
const programs: Program[] = [];

function start(args: readonly string[]): Program {
  const program = new Program([START, ...ANY_PORTS, "--model", tiny.model, "--state", tiny.state, ...args], { NO_COLOR: "1" });
  programs.push(program);
  return program;
}

beforeAll(async () => {
  tiny = await makeTinyModel();
});
afterEach(async () => {
  for (const program of programs.splice(0)) await program.stop();
});
afterAll(() => rm(tiny.folder, { recursive: true, force: true }));

describe("npm start -- --once", () => {
  it("steers through the edge, shows both texts and ends with 0; the key is shown at the first start only", async () => {
    const first = start(["--once"]);
    expect(await first.exited, first.stderr).toBe(0);
    expect(first.stdout).toMatch(/DEFAULT +│ STEERED\n/);
    expect(first.stdout).toMatch(/Receipt: SIMPLE_ADDITIVE at blocks\.1\.hook_resid_pre, strength 6, changed (\d+) of \1 positions/);
    expect(first.stdout).toMatch(/Key {4}sk-til-[\w-]{43}\n/);
    const second = start(["--once"]);
    expect(await second.exited, second.stderr).toBe(0);
    expect(second.stdout).not.toContain("sk-til-");
    expect(second.stdout).toContain("--new-key");
    const third = start(["--once", "--new-key"]);
    expect(await third.exited, third.stderr).toBe(0);
    expect(third.stdout).toMatch(/Key {4}sk-til-[\w-]{43}\n/);
  });

  it("ends with 1 and a sentence when the steered text is the default text", async () => {
    const file = path.join(tiny.model, "tiller.json");
    const original = await readFile(file, "utf8");
    const still = JSON.parse(original) as { demo: { strength_multiplier: number } };
    still.demo.strength_multiplier = 0;
    await writeFile(file, JSON.stringify(still));
    try {
      const program = start(["--once"]);
      expect(await program.exited).toBe(1);
      expect(program.stderr).toBe(
        "The demonstration failed: the steered text is the default text, so the edit in tiller.json moves nothing.\n",
      );
    } finally {
      await writeFile(file, original);
    }
  });
});

describe.runIf(existsSync("/proc"))("npm start", () => {
  it("serves until Ctrl-C, which leaves no process behind", async () => {
    const program = start([]);
    await program.prints(SERVING);
    const started = descendantsOf(program.pid);
    expect(started.map(({ command }) => command).join("\n")).toMatch(/cpu\/main\.ts[\s\S]*workerd|workerd[\s\S]*cpu\/main\.ts/);
    expect(await program.stop("SIGINT")).toBe(0);
    expect(started.filter(({ pid }) => isRunning(pid))).toEqual([]);
  });

  it("prints a curl that can be pasted into a shell as it is, and the key opens the edge", async () => {
    await rm(tiny.state, { recursive: true, force: true });
    const program = start([]);
    const [, url] = await program.prints(SERVING);
    const curl = /^curl .*$/m.exec(program.stdout)?.[0] ?? "";
    const pasted = await runShell(curl);
    expect(JSON.parse(pasted)).toMatchObject({ DEFAULT: expect.any(String), STEERED: expect.any(String) });
    const key = /sk-til-[\w-]{43}/.exec(program.stdout)?.[0] ?? "";
    const body = /-d '(.*)'$/.exec(curl)?.[1] ?? "";
    const statuses = await Promise.all(
      [key, `${key.slice(0, -1)}${key.endsWith("A") ? "B" : "A"}`].map(async (sent) => {
        const headers = { "content-type": "application/json", "x-api-key": sent };
        return (await fetch(`${url}/api/steer`, { method: "POST", headers, body })).status;
      }),
    );
    expect(statuses).toEqual([200, 401]);
  });

  it("serves pulled models beside the bundled one when they are asked for, and says which cannot be served and why", async () => {
    const store = path.join(tiny.folder, "models");
    await mkdir(path.join(store, "broken"), { recursive: true });
    await writeFile(path.join(store, "broken", "config.json"), JSON.stringify({ model_type: "mamba" }));
    addModel(store, path.join(ROOT, "gpu-functions", "fixtures", "tiny-llama"));
    const program = new Program([START, ...ANY_PORTS, "--state", tiny.state], { NO_COLOR: "1", TILLER_MODELS: store });
    programs.push(program);
    const [, url] = await program.prints(SERVING);
    expect(program.stdout).toContain("Loading tiller-tales. On request: tiny-llama.");
    expect(program.stdout).not.toContain("tiny-llama: weights");
    expect(program.stderr).toMatch(/Not served: broken of .*model_type "mamba" is not supported/);
    const vectors = [{ vector: Array.from({ length: 40 }, (_, i) => Math.sin(i)), hookName: "blocks.1.hook_resid_pre", strength: 9 }];
    const body = JSON.stringify({
      ...{ modelId: "tiny-llama", prompt: "The sun", features: [], vectors, temperature: 0.7 },
      ...{ n_tokens: 4, seed: 1, strength_multiplier: 1 },
    });
    const answer = await fetch(`${url}/api/steer`, { method: "POST", headers: { "content-type": "application/json" }, body });
    expect(answer.status, await answer.clone().text()).toBe(200);
    await program.prints(/tiny-llama: weights .*loaded in/);
  });

  it("starts an engine that died again, on the same address, and the edge goes on", async () => {
    const program = start([]);
    const [, url] = await program.prints(SERVING);
    const engine = descendantsOf(program.pid).find(({ command }) => command.includes("cpu/main.ts"));
    process.kill(engine?.pid as number, "SIGKILL");
    await program.prints(/The engine stopped \(signal SIGKILL\); starting it again\.\n[\s\S]*The engine is back\./);
    const { demo } = JSON.parse(await readFile(path.join(tiny.model, "tiller.json"), "utf8")) as { demo: object };
    const body = JSON.stringify({ modelId: "tiny", ...demo });
    const answer = await fetch(`${url}/api/steer`, { method: "POST", headers: { "content-type": "application/json" }, body });
    expect(answer.status).toBe(200);
  });

  it("ends what it was asked for in the background after a Ctrl-C and another start, as if it had never stopped", async () => {
    const state = path.join(tiny.folder, "jobs-state");
    const serve = async () => {
      const program = new Program([START, ...ANY_PORTS, "--state", state], { NO_COLOR: "1" });
      programs.push(program);
      return { program, url: (await program.prints(SERVING))[1] as string };
    };
    const first = await serve();
    const key = /sk-til-[\w-]{43}/.exec(first.program.stdout)?.[0] ?? "";
    const headers = { "content-type": "application/json", "x-api-key": key };
    const steer = async (url: string, seed: number, more: Record<string, string>) => {
      const body = {
        ...{ prompt: "One day a little girl", modelId: "tiller-tales", n_tokens: 240, temperature: 0.8, seed, strength_multiplier: 1 },
        features: [{ modelId: "tiller-tales", layer: "3-tales-directions", index: 0, strength: 6 }],
      };
      const answer = await fetch(`${url}/api/steer`, { method: "POST", headers: { ...headers, ...more }, body: JSON.stringify(body) });
      expect(answer.ok, await answer.clone().text()).toBe(true);
      return (await answer.json()) as { id: string; STEERED: string; DEFAULT: string };
    };
    const read = async (url: string, id: string) => {
      const job = (await (await fetch(`${url}/api/jobs/${id}`, { headers })).json()) as Record<string, unknown>;
      return job as { state: string; progress: { tokens: number; of: number }; result: { STEERED: string; DEFAULT: string } | null };
    };
    // Two of a user run at once: some are stopped half way, others while they wait.
    const seeds = [1, 2, 3, 4];
    const ids = await Promise.all(seeds.map(async (seed) => (await steer(first.url, seed, { prefer: "respond-async" })).id));
    await vi.waitUntil(async () => (await Promise.all(ids.map((id) => read(first.url, id)))).some(({ progress }) => progress.tokens > 0), {
      timeout: 30_000,
    });
    expect(await first.program.stop("SIGINT")).toBe(0);
    const { url } = await serve();
    expect((await Promise.all(ids.map((id) => read(url, id)))).some(({ state }) => state !== "succeeded")).toBe(true);
    for (const [i, id] of ids.entries()) {
      await vi.waitUntil(async () => (await read(url, id)).state === "succeeded", { timeout: 60_000, interval: 200 });
      const { STEERED, DEFAULT } = await steer(url, seeds[i] as number, {});
      expect((await read(url, id)).result).toMatchObject({ STEERED, DEFAULT });
    }
  });

  it("takes the engine with it even when it is killed", async () => {
    const program = start([]);
    await program.prints(SERVING);
    const started = descendantsOf(program.pid);
    const engine = started.find(({ command }) => command.includes("cpu/main.ts"));
    await program.stop("SIGKILL");
    await vi.waitFor(() => expect(isRunning(engine?.pid as number)).toBe(false), { timeout: 10_000 });
    // workerd has no way to notice; a test must not leave it.
    for (const { pid } of started) if (isRunning(pid)) process.kill(pid, "SIGKILL");
  });
});

describe("npm start, when something is in the way", () => {
  it.each([
    ["edge", "--port"],
    ["engine", "--engine-port"],
  ])("says that the %s's port is in use, and which option chooses another", async (what, option) => {
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(0, "127.0.0.1", resolve));
    const { port } = holder.address() as { port: number };
    const program = start([option, String(port)]);
    expect(await program.exited).toBe(1);
    expect(program.stderr).toBe(
      `Port ${port}, where the ${what} listens, is in use: stop what uses it or choose another: npm start -- ${option} ${port + 10}\n`,
    );
    await new Promise((resolve) => holder.close(resolve));
  });

  it("says which file of a broken model is broken", async () => {
    const file = path.join(tiny.model, "model.safetensors");
    const original = await readFile(file);
    await writeFile(file, original.subarray(0, 5000));
    try {
      const program = start(["--once"]);
      expect(await program.exited).toBe(1);
      expect(program.stderr).toMatch(/^The engine cannot start: .*model\.safetensors: .*truncated\.\n$/);
    } finally {
      await writeFile(file, original);
    }
  });

  it.each([
    [["--model", "nowhere"], /^There is no model in nowhere: /],
    [["--bogus"], /^Unknown option '--bogus'\. See npm start -- --help\.\n$/],
    [["--port", "high"], /^--port takes a whole number from 0 to 65535, not 'high'\.\n$/],
  ])("refuses %j with one sentence", async (args, sentence) => {
    const program = new Program([START, ...args]);
    programs.push(program);
    expect(await program.exited).toBe(1);
    expect(program.stderr).toMatch(sentence);
  });
});

it("quotes a prompt with apostrophes so that a shell takes it as one word", async () => {
  const body = { prompt: "it's 'quoted' $HOME `x` \\", modelId: "m", features: [] } satisfies SteerBody;
  const printed = await runShell(curlOf(body, "http://127.0.0.1:1").replace("curl -s", "printf '%s\\n'"));
  expect(JSON.parse(printed.trim().split("\n").at(-1) ?? "")).toEqual(body);
});

async function runShell(command: string): Promise<string> {
  return await new Promise((resolve, reject) => {
    execFile("sh", ["-c", command], (error, stdout) => (error === null ? resolve(stdout) : reject(error)));
  });
}
