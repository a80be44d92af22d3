// What was promised to somebody: a job of theirs, written into a message as it grows, and posted whole when it is done. A promise is a
// note of the bot's before the job begins, so that a bot that was killed keeps it.
import type { RawFile } from "@discordjs/rest";
import { type APIMessage, Routes } from "discord-api-types/v10";
import type { TillerUser } from "../../shared/client.ts";
import { ServiceError } from "../../shared/client-calls.ts";
import type { Job, Sides, WholeJob } from "../../shared/client-types.ts";
import { ERRORS, TillerError } from "../../shared/errors.ts";
import { type Answer, type BotRoom, overwrite, toMessage } from "./asked.ts";
import { failureAnswer, GONE, isDiscord, logFailure } from "./failure.ts";
import type { Growing, Keeper, Keepers, Promised } from "./promised.ts";

const EDIT_MS = 1000;
/** How often a job is asked for, and how long apart, before its person reads that it failed. */
const START = { tries: 4, waitMs: 1000 } as const;
/** Longer than any job may take. */
const KEPT_S = 3 * 24 * 3600;
const PREFIX = "promise:";
/** Instead of an answer that only its person may see, where it came too late for that. */
const LATE: Answer = { content: "what you asked for has ended. It took too long to show it to you alone: /vector list has what was kept." };

export interface Promises {
  /** Notes it, keeps it, and forgets it. Never rejects: a failure is told in the message. */
  keep(promised: Promised): Promise<void>;
  /** Takes up all that this transport began and has not ended. */
  resume(): Promise<void>;
}

export function newPromises(room: BotRoom, keepers: Keepers): Promises {
  const { tiller } = room;
  const keeperOf = ({ kind }: Promised) => keepers[kind] as Keeper;
  /** Kept at the moment in this process. */
  const busy = new Set<string>();

  async function carryOut(given: Promised): Promise<void> {
    if (busy.has(given.id)) return;
    busy.add(given.id);
    try {
      const promised = await withMessage(given);
      const ended = await watch(promised).catch(async (error: unknown) => {
        logFailure(room, "promise", promised.id, error);
        await write(promised, failureAnswer(error, promised.id));
        return true;
      });
      if (ended) await tiller.notes.take(PREFIX + promised.id);
    } catch (error) {
      // The note stays: the next start tries again.
      logFailure(room, "promise", given.id, error);
    } finally {
      busy.delete(given.id);
    }
  }

  /** With a message to write over: posted when there is none. */
  async function withMessage(promised: Promised): Promise<Promised> {
    const { id, target } = promised;
    if (target.token !== undefined || target.messageId !== undefined) return promised;
    const reference = target.replyTo === undefined ? {} : { message_reference: { message_id: target.replyTo, fail_if_not_exists: false } };
    const { body } = toMessage({ content: "…" });
    const posted = await post(target.channelId, { ...body, ...reference, nonce: id, enforce_nonce: true }, []);
    const placed = { ...promised, target: { ...target, messageId: posted?.id ?? "0" } };
    await tiller.notes.put(PREFIX + id, placed, { ttlSeconds: KEPT_S });
    return placed;
  }

  /** The same key and body is the same job: an answer that got lost is asked for again. */
  async function insist<T>(ask: () => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      try {
        return await ask();
      } catch (error) {
        const again = error instanceof TillerError && error.code !== "rate_limited" && ERRORS[error.code].retry;
        if (!again || tries >= START.tries) throw error;
        await new Promise((resolve) => setTimeout(resolve, START.waitMs));
      }
    }
  }

  /** @returns whether it is over, and not left to `resume`. */
  async function watch(given: Promised): Promise<boolean> {
    const user = tiller.as(given.person);
    const { promised, job } = await begin(given, user);
    const stop = new AbortController();
    const timer = Number.isFinite(room.patienceMs) ? setTimeout(() => stop.abort(), room.patienceMs) : undefined;
    try {
      const whole = await grow(promised, user, job, stop.signal);
      if (whole === undefined) return false;
      await write(promised, await toAnswer(promised, whole, user));
      return true;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The job, which is noted: what it was made of may be gone when it is taken up again. */
  async function begin(promised: Promised, user: TillerUser): Promise<{ readonly promised: Promised; readonly job: Job }> {
    const { jobId } = promised;
    if (jobId !== undefined) return { promised, job: await insist(() => user.job(jobId)) };
    const begun = await insist(() => keeperOf(promised).start(promised, user));
    const noted = { ...begun.promised, jobId: begun.job.id };
    await insist(() => tiller.notes.put(PREFIX + promised.id, noted, { ttlSeconds: KEPT_S }));
    return { promised: noted, job: begun.job };
  }

  /** Writes what there is, at most once a second. @returns the job at its end. */
  async function grow(promised: Promised, user: TillerUser, job: Job, signal: AbortSignal): Promise<WholeJob | undefined> {
    let texts: Sides = { STEERED: "", DEFAULT: "" };
    let { state, progress } = job;
    /** What has come, of tokens or texts: the state tells of what comes after it too. */
    let come = 0;
    let shown = 0;
    let gone = false;
    const show = async () => {
      if (gone || (state !== "queued" && state !== "running") || Date.now() - shown < EDIT_MS) return;
      shown = Date.now();
      const done = Math.max(come, progress.tokens ?? progress.texts ?? 0);
      const now: Growing = { state, jobId: job.id, texts, done, of: progress.of };
      // A message that somebody deleted, or that cannot be reached now, is no reason to stop the work.
      await edit(promised, keeperOf(promised).growing(promised, now)).catch((error: unknown) => {
        gone = isDiscord(error, GONE.unknownMessage, GONE.invalidToken, GONE.unknownWebhook);
        logFailure(room, "progress", promised.id, error);
      });
    };
    await show();
    for await (const { event, data } of user.follow(job.id, signal)) {
      if (event === "done") return data;
      if (event === "state") ({ state, progress } = data);
      else if (event === "cells") come += data.cells.reduce((sum, { rows }) => sum + rows.length, 0);
      else {
        for (const { side, text } of data.tokens) texts = { ...texts, [side]: texts[side] + text };
        come += data.tokens.length;
      }
      await show();
    }
    return undefined;
  }

  async function toAnswer(promised: Promised, job: WholeJob, user: TillerUser): Promise<Answer> {
    if (job.state === "failed")
      throw new ServiceError((job.error?.code ?? "internal") as TillerError["code"], job.error?.message ?? "The job failed.", {
        requestId: job.id,
      });
    return keeperOf(promised).done(promised, job, user);
  }

  async function edit({ target }: Promised, answer: Answer): Promise<void> {
    const { token, channelId, messageId } = target;
    if (token !== undefined) await overwrite(room, token, answer);
    else await room.rest.patch(Routes.channelMessage(channelId, messageId ?? "0"), toMessage(answer));
  }

  /** Writes the end. Where the message cannot be edited any more, a new one is posted, if the bot may. */
  async function write(promised: Promised, answer: Answer): Promise<void> {
    try {
      return await edit(promised, answer);
    } catch (error) {
      // Whoever deleted the message wants no answer.
      if (isDiscord(error, GONE.unknownMessage)) return;
      if (!isDiscord(error, GONE.invalidToken, GONE.unknownWebhook)) throw error;
    }
    if (!room.hasToken) return room.log({ level: "warning", what: "late", id: promised.id });
    const { body, files } = toMessage(promised.target.ephemeral === true ? LATE : answer);
    // The nonce makes the second try of a bot that was killed right after the first the same message.
    await post(
      promised.target.channelId,
      { ...body, content: `<@${promised.person.id}> ${body.content}`, nonce: promised.id, enforce_nonce: true },
      files,
    );
  }

  async function post(channelId: string, body: object, files: RawFile[]): Promise<APIMessage | undefined> {
    try {
      return (await room.rest.post(Routes.channelMessages(channelId), { body, files })) as APIMessage;
    } catch (error) {
      if (isDiscord(error, GONE.unknownChannel)) return undefined;
      throw error;
    }
  }

  return {
    async keep(promised) {
      try {
        if (!(await tiller.notes.put(PREFIX + promised.id, promised, { ttlSeconds: KEPT_S, ifAbsent: true }))) return;
      } catch (error) {
        logFailure(room, "promise", promised.id, error);
        return write(promised, failureAnswer(error, promised.id));
      }
      await carryOut(promised);
    },
    async resume() {
      const all = await tiller.notes.list<Promised>(PREFIX);
      await Promise.all(all.filter(({ value }) => value.transport === room.transport).map(({ value }) => carryOut(value)));
    },
  };
}
