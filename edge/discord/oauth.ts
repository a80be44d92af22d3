// Signing in with Discord: https://discord.com/developers/docs/topics/oauth2#authorization-code-grant
import { z } from "zod";
import { TillerError } from "../../shared/errors.ts";
import type { DiscordSettings } from "../config.ts";
import type { Person } from "../people/acting.ts";

const PATIENCE_MS = 10_000;
const Token = z.object({ access_token: z.string() });
const Self = z.object({ id: z.string().regex(/^\d{5,20}$/), username: z.string(), global_name: z.string().nullish() });

/** Where Discord asks somebody whether they want to sign in. */
export function authorizeUrl({ api, applicationId }: DiscordSettings, redirectUri: string, state: string): string {
  const url = new URL("/oauth2/authorize", api);
  url.search = new URLSearchParams({
    ...{ client_id: applicationId, response_type: "code", scope: "identify", redirect_uri: redirectUri, state },
  }).toString();
  return url.href;
}

/**
 * Who it was that came back with a code. The token is used once, and kept nowhere.
 * @throws TillerError `unauthorized` when Discord does not take the code, `internal` when it does not answer as it should.
 */
export async function whoCame(settings: DiscordSettings, clientSecret: string, redirectUri: string, code: string): Promise<Person> {
  const { api, applicationId } = settings;
  const form = { grant_type: "authorization_code", code, redirect_uri: redirectUri, client_id: applicationId, client_secret: clientSecret };
  const { access_token: token } = await ask(`${api}/oauth2/token`, Token, { method: "POST", body: new URLSearchParams(form) });
  const { id, username, global_name: name } = await ask(`${api}/v10/users/@me`, Self, { headers: { authorization: `Bearer ${token}` } });
  return { id, name: (name ?? username).slice(0, 100) };
}

async function ask<T>(url: string, schema: z.ZodType<T>, init: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(url, { ...init, signal: AbortSignal.timeout(PATIENCE_MS), redirect: "manual" });
  } catch (cause) {
    throw new TillerError("internal", "Discord does not answer: try to sign in again in a moment.", { cause });
  }
  if (response.status === 400 || response.status === 401)
    throw new TillerError("unauthorized", "Discord did not take this sign-in: it was used, or took too long. Begin again.");
  const read = schema.safeParse(await response.json().catch(() => undefined));
  if (response.ok && read.success) return read.data;
  throw new TillerError("internal", "Discord did not say who you are: try to sign in again in a moment.", {
    cause: new Error(`Discord answered ${response.status}`),
  });
}
