// The pages of people: GET /account, signing in with a key or with Discord, and connecting a Discord account by the bot's address.
import type { Context } from "hono";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { TillerError } from "../../shared/errors.ts";
import { constantTimeEqual } from "../../shared/keys.ts";
import { logFault } from "../answers.ts";
import type { App, Room } from "../app.ts";
import { authorizeUrl, whoCame } from "../discord/oauth.ts";
import { LIMITS } from "../limits.ts";
import { AccountPage, LinkPage, PlainPage, SignInPage } from "../pages/account.tsx";
import { cookieOf, requireOwnForm, signedIn, signIn, signOut } from "../people/session.ts";
import { newSecret } from "../people/store.ts";
import { lookupQuotaOf, steerQuotaOf, withQuota } from "../quota.ts";
import { identify, originOf, requireUser } from "../route.ts";

const DOCTYPE = "<!doctype html>";
const STATE = "tiller_oauth";
const STATE_S = 600;
/** Vectors and steers on the page. */
const SHOWN = 25;

/** As every page of ours (app.ts), and forms may be sent, to us. */
export const FORM_POLICY =
  "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

type Status = 200 | TillerError["status"];

export function mountSignIn(room: Room): void {
  const { app, config, people, accounts, vectors, shares, limiter } = room;
  const { discord } = config;
  const clientSecret = discord?.clientSecret;
  const page = (c: Context<App>, content: unknown, status: Status = 200) => {
    c.header("content-security-policy", FORM_POLICY);
    c.header("cache-control", "no-store");
    return c.html(`${DOCTYPE}${String(content)}`, status);
  };
  const redirectUri = (c: Context<App>) => `${originOf(room, c)}/auth/discord/callback`;
  /** Whose key somebody typed. Tries are counted. */
  const userOfKey = (c: Context<App>, key: unknown): Promise<string> =>
    identify(room, c).then((visitor) =>
      withQuota(lookupQuotaOf(limiter, visitor), c, c.req.path, async () => {
        const headers = { "x-api-key": typeof key === "string" ? key : "" };
        const request = new Request(c.req.url, { headers });
        const caller = await room.gate
          .identify(request, (work) => c.executionCtx.waitUntil(work))
          .catch((error: unknown) => {
            if (error instanceof TillerError && error.code === "unauthorized") throw new TillerError("unauthorized", WRONG_KEY);
            throw error;
          });
        if (caller.service) throw new TillerError("forbidden", "This is the key of a bot: nobody signs in with it.");
        return requireUser(caller).userId;
      }),
    );
  /** What somebody did wrong, said on the page where they did it. */
  const failure = (c: Context<App>, thrown: unknown): TillerError => {
    const error = TillerError.from(thrown);
    logFault(error, c.get("requestId"));
    if (error.retryAfterSeconds !== undefined) c.header("retry-after", String(Math.max(1, Math.ceil(error.retryAfterSeconds))));
    return error;
  };

  async function account(c: Context<App>, userId: string, more: { newKey?: string; failed?: TillerError } = {}) {
    const user = await accounts.user(userId);
    if (user === undefined) throw new TillerError("unauthorized", "This account is no longer there.");
    const identifier = `user:${userId}`;
    const [identity, kept, vectorPage, newest, steers] = await Promise.all([
      people.identityOf(userId),
      accounts.kept(userId),
      vectors.owned(userId, { limit: SHOWN, offset: 0 }),
      shares.owned(userId, { limit: SHOWN, offset: 0 }),
      steerQuotaOf(limiter, { identifier, steersPerHour: user.hourly_limit ?? LIMITS.steersPerHour }).state(),
    ]);
    return page(
      c,
      <AccountPage
        {...{ name: user.name, discord: identity?.name, steers, keyCount: kept.keys, newKey: more.newKey, failed: more.failed?.message }}
        {...{ vectors: vectorPage.rows, vectorCount: vectorPage.total, shares: newest, shareCount: kept.steers }}
      />,
      more.failed?.status,
    );
  }
  const signInPage = (c: Context<App>, failed?: TillerError) =>
    page(c, <SignInPage discord={clientSecret !== undefined} failed={failed?.message} />, failed?.status);

  app.get("/account", async (c) => {
    const userId = await signedIn(room, c);
    return userId === undefined ? signInPage(c) : account(c, userId);
  });

  app.post("/account/key", async (c) => {
    requireOwnForm(room, c);
    try {
      await signIn(room, c, await userOfKey(c, (await c.req.parseBody()).key));
    } catch (thrown) {
      return signInPage(c, failure(c, thrown));
    }
    return c.redirect("/account", 303);
  });

  /** A form of somebody who is signed in. */
  const mountForm = (path: string, act: (c: Context<App>, userId: string) => Promise<Response>) =>
    app.post(path, async (c) => {
      requireOwnForm(room, c);
      const userId = await signedIn(room, c);
      if (userId === undefined) return signInPage(c, new TillerError("unauthorized", "You are not signed in any more: sign in again."));
      try {
        return await act(c, userId);
      } catch (thrown) {
        return account(c, userId, { failed: failure(c, thrown) });
      }
    });
  mountForm("/account/new-key", async (c, userId) =>
    account(c, userId, { newKey: (await accounts.newKey(userId, "made on the account page")).key }),
  );
  mountForm("/account/disconnect", async (c, userId) => {
    const { keys } = await accounts.kept(userId);
    if (keys === 0) throw new TillerError("conflict", "Without Discord you could not sign in here any more: make an API key first.");
    await people.disconnect(userId);
    return c.redirect("/account", 303);
  });
  app.post("/account/sign-out", async (c) => {
    requireOwnForm(room, c);
    await signOut(room, c);
    return c.redirect("/account", 303);
  });

  app.get("/link/:code", async (c) => {
    const code = c.req.param("code");
    const link = await people.findLink(code);
    if (link === undefined) return page(c, <PlainPage {...OLD_LINK} />, 404);
    const userId = await signedIn(room, c);
    const name = userId === undefined ? undefined : (await accounts.user(userId))?.name;
    return page(c, <LinkPage code={code} name={link.name} account={name} />);
  });

  app.post("/link/:code", async (c) => {
    requireOwnForm(room, c);
    const code = c.req.param("code");
    const link = await people.findLink(code);
    if (link === undefined) return page(c, <PlainPage {...OLD_LINK} />, 404);
    const known = await signedIn(room, c);
    let userId: string;
    try {
      userId = known ?? (await userOfKey(c, (await c.req.parseBody()).key));
    } catch (thrown) {
      const error = failure(c, thrown);
      return page(c, <LinkPage code={code} name={link.name} account={undefined} failed={error.message} />, error.status);
    }
    if (!(await people.useLink(code, userId))) return page(c, <PlainPage {...OLD_LINK} />, 404);
    if (known === undefined) await signIn(room, c, userId);
    const text = `${link.name} of Discord is you from now on: the bot knows it within ten seconds.`;
    return page(c, <PlainPage title="Connected" text={text} />);
  });

  app.get("/auth/discord", (c) => {
    if (discord === undefined || clientSecret === undefined) throw notSetUp();
    const state = newSecret();
    setCookie(c, STATE, state, { ...cookieOf(room, c), maxAge: STATE_S });
    c.header("cache-control", "no-store");
    return c.redirect(authorizeUrl(discord, redirectUri(c), state), 302);
  });

  app.get("/auth/discord/callback", async (c) => {
    if (discord === undefined || clientSecret === undefined) throw notSetUp();
    const { code, state = "", error } = c.req.query();
    const began = getCookie(c, STATE) ?? "";
    deleteCookie(c, STATE, cookieOf(room, c));
    try {
      if (began === "" || !constantTimeEqual(state, began))
        throw new TillerError("forbidden", "This sign-in did not begin in this browser, or more than ten minutes ago: begin again.");
      if (error !== undefined || code === undefined) throw new TillerError("unauthorized", "You did not let Discord say who you are.");
      const person = await whoCame(discord, clientSecret, redirectUri(c), code);
      await signIn(room, c, (await people.userOf(person)).userId);
    } catch (thrown) {
      return signInPage(c, failure(c, thrown));
    }
    return c.redirect("/account", 303);
  });
}

const WRONG_KEY = "This API key is unknown or was revoked: copy all of it, from sk-til- on.";
const OLD_LINK = {
  title: "This address is used up",
  text: "It works once, for ten minutes: send /link to the bot for another one.",
} as const;

const notSetUp = (): TillerError =>
  new TillerError("not_found", "Nobody signs in with Discord here: set DISCORD_APPLICATION_ID and DISCORD_CLIENT_SECRET.");
