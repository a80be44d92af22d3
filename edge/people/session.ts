// Who is signed in to the pages: a cookie whose hash is in D1.
import type { Context } from "hono";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { TillerError } from "../../shared/errors.ts";
import type { App, Room } from "../app.ts";
import { originOf } from "../route.ts";
import { SESSION_MS } from "./store.ts";

const COOKIE = "tiller_session";

/** Other sites' pages and frames send no such cookie, nor can a script read it. */
export const cookieOf = (room: Pick<Room, "config">, c: Context<App>) =>
  ({ httpOnly: true, sameSite: "Lax", secure: originOf(room, c).startsWith("https:"), path: "/" }) as const;

/** The user who is signed in to a page; undefined when nobody is. What is shown to one person is kept by no cache. */
export async function signedIn({ people }: Pick<Room, "people">, c: Context<App>): Promise<string | undefined> {
  const secret = getCookie(c, COOKIE);
  if (secret === undefined) return undefined;
  c.header("cache-control", "no-store");
  return people.sessionUser(secret);
}

export async function signIn(room: Pick<Room, "config" | "people">, c: Context<App>, userId: string): Promise<void> {
  // A session that somebody else began in this browser ends here.
  await room.people.endSession(getCookie(c, COOKIE) ?? "");
  setCookie(c, COOKIE, await room.people.newSession(userId), { ...cookieOf(room, c), maxAge: SESSION_MS / 1000 });
}

export async function signOut(room: Pick<Room, "config" | "people">, c: Context<App>): Promise<void> {
  await room.people.endSession(getCookie(c, COOKIE) ?? "");
  deleteCookie(c, COOKIE, cookieOf(room, c));
}

/** @throws TillerError `forbidden` for a form that another site sent. */
export function requireOwnForm(room: Pick<Room, "config">, c: Context<App>): void {
  const origin = c.req.header("origin");
  if (origin !== undefined && (origin === new URL(c.req.url).origin || origin === originOf(room, c))) return;
  throw new TillerError("forbidden", "This form was not sent by a page of this service: open the page again, and send it from there.");
}
