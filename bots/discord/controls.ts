// What the people who run a server allow there: channels, tokens, presets. Kept as a note of the bot's.
import type { Feature } from "../../shared/client-types.ts";
import type { Asked, BotRoom, Place } from "./asked.ts";
import { presetKey } from "./directions.ts";
import { refusal } from "./failure.ts";

export interface Controls {
  /** Channels where steering is allowed; empty = all. */
  readonly channels: readonly string[];
  readonly maxTokens: number;
  /** Names of presets that are switched off, in small letters. */
  readonly off: readonly string[];
  /** Names of presets for age-restricted channels only. */
  readonly ageRestricted: readonly string[];
}

/** Tokens of one answer that a server allows when it says nothing, and at most. */
export const TOKENS = { usual: 512, most: 4096 } as const;
const NONE: Controls = { channels: [], maxTokens: TOKENS.usual, off: [], ageRestricted: [] };

const keyOf = (guildId: string): string => `guild:${guildId}`;

export async function readControls({ tiller }: Pick<BotRoom, "tiller">, { guildId }: Pick<Place, "guildId">): Promise<Controls> {
  if (guildId === undefined) return NONE;
  return (await tiller.notes.get<Controls>(keyOf(guildId))) ?? NONE;
}

export async function writeControls({ tiller }: Pick<BotRoom, "tiller">, guildId: string, controls: Controls): Promise<void> {
  await tiller.notes.put(keyOf(guildId), controls);
}

/**
 * Presets count by what they steer with: a feature of one that is switched off is not allowed by its address either.
 * @throws TillerError with a sentence for the person, when it is not allowed here.
 */
export async function requireAllowed(
  { room, place, tiller }: Pick<Asked, "room" | "place" | "tiller">,
  asked: { readonly tokens: number; readonly modelId: string; readonly features: readonly Feature[] },
): Promise<void> {
  const { channels, maxTokens, off, ageRestricted } = await readControls(room, place);
  if (channels.length > 0 && !channels.includes(place.channelId) && !channels.includes(place.parentId ?? "")) {
    const allowed = channels.slice(0, 10).map((id) => `<#${id}>`);
    throw refusal(`Steering is not allowed in this channel. Here it is: ${allowed.join(", ")}.`);
  }
  if (asked.tokens > maxTokens) throw refusal(`At most ${maxTokens} tokens are allowed in this server: ask for fewer.`);
  if (off.length + ageRestricted.length === 0) return;
  const isAsked = (feature: Feature) =>
    asked.features.some(({ layer, index }) => layer === feature.layer && index === Number(feature.index));
  const used = (await tiller.presets(asked.modelId)).filter(({ features }) => features.some(isAsked)).map(({ name }) => name);
  const isOn = (list: readonly string[]) => (name: string) => list.some((each) => presetKey(each) === presetKey(name));
  const switchedOff = used.find(isOn(off));
  if (switchedOff !== undefined) throw refusal(`The preset ${switchedOff} is switched off in this server: choose another.`);
  const marked = used.find(isOn(ageRestricted));
  if (marked !== undefined && !place.ageRestricted)
    throw refusal(`The preset ${marked} is for age-restricted channels only: use it in one, or choose another.`);
}
