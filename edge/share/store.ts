// Things with a link: saved steers and activation tests. What their owners may change of them, and who may read them.
import { and, desc, eq, gt, isNull, or, sql } from "drizzle-orm";
import { unionAll } from "drizzle-orm/sqlite-core";
import { ID_PATTERN, newId } from "../../shared/ids.ts";
import type { Config } from "../config.ts";
import type { StoredTest } from "../read/stored.ts";
import { activationTests, steers, type VISIBILITIES } from "../schema.ts";

export type SavedTest = typeof activationTests.$inferSelect;
export type Visibility = (typeof VISIBILITIES)[number];

/** What an owner decides of a share. */
export interface Terms {
  readonly title: string | null;
  readonly visibility: Visibility;
  /** Epoch milliseconds; null = never. */
  readonly expires_at: number | null;
}

export interface Share extends Terms {
  readonly id: string;
  readonly kind: "steer" | "test";
  readonly user_id: string | null;
  readonly model_id: string;
  readonly created_at: number;
}

/** Whoever asks. */
export interface Asker {
  readonly userId: string | undefined;
  readonly admin: boolean;
}

/** An id that is not there may be on its way from another isolate: it is looked for once more after this long. */
export const LOOK_AGAIN_MS = 150;

/** Nobody is signed in: what other sites are told about a page. */
export const NOBODY: Asker = { userId: undefined, admin: false };

/** A private or expired share is there for its owner alone. */
export const mayRead = (row: Pick<Share, "user_id" | "visibility" | "expires_at">, { userId, admin }: Asker, now: number): boolean => {
  if (admin || (row.user_id !== null && row.user_id === userId)) return true;
  return row.visibility !== "private" && (row.expires_at === null || row.expires_at > now);
};

export interface Shares {
  saveTest(userId: string | undefined, modelId: string, test: StoredTest): Promise<string>;
  test(id: string, asker: Asker): Promise<SavedTest | undefined>;
  /** undefined when it is not there or not theirs. */
  update(id: string, owner: Asker, changes: Partial<Terms>): Promise<Share | undefined>;
  /** Whether there was one of theirs. It is gone for good. */
  remove(id: string, owner: Asker): Promise<boolean>;
  /** The newest first. */
  owned(userId: string, page: Page): Promise<Share[]>;
  listed(page: Page): Promise<Share[]>;
}

interface Page {
  readonly limit: number;
  readonly offset: number;
  readonly modelId?: string | undefined;
}

/** A steer is written after it was answered: what is not there yet is looked for once more. */
async function twice<T>(id: string, look: () => Promise<T | undefined>): Promise<T | undefined> {
  if (!ID_PATTERN.test(id)) return undefined;
  const found = await look();
  if (found !== undefined) return found;
  await scheduler.wait(LOOK_AGAIN_MS);
  return look();
}

type Table = typeof steers | typeof activationTests;

export function newShares({ db }: Config): Shares {
  const columns = <Kind extends Share["kind"]>(table: Table, kind: Kind) => ({
    ...{ id: table.id, kind: sql<Kind>`${sql.raw(`'${kind}'`)}`.as("kind"), user_id: table.user_id, model_id: table.model_id },
    ...{ title: table.title, visibility: table.visibility, expires_at: table.expires_at, created_at: table.created_at },
  });
  const ofOwner = (table: Table, id: string, { userId, admin }: Asker) =>
    and(eq(table.id, id), admin ? undefined : eq(table.user_id, userId ?? ""));

  const page = (where: (table: Table) => ReturnType<typeof and>, { limit, offset, modelId }: Page): Promise<Share[]> => {
    const of = (table: Table) => and(where(table), modelId === undefined ? undefined : eq(table.model_id, modelId));
    return unionAll(
      db
        .select(columns(steers, "steer" as Share["kind"]))
        .from(steers)
        .where(of(steers)),
      db
        .select(columns(activationTests, "test" as Share["kind"]))
        .from(activationTests)
        .where(of(activationTests)),
    )
      .orderBy(desc(sql`created_at`), sql`id`)
      .limit(limit)
      .offset(offset);
  };

  return {
    async saveTest(userId, modelId, test) {
      const row: SavedTest = {
        ...{ id: newId(), user_id: userId ?? null, model_id: modelId, test, created_at: Date.now() },
        ...{ title: null, visibility: "unlisted", expires_at: null },
      };
      await db.insert(activationTests).values(row);
      return row.id;
    },
    async test(id, asker) {
      if (!ID_PATTERN.test(id)) return undefined;
      const [row] = await db.select().from(activationTests).where(eq(activationTests.id, id));
      return row !== undefined && mayRead(row, asker, Date.now()) ? row : undefined;
    },
    update: (id, owner, changes) =>
      twice(id, async () => {
        // A change of nothing is none, and still says what the share is.
        const set = { ...changes, id };
        const [a, b] = await db.batch([
          db
            .update(steers)
            .set(set)
            .where(ofOwner(steers, id, owner))
            .returning(columns(steers, "steer")),
          db
            .update(activationTests)
            .set(set)
            .where(ofOwner(activationTests, id, owner))
            .returning(columns(activationTests, "test")),
        ]);
        return a[0] ?? b[0];
      }),
    async remove(id, owner) {
      const gone = await twice(id, async () => {
        const [a, b] = await db.batch([
          db
            .delete(steers)
            .where(ofOwner(steers, id, owner))
            .returning({ id: steers.id }),
          db
            .delete(activationTests)
            .where(ofOwner(activationTests, id, owner))
            .returning({ id: activationTests.id }),
        ]);
        return a[0] ?? b[0];
      });
      return gone !== undefined;
    },
    owned: (userId, asked) => page((table) => eq(table.user_id, userId), asked),
    listed: (asked) =>
      page((table) => and(eq(table.visibility, "public"), or(isNull(table.expires_at), gt(table.expires_at, Date.now()))), asked),
  };
}
