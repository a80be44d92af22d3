import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, it } from "vitest";
import { newPace } from "../pace.ts";
import { openSpools, Spool } from "./spool.ts";

const pace = newPace(new AbortController().signal, undefined);
const WIDTH = 1500;
/** More than one block. */
const ROWS = 400;
const row = (i: number) => Float32Array.from({ length: WIDTH }, (_, d) => i + d / 3);

it("gives every row back in order, as often as it is asked, whatever order they came in", async () => {
  const spool = new Spool(WIDTH, ROWS);
  for (let i = 0; i < ROWS; i++) spool.write((i * 7) % ROWS, row((i * 7) % ROWS));
  for (let time = 0; time < 2; time++) {
    let next = 0;
    await spool.pass(pace)((i, values) => {
      expect(i).toBe(next++);
      expect(values).toEqual(row(i));
    });
    expect(next).toBe(ROWS);
  }
  spool.close();
});

it("leaves nothing behind, even where nobody closes it", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "spool-"));
  const spool = new Spool(2, 1, folder);
  spool.write(0, Float32Array.of(1, 2));
  expect(readdirSync(folder)).toEqual([]);
  await spool.pass(pace)((_, values) => expect(values).toEqual(Float32Array.of(1, 2)));
  spool.close();
  expect(() => spool.write(0, Float32Array.of(1, 2))).toThrow(/out of range/);
  rmSync(folder, { recursive: true });
});

it("gives other work a turn: a pass ends when its caller leaves", async () => {
  const controller = new AbortController();
  const spool = new Spool(WIDTH, ROWS);
  for (let i = 0; i < ROWS; i++) spool.write(i, row(i));
  let visited = 0;
  const pass = spool.pass(newPace(controller.signal, undefined))(() => {
    visited++;
    controller.abort();
  });
  await expect(pass).rejects.toMatchObject({ name: "AbortError" });
  expect(visited).toBeLessThan(ROWS);
  spool.close();
});

it("is refused where the folder has no room for all of them", () => {
  expect(() => openSpools(3, 1024, 2048, 2 ** 20)).toThrow(
    "2048 texts at 3 layers take 24 MB of temporary space; this engine has 1 MB. Ask for fewer layers at once, or give fewer texts.",
  );
  const spools = openSpools(3, 4, 2);
  expect(spools).toHaveLength(3);
  for (const spool of spools) spool.close();
});
