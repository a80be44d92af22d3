// Messages about steers: the plain and the steered text side by side, what was asked, and what can be done with it.
import { type APIEmbed, ButtonStyle, ComponentType } from "discord-api-types/v10";
import type { Feature, Sides } from "../../shared/client-types.ts";
import type { Answer } from "./asked.ts";
import { cut, formatStrength, neutral, oneLine } from "./text.ts";

const FIELD_CHARS = 1024;
const PROMPT_CHARS = 1200;
export const COLOUR = 0x5b6ee1;

/** A feature with the words that people know it by. */
export interface Named extends Feature {
  readonly label: string;
}

/** What is asked for, as a message shows it. */
export interface View {
  readonly prompt: string;
  readonly modelId: string;
  readonly features: readonly Named[];
  /** Who asked. */
  readonly ownerId: string;
}

/** How far it has come. */
export type Progress =
  | { readonly state: "queued" | "running"; readonly jobId: string; readonly texts: Sides; readonly tokens: number; readonly of: number }
  | {
      readonly state: "succeeded";
      readonly steerId: string;
      readonly shareUrl: string;
      readonly texts: Sides;
      readonly tokens: number;
      readonly changed: { readonly positions: number; readonly of: number };
    }
  | { readonly state: "canceled"; readonly texts: Sides };

export function steerMessage(view: View, progress: Progress): Answer {
  const { texts } = progress;
  const writing = progress.state === "queued" || progress.state === "running";
  const sides = [side("DEFAULT", texts.DEFAULT, writing), side("STEERED", texts.STEERED, writing)];
  const description = `**Prompt** ${neutral(view.prompt)}`;
  const embed: APIEmbed = {
    title: oneLine(`${view.modelId}: ${namesOf(view.features)}`, 256),
    description: cut(description, PROMPT_CHARS),
    color: COLOUR,
    fields: sides,
    footer: { text: footerOf(progress) },
  };
  if (progress.state !== "succeeded") {
    return { embeds: [embed], components: writing ? [stopRow(progress.jobId, view.ownerId)] : [] };
  }
  const { steerId, shareUrl } = progress;
  const isCut = description.length > PROMPT_CHARS || [texts.DEFAULT, texts.STEERED].some((text) => neutral(text).length > FIELD_CHARS);
  return {
    embeds: [{ ...embed, url: shareUrl }],
    components: controls(view, steerId, shareUrl),
    files: isCut ? [{ name: `steer-${steerId}.txt`, text: fileOf(view, texts) }] : [],
  };
}

/** "Joy 12 + 3-neuronpedia-resid-pre/5 -4" */
export const namesOf = (features: readonly Named[]): string =>
  features.map(({ label, strength }) => `${label} ${formatStrength(strength)}`).join(" + ");

function side(name: keyof Sides, text: string, writing: boolean): { name: string; value: string; inline: boolean } {
  const shown = neutral(text);
  const value = writing ? `${cut(shown, FIELD_CHARS - 2, true)} ▌` : cut(shown, FIELD_CHARS);
  return { name, value: value.trim() === "" ? "*nothing*" : value, inline: true };
}

function footerOf(progress: Progress): string {
  switch (progress.state) {
    case "queued":
      return "Waits for its turn";
    case "running":
      return `Writing: ${progress.tokens} of at most ${progress.of} tokens`;
    case "canceled":
      return "Stopped";
    case "succeeded":
      return `${progress.tokens} tokens · the edit changed ${progress.changed.positions} of ${progress.changed.of} positions · ${progress.steerId}`;
  }
}

const fileOf = ({ prompt, modelId, features }: View, { DEFAULT, STEERED }: Sides): string =>
  `Model: ${modelId}\nSteered with: ${namesOf(features)}\nPrompt: ${prompt}\n\n--- DEFAULT ---\n${DEFAULT}\n\n--- STEERED ---\n${STEERED}\n`;

/** What a component asks for: its verb, what it is about, and whose message it is on. */
export interface Press {
  readonly verb: string;
  readonly about: string;
  readonly ownerId: string;
}

const SEPARATOR = ":";
export const pressId = ({ verb, about, ownerId }: Press): string => [verb, about, ownerId].join(SEPARATOR);
export function readPress(customId: string): Press | undefined {
  const [verb, about, ownerId] = customId.split(SEPARATOR);
  return verb === undefined || about === undefined || ownerId === undefined ? undefined : { verb, about, ownerId };
}

/** Below everything that is still worked on. */
export const stopRow = (jobId: string, ownerId: string) =>
  row(button("Stop", pressId({ verb: "stop", about: jobId, ownerId }), ButtonStyle.Danger));

/** Multiples of the strength on the select: enough to feel how the text changes, both ways. */
const MULTIPLES = [-2, -1, -0.5, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3] as const;
export const STRONGER = 1.5;

function controls({ features, ownerId }: View, about: string, shareUrl: string): NonNullable<Answer["components"]> {
  const id = (verb: string) => pressId({ verb, about, ownerId });
  const strengths = features.map(({ strength }) => strength);
  const options = MULTIPLES.map((multiple) => ({
    label: strengths
      .map((strength) => formatStrength(strength * multiple))
      .join(" + ")
      .slice(0, 100),
    value: String(multiple),
    description: multiple === 1 ? "as it is" : `${multiple} times as strong`,
    default: multiple === 1,
  }));
  return [
    row(
      button("Weaker", id("weaker")),
      button("Stronger", id("stronger"), ButtonStyle.Primary),
      button("Flip", id("flip")),
      button("Again", id("again")),
    ),
    row({ type: ComponentType.StringSelect, custom_id: id("strength"), placeholder: "Strength", options }),
    row(button("Share", id("share")), button("Delete", id("delete"), ButtonStyle.Danger), {
      type: ComponentType.Button,
      style: ButtonStyle.Link,
      label: "Open",
      url: shareUrl,
    }),
  ] as NonNullable<Answer["components"]>;
}

type Part = object;
export const row = (...components: Part[]) => ({ type: ComponentType.ActionRow, components }) as NonNullable<Answer["components"]>[number];
export const button = (label: string, custom_id: string, style: ButtonStyle = ButtonStyle.Secondary): Part => ({
  ...{ type: ComponentType.Button, style, label, custom_id },
});
