// What an engine must do, as short checks over HTTP: each asks for little and says in a few words what is wrong.
import { randomUUID } from "node:crypto";
import { z } from "zod";
import { decodeFloat32 } from "../../shared/base64.ts";
import { DirectionsResult } from "../../shared/directions.ts";
import { CancelResult, type GenerateResult, type RowResult } from "../../shared/protocol.ts";
import { ActivationsResult, ScoreResult, TokenizeResult } from "../../shared/readings.ts";
import { parseEvents } from "../../shared/sse.ts";
import { type Endpoint, expectBody, expectRefusal, PROMPT, STRONG } from "./endpoint.ts";

export interface Check {
  readonly name: string;
  /** Says nothing about an engine that is asked without a token. */
  readonly needsToken?: true;
  /** @throws Error that says what the engine does instead. */
  readonly run: (engine: Endpoint) => Promise<void>;
}

/** So hot that two seeds never give the same tokens. */
const HOT = 2;
/** Of the longest generation that is started, to be canceled. */
const MOST_TOKENS = 2000;
/** A generation may end by itself before it is canceled. */
const CANCEL_ATTEMPTS = 3;

export const CHECKS: readonly Check[] = [
  { name: "/health is ok and names the model", run: health },
  { name: "/models describes the model", run: models },
  { name: "a wrong token is refused: 401 unauthorized", needsToken: true, run: wrongToken },
  { name: "an unknown field is refused: 400 invalid_request", run: unknownField },
  { name: "an unknown model is refused: 404 model_not_found", run: unknownModel },
  { name: "the same seed gives the same text, another one another", run: seeds },
  { name: "zero strength gives the plain text, and its receipt says so", run: zeroStrength },
  { name: "steering changes the text, and its receipt counts positions", run: steering },
  { name: "a stop string ends the text before it", run: stopString },
  { name: "a stream has the text of the JSON answer", run: stream },
  { name: "/score gives log probabilities and their perplexity", run: score },
  { name: "/tokenize gives the places of tokens in the text", run: tokenize },
  { name: "/activations projects on a vector", run: activations },
  { name: "/directions tells two kinds of texts apart", run: directions },
  { name: "/cancel ends a generation", run: cancel },
];

function demand(met: boolean, otherwise: string): void {
  if (!met) throw new Error(otherwise);
}

function getRow({ rows }: GenerateResult, name: string): RowResult {
  const row = rows.find((each) => each.name === name);
  if (row === undefined) throw new Error(`its answer has no row ${name}`);
  return row;
}

async function health(engine: Endpoint): Promise<void> {
  const answer = expectBody(z.object({ status: z.string(), models: z.array(z.string()) }), await engine.send("/health"));
  demand(answer.status === "ok", `its status is '${answer.status}'`);
  demand(answer.models.includes(engine.model), `it names ${answer.models.join(", ") || "no models"}`);
}

async function models(engine: Endpoint): Promise<void> {
  const { layers, width, context, vocab } = await engine.info();
  demand(Math.min(layers, width, context, vocab) > 0, `${layers} layers of ${width}, context ${context}, vocabulary ${vocab}`);
}

async function wrongToken(engine: Endpoint): Promise<void> {
  expectRefusal(await engine.send("/models", undefined, { authorization: "Bearer wrong" }), 401, "unauthorized");
}

async function unknownField(engine: Endpoint): Promise<void> {
  expectRefusal(await engine.send("/generate", engine.request({ best_of: 2 })), 400, "invalid_request");
}

async function unknownModel(engine: Endpoint): Promise<void> {
  expectRefusal(await engine.send("/generate", engine.request({ model: "no-such-model" })), 404, "model_not_found");
}

async function seeds(engine: Endpoint): Promise<void> {
  const text = async (seed: number) => getRow(await engine.generate({ sampling: { temperature: HOT, seed } }), "DEFAULT").text;
  const first = await text(7);
  demand((await text(7)) === first, "two calls with one seed differ");
  demand((await text(8)) !== first, "two seeds give one text");
}

async function zeroStrength(engine: Endpoint): Promise<void> {
  const result = await engine.generate({ rows: await engine.rows(0), sampling: { temperature: 1, seed: 2 } });
  const steered = getRow(result, "STEERED");
  demand(steered.text === getRow(result, "DEFAULT").text, "the texts differ");
  const [receipt] = steered.receipts;
  demand(receipt?.positions_changed === 0, `its receipt says that ${receipt?.positions_changed} positions changed`);
}

async function steering(engine: Endpoint): Promise<void> {
  const result = await engine.generate({ rows: await engine.rows(STRONG) });
  const { text, receipts } = getRow(result, "STEERED");
  demand(text !== getRow(result, "DEFAULT").text, "the texts are the same");
  demand(receipts.length === 1, `it sends ${receipts.length} receipts for one edit`);
  const { positions, positions_changed, mean_relative_delta } = receipts[0] as RowResult["receipts"][number];
  const read = result.usage.prompt_tokens;
  const most = read + result.usage.completion_tokens;
  demand(positions >= read && positions < most, `its receipt counts ${positions} positions, where ${read} to ${most - 1} were read`);
  demand(positions_changed === positions, `its receipt says that ${positions_changed} of ${positions} positions changed`);
  demand(mean_relative_delta > 0, "its receipt says that the change was nothing");
}

async function stopString(engine: Endpoint): Promise<void> {
  const { text, tokens = [] } = getRow(await engine.generate(), "DEFAULT");
  const stop = tokens.slice(tokens.length >> 1).find((token) => token.text !== "")?.text;
  if (stop === undefined) throw new Error("it writes no text to stop at");
  const stopped = getRow(await engine.generate({ sampling: { temperature: 0, seed: 1, stop: [stop] } }), "DEFAULT");
  const wanted = text.slice(0, text.indexOf(stop));
  demand(stopped.text === wanted, `${JSON.stringify(stopped.text)} instead of ${JSON.stringify(wanted)}`);
  demand(stopped.finish_reason === "stop", `the finish_reason is ${stopped.finish_reason}`);
}

async function stream(engine: Endpoint): Promise<void> {
  const more = { rows: await engine.rows(STRONG), sampling: { temperature: 1, seed: 3 } };
  const result = await engine.generate(more);
  const { status, body } = await engine.send("/generate", engine.request(more), { accept: "text/event-stream" });
  demand(status === 200 && typeof body === "string", `it answers ${status} and no event stream`);
  const texts = new Map<string, string>();
  let last = "nothing";
  for await (const { event, data } of parseEvents(new Blob([body as string]).stream())) {
    last = event;
    if (event !== "token") continue;
    const { row, text } = JSON.parse(data) as { row: string; text: string };
    texts.set(row, (texts.get(row) ?? "") + text);
  }
  demand(last === "done", `the stream ends with ${last}`);
  // Bytes that never became a character are shown at the end of a row, when no token event is left to say so.
  const whole = (text = "") => text.replace(/\ufffd+$/, "");
  for (const { name, text } of result.rows)
    demand(whole(texts.get(name)) === whole(text), `row ${name}: ${JSON.stringify(texts.get(name))} instead of ${JSON.stringify(text)}`);
}

async function score(engine: Endpoint): Promise<void> {
  const asked = { model: engine.model, items: [{ prompt: PROMPT, text: " a little girl" }] };
  const [item] = expectBody(ScoreResult, await engine.send("/score", asked)).items;
  if (item === undefined) throw new Error("it scores no text");
  const { tokens, logprob, perplexity } = item;
  demand(perplexity > 1, `the perplexity is ${perplexity}`);
  const sum = tokens.reduce((total, token) => total + token.logprob, 0);
  demand(Math.abs(sum - logprob) <= 1e-3 * Math.abs(sum), `the tokens' log probabilities add up to ${sum}, not ${logprob}`);
  const wanted = Math.exp(-sum / tokens.length);
  demand(Math.abs(wanted - perplexity) <= 1e-3 * wanted, `the perplexity is ${perplexity}, not ${wanted}`);
}

async function tokenize(engine: Endpoint): Promise<void> {
  const asked = { model: engine.model, text: `${PROMPT} a fox.`, add_special_tokens: false };
  const { ids, tokens } = expectBody(TokenizeResult, await engine.send("/tokenize", asked));
  demand(tokens.map(({ id }) => id).join() === ids.join(), "ids and tokens differ");
  const joined = tokens.map(({ start, end }) => asked.text.slice(start, end)).join("");
  demand(joined === asked.text, `the tokens' places hold ${JSON.stringify(joined)}`);
}

async function activations(engine: Endpoint): Promise<void> {
  const targets = [await engine.direction(), await engine.direction(-2)];
  const asked = { model: engine.model, texts: [PROMPT], targets };
  const [item] = expectBody(ActivationsResult, await engine.send("/activations", asked)).items;
  const [once = [], twice = []] = item?.values ?? [];
  demand(once.length > 0 && once.length === item?.tokens.length, `${once.length} values for ${item?.tokens.length} tokens`);
  const greatest = Math.max(...once.map(Math.abs));
  demand(greatest > 0, "every projection is 0");
  const straight = once.every((value, i) => Math.abs(-2 * value - (twice[i] ?? Number.NaN)) <= 0.01 * greatest);
  demand(straight, "a vector times -2 does not give -2 times the projections");
}

async function directions(engine: Endpoint): Promise<void> {
  const { layers, width } = await engine.info();
  const sides = [
    ["She was happy.", "What a good day!", "They smiled and laughed."],
    ["He was sad.", "What a bad day!", "They cried and left."],
  ];
  const found = async ([positive, negative]: readonly (string[] | undefined)[]) => {
    const asked = { model: engine.model, layers: [layers >> 1], method: "mean_difference", held_out: 0, positive, negative };
    const [layer] = expectBody(DirectionsResult, await engine.send("/directions", asked)).layers;
    return { auc: layer?.auc_train ?? 0, vector: decodeFloat32(layer?.vector ?? "") ?? new Float32Array() };
  };
  const { auc, vector } = await found(sides);
  demand(vector.length === width, `a vector of ${vector.length} values, not ${width}`);
  demand(auc > 0.5, `the area under its curve is ${auc}`);
  const turned = await found([...sides].reverse());
  const greatest = vector.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const opposite = vector.every((value, i) => Math.abs(value + (turned.vector[i] ?? Number.NaN)) <= 0.02 * greatest);
  demand(opposite, "sides that change places do not turn the vector round");
}

async function cancel(engine: Endpoint): Promise<void> {
  const { context } = await engine.info();
  const max_tokens = Math.min(context >> 1, MOST_TOKENS);
  for (let seed = 1; seed <= CANCEL_ATTEMPTS; seed++) {
    const id = `conformance-${randomUUID()}`;
    const stop = async () => expectBody(CancelResult, await engine.send("/cancel", { id })).canceled;
    let over = false;
    const answer = engine.send("/generate", engine.request({ id, max_tokens, sampling: { temperature: HOT, seed } })).finally(() => {
      over = true;
    });
    let canceled = false;
    const canceling = (async () => {
      while (!over && !canceled) canceled = await stop();
    })();
    const [result] = await Promise.all([answer, canceling]);
    if (!canceled) continue;
    expectRefusal(result, 409, "canceled");
    demand(!(await stop()), "it cancels a generation twice");
    return;
  }
  throw new Error("it never finds the generation that runs");
}
