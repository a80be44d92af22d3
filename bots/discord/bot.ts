// One bot, whatever the transport: every interaction is acknowledged at once and always answered.
import { type APIApplicationCommandInteraction, InteractionType } from "discord-api-types/v10";
import { type Asked, type BotRoom, type Interaction, newAsked, type Respond } from "./asked.ts";
import { type Acknowledged, type Command, optionsOf } from "./command.ts";
import { COMMANDS } from "./commands/index.ts";
import { failureAnswer, GONE, isDiscord, logFailure, refusal } from "./failure.ts";
import { newPromises, type Promises } from "./follow.ts";
import { newKeepers } from "./keepers.ts";
import { type Press, readPress } from "./render.ts";

/** Choices that come later are of no use: Discord waits for three seconds. */
const SUGGEST_MS = 2000;
/** Ids of interactions that were seen: Discord may deliver one twice. */
const SEEN = 2000;

export interface Bot {
  readonly promises: Promises;
  /** Answers an interaction. Resolves when all is done; never rejects. */
  handle(interaction: Interaction, respond: Respond): Promise<void>;
}

export function newBot(room: BotRoom): Bot {
  const promises = newPromises(room, newKeepers(room));
  const seen = new Set<string>();

  async function answer(asked: Asked): Promise<void> {
    const { interaction } = asked;
    switch (interaction.type) {
      case InteractionType.ApplicationCommandAutocomplete:
        return suggest(asked);
      case InteractionType.ApplicationCommand: {
        const options = optionsOf(interaction);
        const command = commandOf(interaction);
        await acknowledge(asked, command.acknowledge(options));
        return command.run(asked, options, promises);
      }
      case InteractionType.MessageComponent:
      case InteractionType.ModalSubmit: {
        const press = readPress(interaction.data.custom_id);
        const pressed = COMMANDS.map(({ presses }) => presses?.[press?.verb ?? ""]).find((each) => each !== undefined);
        if (press === undefined || pressed === undefined) throw refusal("This button is of an older version of the bot: ask anew.");
        await acknowledge(asked, pressed.acknowledge(press, asked));
        return pressed.run(asked, press as Press, promises);
      }
    }
  }

  /** No choices rather than late ones. */
  async function suggest(asked: Asked): Promise<void> {
    const options = optionsOf(asked.interaction);
    const found = Promise.resolve(commandOf(asked.interaction).suggest?.(asked, options)).catch((error: unknown) => {
      logFailure(room, "suggest", asked.interaction.id, error);
      return [];
    });
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<[]>((resolve) => {
      timer = setTimeout(() => resolve([]), SUGGEST_MS);
    });
    const choices = await Promise.race([found, late]);
    clearTimeout(timer);
    await asked.choices(choices ?? []);
  }

  async function fail(asked: Asked, error: unknown): Promise<void> {
    const { interaction } = asked;
    logFailure(room, "interaction", interaction.id, error);
    const message = failureAnswer(error, interaction.id);
    if (interaction.type === InteractionType.ApplicationCommandAutocomplete) return;
    if (asked.acknowledged() === undefined) await asked.defer("ephemeral");
    // A failed button leaves the message that it belongs to as it is.
    await (asked.acknowledged() === "update" ? asked.whisper(message) : asked.edit(message));
  }

  return {
    promises,
    async handle(interaction, respond) {
      if (seen.has(interaction.id)) return;
      seen.add(interaction.id);
      if (seen.size > SEEN) seen.delete(seen.values().next().value as string);
      const asked = newAsked(room, interaction, respond);
      try {
        await answer(asked);
      } catch (error) {
        // Another process has answered this one, or it came too late to be answered by anybody.
        if (isDiscord(error, GONE.alreadyAcknowledged, GONE.unknownInteraction))
          return logFailure(room, "interaction", interaction.id, error);
        await fail(asked, error).catch((later: unknown) => logFailure(room, "answer", interaction.id, later));
      }
    },
  };
}

function commandOf(interaction: Interaction): Command {
  const { name } = (interaction as APIApplicationCommandInteraction).data;
  const command = COMMANDS.find(({ data }) => data.name === name);
  if (command === undefined) throw refusal(`There is no command /${name} any more: restart Discord to see the new ones.`);
  return command;
}

async function acknowledge(asked: Asked, how: Acknowledged): Promise<void> {
  if (how !== "modal") await asked.defer(how);
}
