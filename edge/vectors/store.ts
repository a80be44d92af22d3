// Vectors of users in D1: written once, found by address, deleted without breaking what used them.
import { and, count, desc, eq, getTableColumns, isNull, or, type SQL, sql } from "drizzle-orm";
import type { BatchItem } from "drizzle-orm/batch";
import type { Point } from "../../shared/address.ts";
import { parseSource } from "../../shared/address.ts";
import { TillerError } from "../../shared/errors.ts";
import type { Config } from "../config.ts";
import { LIMITS } from "../limits.ts";
import { vectors } from "../schema.ts";

export type SavedVector = typeof vectors.$inferSelect;

/** How Neuronpedia names a vector: the source its point has, and a number. */
export interface VectorAddress {
  readonly modelId: string;
  readonly source: string;
  readonly index: number;
}

const NAMES = { "neuronpedia-resid-pre": "resid_pre", "neuronpedia-resid-post": "resid_post" } as const;

/** The point of a vectors' source; undefined for every other source. */
export function vectorPoint(source: string): Point | undefined {
  const parsed = parseSource(source);
  if (parsed === undefined || !Object.hasOwn(NAMES, parsed.name)) return undefined;
  return { layer: parsed.layer, kind: NAMES[parsed.name as keyof typeof NAMES] };
}

export const vectorSource = ({ layer, kind }: Point): string => `${layer}-neuronpedia-${kind.replace("_", "-")}`;
export const pointOf = ({ layer, hook }: Pick<SavedVector, "layer" | "hook">): Point => ({ layer, kind: hook });

/** What its owner says of a vector, and may change. */
export type Described = Pick<SavedVector, "label" | "description" | "default_strength" | "visibility">;
export type NewVector = Omit<SavedVector, "index" | "version" | "created_at" | "updated_at" | "deleted_at">;

export interface Vectors {
  /** @throws TillerError `conflict` when the user would have more than a user may have. */
  checkRoom(userId: string, more: number): Promise<void>;
  /** The vectors as rows that can be written: no vector has their indexes now. */
  draw(vectors: readonly NewVector[]): Promise<SavedVector[]>;
  /** All or none. @throws TillerError `conflict` when the user would have more than a user may have. */
  create(vectors: readonly NewVector[]): Promise<SavedVector[]>;
  /** Those of the addresses that exist and that the caller may see, by `keyOf`. One query. */
  find(addresses: readonly VectorAddress[], userId: string | undefined): Promise<ReadonlyMap<string, SavedVector>>;
  /** The newest first, and how many there are on all pages. */
  owned(
    userId: string,
    page: { readonly limit: number; readonly offset: number; readonly modelId?: string | undefined; readonly query?: string | undefined },
  ): Promise<{ readonly rows: SavedVector[]; readonly total: number }>;
  /**
   * Changes a vector of the user's and counts its version up; undefined when there is none.
   * @param version the one it must have. @throws TillerError `conflict` when it has another.
   */
  update(
    address: VectorAddress,
    userId: string,
    changes: Partial<Described>,
    version: number | undefined,
  ): Promise<SavedVector | undefined>;
  /** Whether there was such a vector of the user's. */
  remove(address: VectorAddress, userId: string): Promise<boolean>;
}

export const keyOf = ({ modelId, source, index }: VectorAddress): string => `${modelId}\n${source}\n${index}`;
const addressOf = (row: SavedVector): VectorAddress => ({ modelId: row.model_id, source: vectorSource(pointOf(row)), index: row.index });

/** Vectors by `keyOf`. A private one of somebody else's is as one that is not there. */
export function visibleTo(userId: string | undefined, rows: readonly SavedVector[]): Map<string, SavedVector> {
  const visible = rows.filter((row) => row.visibility !== "private" || row.user_id === userId);
  return new Map(visible.map((row) => [keyOf(addressOf(row)), row]));
}

/** Where Neuronpedia's random indexes begin, and how many there are. */
const FIRST_INDEX = 90_000_000;
const INDEXES = 90_000_000;
/** A random index that is taken is drawn again. */
const DRAWS = 5;

function randomIndex(): number {
  const range = Math.floor(2 ** 32 / INDEXES) * INDEXES;
  for (;;) {
    const [drawn = 0] = crypto.getRandomValues(new Uint32Array(1));
    if (drawn < range) return FIRST_INDEX + (drawn % INDEXES);
  }
}

const isTaken = (error: unknown): boolean => String((error as Error).cause ?? error).includes("UNIQUE");
const BEGINNING = { version: 1, updated_at: null, deleted_at: null } as const;

/** Whether a column has a text in it, whatever its case. */
const has = (column: typeof vectors.label | typeof vectors.description, words: string) =>
  sql`instr(lower(${column}), ${words.toLowerCase()}) > 0`;

/** A vector of the user's that is not deleted; undefined for an address that no vector can have. */
function own({ modelId, source, index }: VectorAddress, userId: string) {
  const point = vectorPoint(source);
  if (point === undefined) return undefined;
  return and(
    ...[eq(vectors.index, index), eq(vectors.user_id, userId), eq(vectors.model_id, modelId)],
    ...[eq(vectors.layer, point.layer), eq(vectors.hook, point.kind), isNull(vectors.deleted_at)],
  );
}

/** Those of some indexes. As one value: a statement of D1 takes a hundred. */
const withIndexes = (indexes: readonly number[]) => sql`${vectors.index} IN (SELECT value FROM json_each(${JSON.stringify(indexes)}))`;

/** Writes a row that was drawn, if a condition of the database is true then; for a batch. */
export function insertWhere(db: Config["db"], row: SavedVector, condition: SQL): BatchItem<"sqlite"> {
  const values = Object.entries(getTableColumns(vectors)).map(([name, column]) => sql.param(row[name as keyof SavedVector], column));
  return db.insert(vectors).select(sql`SELECT ${sql.join(values, sql`, `)} WHERE ${condition}`);
}

export function newVectors({ db }: Config): Vectors {
  async function checkRoom(userId: string, more: number): Promise<void> {
    const mine = and(eq(vectors.user_id, userId), isNull(vectors.deleted_at));
    const [{ total } = { total: 0 }] = await db.select({ total: count() }).from(vectors).where(mine);
    if (total + more <= LIMITS.vectorsPerUser) return;
    throw new TillerError(
      "conflict",
      `You have ${total} vectors, and ${LIMITS.vectorsPerUser} is the limit: delete some before you keep ${more} more.`,
    );
  }

  async function draw(given: readonly NewVector[]): Promise<SavedVector[]> {
    const free = new Set<number>();
    for (let n = 0; n < DRAWS && free.size < given.length; n++) {
      const drawn = Array.from({ length: given.length - free.size }, randomIndex);
      const taken = await db.select({ index: vectors.index }).from(vectors).where(withIndexes(drawn));
      for (const index of drawn) if (taken.every((row) => row.index !== index)) free.add(index);
    }
    if (free.size < given.length) throw new Error("no free index was found");
    const now = Date.now();
    return [...free].map((index, i): SavedVector => ({ ...(given[i] as NewVector), ...BEGINNING, index, created_at: now }));
  }

  return {
    checkRoom,
    draw,
    async create(given) {
      await checkRoom((given[0] as NewVector).user_id, given.length);
      for (let n = 0; n < DRAWS; n++) {
        const rows = await draw(given);
        const [first, ...others] = rows.map((row) => db.insert(vectors).values(row));
        if (first === undefined) return [];
        try {
          await db.batch([first, ...others]);
          return rows;
        } catch (error) {
          // Somebody was given one of them in this moment.
          if (!isTaken(error)) throw error;
        }
      }
      throw new Error("no free index was found");
    },
    async find(addresses, userId) {
      if (addresses.length === 0) return new Map();
      const indexes = [...new Set(addresses.map(({ index }) => index))];
      const rows = await db
        .select()
        .from(vectors)
        .where(and(withIndexes(indexes), isNull(vectors.deleted_at)));
      return visibleTo(userId, rows);
    },
    async owned(userId, { limit, offset, modelId, query }) {
      const found = query === undefined ? undefined : or(has(vectors.label, query), has(vectors.description, query));
      const model = modelId === undefined ? undefined : eq(vectors.model_id, modelId);
      const where = and(eq(vectors.user_id, userId), isNull(vectors.deleted_at), model, found);
      const [rows, [total]] = await db.batch([
        db.select().from(vectors).where(where).orderBy(desc(vectors.created_at), desc(vectors.index)).limit(limit).offset(offset),
        db.select({ total: count() }).from(vectors).where(where),
      ]);
      return { rows, total: total?.total ?? 0 };
    },
    async update(address, userId, changes, version) {
      const mine = own(address, userId);
      if (mine === undefined) return undefined;
      const [updated] = await db
        .update(vectors)
        .set({ ...changes, version: sql`${vectors.version} + 1`, updated_at: Date.now() })
        .where(and(mine, version === undefined ? undefined : eq(vectors.version, version)))
        .returning();
      if (updated !== undefined || version === undefined) return updated;
      const [found] = await db.select({ version: vectors.version }).from(vectors).where(mine);
      if (found === undefined) return undefined;
      throw new TillerError(
        "conflict",
        `The vector has version ${found.version} by now, not ${version}: read it again, and send the changes that still make sense.`,
      );
    },
    async remove(address, userId) {
      const mine = own(address, userId);
      if (mine === undefined) return false;
      const gone = { deleted_at: Date.now(), values: Float64Array.of(0) };
      return (await db.update(vectors).set(gone).where(mine).returning({ index: vectors.index })).length > 0;
    },
  };
}
