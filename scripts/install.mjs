// What runs before any dependency exists: plain Node >= 20, no packages. It makes node_modules agree with package-lock.json, only
// when it does not already, and hands over to the project's own Node, which runs TypeScript as it is.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const MIN_NODE = 20;
/** node_modules takes about 930 MB; npm needs some room of its own besides. */
const NEEDED_BYTES = 1.1e9;
const REPORT_EVERY_MS = 5000;
/** Served by the Worker for /docs, so that the page works without the network. */
const SWAGGER_FILES = ["swagger-ui-bundle.js", "swagger-ui.css"];

export const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** Where everything of one checkout is: tests point it at a checkout of their own. */
export const layoutOf = (root) => ({
  root,
  modules: path.join(root, "node_modules"),
  stamp: path.join(root, "node_modules", ".tiller-install"),
  lock: path.join(root, ".tiller", "install.lock"),
  node: path.join(root, "node_modules", "node", "bin", process.platform === "win32" ? "node.exe" : "node"),
  assets: path.join(root, "edge", "assets"),
});

/** A failure whose message is the whole story: one sentence, no stack. */
export class InstallError extends Error {}

/** What an install depends on, as a hash: the two package files and the machine's kind. */
export function fingerprint(layout) {
  const hash = createHash("sha256").update(`${process.platform} ${process.arch}\n`);
  for (const file of ["package.json", "package-lock.json"]) hash.update(readFileSync(path.join(layout.root, file)));
  return hash.digest("hex");
}

/** `current`, or why an install is needed: `missing` (also: interrupted) or `stale`. */
export function installState(layout) {
  const stamped = readText(layout.stamp);
  if (stamped === fingerprint(layout) && existsSync(layout.node)) return "current";
  if (!existsSync(layout.node)) return "missing";
  if (installedByHand(layout)) return "current";
  return stamped === undefined ? "missing" : "stale";
}

/**
 * Whether somebody's own `npm ci` or `npm install` left what the lock file asks for. npm writes node_modules/.package-lock.json as
 * its last act, so an interrupted run does not count.
 */
function installedByHand(layout) {
  const done = readText(path.join(layout.modules, ".package-lock.json"));
  if (done === undefined) return false;
  const wanted = JSON.parse(readText(path.join(layout.root, "package-lock.json")) ?? "{}").packages ?? {};
  const have = JSON.parse(done).packages ?? {};
  const asked = JSON.parse(readText(path.join(layout.root, "package.json")) ?? "{}");
  const root = wanted[""] ?? {};
  // A changed package.json with an old lock must reach npm, which says what is wrong.
  for (const group of ["dependencies", "devDependencies"]) {
    if (JSON.stringify(root[group] ?? {}) !== JSON.stringify(asked[group] ?? {})) return false;
  }
  return Object.entries(wanted).every(
    ([name, entry]) => name === "" || (have[name] === undefined ? entry.optional === true : have[name].version === entry.version),
  );
}

const readText = (file) => {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
};

/**
 * Makes node_modules what package-lock.json says, when it is not already; puts the pages' files in place.
 * @throws InstallError with one sentence that says what to do.
 */
export async function ensureInstalled(layout = layoutOf(ROOT), say = console.log) {
  const major = Number(process.versions.node.split(".")[0]);
  if (major < MIN_NODE) {
    throw new InstallError(
      `This is Node ${process.versions.node}; Tiller needs Node ${MIN_NODE} or newer: get it from https://nodejs.org.`,
    );
  }
  if (installState(layout) !== "current") {
    const release = await takeLock(layout, say);
    try {
      // Asked again: another start may have installed while this one waited.
      const state = installState(layout);
      if (state !== "current") await install(layout, state, say);
    } finally {
      release();
    }
  }
  if (readText(layout.stamp) !== fingerprint(layout)) {
    copyPages(layout);
    // Last: whatever interrupts what comes before makes the next start do it again.
    writeFileSync(layout.stamp, fingerprint(layout));
  } else if (SWAGGER_FILES.some((file) => !existsSync(path.join(layout.assets, file)))) {
    copyPages(layout);
  }
}

function copyPages(layout) {
  mkdirSync(layout.assets, { recursive: true });
  for (const file of SWAGGER_FILES) copyFileSync(path.join(layout.modules, "swagger-ui-dist", file), path.join(layout.assets, file));
}

/** One install at a time per checkout. Returns the function that lets go. */
async function takeLock(layout, say) {
  mkdirSync(path.dirname(layout.lock), { recursive: true });
  let told = false;
  for (;;) {
    try {
      writeFileSync(layout.lock, String(process.pid), { flag: "wx" });
      return () => rmSync(layout.lock, { force: true });
    } catch (error) {
      if (error.code !== "EEXIST") throw new InstallError(`${layout.lock} cannot be written (${error.code}): make this folder writable.`);
    }
    const holder = Number(readText(layout.lock));
    if (!(holder > 0 && isAlive(holder))) {
      rmSync(layout.lock, { force: true });
      continue;
    }
    if (!told) say(`Another install of this checkout is running (process ${holder}): waiting for it.`);
    told = true;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

async function install(layout, state, say) {
  const { bavail, bsize } = statfsSync(layout.root);
  if (state === "missing" && bavail * bsize < NEEDED_BYTES) {
    throw new InstallError(
      `The packages need about 1 GB and ${Math.round((bavail * bsize) / 1e6)} MB are free here: make room and start again.`,
    );
  }
  const why = state === "missing" ? "not installed yet" : "older than package-lock.json";
  say(`Packages are ${why}: running npm ci (about 930 MB on disk, half a minute to a few minutes).`);
  rmSync(layout.stamp, { force: true });
  const started = Date.now();
  const seconds = () => Math.round((Date.now() - started) / 1000);
  const timer = setInterval(() => say(`  still installing, ${seconds()} s`), REPORT_EVERY_MS);
  try {
    await runNpm(layout, ["ci", "--include=dev", "--no-audit", "--no-fund", "--loglevel=error"]);
  } finally {
    clearInterval(timer);
  }
  const version = spawnSync(layout.node, ["--version"], { encoding: "utf8" });
  if (version.status !== 0) {
    throw new InstallError(
      `npm ran, but ${path.relative(layout.root, layout.node)} does not: install scripts are probably switched off (npm config get ignore-scripts).`,
    );
  }
  say(`Packages installed in ${seconds()} s.`);
}

/** npm as it was called, on the Node it was called with: the project's own Node is among the files that npm ci replaces. */
function runNpm(layout, args) {
  const cli = process.env.npm_execpath ?? "";
  const direct = path.basename(cli) === "npm-cli.js" && existsSync(cli);
  const ownBin = path.join(layout.modules, ".bin");
  const env = {
    ...process.env,
    PATH: (process.env.PATH ?? "")
      .split(path.delimiter)
      .filter((entry) => path.resolve(entry) !== ownBin)
      .join(path.delimiter),
    // onnxruntime-node bundles all that the CPU needs; its install script would fetch the CUDA files.
    ONNXRUNTIME_NODE_INSTALL: "skip",
  };
  const systemNode = process.env.npm_node_execpath;
  const node = systemNode !== undefined && existsSync(systemNode) ? systemNode : process.execPath;
  const [command, prefix] = direct ? [node, [cli]] : ["npm", []];
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...prefix, ...args], {
      cwd: layout.root,
      env,
      stdio: ["ignore", "pipe", "pipe"],
      // npm is a .cmd file on Windows, which only a shell can start.
      shell: !direct && process.platform === "win32",
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
    let interrupted = false;
    const forward = (signal) => {
      interrupted = true;
      child.kill(signal);
    };
    process.on("SIGINT", forward).on("SIGTERM", forward);
    child.once("error", (error) => {
      const missing = error.code === "ENOENT";
      reject(
        new InstallError(
          missing
            ? "npm was not found: install Node from https://nodejs.org, npm comes with it."
            : `npm cannot be started: ${error.message}`,
        ),
      );
    });
    child.once("close", (code, signal) => {
      process.off("SIGINT", forward).off("SIGTERM", forward);
      if (code === 0) resolve();
      else
        reject(
          new InstallError(
            interrupted || signal !== null ? "The install was interrupted: start again to finish it." : explain(output, code),
          ),
        );
    });
  });
}

/** npm's failure as one sentence with what to do about it. */
export function explain(output, code) {
  if (/ENOSPC/.test(output)) return "The disk is full: make about 1 GB of room and start again.";
  if (/EACCES|EPERM|EROFS/.test(output))
    return "npm may not write here: give yourself this folder (node_modules may belong to another user) and start again.";
  if (/ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ENOTCACHED|ERR_SOCKET_TIMEOUT/.test(output)) {
    return "The npm registry cannot be reached: connect to the internet (or set a proxy or mirror in ~/.npmrc) and start again.";
  }
  if (/EUSAGE/.test(output)) return "package.json and package-lock.json disagree: run npm install, look at the difference and start again.";
  const last = output
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.includes("A complete log of this run"));
  return [`npm ci failed with code ${code}; its last words:`, ...last.slice(-8).map((line) => `  ${line}`)].join("\n");
}

/**
 * Installs what is missing, then runs a TypeScript file on the project's own Node: arguments, signals and exit code pass through.
 * A failure to install is one sentence on stderr and exit code 1.
 */
export async function handOver(entry, args) {
  const layout = layoutOf(ROOT);
  try {
    await ensureInstalled(layout);
  } catch (error) {
    if (!(error instanceof InstallError)) throw error;
    console.error(error.message);
    process.exit(1);
  }
  const file = path.join(ROOT, entry);
  if (process.versions.node === readText(path.join(layout.modules, "node", "package.json"))?.match(/"version": "([^"]+)"/)?.[1]) {
    process.argv = [process.execPath, file, ...args];
    await import(pathToFileURL(file).href);
    return;
  }
  // With the channel the child learns when this process is gone, however it went.
  const child = spawn(layout.node, [file, ...args], { stdio: ["inherit", "inherit", "inherit", "ipc"] });
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"];
  const forward = (signal) => child.kill(signal);
  for (const signal of signals) process.on(signal, forward);
  child.once("error", (error) => {
    console.error(`The project's own Node cannot be started (${error.message}): delete node_modules and start again.`);
    process.exit(1);
  });
  child.once("exit", (code, signal) => {
    for (const name of signals) process.off(name, forward);
    if (signal !== null) process.kill(process.pid, signal);
    else process.exit(code ?? 1);
  });
}
