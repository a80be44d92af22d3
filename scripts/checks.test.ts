import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { lockProblems } from "./check-lock.mjs";
import { checkMigrations } from "./checks.ts";
import { ROOT } from "./edge-bundle.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "tiller-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("folder boundaries", () => {
  const FORBIDDEN: Readonly<Record<string, readonly string[]>> = {
    "shared/x.ts": ["../edge/app.ts", "../gpu-functions/cpu/engine.ts", "../bots/x.ts", "../scripts/start.ts", "node:fs", "koffi"],
    "edge/x.ts": [
      "../gpu-functions/cpu/engine.ts",
      "../bots/x.ts",
      "../scripts/start.ts",
      "node:fs",
      "discord.js",
      "onnxruntime-node",
      "koffi",
    ],
    "edge/routes/x.ts": ["../../gpu-functions/cpu/engine.ts", "node:crypto"],
    "edge/test/x.ts": ["../../gpu-functions/cpu/engine.ts"],
    "edge/discord/x.ts": ["../../gpu-functions/cpu/engine.ts", "node:fs", "discord.js"],
    "bots/discord/x.ts": ["../../edge/app.ts", "../../gpu-functions/cpu/engine.ts", "onnxruntime-node", "node:fs", "discord.js"],
    "bots/discord/main.ts": ["../../edge/app.ts", "../../scripts/start.ts"],
    "gpu-functions/cpu/x.ts": ["../../edge/app.ts", "../../bots/x.ts", "../../scripts/start.ts", "cloudflare:workers"],
  };
  const ALLOWED: Readonly<Record<string, readonly string[]>> = {
    "shared/y.ts": ["zod", "./errors.ts"],
    "edge/y.ts": ["../shared/errors.ts", "hono", "cloudflare:workers"],
    "edge/test/y.ts": ["node:fs"],
    "edge/discord/y.ts": ["../../bots/discord/bot.ts"],
    "bots/discord/y.ts": ["../../shared/errors.ts", "@discordjs/rest"],
    "bots/discord/gateway.ts": ["../../shared/errors.ts", "discord.js", "node:fs"],
    "bots/discord/test/y.ts": ["../../../scripts/local-edge.ts", "node:fs", "discord.js"],
    "gpu-functions/cpu/y.ts": ["../../shared/errors.ts", "node:fs", "koffi"],
  };

  it("are kept by the linter: every forbidden import is reported, and no other", async () => {
    for (const file of ["biome.json", "package.json"]) await cp(path.join(ROOT, file), path.join(folder, file));
    for (const [file, imports] of Object.entries({ ...FORBIDDEN, ...ALLOWED })) {
      await mkdir(path.join(folder, path.dirname(file)), { recursive: true });
      await writeFile(path.join(folder, file), imports.map((name) => `import "${name}";\n`).join(""));
    }
    const reported = await lint(folder);
    const expected = Object.entries(FORBIDDEN).flatMap(([file, imports]) => imports.map((_, line) => `${file}:${line + 1}`));
    expect(reported.sort()).toEqual(expected.sort());
  });
});

/** `file:line` of every import that biome's boundary rule reports. */
async function lint(directory: string): Promise<string[]> {
  const biome = path.join(ROOT, "node_modules", "@biomejs", "biome", "bin", "biome");
  const rule = ["--only=style/noRestrictedImports", "--vcs-enabled=false", "--reporter=json", "--max-diagnostics=none"];
  const json = await new Promise<string>((resolve) => {
    // It exits with 1 when there is something to report, which here there is.
    execFile(process.execPath, [biome, "lint", ...rule, "."], { cwd: directory }, (_, stdout) => resolve(stdout));
  });
  const { diagnostics } = JSON.parse(json) as { diagnostics: { location: { path: string; start: { line: number } } }[] };
  return diagnostics.map(({ location }) => `${path.relative(directory, path.resolve(directory, location.path))}:${location.start.line}`);
}

describe("the migrations check", () => {
  it("accepts the migrations of this checkout", async () => {
    expect(await checkMigrations(path.join(ROOT, "migrations"))).toBeUndefined();
  });

  it("refuses a migration that switches foreign keys off", async () => {
    const migrations = path.join(folder, "cascade");
    await cp(path.join(ROOT, "migrations"), migrations, { recursive: true });
    await writeFile(path.join(migrations, "9999_rebuild.sql"), "PRAGMA foreign_keys=OFF;--> statement-breakpoint\nDROP TABLE users;");
    expect(await checkMigrations(migrations)).toMatch(/^9999_rebuild\.sql switches foreign keys off/);
  });

  it("refuses a schema that is ahead of the migrations", async () => {
    const migrations = path.join(folder, "none");
    await mkdir(migrations);
    expect(await checkMigrations(migrations)).toBe("edge/schema.ts has changes without a migration: npm run db:generate.");
  });
});

describe("the lock check", () => {
  const integrity = "sha512-x";

  it("accepts a lock that has every optional package, nested or not", () => {
    const packages = {
      "": { optionalDependencies: { top: "1.0.0" } },
      "node_modules/top": { version: "1.0.0", integrity, optionalDependencies: { near: "^2.0.0", far: "3.0.0" } },
      "node_modules/top/node_modules/near": { version: "2.1.0", integrity },
      "node_modules/far": { version: "3.0.0", integrity },
    };
    expect(lockProblems({ packages })).toEqual([]);
  });

  it("names what is missing, what has another version and what has no checksum", () => {
    const packages = {
      "node_modules/top": { version: "1.0.0", integrity, optionalDependencies: { gone: "1.0.0", other: "2.0.0" } },
      "node_modules/other": { version: "2.0.1" },
    };
    expect(lockProblems({ packages })).toEqual([
      "node_modules/top asks for gone@1.0.0, which the lock lacks",
      "node_modules/top asks for other@2.0.0, the lock has 2.0.1",
      "node_modules/other has no checksum (integrity)",
    ]);
  });
});
