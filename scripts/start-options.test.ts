import { expect, it } from "vitest";
import { HELP, parseStartOptions } from "./start-options.ts";

it("has defaults for everything", () => {
  expect(parseStartOptions([])).toEqual({
    help: false,
    once: false,
    newKey: false,
    botKey: false,
    port: 8787,
    enginePort: 8788,
    models: [],
    threads: undefined,
    state: undefined,
  });
});

it("reads every option that the help names", () => {
  const given = [
    "--once",
    "--port",
    "1",
    "--engine-port",
    "0",
    "--model",
    "a",
    "--model",
    "b",
    "--threads",
    "2",
    "--state",
    "s",
    "--new-key",
    "--bot-key",
    "--help",
  ];
  const expected = {
    help: true,
    once: true,
    newKey: true,
    botKey: true,
    port: 1,
    enginePort: 0,
    models: ["a", "b"],
    threads: 2,
    state: "s",
  };
  expect(parseStartOptions(given)).toEqual(expected);
  const named = [...HELP.matchAll(/^ {2}(--[\w-]+)/gm)].map((match) => match[1]);
  expect(named.sort()).toEqual([...new Set(given.filter((arg) => arg.startsWith("--")))].sort());
});

it.each([
  [["--nothing"], "Unknown option '--nothing'. See npm start -- --help."],
  [["word"], "Unexpected argument 'word'. See npm start -- --help."],
  [["--port"], "Option '--port <value>' argument missing. See npm start -- --help."],
  [["--port", "65536"], "--port takes a whole number from 0 to 65535, not '65536'."],
  [["--port", "1.5"], "--port takes a whole number from 0 to 65535, not '1.5'."],
  [["--threads", "0"], "--threads takes a whole number from 1 to 1024, not '0'."],
])("refuses %j with one sentence", (args, sentence) => {
  expect(() => parseStartOptions(args)).toThrow(sentence);
});
