import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadEngine } from "../../gpu-functions/cpu/engine.ts";
import { SIDECAR } from "../../gpu-functions/cpu/sidecar.ts";
import { GenerateRequest } from "../../shared/protocol.ts";
import { ROOT } from "../edge-bundle.ts";
import { hubSettings } from "./hub.ts";
import { runModels } from "./index.ts";
import { Progress } from "./progress.ts";
import { type PullOptions, pull } from "./pull.ts";
import { addModel, removeModel, storedModels } from "./store.ts";

const FIXTURES = path.join(ROOT, "gpu-functions", "fixtures");
const REPO = "someone/tiny-gpt2";
const TOKEN = "hf_secret";

/** The hub's two calls that are used, with the files it is given; large ones lie on another host, as the real hub's do. */
class LocalHub {
  /** By repository. */
  readonly repos = new Map<string, Map<string, Uint8Array>>();
  readonly requests: { path: string; range: string | undefined; authorization: string | undefined; host: "hub" | "store" }[] = [];
  /** Answers instead of the hub where it returns true. */
  intervene: (request: IncomingMessage, response: ServerResponse, file: string) => boolean = () => false;
  private readonly servers: Server[] = [];
  endpoint = "";
  private storage = "";

  async start(): Promise<void> {
    this.storage = await this.listen((request, response) => this.send(request, response, "store"));
    this.endpoint = await this.listen((request, response) => this.answer(request, response));
  }

  private async listen(handle: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
    const server = createServer(handle);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    this.servers.push(server);
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    await Promise.all(
      this.servers.map((server) => {
        server.closeAllConnections();
        return new Promise((resolve) => server.close(resolve));
      }),
    );
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    const url = decodeURIComponent(new URL(request.url ?? "/", this.endpoint).pathname);
    const tree = /^\/api\/models\/([^/]+\/[^/]+)\/tree\/main\/?(.*)$/.exec(url);
    if (tree === null) {
      this.send(request, response, "hub");
      return;
    }
    const [, repo = "", folder = ""] = tree;
    const files = this.repos.get(repo);
    if (this.intervene(request, response, "tree")) return;
    if (files === undefined) {
      response.writeHead(401).end(JSON.stringify({ error: "Invalid username or password." }));
      return;
    }
    const prefix = folder === "" ? "" : `${folder}/`;
    const below = [...files].filter(([name]) => name.startsWith(prefix));
    const folders = new Set(
      below.flatMap(([name]) => (name.slice(prefix.length).includes("/") ? [prefix + name.slice(prefix.length).split("/")[0]] : [])),
    );
    const entries = [
      ...[...folders].map((name) => ({ type: "directory", oid: "0", size: 0, path: name })),
      ...below
        .filter(([name]) => !name.slice(prefix.length).includes("/"))
        .map(([name, bytes]) => ({ type: "file", path: name, size: bytes.length, ...hashes(name, bytes) })),
    ];
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(entries));
  }

  private send(request: IncomingMessage, response: ServerResponse, host: "hub" | "store"): void {
    const url = decodeURIComponent(new URL(request.url ?? "/", "http://x").pathname);
    const [, repo = "", file = ""] = /^\/([^/]+\/[^/]+)\/resolve\/main\/(.*)$/.exec(url) ?? [];
    this.requests.push({ path: file, range: request.headers.range, authorization: request.headers.authorization, host });
    if (this.intervene(request, response, file)) return;
    const bytes = this.repos.get(repo)?.get(file);
    if (bytes === undefined) {
      response.writeHead(404).end();
      return;
    }
    if (host === "hub" && file.endsWith(".safetensors")) {
      response.writeHead(302, { location: this.storage + request.url }).end();
      return;
    }
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    const headers = from > 0 ? { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {};
    response.writeHead(from > 0 ? 206 : 200, headers).end(bytes.subarray(from));
  }
}

function hashes(name: string, bytes: Uint8Array) {
  const git = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
  if (!/\.(safetensors|npz)$/.test(name)) return { oid: git };
  return { oid: git, lfs: { oid: createHash("sha256").update(bytes).digest("hex"), size: bytes.length, pointerSize: 130 } };
}

/** Every file of a directory, by its path. */
function filesOf(directory: string, prefix = ""): Map<string, Uint8Array> {
  return new Map(
    readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
      const name = path.join(directory, entry.name);
      return entry.isDirectory()
        ? [...filesOf(name, `${prefix}${entry.name}/`)]
        : ([[prefix + entry.name, readFileSync(name)]] as [string, Uint8Array][]);
    }),
  );
}

let hub: LocalHub;
let store: string;
let waits: number[];
let printed: string[];
beforeEach(async () => {
  hub = new LocalHub();
  await hub.start();
  hub.repos.set(REPO, filesOf(path.join(FIXTURES, "tiny-gpt2")));
  store = mkdtempSync(path.join(tmpdir(), "store-"));
  waits = [];
  printed = [];
});
afterEach(async () => {
  await hub.stop();
  rmSync(store, { recursive: true, force: true });
});

const options = (more: Partial<PullOptions> = {}): PullOptions => ({
  hub: { endpoint: hub.endpoint, token: TOKEN },
  store,
  revision: "main",
  sources: [],
  quantise: "auto",
  progress: { live: false, write: (text) => printed.push(text), now: () => 0 },
  say: (line) => printed.push(line),
  sleep: async (ms) => {
    waits.push(ms);
  },
  ...more,
});
const asked = (file: string) => hub.requests.filter((request) => request.path === file);
const WEIGHTS = "model.safetensors";

/** Three greedy tokens of the model in a directory. */
async function generates(directory: string, edits: GenerateRequest["rows"][number]["edits"] = []): Promise<string> {
  const engine = await loadEngine({ directories: [directory], threads: 1 });
  try {
    const model = path.basename(directory);
    const sampling = { temperature: 0, seed: 1 };
    const request = GenerateRequest.parse({ model, prompt: "The sun", rows: [{ name: "A", edits }], sampling, max_tokens: 3 });
    for await (const { event, data } of engine.generate(request, new AbortController().signal))
      if (event === "done") return data.rows[0]?.text as string;
    throw new Error("no answer");
  } finally {
    await engine.close();
  }
}

describe("pulling a model", () => {
  it("brings the files that are needed and no others, and what comes generates", async () => {
    hub.repos
      .get(REPO)
      ?.set("pytorch_model.bin", new Uint8Array(99))
      .set("onnx/model.onnx", new Uint8Array(9))
      .set("README.md", new Uint8Array(9));
    const directory = await pull(REPO, options());
    expect(readdirSync(directory).sort()).toEqual([
      "config.json",
      "generation_config.json",
      "hub.json",
      WEIGHTS,
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    for (const [name, bytes] of filesOf(path.join(FIXTURES, "tiny-gpt2"))) expect(readFileSync(path.join(directory, name))).toEqual(bytes);
    expect(await generates(directory)).toBe(await generates(path.join(FIXTURES, "tiny-gpt2")));
    hub.requests.length = 0;
    await pull(REPO, options());
    expect(hub.requests).toEqual([]);
  });

  it("shows how far it is", async () => {
    await pull(REPO, options());
    expect(printed.join("")).toMatch(/4 files 100%, \d+ kB of \d+ kB/);
    expect(printed.join("")).toMatch(/model\.safetensors 100%/);
  });

  it("sends the token to the hub, and not to the host that the hub sends it on to", async () => {
    await pull(REPO, options());
    expect(new Set(hub.requests.filter(({ host }) => host === "hub").map(({ authorization }) => authorization))).toEqual(
      new Set([`Bearer ${TOKEN}`]),
    );
    expect(asked(WEIGHTS).filter(({ host }) => host === "store")).toEqual([
      { path: WEIGHTS, range: undefined, authorization: undefined, host: "store" },
    ]);
  });

  it("goes on where a connection broke, without fetching anything twice", async () => {
    const bytes = hub.repos.get(REPO)?.get(WEIGHTS) as Uint8Array;
    const cut = 100_000;
    const part = path.join(store, "tiny-gpt2", `${WEIGHTS}.part`);
    hub.intervene = (request, response, file) => {
      const onStore = asked(WEIGHTS).at(-1)?.host === "store";
      if (file !== WEIGHTS || request.headers.range !== undefined || !onStore) return false;
      response.writeHead(200, { "content-length": bytes.length });
      response.write(bytes.subarray(0, cut));
      // The connection breaks when what was sent has arrived: a reset can take with it what is still on its way.
      const breakOff = () => (statSync(part, { throwIfNoEntry: false })?.size === cut ? request.socket.destroy() : setImmediate(breakOff));
      breakOff();
      return true;
    };
    const directory = await pull(REPO, options());
    const ranges = asked(WEIGHTS)
      .filter(({ host }) => host === "store")
      .map(({ range }) => range);
    expect(ranges).toEqual([undefined, `bytes=${cut}-`]);
    expect(readFileSync(path.join(directory, WEIGHTS))).toEqual(Buffer.from(bytes));
  });

  it("goes on in a later run with what an earlier one left", async () => {
    const bytes = hub.repos.get(REPO)?.get(WEIGHTS) as Uint8Array;
    const directory = path.join(store, "tiny-gpt2");
    mkdirSync(directory);
    writeFileSync(path.join(directory, `${WEIGHTS}.part`), bytes.subarray(0, 5000));
    await pull(REPO, options());
    expect(asked(WEIGHTS)[0]?.range).toBe("bytes=5000-");
    expect(readFileSync(path.join(directory, WEIGHTS))).toEqual(Buffer.from(bytes));
  });

  it("begins again when the hub sends a whole file instead of the rest", async () => {
    const bytes = hub.repos.get(REPO)?.get(WEIGHTS) as Uint8Array;
    mkdirSync(path.join(store, "tiny-gpt2"));
    writeFileSync(path.join(store, "tiny-gpt2", `${WEIGHTS}.part`), new Uint8Array(5000));
    hub.intervene = (_, response, file) => {
      if (file !== WEIGHTS) return false;
      response.writeHead(200).end(bytes);
      return true;
    };
    const directory = await pull(REPO, options());
    expect(readFileSync(path.join(directory, WEIGHTS))).toEqual(Buffer.from(bytes));
  });

  it("refuses bytes that are not those the hub lists, and keeps none of them", async () => {
    for (const file of [WEIGHTS, "config.json"]) {
      const right = hub.repos.get(REPO)?.get(file) as Uint8Array;
      hub.intervene = (_, response, name) => {
        if (name !== file) return false;
        response.writeHead(200).end(Buffer.from(right).fill(7, 10, 11));
        return true;
      };
      await expect(pull(REPO, options())).rejects.toThrow(`${REPO}/${file} arrived damaged`);
      expect(readdirSync(path.join(store, "tiny-gpt2")).filter((name) => name.startsWith(file))).toEqual([]);
      hub.intervene = () => false;
      await pull(REPO, options());
      rmSync(path.join(store, "tiny-gpt2"), { recursive: true });
    }
  });

  it("waits as long as a busy hub asks, and gives up with a sentence when it goes on", async () => {
    let refusals = 2;
    hub.intervene = (_, response, file) => {
      if (file !== "config.json" || refusals-- <= 0) return false;
      response.writeHead(429, { "retry-after": "7" }).end();
      return true;
    };
    await pull(REPO, options());
    expect(waits).toEqual([7000, 7000]);
    rmSync(path.join(store, "tiny-gpt2"), { recursive: true });
    refusals = 1000;
    await expect(pull(REPO, options())).rejects.toThrow(/config\.json could not be fetched: the hub answered 429.*run the command again/s);
  });

  it.each([
    [401, undefined, /does not exist or is private: check its name, or set HF_TOKEN/],
    [401, TOKEN, /does not accept HF_TOKEN/],
    [403, TOKEN, /is gated: open http:\/\/127\.0\.0\.1:\d+\/someone\/tiny-gpt2, accept its licence/],
    [404, TOKEN, /There is no someone\/tiny-gpt2/],
    [429, undefined, /fewer requests: try again later, or set HF_TOKEN/],
    [500, TOKEN, /The hub answered 500/],
  ])("explains the hub's %i (token %s)", async (status, token, sentence) => {
    for (const refused of ["tree", "config.json"]) {
      if (refused === "config.json" && (status === 429 || status === 500)) continue;
      hub.intervene = (_, response, file) => {
        if (file !== refused) return false;
        response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify({ error: "no" }));
        return true;
      };
      const failure = await pull(REPO, options({ hub: { endpoint: hub.endpoint, token } })).catch((error: unknown) => error as Error);
      expect((failure as Error).message).toMatch(sentence);
      expect((failure as Error).message).not.toContain(TOKEN);
    }
  });

  it("says where to accept the licence of a known model, and when the hub cannot be reached", async () => {
    await expect(pull("gemma-2-2b", options({ hub: { endpoint: hub.endpoint, token: undefined } }))).rejects.toThrow(
      /google\/gemma-2-2b wants a licence accepted: open .*set HF_TOKEN/,
    );
    const nobody = hubSettings({ HF_ENDPOINT: "http://127.0.0.1:9/" });
    await expect(pull(REPO, options({ hub: nobody }))).rejects.toThrow(/http:\/\/127\.0\.0\.1:9 cannot be reached: /);
    expect(() => hubSettings({ HF_ENDPOINT: "ftp://x" })).toThrow(/HF_ENDPOINT must be an http\(s\) address/);
  });

  it("refuses what the engine cannot run before the weights are fetched", async () => {
    const files = hub.repos.get(REPO) as Map<string, Uint8Array>;
    const config = JSON.parse(Buffer.from(files.get("config.json") as Uint8Array).toString()) as object;
    files.set("config.json", Buffer.from(JSON.stringify({ ...config, model_type: "mamba" })));
    await expect(pull(REPO, options())).rejects.toThrow(/does not run "mamba" models; it runs gpt2, gpt_neo, llama/);
    expect(asked(WEIGHTS)).toEqual([]);
    files.delete(WEIGHTS);
    files.set("pytorch_model.bin", new Uint8Array(9));
    await expect(pull(REPO, options())).rejects.toThrow(/has no \*\.safetensors\. It has PyTorch's pickled weights/);
    files.delete("tokenizer.json");
    await expect(pull(REPO, options())).rejects.toThrow(/has no tokenizer\.json/);
    await expect(pull("no such thing", options())).rejects.toThrow(/not in the catalogue/);
    await expect(pull("../x/y", options())).rejects.toThrow(/not in the catalogue/);
    expect(readdirSync(path.dirname(store))).not.toContain("y");
  });

  it("takes both tokenizer files of another repository where the model has none of its own", async () => {
    const files = hub.repos.get(REPO) as Map<string, Uint8Array>;
    hub.repos.set("EleutherAI/gpt-neo-125M", new Map(files));
    const model = new Map(files);
    model.delete("tokenizer.json");
    model.set("tokenizer_config.json", Buffer.from("{}"));
    hub.repos.set("roneneldan/TinyStories-33M", model);
    const directory = await pull("TinyStories-33M", options());
    for (const name of ["tokenizer.json", "tokenizer_config.json"])
      expect(readFileSync(path.join(directory, name))).toEqual(Buffer.from(files.get(name) as Uint8Array));
  });

  it("writes nothing into a directory that was only linked", async () => {
    const mine = path.join(store, "elsewhere", "tiny-gpt2");
    cpSync(path.join(FIXTURES, "tiny-gpt2"), mine, { recursive: true });
    addModel(store, mine);
    await expect(pull(REPO, options())).rejects.toThrow(/'tiny-gpt2' in the store is a link to a directory of yours/);
    expect(hub.requests).toEqual([]);
  });

  it("makes 8-bit blocks and says what they cost", async () => {
    const directory = await pull(REPO, options({ quantise: "q8" }));
    expect(existsSync(path.join(directory, SIDECAR))).toBe(true);
    expect(printed.join("\n")).toMatch(/weights in 8-bit blocks 100%, 0\.\d million of 0\.\d million/);
    expect(printed.join("\n")).toMatch(/KL divergence \d\.\de-\d nats a token on average/);
  });
});

describe("pulling autoencoders", () => {
  /** The tiny model under a catalogue model's name. */
  const asCatalogModel = (id: string, files: Map<string, Uint8Array>) => hub.repos.set(id, files);
  const sae = (id: string) => filesOf(path.join(FIXTURES, "saes", "sources", id));
  const within = (folder: string, files: Map<string, Uint8Array>) =>
    [...files].map(([name, bytes]) => [`${folder}/${name}`, bytes] as const);

  it("brings those of the layers that are asked for, with what their files do not say", async () => {
    asCatalogModel("openai-community/gpt2", filesOf(path.join(FIXTURES, "tiny-gpt2")));
    const published = sae("2-res-jb");
    published.delete("overrides.json");
    hub.repos.set(
      "jbloom/GPT2-Small-SAEs-Reformatted",
      new Map([...within("blocks.2.hook_resid_pre", published), ["blocks.2.hook_resid_pre/sparsity.safetensors", new Uint8Array(4)]]),
    );
    const directory = await pull("gpt2-small", options({ sources: ["res-jb:2"] }));
    const source = path.join(directory, "sources", "2-res-jb");
    expect(readdirSync(source).sort()).toEqual(["cfg.json", "overrides.json", "sae_weights.safetensors"]);
    const feature = { model: "gpt2-small", source: "2-res-jb", index: 3 };
    const edit = { method: "LATENT_CLAMP", feature, strength: 9, positions: "all", schedule: "constant" } as const;
    expect(await generates(directory, [edit])).toEqual(expect.any(String));
    expect(readFileSync(path.join(source, "overrides.json"), "utf8")).toContain("center_writing_weights");
  });

  it("takes Gemma Scope's autoencoder with the sparsity closest to 100", async () => {
    asCatalogModel("google/gemma-2-2b", filesOf(path.join(FIXTURES, "tiny-gpt2")));
    const npz = sae("1-gemma-scope");
    const folders = ["average_l0_22", "average_l0_102", "average_l0_97", "average_l0_300"];
    hub.repos.set("google/gemma-scope-2b-pt-res", new Map(folders.flatMap((name) => within(`layer_1/width_16k/${name}`, npz))));
    await pull("gemma-2-2b", options({ sources: ["gemmascope-res-16k:1"] }));
    expect(asked("layer_1/width_16k/average_l0_102/params.npz")).toHaveLength(1);
    expect(existsSync(path.join(store, "gemma-2-2b", "sources", "1-gemmascope-res-16k", "params.npz"))).toBe(true);
  });

  it("says which sets and layers there are, before anything is fetched", async () => {
    await expect(pull("gpt2-small", options({ sources: ["res-xx:1"] }))).rejects.toThrow(/no sources 'res-xx' in the catalogue: res-jb/);
    await expect(pull("gpt2-small", options({ sources: ["res-jb"] }))).rejects.toThrow(
      /--source res-jb:6 or res-jb:all; there are 0 to 11/,
    );
    await expect(pull("gpt2-small", options({ sources: ["res-jb:12"] }))).rejects.toThrow(/'res-jb' has no layer '12'; it has 0 to 11/);
    await expect(pull(REPO, options({ sources: ["res-jb:1"] }))).rejects.toThrow(/it has none/);
    expect(hub.requests).toEqual([]);
  });
});

describe("the store", () => {
  it("links directories, tells what cannot be served and why, and removes without touching what a link points to", () => {
    const mine = path.join(FIXTURES, "tiny-llama");
    expect(addModel(store, mine)).toBe("tiny-llama");
    expect(() => addModel(store, mine)).toThrow(/in the store already/);
    expect(() => addModel(store, path.join(FIXTURES, "saes"))).toThrow(/There is no model in/);
    mkdirSync(path.join(store, "broken"));
    writeFileSync(path.join(store, "broken", "config.json"), JSON.stringify({ model_type: "mamba" }));
    const [broken, linked] = storedModels(store);
    expect(broken).toMatchObject({ id: "broken", linked: false, problem: expect.stringMatching(/model_type "mamba" is not supported/) });
    expect(linked).toMatchObject({ id: "tiny-llama", linked: true, problem: undefined });
    expect(removeModel(store, "tiny-llama")).toBe(0);
    expect(existsSync(path.join(mine, "config.json"))).toBe(true);
    expect(removeModel(store, "broken")).toBeGreaterThan(0);
    expect(storedModels(store)).toEqual([]);
    expect(() => removeModel(store, "broken")).toThrow(/no model 'broken' in the store. It holds: none/);
    for (const id of ["..", "a/b", ".hidden", ""]) expect(() => removeModel(store, id)).toThrow(/is no model id/);
  });

  it("is told what to do by a command line that is checked", async () => {
    const run = (...args: string[]) => runModels(args, (line) => printed.push(line));
    await run("--help");
    expect(printed.join()).toMatch(/list \| pull NAME \| add DIR \| remove ID/);
    await run("list");
    expect(printed.join("\n")).toMatch(/gpt2-small +openai-community\/gpt2 +12 layers of 768 +res-jb/);
    await expect(run("fetch", "x")).rejects.toThrow(/no command 'fetch'/);
    await expect(run("pull")).rejects.toThrow(/pull takes one name/);
    await expect(run("list", "--source", "x")).rejects.toThrow(/belong to pull/);
    await expect(run("pull", "gpt2-small", "--quantise", "q4")).rejects.toThrow(/auto, none, q8, not 'q4'/);
    await expect(run("pull", "x", "--magic")).rejects.toThrow(/Unknown option '--magic'/);
  });
});

describe("progress", () => {
  it("tells share, rate and time left, and does not count as fast what was there before", () => {
    let now = 0;
    const lines: string[] = [];
    const progress = new Progress("x", 4e6, { live: true, write: (text) => lines.push(text), now: () => now });
    progress.skip(1e6);
    for (let i = 0; i < 4; i++) {
      now += 500;
      progress.add(250_000);
    }
    expect(lines.at(-1)).toBe("\r\x1b[K  x 50%, 2 MB of 4 MB, 500 kB/s, 4 s left");
    progress.add(2e6);
    progress.end();
    expect(lines.slice(-2).join("")).toMatch(/100%, 4 MB of 4 MB.*\n$/);
  });
});
