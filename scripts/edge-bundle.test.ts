import { readFile } from "node:fs/promises";
import path from "node:path";
import { expect, it } from "vitest";
import { bundleEdge, isSource, ROOT } from "./edge-bundle.ts";

it("a bundle is made anew when any file that is in it changes", async () => {
  const { file } = await bundleEdge();
  const { sources } = JSON.parse(await readFile(`${file}.map`, "utf8")) as { sources: string[] };
  const own = sources
    .filter((source) => !source.includes("node_modules"))
    .map((source) => path.relative(ROOT, path.resolve(path.dirname(file), source)));
  expect(own.length).toBeGreaterThan(100);
  expect(own.filter((source) => !isSource(source))).toEqual([]);
});
