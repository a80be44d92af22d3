// What `npm test` asks of the checkout before it runs a single test. Each check answers with its complaint, or nothing.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, readdir, readFile, rm } from "node:fs/promises";
import { devNull } from "node:os";
import path from "node:path";
import { lockProblems } from "./check-lock.mjs";
import { QUIET, ROOT } from "./edge-bundle.ts";

export interface Check {
  readonly name: string;
  /** The complaint, with what to do; undefined when all is well. */
  readonly run: () => Promise<string | undefined>;
}

const TYPED = ["tsconfig.json", "edge/tsconfig.json", "edge/test/tsconfig.json"];

export const CHECKS: readonly Check[] = [
  { name: "package-lock.json is complete", run: checkLock },
  { name: "format, lint and folder boundaries", run: () => runTool("@biomejs/biome/bin/biome", ["check", "--error-on-warnings", "."]) },
  { name: "types", run: checkTypes },
  { name: "migrations agree with edge/schema.ts", run: () => checkMigrations(path.join(ROOT, "migrations")) },
  { name: "Env agrees with wrangler.toml", run: checkEnv },
];

async function checkLock(): Promise<string | undefined> {
  const problems = lockProblems(JSON.parse(await readFile(path.join(ROOT, "package-lock.json"), "utf8")));
  return problems.length === 0 ? undefined : problems.join("\n");
}

async function checkTypes(): Promise<string | undefined> {
  const projects = TYPED.filter((project) => existsSync(path.join(ROOT, project)));
  const complaints = await Promise.all(projects.map((project) => runTool("typescript/bin/tsc", ["-p", project])));
  return complaints.find((complaint) => complaint !== undefined);
}

/**
 * Nothing in a migration may switch foreign keys off (D1 ignores it, and the table rebuild that follows deletes the children), and
 * drizzle must have nothing left to generate.
 */
export async function checkMigrations(folder: string): Promise<string | undefined> {
  for (const name of (await readdir(folder)).filter((entry) => entry.endsWith(".sql"))) {
    const sql = await readFile(path.join(folder, name), "utf8");
    if (/foreign_keys\s*=\s*(off|0|false)/i.test(sql)) {
      return `${name} switches foreign keys off, which D1 ignores: dropping the table would delete its children. Use PRAGMA defer_foreign_keys.`;
    }
  }
  const copy = path.join(ROOT, ".tiller", `drift-${process.pid}`);
  await cp(folder, copy, { recursive: true });
  try {
    const before = await readdir(copy);
    // drizzle-kit takes its output folder relative to the working directory only.
    const out = path.relative(ROOT, copy);
    const failed = await runTool("drizzle-kit/bin.cjs", ["generate", "--dialect", "sqlite", "--schema", "edge/*schema.ts", "--out", out]);
    if (failed !== undefined) return failed;
    const made = (await readdir(copy)).filter((name) => !before.includes(name));
    return made.length === 0 ? undefined : "edge/schema.ts has changes without a migration: npm run db:generate.";
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}

async function checkEnv(): Promise<string | undefined> {
  // Without the secrets of somebody's .dev.vars: the file is the same on every machine.
  const args = ["types", "--check", "--env-file", devNull, "--include-runtime=false", "edge/worker-configuration.d.ts"];
  const complaint = await runTool("wrangler/bin/wrangler.js", args);
  return complaint === undefined ? undefined : "edge/worker-configuration.d.ts is out of date: npm run types:env.";
}

/** Runs a program of node_modules. Returns all it printed when it fails. */
function runTool(program: string, args: readonly string[]): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [path.join(ROOT, "node_modules", program), ...args], {
      cwd: ROOT,
      env: { ...process.env, ...QUIET },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        output += chunk.toString();
      });
    }
    child.once("error", reject);
    child.once("close", (code) => resolve(code === 0 ? undefined : output.trim() || `${program} ended with code ${code}.`));
  });
}
