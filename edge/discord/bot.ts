// The Discord bot without a process of its own: the handlers of bots/discord, inside the Worker, with the service beside them.
import { REST } from "@discordjs/rest";
import { newAttachmentReader } from "../../bots/discord/attachments.ts";
import { type Bot, newBot } from "../../bots/discord/bot.ts";
import { newTiller } from "../../shared/client.ts";
import type { App } from "../app.ts";
import type { Config } from "../config.ts";
import { actAs, asService } from "../people/acting.ts";

/** Less than the time that a Worker may go on after its answer. The cron takes up what takes longer. */
const PATIENCE_MS = 20_000;

/** How a request reaches the app, in this process. */
type Fetch = (request: Request, env: App["Bindings"], ctx: ExecutionContext) => Response | Promise<Response>;

/** @param origin where links of the service begin. */
export function newHttpBot(
  app: { readonly fetch: Fetch },
  discord: NonNullable<Config["discord"]>,
  origin: string,
  env: App["Bindings"],
  ctx: ExecutionContext,
): Bot {
  const { api, token, applicationId } = discord;
  const rest = new REST({ api });
  if (token !== undefined) rest.setToken(token);
  return newBot({
    tiller: newTiller(origin, async (request, who) => app.fetch(request, who === undefined ? asService(env) : actAs(env, who), ctx)),
    ...{ rest, applicationId, transport: "http", hasToken: token !== undefined, patienceMs: PATIENCE_MS },
    readAttachment: newAttachmentReader(api),
    log: (line) => console.error(JSON.stringify(line)),
  });
}
