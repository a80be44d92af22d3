// POST /discord/interactions: what people do in Discord, sent here by Discord itself where no bot process is connected.
import { type APIInteractionResponse, InteractionResponseType, InteractionType } from "discord-api-types/v10";
import type { Interaction } from "../../bots/discord/asked.ts";
import { TillerError } from "../../shared/errors.ts";
import type { Room } from "../app.ts";
import { parseJson } from "../body.ts";
import { newHttpBot } from "../discord/bot.ts";
import { verifyDiscord } from "../discord/verify.ts";
import { originOf } from "../route.ts";

/** Longer than a signature is good for: within that time a request may be sent again by whoever saw it. */
const REMEMBERED_S = 3600;

export function mountDiscord(room: Room): void {
  const { app, config, notes } = room;

  app.post("/discord/interactions", async (c) => {
    const { discord } = config;
    if (discord?.publicKey === undefined)
      throw new TillerError("not_found", "Discord is not set up here: set DISCORD_APPLICATION_ID and DISCORD_PUBLIC_KEY.");
    const body = await c.req.text();
    await verifyDiscord(discord.publicKey, c.req.raw.headers, body, Date.now());
    const interaction = parseJson(body) as Interaction | { readonly type: 1; readonly id: string; readonly application_id: string };
    if (interaction.type === InteractionType.Ping) return c.json({ type: InteractionResponseType.Pong });
    if (interaction.application_id !== discord.applicationId)
      throw new TillerError("forbidden", "This is an interaction of another application.");
    const first = await notes.put(`interaction:${interaction.id}`, true, { ttlSeconds: REMEMBERED_S, ifAbsent: true });
    if (!first) throw new TillerError("conflict", "This interaction was sent before.");
    const bot = newHttpBot(app, discord, originOf(room, c), c.env, c.executionCtx as ExecutionContext);
    return new Promise<Response>((resolve, reject) => {
      const respond = (response: APIInteractionResponse) => new Promise<void>((sent) => resolve(answer(response, sent)));
      const done = bot.handle(interaction, respond);
      c.executionCtx.waitUntil(done);
      // Every interaction is answered; should that ever fail, Discord shall not wait for it.
      done.then(() => reject(new TillerError("internal")), reject);
    });
  });
}

/** @param sent is called when the answer has been read: before that, Discord knows no message that could be edited. */
function answer(response: APIInteractionResponse, sent: () => void): Response {
  const bytes = new TextEncoder().encode(JSON.stringify(response));
  let written = false;
  const body = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        if (!written) {
          written = true;
          return controller.enqueue(bytes);
        }
        controller.close();
        sent();
      },
      cancel: sent,
    },
    { highWaterMark: 0 },
  );
  return new Response(body, { headers: { "content-type": "application/json" } });
}
