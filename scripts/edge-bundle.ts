// The Worker as one script and what it imports besides, with its bindings: made by wrangler and kept by content in .tiller/edge, so that
// the second start needs no bundler.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";

export const ROOT = path.dirname(import.meta.dirname);
const CACHE = path.join(ROOT, ".tiller", "edge");
/** Everything that can change the bundle; edge/assets is read at run time. */
const SOURCES = ["edge", "shared", "bots/discord", "wrangler.toml", ".dev.vars", "package-lock.json", "scripts/edge-options.ts"];
const NOT_BUNDLED = /\.test\.ts$|(^|\/)(assets|test)\/|\.cases\.json$/;
const KEPT = 3;
/** What wrangler puts beside the script, by its ending. */
const BINARIES = { ".wasm": "CompiledWasm", ".ttf": "Data" } as const;

/** Whether a change of this file, a path from the root, makes another bundle. */
export const isSource = (file: string): boolean =>
  SOURCES.some((source) => file === source || file.startsWith(`${source}/`)) && !NOT_BUNDLED.test(file);

/** wrangler asks no one and tells no one: no metrics, no update check, no lookup of where this machine is. */
export const QUIET = {
  WRANGLER_SEND_METRICS: "false",
  WRANGLER_HIDE_BANNER: "true",
  CLOUDFLARE_CF_FETCH_ENABLED: "false",
  X_LOCAL_EXPLORER: "false",
  X_LOCAL_OBSERVABILITY: "false",
};

/** What wrangler makes of wrangler.toml and .dev.vars for Miniflare; JSON, and opaque but for what is named here. */
export interface WorkerOptions {
  readonly bindings: Readonly<Record<string, string>>;
  readonly assets: { readonly directory: string; readonly binding: string };
  readonly [option: string]: unknown;
}

export interface EdgeBundle {
  /** The bundled Worker: an ES module. */
  readonly file: string;
  /** What it imports from beside it, in Miniflare's words. */
  readonly modules: readonly { readonly type: (typeof BINARIES)[keyof typeof BINARIES]; readonly path: string }[];
  readonly options: WorkerOptions;
}

/**
 * Bundles the Worker, or finds the bundle of the same sources.
 * @throws Error with the bundler's words when the Worker does not compile.
 */
export async function bundleEdge(): Promise<EdgeBundle> {
  const folder = path.join(CACHE, await hashSources());
  const [file, optionsFile] = [path.join(folder, "index.js"), path.join(folder, "options.json")];
  if (!existsSync(optionsFile)) {
    // Made aside and renamed: a start that is interrupted, or two at once, leave no half of a bundle.
    const draft = `${folder}.${process.pid}`;
    await mkdir(draft, { recursive: true });
    try {
      const wrangler = path.join(ROOT, "node_modules", "wrangler", "bin", "wrangler.js");
      const [, options] = await Promise.all([
        runNode([wrangler, "deploy", "--dry-run", "--outdir", draft], "The Worker cannot be bundled"),
        runNode([path.join(import.meta.dirname, "edge-options.ts")], "wrangler.toml cannot be read"),
      ]);
      // It may hold the secrets of .dev.vars.
      await writeFile(path.join(draft, "options.json"), options, { mode: 0o600 });
      await rename(draft, folder).catch((error: unknown) => {
        if (!existsSync(optionsFile)) throw error;
      });
    } finally {
      await rm(draft, { recursive: true, force: true });
    }
    await dropOld(folder);
  }
  const modules = (await readdir(folder)).flatMap((name) => {
    const type = BINARIES[path.extname(name) as keyof typeof BINARIES];
    return type === undefined ? [] : [{ type, path: path.join(folder, name) }];
  });
  return { file, modules, options: JSON.parse(await readFile(optionsFile, "utf8")) as WorkerOptions };
}

async function hashSources(): Promise<string> {
  // The options hold absolute paths: a checkout that was moved must not find its old ones.
  const hash = createHash("sha256").update(ROOT);
  const add = async (relative: string): Promise<void> => {
    const content = await readFile(path.join(ROOT, relative)).catch(() => undefined);
    if (content !== undefined) hash.update(`${relative}\0${content.length}\0`).update(content);
  };
  for (const source of SOURCES) {
    if (path.extname(source) !== "" || source.startsWith(".")) {
      await add(source);
      continue;
    }
    const inside = await readdir(path.join(ROOT, source), { recursive: true, withFileTypes: true });
    const files = inside.filter((entry) => entry.isFile()).map((entry) => path.relative(ROOT, path.join(entry.parentPath, entry.name)));
    for (const file of files.sort()) if (!NOT_BUNDLED.test(file)) await add(file);
  }
  return hash.digest("hex").slice(0, 16);
}

async function dropOld(current: string): Promise<void> {
  const folders = await Promise.all(
    (await readdir(CACHE)).map(async (name) => {
      const folder = path.join(CACHE, name);
      return { folder, at: (await stat(folder).catch(() => undefined))?.mtimeMs ?? 0 };
    }),
  );
  const old = folders.filter(({ folder }) => folder !== current).sort((a, b) => b.at - a.at);
  for (const { folder } of old.slice(KEPT - 1)) await rm(folder, { recursive: true, force: true });
}

/** Runs a Node program and returns what it printed; fails with what it complained about. */
export function runNode(args: readonly string[], failure: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd: ROOT, env: { ...process.env, ...QUIET }, stdio: ["ignore", "pipe", "pipe"] });
    let [out, complaint] = ["", ""];
    child.stdout.on("data", (chunk: Buffer) => {
      out += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      complaint += chunk.toString();
    });
    child.once("error", reject);
    child.once("close", (code) => {
      if (code === 0) resolve(out);
      else reject(new Error(`${failure}:\n${(complaint || out).trim()}`));
    });
  });
}
