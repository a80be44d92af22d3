// /sweep: how hard to steer with a direction. A grid of strengths, what each does to the text, and one that is suggested.
import { type APIApplicationCommandBasicOption, ApplicationCommandOptionType, ApplicationCommandType } from "discord-api-types/v10";
import type { Model, SweepBody } from "../../../shared/client-types.ts";
import type { Method } from "../../../shared/protocol.ts";
import type { Asked } from "../asked.ts";
import type { Command, Options } from "../command.ts";
import { requireAllowed } from "../controls.ts";
import { findDirections, findModel, parseLayers } from "../directions.ts";
import { refusal } from "../failure.ts";
import type { Named } from "../render.ts";
import { type SuggestedSteer, suggestedKey } from "../sweeps.ts";
import { PROMPT, promise, STEERING, suggestSteering, USUAL } from "./steer.ts";

const Type = ApplicationCommandOptionType;
/** As `/api/sweeps` takes them. */
const MOST = { tokens: 128, steps: 41, seeds: 16, words: 2000 } as const;
const LEFT_OUT = { tokens: 48, steps: 7, seeds: 3, times: 1.5 } as const;
/** Seeds are this one and those after it. */
const FIRST_SEED = 16;
const LABEL_CHARS = 200;

const SAME: ReadonlySet<string> = new Set(["model", "feature", "vector", "preset"]);
const SETTINGS: ReadonlySet<string> = new Set(["temperature", "method", "frequency_penalty"]);

const strengthOption = (name: string, text: string): APIApplicationCommandBasicOption => ({
  ...{ type: Type.Number, name, description: text, min_value: -10_000, max_value: 10_000 },
});

export const sweep: Command = {
  data: {
    ...{
      type: ApplicationCommandType.ChatInput,
      name: "sweep",
      description: "Find out how hard to steer: many strengths at once, measured",
    },
    options: [
      PROMPT,
      ...STEERING.filter(({ name }) => SAME.has(name)),
      {
        type: Type.String,
        name: "words",
        description: "Words that should come, with commas: how often they do is success",
        max_length: 4000,
      },
      strengthOption("from", `The first strength (${-LEFT_OUT.times} times the one that shows)`),
      strengthOption("to", `The last strength (${LEFT_OUT.times} times the one that shows)`),
      { type: Type.Integer, name: "steps", description: `How many strengths (${LEFT_OUT.steps})`, min_value: 2, max_value: MOST.steps },
      {
        type: Type.String,
        name: "layers",
        description: "At these layers too: 2,3,4 or 2-4 or all. Left out: the direction's own",
        max_length: 200,
      },
      {
        ...{ type: Type.Integer, name: "tokens", description: `Length of each text, in tokens (${LEFT_OUT.tokens})` },
        ...{ min_value: 1, max_value: MOST.tokens },
      },
      {
        type: Type.Integer,
        name: "seeds",
        description: `Texts for each strength (${LEFT_OUT.seeds})`,
        min_value: 1,
        max_value: MOST.seeds,
      },
      ...STEERING.filter(({ name }) => SETTINGS.has(name)),
    ],
  },
  acknowledge: () => "public",
  async run(asked, options, promises) {
    const { room, interaction, person, place } = asked;
    const prompt = options.text("prompt") ?? "";
    const model = await findModel(asked.tiller, options.text("model"));
    const feature = await findDirection(asked, model, options);
    const body = planSweep(model, feature, options);
    await requireAllowed(asked, { tokens: body.n_tokens, modelId: model.id, features: [feature] });
    await promises.keep({
      ...{ id: interaction.id, transport: room.transport, person, kind: "sweep", body },
      view: { prompt, modelId: model.id, feature, ownerId: person.id },
      target: { token: interaction.token, channelId: place.channelId },
    });
  },
  suggest: suggestSteering,
  presses: {
    "sweep-steer": {
      acknowledge: () => "public",
      async run(asked, { about }, promises) {
        const suggested = await asked.room.tiller.notes.get<SuggestedSteer>(suggestedKey(about));
        if (suggested === undefined) throw refusal("This sweep is too old to steer from: use /steer with the strength that it found.");
        const { body, view } = suggested;
        await requireAllowed(asked, { ...body, tokens: body.n_tokens });
        await promises.keep(promise(asked, { ...view, ownerId: asked.person.id }, body));
      },
    },
  },
};

/** One direction, as /steer finds it. */
async function findDirection({ tiller }: Asked, model: Model, options: Options): Promise<Named> {
  const { feature, vector, preset } = { feature: options.text("feature"), vector: options.text("vector"), preset: options.text("preset") };
  const strength = options.number("to") || options.number("from");
  const unknown = "Give from and to: nothing says which strengths show for this feature. Try -20 and 20.";
  const found = await findDirections(tiller, model, { feature, vector, preset, strength }, unknown);
  const [first] = found;
  if (first === undefined || found.length > 1)
    throw refusal(`${preset} steers with ${found.length} features at once, and a sweep takes one: choose one of them as the feature.`);
  return first;
}

/** The body of a sweep. @throws TillerError `invalid_request` that says what to write instead. */
export function planSweep(
  model: Model,
  { strength, method: own, ...feature }: Named,
  options: Pick<Options, "text" | "number">,
): SweepBody {
  const [layers, words] = [options.text("layers"), options.text("words")];
  const method = (options.text("method") ?? own ?? "SIMPLE_ADDITIVE") as Method;
  return {
    ...{ modelId: model.id, prompts: [options.text("prompt") ?? ""], n_tokens: options.number("tokens") ?? LEFT_OUT.tokens },
    directions: [{ ...feature, label: feature.label.slice(0, LABEL_CHARS).toWellFormed() }],
    ...(layers === undefined ? {} : { layers: parseLayers(layers, model) }),
    strengths: strengthsOf(strength, method, options),
    methods: [method],
    seeds: Array.from({ length: options.number("seeds") ?? LEFT_OUT.seeds }, (_, i) => FIRST_SEED + i),
    temperature: options.number("temperature") ?? USUAL.temperature,
    freq_penalty: options.number("frequency_penalty") ?? USUAL.freqPenalty,
    ...(words === undefined ? {} : { scorer: { kind: "words", words: wordsOf(words) } }),
  };
}

/** @param own the direction's own strength: without from and to, as much to each side of nothing. */
function strengthsOf(own: number, method: Method, options: Pick<Options, "number">): readonly number[] {
  // What is taken away whole has no strength.
  if (method === "ABLATE") return [1];
  const [begin, end, steps] = [options.number("from"), options.number("to"), options.number("steps") ?? LEFT_OUT.steps];
  const to = end ?? (begin === undefined ? own * LEFT_OUT.times : -begin);
  const from = begin ?? -to;
  const all = Array.from({ length: steps }, (_, i) => from + ((to - from) * i) / (steps - 1));
  const isNothing = (strength: number) => Math.abs(strength) <= Math.abs(to - from) * 1e-9;
  // Nothing added is what the plain texts are, and those are written anyway.
  const strengths = all
    .map((each) => (isNothing(each) ? 0 : Number(each.toPrecision(4))))
    .filter((each) => each !== 0 || method !== "SIMPLE_ADDITIVE");
  if (strengths.length > 0) return [...new Set(strengths)];
  throw refusal("A sweep needs strengths other than 0: give from and to, such as -20 and 20.");
}

function wordsOf(text: string): readonly string[] {
  const words = [...new Set(text.split(/[,;\n]/).map((word) => word.trim()))].filter((word) => word !== "");
  if (words.length > 0 && words.length <= MOST.words) return words;
  throw refusal(`Write 1 to ${MOST.words} words with commas between, such as happy, glad, smile.`);
}
