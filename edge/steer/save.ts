// Saved steers: written once, read by id.
import { eq } from "drizzle-orm";
import { ID_PATTERN, newId } from "../../shared/ids.ts";
import type { Config } from "../config.ts";
import { steers } from "../schema.ts";
import type { StoredRequest, StoredResult } from "./stored.ts";

export interface NewSteer {
  readonly userId: string | undefined;
  readonly modelId: string;
  readonly request: StoredRequest;
  readonly result: StoredResult;
}

export type SavedSteer = typeof steers.$inferSelect;

/** Stores a steer and returns its id. */
export async function saveSteer(config: Config, steer: NewSteer): Promise<string> {
  const id = newId();
  await config.db
    .insert(steers)
    .values({
      id,
      user_id: steer.userId ?? null,
      model_id: steer.modelId,
      request: steer.request,
      result: steer.result,
      created_at: Date.now(),
    })
    .run();
  return id;
}

/** The steer with this id, if there is one. */
export async function findSteer(config: Config, id: string): Promise<SavedSteer | undefined> {
  if (!ID_PATTERN.test(id)) return undefined;
  const [row] = await config.db.select().from(steers).where(eq(steers.id, id)).limit(1);
  return row;
}

/** The public address of a steer. */
export const shareUrl = (config: Config, request: Request, id: string): string =>
  `${config.publicUrl ?? new URL(request.url).origin}/steer/${id}`;
