// Labels of features in D1: those that came with the engines' sources, kept up to date, and those that users added; found by their words.
import { and, asc, desc, eq, sql } from "drizzle-orm";
import { TillerError } from "../../shared/errors.ts";
import { newId } from "../../shared/ids.ts";
import type { ModelInfo, SourceInfo } from "../../shared/protocol.ts";
import type { Config } from "../config.ts";
import { read } from "../engine.ts";
import { LIMITS } from "../limits.ts";
import type { Models } from "../models.ts";
import { labelSyncs, labels, labelVotes, users } from "../schema.ts";
import { type FeatureAt, isOneOf, placeOf } from "./store.ts";

export type SavedLabel = typeof labels.$inferSelect & { readonly author: string | null };

/** What a search looks through. */
export interface LabelSearch {
  readonly query: string;
  readonly modelId?: string | undefined;
  /** Source ids; absent: all. Naming them finds unlisted ones too. */
  readonly sources?: readonly string[] | undefined;
  readonly setName?: string | undefined;
  readonly userId: string | undefined;
  readonly after?: Cursor | undefined;
  readonly offset: number;
}

/** The last label of a page. */
export interface Cursor {
  readonly score: number;
  readonly row: number;
}

export interface Labels {
  /** Brings the labels of the engines' sources up to date; quick when nothing changed. */
  sync(): Promise<void>;
  /** The most voted first, by `placeOf`. */
  of(at: readonly FeatureAt[]): Promise<ReadonlyMap<string, readonly SavedLabel[]>>;
  find(id: string): Promise<SavedLabel | undefined>;
  /** @throws TillerError `conflict` when the user has too many, or the feature has this one. */
  add(
    label: Pick<SavedLabel, "model_id" | "source" | "index" | "description" | "user_id" | "method" | "explainer" | "unlisted">[],
  ): Promise<string[]>;
  remove(id: string): Promise<void>;
  /** A user's vote on a label, instead of the one before; 0 takes it back. @returns the sum of all. */
  vote(id: string, userId: string, vote: -1 | 0 | 1): Promise<number>;
  /** One page and one label more, when there is one; the best first. */
  search(search: LabelSearch): Promise<(SavedLabel & { readonly score: number })[]>;
}

/** Labels written by one statement: a value of D1 may have 2 MB. */
const CHUNK = 4000;
/** A label of the engine has its feature's address as id, so that votes stay with it. */
export const builtInId = ({ modelId, source, index }: FeatureAt): string => `${modelId}~${source}~${index}`;

export function newLabels(config: Config, models: Models): Labels {
  const { db } = config;
  const d1 = db.$client;
  /** Revisions that this isolate knows to be in the database, by model and source. */
  const known = new Map<string, string>();

  async function syncSource(info: ModelInfo, source: SourceInfo, engine: Parameters<typeof read>[0]): Promise<void> {
    const revision = source.features_revision ?? JSON.stringify(source.labelled_features);
    const key = `${info.id}\n${source.id}`;
    if (known.get(key) === revision) return;
    const at = and(eq(labelSyncs.model_id, info.id), eq(labelSyncs.source, source.id));
    const [stored] = await db.select().from(labelSyncs).where(at);
    if (stored?.revision !== revision) {
      const found = source.features_revision === undefined ? source.labelled_features : await readAll(info.id, source.id, engine);
      await replace(info.id, source.id, revision, found);
    }
    known.set(key, revision);
  }

  async function readAll(model: string, source: string, engine: Parameters<typeof read>[0]): Promise<{ index: number; label: string }[]> {
    const found: { index: number; label: string }[] = [];
    for (let from: number | null = 0; from !== null; ) {
      const page: { features: { index: number; label: string | null }[]; next: number | null } = await read(
        ...([engine, config, "/features", { model, source, from }, new AbortController().signal] as const),
      );
      for (const { index, label } of page.features) if (label !== null) found.push({ index, label });
      from = page.next;
    }
    return found;
  }

  async function replace(model: string, source: string, revision: string, found: readonly { index: number; label: string }[]) {
    const mine = "model_id = ?1 AND source = ?2 AND user_id IS NULL";
    const at = (sql: string, ...more: unknown[]) => d1.prepare(sql).bind(model, source, ...more);
    const parts: string[] = [];
    for (let start = 0; start < found.length; start += CHUNK) {
      const rows = found
        .slice(start, start + CHUNK)
        .map(({ index, label }) => [builtInId({ modelId: model, source, index }), index, label.slice(0, LIMITS.labelDescriptionChars)]);
      parts.push(JSON.stringify(rows));
    }
    await d1.batch([
      at(`DELETE FROM labels_fts WHERE rowid IN (SELECT "row" FROM labels WHERE ${mine})`),
      at(`DELETE FROM labels WHERE ${mine}`),
      ...parts.map((rows) =>
        at(
          `INSERT INTO labels (id, model_id, source, "index", description, method, unlisted, votes, created_at)
           SELECT value ->> 0, ?1, ?2, value ->> 1, value ->> 2, ?3, 0,
             coalesce((SELECT sum(vote) FROM label_votes WHERE label_id = value ->> 0), 0), ?4
           FROM json_each(?5)`,
          ...[BUILT_IN, Date.now(), rows],
        ),
      ),
      at(`INSERT INTO labels_fts (rowid, description) SELECT "row", description FROM labels WHERE ${mine}`),
      at(
        `INSERT INTO label_syncs (model_id, source, revision) VALUES (?1, ?2, ?3)
         ON CONFLICT (model_id, source) DO UPDATE SET revision = excluded.revision`,
        revision,
      ),
    ]);
  }

  const select = () => db.select({ label: labels, author: users.name }).from(labels).leftJoin(users, eq(users.id, labels.user_id));

  return {
    async sync() {
      const list = await models.list();
      for (const info of list) {
        const served = await models.find(info.id);
        if (served !== undefined) for (const source of info.sources) await syncSource(info, source, served.engine);
      }
    },
    async of(at) {
      const found = new Map<string, SavedLabel[]>();
      if (at.length === 0) return found;
      const rows = await select()
        .where(isOneOf(labels, at))
        .orderBy(desc(labels.votes), sql`${labels.user_id} IS NOT NULL`, asc(labels.row));
      for (const { label, author } of rows) {
        const place = placeOf({ modelId: label.model_id, source: label.source, index: label.index });
        found.set(place, [...(found.get(place) ?? []), { ...label, author }]);
      }
      return found;
    },
    async find(id) {
      const [row] = await select().where(eq(labels.id, id));
      return row === undefined ? undefined : { ...row.label, author: row.author };
    },
    async add(given) {
      const author = given[0]?.user_id ?? "";
      const [{ n } = { n: 0 }] = await db.select({ n: sql<number>`count(*)` }).from(labels).where(eq(labels.user_id, author));
      if (n + given.length > LIMITS.labelsPerUser)
        throw new TillerError("conflict", `You have added ${n} labels, and ${LIMITS.labelsPerUser} is the limit.`);
      const rows = given.map((label) => ({ ...label, id: newId() }));
      const json = JSON.stringify(rows);
      await d1.batch([
        d1
          .prepare(
            `INSERT INTO labels (id, model_id, source, "index", description, user_id, method, explainer, unlisted, votes, created_at)
             SELECT value ->> 'id', value ->> 'model_id', value ->> 'source', value ->> 'index', value ->> 'description',
               value ->> 'user_id', value ->> 'method', value ->> 'explainer', value ->> 'unlisted', 0, ?2 FROM json_each(?1)`,
          )
          .bind(json, Date.now()),
        d1
          .prepare(
            `INSERT INTO labels_fts (rowid, description)
             SELECT "row", description FROM labels WHERE id IN (SELECT value ->> 'id' FROM json_each(?1))`,
          )
          .bind(json),
      ]);
      return rows.map(({ id }) => id);
    },
    async remove(id) {
      await d1.batch([
        d1.prepare(`DELETE FROM labels_fts WHERE rowid IN (SELECT "row" FROM labels WHERE id = ?1)`).bind(id),
        d1.prepare("DELETE FROM labels WHERE id = ?1").bind(id),
        d1.prepare("DELETE FROM label_votes WHERE label_id = ?1").bind(id),
      ]);
    },
    async vote(id, userId, vote) {
      const mine = and(eq(labelVotes.label_id, id), eq(labelVotes.user_id, userId));
      const cast =
        vote === 0
          ? db.delete(labelVotes).where(mine)
          : db
              .insert(labelVotes)
              .values({ label_id: id, user_id: userId, vote })
              .onConflictDoUpdate({ target: [labelVotes.label_id, labelVotes.user_id], set: { vote } });
      const sum = sql`coalesce((SELECT sum(vote) FROM label_votes WHERE label_id = ${id}), 0)`;
      const [, [row]] = await db.batch([
        cast,
        db.update(labels).set({ votes: sum }).where(eq(labels.id, id)).returning({ votes: labels.votes }),
      ]);
      return row?.votes ?? 0;
    },
    async search({ query, modelId, sources, setName, userId, after, offset }) {
      // A vote counts as a little more likeness in words: bm25 is below 0, the smaller the better.
      const score = sql<number>`(bm25(labels_fts) - 0.25 * ${labels.votes})`;
      const listed = sources === undefined ? sql`(${labels.unlisted} = 0 OR ${labels.user_id} = ${userId ?? ""})` : undefined;
      const where = and(
        ...[sql`labels_fts MATCH ${toMatch(query)}`, listed],
        modelId === undefined ? undefined : eq(labels.model_id, modelId),
        sources === undefined ? undefined : sql`${labels.source} IN (SELECT value FROM json_each(${JSON.stringify(sources)}))`,
        setName === undefined ? undefined : sql`substr(${labels.source}, instr(${labels.source}, '-') + 1) = ${setName}`,
        after === undefined ? undefined : sql`(${score} > ${after.score} OR (${score} = ${after.score} AND ${labels.row} > ${after.row}))`,
      );
      const rows = await db
        .select({ label: labels, author: users.name, score })
        .from(sql`labels_fts`)
        .innerJoin(labels, sql`${labels.row} = labels_fts.rowid`)
        .leftJoin(users, eq(users.id, labels.user_id))
        .where(where)
        .orderBy(score, asc(labels.row))
        .limit(LIMITS.labelsPerPage + 1)
        .offset(offset);
      return rows.map(({ label, author, score }) => ({ ...label, author, score }));
    },
  };
}

export const BUILT_IN = "tiller_top-tokens";

/** Every word must be there, the last perhaps only begun: https://www.sqlite.org/fts5.html#full_text_query_syntax */
function toMatch(query: string): string {
  const words = query.split(/[^\p{L}\p{N}]+/u).filter((word) => word !== "");
  if (words.length === 0) throw new TillerError("invalid_request", "query must have at least one word with letters or digits.");
  return words.map((word, i) => `"${word}"${i === words.length - 1 ? "*" : ""}`).join(" ");
}
