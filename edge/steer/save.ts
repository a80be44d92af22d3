// Saved steers: written once, read by id.
import { eq } from "drizzle-orm";
import { ID_PATTERN, newId } from "../../shared/ids.ts";
import type { Config } from "../config.ts";
import { steers } from "../schema.ts";
import { type Asker, LOOK_AGAIN_MS, mayRead } from "../share/store.ts";
import type { StoredRequest, StoredResult } from "./stored.ts";

export interface NewSteer {
  readonly userId: string | undefined;
  readonly modelId: string;
  readonly request: StoredRequest;
  readonly result: StoredResult;
}

export type SavedSteer = typeof steers.$inferSelect;

export interface Steers {
  /**
   * Takes a steer and returns its id at once: the caller has the texts, and does not wait for the database's disk.
   * @param defer keeps the writing going after the answer (`waitUntil`).
   */
  save(steer: NewSteer, defer: (work: Promise<unknown>) => void): string;
  /** The steer with this id, if there is one that the asker may read; also one that is being written. */
  find(id: string, asker: Asker): Promise<SavedSteer | undefined>;
}

/** Waits before a write that failed is tried again: D1 asks for retries of what is transient. */
const RETRY_MS = [50, 500];

export function newSteers(config: Config): Steers {
  /** Being written by this isolate. */
  const unsaved = new Map<string, SavedSteer>();

  async function write(row: SavedSteer): Promise<void> {
    // After the answer is on its way: the write would otherwise be worked on first.
    await scheduler.wait(0);
    try {
      for (const wait of [...RETRY_MS, undefined]) {
        try {
          // A first try whose answer was lost may have written it.
          await config.db.insert(steers).values(row).onConflictDoNothing().run();
          return;
        } catch (error) {
          if (wait === undefined) throw error;
          await scheduler.wait(wait);
        }
      }
    } catch (error) {
      console.error(JSON.stringify({ level: "error", code: "internal", cause: `steer ${row.id} was not saved: ${(error as Error).name}` }));
    } finally {
      unsaved.delete(row.id);
    }
  }

  const select = async (id: string) => (await config.db.select().from(steers).where(eq(steers.id, id)).limit(1))[0];

  return {
    save({ userId, modelId, request, result }, defer) {
      const row: SavedSteer = {
        ...{ id: newId(), user_id: userId ?? null, model_id: modelId, request, result, created_at: Date.now() },
        ...{ title: null, visibility: "unlisted", expires_at: null },
      };
      unsaved.set(row.id, row);
      defer(write(row));
      return row.id;
    },
    async find(id, asker) {
      if (!ID_PATTERN.test(id)) return undefined;
      let found = unsaved.get(id) ?? (await select(id));
      if (found === undefined) {
        await scheduler.wait(LOOK_AGAIN_MS);
        found = await select(id);
      }
      return found !== undefined && mayRead(found, asker, Date.now()) ? found : undefined;
    },
  };
}

/** The public address of a steer. */
export const shareUrl = (config: Config, request: Request, id: string): string =>
  `${config.publicUrl ?? new URL(request.url).origin}/steer/${id}`;
