import { expect, it } from "vitest";
import { newId } from "../../shared/ids.ts";
import type { Config } from "../config.ts";
import { NOBODY } from "../share/store.ts";
import { config, json, newUser, post, scripted } from "../test/worker/client.ts";
import { newSteers, type SavedSteer, type Steers } from "./save.ts";

/** The database, whose first `count` writes fail. */
function failing(count: number): { readonly db: Config["db"]; readonly tried: () => number } {
  const { db } = config();
  let tried = 0;
  const insert: Config["db"]["insert"] = (table) => {
    if (tried++ < count) throw new Error("the database is being restarted");
    return db.insert(table);
  };
  return { db: new Proxy(db, { get: (target, key) => (key === "insert" ? insert : Reflect.get(target, key)) }), tried: () => tried };
}

/** A steer to save: one that was really made, under no id yet. */
async function made(): Promise<SavedSteer> {
  const { id } = await json(await post("/api/steer", scripted(), (await newUser()).headers));
  return (await newSteers(config()).find(String(id), NOBODY)) as SavedSteer;
}

function save(steers: Steers, steer: SavedSteer): { readonly id: string; readonly written: Promise<unknown> } {
  let written: Promise<unknown> = Promise.resolve();
  const { model_id: modelId, request, result } = steer;
  const id = steers.save({ userId: undefined, modelId, request, result }, (work) => {
    written = work;
  });
  return { id, written };
}

it("a steer can be read before it is written, and after", async () => {
  const steer = await made();
  const steers = newSteers(config());
  const { id, written } = save(steers, steer);
  expect((await steers.find(id, NOBODY))?.result).toEqual(steer.result);
  await written;
  expect((await newSteers(config()).find(id, NOBODY))?.result).toEqual(steer.result);
});

it("an isolate finds a steer that another one is still writing", async () => {
  const { id, written } = save(newSteers(config()), await made());
  expect((await newSteers(config()).find(id, NOBODY))?.id).toBe(id);
  await written;
});

it("a write that fails is tried again", async () => {
  const { db, tried } = failing(2);
  const { id, written } = save(newSteers({ ...config(), db }), await made());
  await written;
  expect(tried()).toBe(3);
  expect((await newSteers(config()).find(id, NOBODY))?.id).toBe(id);
});

it("a write that never works is logged by its id, and nothing is left behind", async () => {
  const logged: unknown[] = [];
  const { error } = console;
  console.error = (...words: unknown[]) => logged.push(...words);
  try {
    const steers = newSteers({ ...config(), db: failing(9).db });
    const { id, written } = save(steers, await made());
    await written;
    expect(logged.join()).toContain(id);
    expect(logged.join()).not.toContain("Once");
    expect(await steers.find(id, NOBODY)).toBeUndefined();
  } finally {
    console.error = error;
  }
});

it("an id that was never given out is not found", async () => {
  expect(await newSteers(config()).find(newId(), NOBODY)).toBeUndefined();
  expect(await newSteers(config()).find("../etc/passwd", NOBODY)).toBeUndefined();
});
