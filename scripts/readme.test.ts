// The README is run, not believed: every fenced block is a command that works, a body that is accepted, or an answer of the shape
// that really comes.
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { CATALOG } from "../shared/catalog.ts";
import { QUIET, ROOT } from "./edge-bundle.ts";
import { HELP as MODELS_HELP } from "./models/index.ts";
import { HELP, parseStartOptions } from "./start-options.ts";
import { Program } from "./test/program.ts";

// Whole processes start here, several at a time on a busy machine: what a test of one function may take is no measure.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const ADDRESS = "http://127.0.0.1:8787";

interface Block {
  readonly language: string;
  readonly text: string;
  readonly line: number;
}

const readme = readFileSync(path.join(ROOT, "README.md"), "utf8");
const blocks: readonly Block[] = [...readme.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map((match) => ({
  language: match[1] ?? "",
  text: (match[2] ?? "").trimEnd(),
  line: readme.slice(0, match.index).split("\n").length,
}));
const commands = blocks.filter(({ language }) => language === "sh");

let folder: string;
let program: Program;
let url: string;
/** What the first start prints: `$TILLER_KEY` of the commands. */
let key: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "tiller-"));
  const args = ["--port", "0", "--engine-port", "0", "--state", path.join(folder, "state")];
  program = new Program([path.join(ROOT, "scripts", "start.ts"), ...args], { NO_COLOR: "1" });
  const [, address, secret] = await program.prints(/Edge on (\S+)[\s\S]*Key {4}(\S+)[\s\S]*Serving until Ctrl-C/);
  [url, key] = [address as string, secret as string];
});
afterAll(async () => {
  await program.stop();
  await rm(folder, { recursive: true, force: true });
});

describe("the README", () => {
  it("has only blocks that this test knows how to run", () => {
    expect([...new Set(blocks.map(({ language }) => language))].sort()).toEqual(["ini", "json", "python", "sh", "text"]);
  });

  it("shows what npm start prints", () => {
    const shown = blocks.find(({ language, text }) => language === "text" && text.includes("STEERED"))?.text ?? "";
    expect(outline(shown)).toEqual(outline(program.stdout));
  });

  it("shows the help as it is", () => {
    expect(blocks.map(({ text }) => text)).toContain(HELP);
  });

  it.each(commands.flatMap(({ text, line }) => splitCommands(text).map((command) => ({ line, command }))))(
    "line $line: the command works: $command",
    async ({ command }) => {
      await checkCommand(command);
    },
  );

  it.each(pairs("json"))("line $answer.line: the answer has the shape that really comes", async ({ command, answer }) => {
    const actual: unknown = JSON.parse(await runShell(atServer(command.text)));
    expect(shapeOf(JSON.parse(answer.text))).toEqual(shapeOf(actual));
  });

  it("streams one event per token with the delta mode it shows", async () => {
    const command = commands.find(({ text }) => text.includes('"stream_mode": "delta"'));
    const events = (await runShell(atServer(command?.text ?? ""))).split("\n\n").filter((event) => event !== "");
    expect(events.length).toBeGreaterThan(2);
    expect(events.slice(0, -1).every((event) => event.startsWith("event: token\n"))).toBe(true);
    expect(events.at(-1)).toMatch(/^event: done\n/);
  });

  it("has a Python call that gets both texts", async () => {
    const python = blocks.find(({ language }) => language === "python")?.text ?? "";
    const printed = await runPython(python.replace(ADDRESS, url));
    expect(printed).toMatch(/^DEFAULT: [\s\S]+^STEERED: /m);
  });

  it("has settings whose ENGINES are what the edge reads", () => {
    const settings = blocks.find(({ language }) => language === "ini")?.text ?? "";
    const json = /^ENGINES='(.*)'$/m.exec(settings)?.[1] ?? "";
    const rows = JSON.parse(json) as { token: string }[];
    expect(rows.map((row) => Object.keys(row).sort())).toEqual(rows.map(() => ["models", "token", "url"]));
    expect(settings).toContain(`${rows[0]?.token}=`);
  });

  it("names folders and files that exist", async () => {
    const named = [...readme.matchAll(/^\| `([\w-]+\/[\w/-]*)` \|/gm)].map((match) => match[1] as string);
    expect(named.length).toBeGreaterThan(5);
    for (const each of named) await expect(readFile(path.join(ROOT, each)), each).rejects.toThrow("EISDIR");
  });
});

/** A command block and the block that comes right after it, when that is of the language. */
function pairs(language: string): { command: Block; answer: Block }[] {
  return blocks.flatMap((command, i) => {
    const answer = blocks[i + 1];
    return command.language === "sh" && answer?.language === language ? [{ command, answer }] : [];
  });
}

const atServer = (command: string): string => command.replaceAll(ADDRESS, url);

/** Commands of a block: a line that leaves a quote open goes on. */
function splitCommands(block: string): string[] {
  const found: string[] = [];
  let open = "";
  for (const line of block.split("\n")) {
    open = open === "" ? line : `${open}\n${line}`;
    if ((open.match(/'/g) ?? []).length % 2 === 1) continue;
    found.push(open);
    open = "";
  }
  return found;
}

async function checkCommand(command: string): Promise<void> {
  const [start, rest = ""] = command.split(" -- ");
  if (start === "npm start") parseStartOptions(rest.split(" ").filter(Boolean));
  else if (command.startsWith("npm ")) await checkScript(command);
  else if (command.startsWith("curl ")) expect(await runShell(`${atServer(command)} --max-time 20`)).not.toBe("");
  else if (command.startsWith("npx wrangler ")) await checkWrangler(command.slice("npx wrangler ".length));
  else if (/^(\w+=\S+ )*npx node /.test(command)) await checkEngine(command);
  else throw new Error(`nothing here knows how to check: ${command}`);
}

async function checkScript(command: string): Promise<void> {
  const { scripts } = JSON.parse(await readFile(path.join(ROOT, "package.json"), "utf8")) as { scripts: Record<string, string> };
  const [name = "", ...args] = command.replace(/^npm (run )?/, "").split(/ -- | /);
  expect(scripts).toHaveProperty(name);
  if (name === "models") checkModels(args);
  if (name === "features") expect(args.length).toBeGreaterThanOrEqual(3);
  if (name === "bench")
    for (const arg of args) expect((await readFile(path.join(ROOT, "scripts", "bench", `${arg}.ts`))).length).toBeGreaterThan(0);
}

/** What is pulled is in the catalogue, layer by layer. */
function checkModels([verb, model, ...options]: string[]): void {
  expect(MODELS_HELP).toContain(verb);
  if (verb !== "pull") return;
  const known = CATALOG.find(({ id }) => id === model);
  expect(known, model).toBeDefined();
  for (const [i, option] of options.entries()) {
    if (option.startsWith("--")) expect(MODELS_HELP).toContain(option);
    if (options[i - 1] !== "--source") continue;
    const [set, layers = ""] = option.split(":");
    const source = known?.sources?.find((each) => each.set === set);
    expect(source?.layers).toEqual(expect.arrayContaining(layers.split(",").map(Number)));
  }
}

/** wrangler knows the command: its own help describes it. Running it would need an account. */
async function checkWrangler(command: string): Promise<void> {
  const words = command.split(" ");
  const verbs = words.slice(0, words[0] === "d1" ? (words[1] === "migrations" ? 3 : 2) : words[0] === "secret" ? 2 : 1);
  const wrangler = path.join(ROOT, "node_modules", "wrangler", "bin", "wrangler.js");
  const help = await run(process.execPath, [wrangler, ...verbs, "--help"]);
  expect(help).toContain(`wrangler ${verbs.join(" ")}`);
  for (const option of words.filter((word) => word.startsWith("--"))) expect(help).toContain(option);
}

/** Starts the engine the command starts, on a free port. */
async function checkEngine(command: string): Promise<void> {
  const words = command.split(" ");
  const env = Object.fromEntries(words.filter((word) => /^\w+=/.test(word)).map((word) => word.split("=") as [string, string]));
  const engine = new Program([path.join(ROOT, words.at(-1) as string)], { ...env, PORT: "0" });
  await engine.prints(/^\{"port":\d+,"models":\[.*\]\}$/m);
  expect(await engine.stop()).toBe(0);
}

/** The beginnings of the lines that every start prints, in order. */
function outline(output: string): string[] {
  const marks = [
    "PROMPT",
    "DEFAULT",
    "Receipt:",
    "The same with curl:",
    "curl -s ",
    "Share  http",
    "Docs   http",
    "Key    ",
    "Serving until",
  ];
  return output.split("\n").flatMap((line) => marks.filter((mark) => line.startsWith(mark)));
}

/** Keys and types, without values; a list is as its first element is, and an empty one as any. */
function shapeOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.length === 0 ? "empty list" : [shapeOf(value[0])];
  if (typeof value !== "object" || value === null) return value === null ? "null" : typeof value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, shapeOf(each)]));
}

/** With python3 and requests where they are; otherwise sends the body of the call, which is JSON but for its last comma. */
async function runPython(source: string): Promise<string> {
  const installed = await run("python3", ["-c", "import requests"]).then(
    () => true,
    () => false,
  );
  if (installed) return await run("python3", ["-c", source]);
  const body = /json=(\{[\s\S]*?\n\})\)/.exec(source)?.[1]?.replace(/,\s*\}$/, "}") ?? "";
  const answer = await fetch(`${url}/api/steer`, { method: "POST", headers: { "content-type": "application/json" }, body });
  const { DEFAULT, STEERED } = (await answer.json()) as { DEFAULT: string; STEERED: string };
  return `DEFAULT: ${DEFAULT}\nSTEERED: ${STEERED}\n`;
}

const runShell = (command: string): Promise<string> => run("sh", ["-c", command]);

function run(file: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(file, args, { cwd: ROOT, env: { ...process.env, ...QUIET, TILLER_KEY: key }, timeout: 60_000 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`${file} ${args.join(" ")}: ${stderr || error.message}`));
    });
  });
}
