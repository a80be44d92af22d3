import { chmodSync, cpSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { loadEngine } from "../../gpu-functions/cpu/engine.ts";
import { newServer } from "../../gpu-functions/cpu/server.ts";
import { encodeFloat32 } from "../../shared/base64.ts";
import { CATALOG } from "../../shared/catalog.ts";
import type { GenerateRequest, GenerateResult } from "../../shared/protocol.ts";
import { ROOT } from "../edge-bundle.ts";
import { Program } from "../test/program.ts";
import { CREDENTIALS, FakeModal } from "./fake-modal.ts";
import { run } from "./index.ts";
import { GPU_MODELS } from "./models.ts";

const ENGINE_TOKEN = "engine-token";
const PROXY = { MODAL_KEY: "wk-right", MODAL_SECRET: "ws-right" };
const WIDTH = 48;
const folder = mkdtempSync(path.join(tmpdir(), "gpu-"));
const vectorFile = path.join(folder, "vector.json");
const vector = Array.from({ length: WIDTH }, (_, i) => Math.cos(i));
/** What `generate` was called with. */
const requests: GenerateRequest[] = [];
/** Headers of the requests that came over HTTP. */
const seen: Record<string, unknown>[] = [];
const modal = new FakeModal();
const closers: (() => Promise<void>)[] = [];
let webUrl: string;
let printed: string[];

/** The class of gpt2-small: its engine is the CPU engine with a tiny model. */
beforeAll(async () => {
  const directory = path.join(folder, "gpt2-small");
  cpSync(path.join(ROOT, "gpu-functions", "fixtures", "tiny-gpt2"), directory, { recursive: true });
  writeFileSync(vectorFile, JSON.stringify(vector));
  const engine = await loadEngine({ directories: [directory], threads: 1 });
  const server = newServer(engine, { token: ENGINE_TOKEN, log: () => undefined });
  server.prependListener("request", (request) => seen.push(request.headers));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  webUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  await modal.start();
  closers.push(
    async () => modal.stop(),
    () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
    () => engine.close(),
  );
});
afterAll(async () => {
  for (const close of closers) await close();
  rmSync(folder, { recursive: true });
});

const generate = async (request: GenerateRequest): Promise<unknown> => {
  requests.push(request);
  const headers = { authorization: `Bearer ${ENGINE_TOKEN}` };
  return (await fetch(`${webUrl}/generate`, { method: "POST", headers, body: JSON.stringify(request) })).json();
};
const ready = () => ({
  status: "ok",
  models: ["gpt2-small"],
  phases: { "gpt2-small": { weights_ms: 1500, import_ms: 1200, self_test_ms: 1550 } },
});

beforeEach(() => {
  printed = [];
  requests.length = 0;
  seen.length = 0;
  modal.kept.clear();
  modal.deployed.clear();
  modal.deployed.set("tiller/Gpt2Small", { methods: { generate, ready }, webUrl: `${webUrl}/`, stats: { backlog: 3, numTotalTasks: 2 } });
  for (const [name, value] of Object.entries(CREDENTIALS)) vi.stubEnv(name, value);
  vi.stubEnv("MODAL_SERVER_URL", modal.url);
  vi.stubEnv("MODAL_CONFIG_PATH", path.join(folder, "no-modal.toml"));
});
afterEach(() => {
  vi.unstubAllEnvs();
});

const gpu = (args: readonly string[], environment: object = {}, stdio: "ignore" | ("ignore" | number)[] = "ignore") => {
  let clock = 0;
  return run(args, {
    environment: { ...process.env, ...environment },
    say: (line) => printed.push(line),
    stdio,
    // Every look at the clock is two seconds later.
    now: () => (clock += 2000),
  });
};
const CALL = ["call", "gpt2-small", "--prompt", "The sun", "--max-tokens", "8"];
const STEER = ["--vector", vectorFile, "--layer", "1", "--strength", "-5"];

describe("the table of models", () => {
  it("has models of the catalogue, under names that Python takes for classes", () => {
    for (const { id, repo } of GPU_MODELS) expect(CATALOG.find((model) => model.id === id)?.repo).toBe(repo);
    const classes = GPU_MODELS.map((model) => model.class);
    expect(new Set(classes).size).toBe(classes.length);
    for (const name of classes) expect(name).toMatch(/^[A-Z][A-Za-z0-9]*$/);
  });
});

describe("call", () => {
  it("generates plain and steered, and shows texts and receipts", async () => {
    expect(await gpu([...CALL, ...STEER, "--seed", "3", "--temperature", "0.9"])).toBe(0);
    expect(requests).toMatchObject([
      {
        ...{ model: "gpt2-small", prompt: "The sun", sampling: { temperature: 0.9, seed: 3 }, max_tokens: 8 },
        rows: [
          { name: "DEFAULT", edits: [] },
          { name: "STEERED", edits: [{ vector: encodeFloat32(vector), point: "blocks.1.hook_resid_pre", strength: -5 }] },
        ],
      },
    ]);
    const answer = (await generate(requests[0] as GenerateRequest)) as GenerateResult;
    const shown = printed.join("\n");
    for (const { name, text } of answer.rows) expect(shown).toContain(`${name}\n${text}\n`);
    expect(shown).toMatch(
      / {2}SIMPLE_ADDITIVE -5 at blocks\.1\.hook_resid_pre: changed (\d+) of \1 positions, by [\d.]+% of the residual on average/,
    );
    expect(printed.at(-1)).toMatch(/^\d+ tokens read, 16 written; /);
  });

  it("generates without a vector too, and prints the whole result as JSON", async () => {
    await gpu([...CALL, "--json"]);
    expect(requests[0]).toMatchObject({ rows: [{ name: "DEFAULT" }], sampling: { temperature: 0.7, seed: 16 } });
    expect((JSON.parse(printed.join("\n")) as GenerateResult).rows).toMatchObject([{ name: "DEFAULT", tokens: { length: 8 } }]);
  });

  it("reads vectors as base64 in lines and as numbers, and takes the place that a file says", async () => {
    const base64 = encodeFloat32(vector);
    for (const [name, text, point] of [
      ["a.txt", `${base64.slice(0, 76)}\n${base64.slice(76)}\n`, "blocks.1.hook_resid_pre"],
      ["b.txt", vector.join("\n"), "blocks.1.hook_resid_pre"],
      ["c.json", JSON.stringify({ vector, hookName: "blocks.1.hook_resid_post" }), "blocks.1.hook_resid_post"],
    ] as const) {
      const file = path.join(folder, name);
      writeFileSync(file, text);
      await gpu([...CALL, "--vector", file, "--strength", "2", ...(name === "c.json" ? [] : ["--layer", "1"])]);
      expect(requests.at(-1)?.rows[1]?.edits).toMatchObject([{ vector: base64, point, strength: 2 }]);
    }
  });

  it("can be started without waiting, and its result fetched when it is there", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    // Wide enough that its request goes through storage.
    const wide = path.join(folder, "wide.json");
    writeFileSync(wide, JSON.stringify(Array(4096).fill(0.5)));
    modal.deployed.set("tiller/Gpt2Small", {
      methods: {
        generate: async (request: GenerateRequest) => {
          requests.push(request);
          await promise;
          return generate({ ...request, rows: request.rows.slice(0, 1) });
        },
      },
      webUrl,
    });
    expect(await gpu([...CALL, "--vector", wide, "--layer", "1", "--strength", "1", "--spawn"])).toBe(0);
    const id = printed[0] as string;
    expect(printed[1]).toContain(`npm run gpu -- call --result ${id}`);
    expect(await gpu(["call", "--result", id])).toBe(2);
    expect(printed.at(-1)).toBe(`Call ${id} is not ready yet.`);
    expect(requests[0]?.rows[1]?.edits[0]?.vector).toBe(encodeFloat32(Array(4096).fill(0.5)));
    resolve();
    // Its answer takes a moment, and nothing else tells when it is there.
    await expect.poll(() => gpu(["call", "--result", id])).toBe(0);
    expect(printed.join("\n")).toMatch(/DEFAULT\n.*\d+ tokens read, 8 written/s);
  });

  it("refuses what it cannot send, before anything is called", async () => {
    const two = path.join(folder, "two.json");
    writeFileSync(two, JSON.stringify([vector, vector]));
    for (const [args, sentence] of [
      [[...CALL, "--vector", vectorFile, "--layer", "1"], "--vector needs --strength X."],
      [[...CALL, "--vector", vectorFile, "--strength", "1"], /does not say where its vector acts: add --layer N\.$/],
      [[...CALL, "--vector", path.join(folder, "c.json"), "--strength", "1", "--layer", "2"], /says that its vector acts at layer 1/],
      [[...CALL, "--vector", two, "--layer", "1", "--strength", "1"], /two\.json holds 2 vectors: give a file of one\.$/],
      [[...CALL, "--vector", "nowhere", "--layer", "1", "--strength", "1"], "nowhere cannot be read (ENOENT)."],
      [[...CALL, "--layer", "1"], "--layer and --strength say how --vector FILE is added."],
      [[...CALL, "--temperature", "3"], /^This cannot be asked for: sampling\.temperature: /],
      [[...CALL, "--temperature", "warm"], "--temperature takes a number, not 'warm'."],
      [[...CALL, "--seed", "1.5"], "--seed takes a whole number, not '1.5'."],
      [[...CALL, "--max-tokens", "0"], "--max-tokens takes a whole number from 1, not '0'."],
      [["call", "gpt2-small"], "call needs --prompt TEXT."],
      [["call", "--result", "fc-1", "--seed", "1"], "call --result takes no --seed: the call was started with it."],
      [["call", "gpt2-small", "--result", "fc-1"], "call --result takes no model: the call was started with it."],
      [[...CALL, "--spawn", "--json"], /^--json shows a result, and --spawn waits for none/],
    ] as const) {
      await expect(gpu(args)).rejects.toThrow(sentence);
    }
    expect(requests).toEqual([]);
  });
});

describe("warm and stats", () => {
  it("show the phases of a start, and keep containers up only when asked to", async () => {
    expect(await gpu(["warm", "gpt2-small"])).toBe(0);
    expect(printed).toEqual([
      "import      1200 ms",
      "weights      300 ms",
      "self test     50 ms",
      "total       1550 ms",
      "'gpt2-small' on L4 is up; it answered after 2.0 s.",
    ]);
    expect(modal.kept).toEqual(new Map());
    await gpu(["warm", "gpt2-small", "--keep", "2"]);
    expect(modal.kept).toEqual(new Map([["tiller/Gpt2Small", 2]]));
    expect(printed.at(-1)).toBe("2 containers stay up until --keep says another number.");
  });

  it("let containers go without starting one", async () => {
    const started = vi.fn(ready);
    modal.deployed.set("tiller/Gpt2Small", { methods: { ready: started }, webUrl });
    await gpu(["warm", "gpt2-small", "--keep", "0"]);
    expect(modal.kept).toEqual(new Map([["tiller/Gpt2Small", 0]]));
    expect(started).not.toHaveBeenCalled();
    await expect(gpu(["warm", "gpt2-small", "--keep", "-1"])).rejects.toThrow("--keep takes a whole number from 0, not '-1'.");
  });

  it("say what waits and what runs of every model, or of those asked for", async () => {
    await gpu(["stats"]);
    expect(printed).toHaveLength(GPU_MODELS.length);
    expect(printed[0]).toMatch(/^gpt2-small +backlog 3, runners 2$/);
    expect(printed[1]).toMatch(/^gemma-2-2b +not deployed$/);
    printed = [];
    await gpu(["stats", "gpt2-small", "llama3.1-8b"]);
    expect(printed).toEqual(["gpt2-small   backlog 3, runners 2", "llama3.1-8b  not deployed"]);
  });
});

describe("deploy", () => {
  const bin = path.join(folder, "bin");
  /** A program of this name that says how it was called. */
  const install = (name: string, script: string) => {
    rmSync(bin, { recursive: true, force: true });
    mkdirSync(bin);
    writeFileSync(path.join(bin, name), `#!/bin/sh\n${script}\n`);
    chmodSync(path.join(bin, name), 0o755);
  };
  const out = path.join(folder, "out.txt");
  const deploy = async (...args: string[]) => {
    const file = openSync(out, "w");
    return gpu(["deploy", ...args], { PATH: bin }, ["ignore", file, file]);
  };
  const row = { models: "gpt2-small", token: "ENGINE_TOKEN", modal: { key: "MODAL_KEY", secret: "MODAL_SECRET" } };

  it("runs Modal's command line, lets its words through, and prints the rows of ENGINES", async () => {
    install("modal", 'echo "$PWD: modal $*, models: $GPU_MODELS"');
    expect(await deploy()).toBe(0);
    expect(readFileSync(out, "utf8")).toBe(`${ROOT}: modal deploy gpu-functions/gpu/modal_app.py, models: \n`);
    expect(JSON.parse(printed[1] as string)).toEqual({ ...row, url: webUrl });
    expect(printed[2]).toBe("gemma-2-2b: not deployed");
    printed = [];
    await deploy("--model", "gpt2-small", "--model", "gemma-2-2b");
    expect(readFileSync(out, "utf8")).toMatch(/models: gpt2-small,gemma-2-2b\n$/);
    expect(printed).toHaveLength(3);
  });

  it("passes a failure's exit code on, and prints no rows", async () => {
    install("modal", "echo no such secret >&2; exit 7");
    expect(await deploy()).toBe(7);
    expect(readFileSync(out, "utf8")).toBe("no such secret\n");
    expect(printed).toEqual([]);
    install("modal", "kill -TERM $$");
    expect(await deploy()).toBe(128 + 15);
  });

  it("takes python3 -m modal where there is no modal, and says how to install it where there is neither", async () => {
    install("python3", 'case "$1" in -c) exit 0;; *) echo "python3 $*";; esac');
    expect(await deploy()).toBe(0);
    expect(readFileSync(out, "utf8")).toBe("python3 -m modal deploy gpu-functions/gpu/modal_app.py\n");
    for (const [name, script] of [
      ["python3", "exit 1"],
      ["other", "exit 0"],
    ] as const) {
      install(name, script);
      await expect(deploy()).rejects.toThrow("Modal's command line is not here: pip install modal, then modal token new.");
    }
  });
});

describe("conformance of a deployed endpoint", () => {
  it("finds the address, sends the credentials, and every check is met", async () => {
    expect([
      await gpu(["conformance", "gpt2-small"], { ENGINE_TOKEN, ...PROXY }),
      ...printed.filter((line) => /FAILED/.test(line)),
    ]).toEqual([0]);
    expect(printed[0]).toBe(`gpt2-small at ${webUrl}`);
    for (const headers of seen) expect(headers).toMatchObject({ "modal-key": "wk-right", "modal-secret": "ws-right" });
  });

  it("asks for the credentials first", async () => {
    await expect(gpu(["conformance", "gpt2-small"], { ENGINE_TOKEN, ...PROXY, MODAL_SECRET: "" })).rejects.toThrow(
      "Set MODAL_SECRET: the endpoint lets nobody in without.",
    );
    expect(seen).toEqual([]);
  });
});

describe("failures are one sentence", () => {
  it("when there are no credentials, or wrong ones", async () => {
    vi.stubEnv("MODAL_TOKEN_SECRET", "as-wrong");
    await expect(gpu(["stats"])).rejects.toThrow(
      /^Modal does not accept these credentials \(Token ID not found\): check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run modal token new\.$/,
    );
    vi.stubEnv("MODAL_TOKEN_SECRET", "");
    await expect(gpu(["stats"])).rejects.toThrow(
      "There are no Modal credentials: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run modal token new.",
    );
  });

  it("when the model is not deployed, or deployed by another checkout", async () => {
    await expect(gpu(["warm", "gemma-2-2b"])).rejects.toThrow("'gemma-2-2b' is not deployed: npm run gpu -- deploy.");
    modal.deployed.set("tiller/Gpt2Small", { methods: { ready: () => ({ status: "ok" }), generate: () => "text" }, webUrl: "" });
    await expect(gpu(["warm", "gpt2-small"])).rejects.toThrow(/is up and does not say what its start took: deploy it again/);
    await expect(gpu(CALL)).rejects.toThrow(/^The answer is no result of a generation .*: deploy this checkout again\.$/);
    await expect(gpu(["conformance", "gpt2-small"], { ENGINE_TOKEN, ...PROXY })).rejects.toThrow(
      /^The class has no HTTP endpoint: deploy it/,
    );
    modal.deployed.set("tiller/Gpt2Small", { methods: {}, webUrl });
    await expect(gpu(CALL)).rejects.toThrow(/^Method 'generate' not found on class: what is deployed is older than this checkout/);
  });

  it("when the model, the call or the command is unknown", async () => {
    await expect(gpu(["warm", "gpt-5"])).rejects.toThrow(
      /^There is no model 'gpt-5' in gpu-functions\/gpu\/models\.json: gpt2-small, gemma/,
    );
    await expect(gpu(["call", "--result", "fc-0"])).rejects.toThrow(/^There is no call 'fc-0', or it is so old/);
    await expect(gpu(["destroy"])).rejects.toThrow("There is no command 'destroy': deploy, warm, stats, call, conformance are there.");
    await expect(gpu(["warm"])).rejects.toThrow("warm takes one model. See npm run gpu -- --help.");
    await expect(gpu(["deploy", "gpt2-small"])).rejects.toThrow("deploy takes its models as --model M, and no other argument.");
    await expect(gpu(["stats", "--gpu", "H100"])).rejects.toThrow(/^Unknown option '--gpu'\. See npm run gpu -- --help\.$/);
    await expect(gpu(["stats", "--keep", "1"])).rejects.toThrow("--keep belongs to warm, not to stats.");
  });

  it("when the container fails", async () => {
    const methods = {
      generate: () => {
        throw new Error("ValueError('There is no layer 99.')");
      },
    };
    modal.deployed.set("tiller/Gpt2Small", { methods, webUrl });
    await gpu([...CALL, "--spawn"]);
    await expect(gpu(["call", "--result", printed[0] as string])).rejects.toThrow(/^The container failed: ValueError/);
    await expect(gpu(CALL)).rejects.toThrow(/^The container failed: ValueError\('There is no layer 99\.'\)$/);
  });

  it("when Modal cannot be reached", async () => {
    vi.stubEnv("MODAL_SERVER_URL", "http://127.0.0.1:9");
    await expect(gpu(["stats", "gpt2-small"])).rejects.toThrow(
      "Modal cannot be reached at http://127.0.0.1:9 (connect ECONNREFUSED 127.0.0.1:9): check the network and run the command again.",
    );
  });
});

describe("the command", () => {
  const start = (...args: string[]) => new Program([path.join("scripts", "gpu", "main.ts"), ...args]);

  it("prints its help, alone or when asked to, and is a process that ends with the exit code", async () => {
    for (const args of [[], ["--help"], ["warm", "-h"]]) {
      expect(await gpu(args)).toBe(0);
      expect(printed.pop()).toMatch(/^npm run gpu -- deploy \| warm MODEL/);
    }
    const program = start("stats", "gpt2-small");
    expect(await program.exited).toBe(0);
    expect(program.stdout).toBe("gpt2-small  backlog 3, runners 2\n");
    const failing = start("call", "--result", "fc-0");
    expect([await failing.exited, failing.stdout, failing.stderr.trim().split("\n").length]).toEqual([1, "", 1]);
  });
});
