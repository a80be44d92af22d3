// /steer: one prompt, plain and steered side by side; and the buttons below an answer.
import { type APIApplicationCommandBasicOption, ApplicationCommandOptionType, ApplicationCommandType } from "discord-api-types/v10";
import type { TillerUser } from "../../../shared/client.ts";
import type { SavedSteer, SteerBody } from "../../../shared/client-types.ts";
import { METHODS, type Method } from "../../../shared/protocol.ts";
import type { Asked } from "../asked.ts";
import { type Command, type Options, type Pressed, selected } from "../command.ts";
import { readControls, requireAllowed, TOKENS } from "../controls.ts";
import { findDirections, findModel, suggestFeatures, suggestModels, suggestPresets, suggestVectors } from "../directions.ts";
import { refusal } from "../failure.ts";
import type { Promises } from "../follow.ts";
import type { Promised } from "../promised.ts";
import { type Named, type Press, STRONGER, type View } from "../render.ts";

/** As `/api/steer` has them: methods whose one number is a strength. */
const OFFERED = METHODS.filter((method) => method !== "PROJECTION_CLAMP");
export const USUAL = { tokens: 60, temperature: 0.7, freqPenalty: 0.5 } as const;
const SEEDS = 100_000_000;
const PROMPT_CHARS = 2000;

const Type = ApplicationCommandOptionType;

export const PROMPT: APIApplicationCommandBasicOption = {
  ...{ type: Type.String, name: "prompt", description: "What the model writes on from", required: true, max_length: PROMPT_CHARS },
};

/** Options that say what to steer with, and how; /chat has the same. */
export const STEERING: readonly APIApplicationCommandBasicOption[] = [
  { type: Type.String, name: "model", description: "Which model; the first one when you leave it out", autocomplete: true },
  { type: Type.String, name: "feature", description: "A feature, by its label: type what it is about", autocomplete: true },
  { type: Type.String, name: "vector", description: "A vector of yours", autocomplete: true },
  { type: Type.String, name: "preset", description: "Something that is known to show", autocomplete: true },
  {
    type: Type.Number,
    name: "strength",
    description: "How hard; below 0 steers away. Left out: one that shows",
    min_value: -10_000,
    max_value: 10_000,
  },
  {
    type: Type.Integer,
    name: "tokens",
    description: `Length of the answer, in tokens (${USUAL.tokens})`,
    min_value: 1,
    max_value: TOKENS.most,
  },
  {
    type: Type.Number,
    name: "temperature",
    description: `0 always takes the likeliest token (${USUAL.temperature})`,
    min_value: 0,
    max_value: 2,
  },
  { type: Type.Integer, name: "seed", description: "The same seed gives the same text again", min_value: 0, max_value: SEEDS },
  {
    ...{ type: Type.String, name: "method", description: "How the direction acts (SIMPLE_ADDITIVE)" },
    choices: OFFERED.map((method) => ({ name: method, value: method })),
  },
  { type: Type.Number, name: "frequency_penalty", description: `Against repetition (${USUAL.freqPenalty})`, min_value: -2, max_value: 2 },
];

/** What to steer with and how, as the options say. Checked against what is allowed here. */
export async function readSteering(
  asked: Asked,
  options: Options,
): Promise<{ readonly body: Omit<SteerBody, "prompt">; readonly features: readonly Named[] }> {
  const tokens = options.number("tokens") ?? USUAL.tokens;
  const model = await findModel(asked.tiller, options.text("model"));
  const chosen = {
    ...{ feature: options.text("feature"), vector: options.text("vector"), preset: options.text("preset") },
    strength: options.number("strength"),
  };
  const features = await findDirections(asked.tiller, model, chosen);
  await requireAllowed(asked, { tokens, modelId: model.id, features });
  return {
    features,
    body: {
      ...{ modelId: model.id, features: features.map(withoutLabel), n_tokens: tokens, strength_multiplier: 1, n_logprobs: 0 },
      temperature: options.number("temperature") ?? USUAL.temperature,
      freq_penalty: options.number("frequency_penalty") ?? USUAL.freqPenalty,
      seed: options.number("seed") ?? newSeed(),
      steer_method: (options.text("method") ?? "SIMPLE_ADDITIVE") as Method,
    },
  };
}

export async function suggestSteering({ tiller, room, place }: Asked, options: Options) {
  const { focused } = options;
  const typed = options.text(focused ?? "") ?? "";
  const model = focused === "model" ? undefined : options.text("model");
  if (focused === "model") return suggestModels(tiller, typed);
  if (focused === "feature") return suggestFeatures(tiller, model, typed);
  if (focused === "vector") return suggestVectors(tiller, model, typed);
  const { off, ageRestricted } = await readControls(room, place);
  return suggestPresets(tiller, model, typed, place.ageRestricted ? off : [...off, ...ageRestricted]);
}

export const newSeed = (): number => Math.floor(Math.random() * SEEDS);

const withoutLabel = ({ label: _, ...feature }: Named) => feature;

/** What is promised for an interaction that was acknowledged with an answer of its own. */
export function promise({ room, interaction, person, place }: Asked, view: View, body: SteerBody): Promised<"steer"> {
  return {
    ...{ id: interaction.id, transport: room.transport, person, kind: "steer", body, view },
    target: { token: interaction.token, channelId: place.channelId },
  };
}

export const steer: Command = {
  data: {
    ...{ type: ApplicationCommandType.ChatInput, name: "steer", description: "Write on from a prompt, plain and steered side by side" },
    options: [PROMPT, ...STEERING],
  },
  acknowledge: () => "public",
  async run(asked, options, promises) {
    const prompt = options.text("prompt") ?? "";
    const { body, features } = await readSteering(asked, options);
    const view = { prompt, modelId: body.modelId, features, ownerId: asked.person.id };
    await promises.keep(promise(asked, view, { ...body, prompt }));
  },
  suggest: suggestSteering,
  presses: {
    stronger: again(({ strength }) => strength * STRONGER),
    weaker: again(({ strength }) => strength / STRONGER),
    flip: again(({ strength }) => -strength),
    again: again(({ strength }) => strength, true),
    strength: again(({ strength }, asked) => strength * Number(selected(asked)[0] ?? 1)),
    stop: {
      acknowledge: () => "update",
      async run({ tiller, person, whisper }, { about, ownerId }) {
        if (person.id === ownerId) await tiller.cancel(about);
        else await whisper({ content: "Only who asked for this can stop it." });
      },
    },
    share: {
      acknowledge: () => "ephemeral",
      async run({ tiller, person, edit }, { about, ownerId }) {
        requireOwner(person.id, ownerId, "share");
        const { url } = await tiller.share(about, { visibility: "public" });
        await edit({ content: `It is public now, and on the list of the front page: ${url}` });
      },
    },
    delete: {
      acknowledge: () => "update",
      async run({ tiller, person, remove, whisper }, { about, ownerId }) {
        if (person.id !== ownerId) return whisper({ content: "Only who asked for this can delete it." });
        await remove();
        await tiller.remove(about);
      },
    },
  },
};

function requireOwner(id: string, ownerId: string, what: string): void {
  if (id !== ownerId) throw refusal(`Only who asked for this can ${what} it.`);
}

/** The same steer with other strengths, or another seed: over the message of whoever asked for it, below it for everybody else. */
function again(strengthOf: (feature: Named, asked: Asked) => number, reseed = false): Pressed {
  return {
    acknowledge: ({ ownerId }, { person }) => (person.id === ownerId ? "update" : "public"),
    async run(asked: Asked, { about }: Press, promises: Promises) {
      const { body, view } = await reopen(asked.tiller, about, asked.person.id);
      await requireAllowed(asked, { ...body, tokens: body.n_tokens });
      const features = view.features.map((feature) => ({ ...feature, strength: strengthOf(feature, asked) }));
      const seed = reseed ? newSeed() : body.seed;
      await promises.keep(promise(asked, { ...view, features }, { ...body, seed, features: features.map(withoutLabel) }));
    },
  };
}

/** A saved steer, ready to be asked for again. */
async function reopen(tiller: TillerUser, id: string, ownerId: string): Promise<{ readonly body: SteerBody; readonly view: View }> {
  const saved = await tiller.load(id);
  const { temperature, n_tokens, freq_penalty, seed, strength_multiplier, steer_method } = saved.settings;
  const features = saved.features.map(toNamed);
  const { modelId, inputText: prompt } = saved;
  return {
    view: { prompt, modelId, features, ownerId },
    body: {
      ...{ prompt, modelId, features: features.map(withoutLabel), temperature, n_tokens, freq_penalty, seed, strength_multiplier },
      steer_method,
      n_logprobs: 0,
    },
  };
}

const toNamed = ({ modelId, layer, index, strength, neuron }: SavedSteer["features"][number]): Named => ({
  ...{ modelId, layer, index: Number(index), strength },
  label: neuron.explanations[0]?.description ?? `${layer}/${index}`,
});
