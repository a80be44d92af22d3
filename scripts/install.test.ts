import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ensureInstalled, explain, fingerprint, installState, layoutOf } from "./install.mjs";

let root: string;
let layout: ReturnType<typeof layoutOf>;

const LOCK = {
  packages: {
    "": { dependencies: { a: "1.0.0" } },
    "node_modules/a": { version: "1.0.0" },
    "node_modules/win": { version: "1.0.0", optional: true },
  },
};

/** A checkout with one package; `npm` is a script that does what it is told. */
async function write(file: string, content: string, mode?: number): Promise<void> {
  await mkdir(path.dirname(path.join(root, file)), { recursive: true });
  await writeFile(path.join(root, file), content, mode === undefined ? {} : { mode });
}

/** Stands in for npm: leaves what `npm ci` leaves, or says something and fails. */
async function fakeNpm(body: string): Promise<void> {
  await write("npm/npm-cli.js", body);
  vi.stubEnv("npm_execpath", path.join(root, "npm", "npm-cli.js"));
  vi.stubEnv("npm_node_execpath", process.execPath);
}

const INSTALLS = `
  const fs = require("node:fs");
  for (const folder of ["node_modules/node/bin", "node_modules/swagger-ui-dist"]) fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync("node_modules/node/bin/node", "#!/bin/sh\\necho v24.0.0\\n", { mode: 0o755 });
  for (const file of ["swagger-ui-bundle.js", "swagger-ui.css"]) fs.writeFileSync("node_modules/swagger-ui-dist/" + file, file);
  fs.appendFileSync("calls", process.argv.slice(2).join(" ") + "\\n");
`;

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), "tiller-"));
  layout = layoutOf(root);
  await write("package.json", JSON.stringify({ dependencies: { a: "1.0.0" } }));
  await write("package-lock.json", JSON.stringify(LOCK));
  await fakeNpm(INSTALLS);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(root, { recursive: true, force: true });
});

const calls = async (): Promise<number> => (await readFile(path.join(root, "calls"), "utf8").catch(() => "")).split("\n").length - 1;
const install = (): Promise<void> => ensureInstalled(layout, () => undefined);

describe.skipIf(process.platform === "win32")("installing", () => {
  it("installs once, puts the pages' files in place, and leaves a current install alone", async () => {
    expect(installState(layout)).toBe("missing");
    await install();
    expect(installState(layout)).toBe("current");
    await install();
    expect(await calls()).toBe(1);
    expect(await readFile(path.join(root, "edge", "assets", "swagger-ui.css"), "utf8")).toBe("swagger-ui.css");
  });

  it("installs again when the lock file has changed", async () => {
    await install();
    await write("package-lock.json", JSON.stringify({ ...LOCK, version: "2" }));
    expect(installState(layout)).toBe("stale");
    await install();
    expect(await calls()).toBe(2);
  });

  it("installs again after an install that was interrupted, even one of a current lock", async () => {
    await install();
    await fakeNpm(`${INSTALLS} process.kill(process.pid, "SIGKILL");`);
    await write("package-lock.json", JSON.stringify({ ...LOCK, version: "2" }));
    await expect(install()).rejects.toThrow("The install was interrupted: start again to finish it.");
    await fakeNpm(INSTALLS);
    await install();
    expect(await calls()).toBe(3);
  });

  it("accepts what somebody's own npm ci left, once npm has finished it", async () => {
    await fakeNpm(INSTALLS);
    await install();
    await rm(layout.stamp);
    expect(installState(layout)).toBe("missing");
    await write("node_modules/.package-lock.json", JSON.stringify({ packages: { "node_modules/a": { version: "1.0.0" } } }));
    expect(installState(layout)).toBe("current");
    await install();
    expect(await calls()).toBe(1);
    expect(await readFile(layout.stamp, "utf8")).toBe(fingerprint(layout));
    await rm(layout.stamp);
    await write("node_modules/.package-lock.json", JSON.stringify({ packages: { "node_modules/a": { version: "0.9.0" } } }));
    expect(installState(layout)).toBe("missing");
  });

  it("installs once when two starts want it at the same time", async () => {
    await Promise.all([install(), install()]);
    expect(await calls()).toBe(1);
  });

  it("takes over from an install whose process is gone", async () => {
    await write(".tiller/install.lock", "2147483646");
    await install();
    expect(await calls()).toBe(1);
  });

  it("says so when install scripts are switched off and the project's own Node is missing", async () => {
    await fakeNpm(INSTALLS.replace("0o755", "0o644"));
    await expect(install()).rejects.toThrow(
      /^npm ran, but node_modules\/node\/bin\/node does not: install scripts are probably switched off/,
    );
  });

  it("says so when npm is not there", async () => {
    vi.stubEnv("npm_execpath", "");
    vi.stubEnv("PATH", path.join(root, "empty"));
    await expect(install()).rejects.toThrow(/^npm was not found: /);
  });
});

describe("what npm says", () => {
  it.each([
    ["npm error code ENOSPC", /^The disk is full/],
    ["npm error code ENOTFOUND\nnpm error network request failed", /^The npm registry cannot be reached/],
    ["npm error code EUSAGE\nMissing: x@ from lock file", /^package\.json and package-lock\.json disagree/],
    ["npm error code EACCES", /^npm may not write here/],
    [
      "npm error something new\nnpm error A complete log of this run can be found in: x",
      /^npm ci failed with code 1; its last words:\n {2}npm error something new$/,
    ],
  ])("becomes a sentence with what to do: %s", (output, sentence) => {
    expect(explain(output, 1)).toMatch(sentence);
  });
});
