// Acting for somebody of another service: with a service key over HTTP, or from inside this Worker without any.
import { TillerError } from "../../shared/errors.ts";

/** Somebody of Discord. */
export interface Person {
  /** A snowflake. */
  readonly id: string;
  readonly name: string;
}

/** What a request was let in as by this Worker itself: nothing that comes over HTTP can hold a symbol. */
const ACTING = Symbol("acting");
type InProcess = Person | "service";

/** An environment whose requests are a person's, whatever their headers say. */
export const actAs = <Bindings extends object>(env: Bindings, { id, name }: Person): Bindings => ({ ...env, [ACTING]: { id, name } });
/** An environment whose requests are the bot's own. */
export const asService = <Bindings extends object>(env: Bindings): Bindings => ({ ...env, [ACTING]: "service" });
export const readInProcess = (env: object | undefined): InProcess | undefined => (env as { [ACTING]?: InProcess } | undefined)?.[ACTING];

const NAME_CHARS = 100;

/** @throws TillerError `invalid_request` when the headers are malformed. @returns undefined when there are none. */
export function readActing(headers: Headers): Person | undefined {
  const who = headers.get("x-acting-for");
  if (who === null) return undefined;
  const [, id] = /^discord:(\d{5,20})$/.exec(who) ?? [];
  if (id === undefined) throw new TillerError("invalid_request", "X-Acting-For must be discord: and the id of a Discord user, in digits.");
  const encoded = headers.get("x-acting-name") ?? "";
  let name: string;
  try {
    name = decodeURIComponent(encoded).trim();
  } catch {
    throw new TillerError("invalid_request", "X-Acting-Name must be a name as encodeURIComponent writes it.");
  }
  if (name.length > NAME_CHARS) throw new TillerError("invalid_request", `X-Acting-Name must have at most ${NAME_CHARS} characters.`);
  return { id, name: name === "" ? `discord ${id}` : name };
}
