// A request for directions, with everything checked that can be checked before work starts: its texts as tokens, which of them count, and
// which texts are held out.
import { boundaryOf, formatPoint, type Point, parsePoint, parseSource } from "../../../shared/address.ts";
import { DIRECTION_LIMITS, type DirectionsRequest } from "../../../shared/directions.ts";
import { TillerError } from "../../../shared/errors.ts";
import { renderMessages } from "../chat.ts";
import type { KnownModel } from "../model.ts";
import type { Pace } from "../pace.ts";
import type { Sae } from "../sae.ts";

export interface PlannedText {
  readonly ids: readonly number[];
  /** Where its answer begins; 0 for a text without a prompt. */
  readonly answer: number;
  readonly positive: boolean;
  /** How many of its tokens count; at least one. */
  readonly tokens: number;
}

export interface PlannedLayer {
  readonly layer: number;
  readonly point: Point;
  /** Of the residual stream. */
  readonly boundary: number;
  /** Of the method `sae`: the autoencoder and its source's id. */
  readonly sae: { readonly sae: Sae; readonly source: string } | undefined;
}

export interface Plan {
  readonly layers: readonly PlannedLayer[];
  /** Texts that the direction is made from. Where there are as many of both sides, positive and negative ones take turns, in pairs. */
  readonly train: readonly PlannedText[];
  /** Texts that it is judged on. */
  readonly heldOut: readonly PlannedText[];
  /** Positions of a text that count, in order. */
  counted(text: Pick<PlannedText, "ids" | "answer">): number[];
}

/** A text before it is tokenized: what it is called in errors, and of a pair the prompt before it. */
interface Written {
  readonly name: string;
  readonly prompt: string | undefined;
  readonly text: string;
  readonly positive: boolean;
}

/** Bytes that are tokenized at once: a few milliseconds' work. */
const PART = 2 ** 15;
/** Of the method `pca`: with two pairs, any direction in the plane of their differences would do. */
const LEAST_PAIRS = 3;
/** Of the method `probe`, of each side. */
const LEAST_PROBED = 2;

/**
 * Text `index` of a side is held out where the share of those before it, rounded down, grows with it: evenly spread, and as many as the
 * share of the side, rounded down. The share is at most a half, so that one text at least is left.
 */
export const isHeldOut = (index: number, share: number): boolean => Math.floor((index + 1) * share) > Math.floor(index * share);

/** @throws TillerError naming what is wrong and what is allowed. */
export async function planDirections(known: KnownModel, request: DirectionsRequest, pace: Pace): Promise<Plan> {
  const layers = request.layers.map((layer) => planLayer(known, request, layer));
  const sides = writtenTexts(request);
  checkTexts(request, sides);
  const counted = countedBy(known, request);
  const texts: (readonly PlannedText[])[] = [];
  for (const side of sides) texts.push(await tokenizeSide(known, request, side, counted, pace));
  const [positive = [], negative = []] = texts;
  const turns = Array.from({ length: Math.max(positive.length, negative.length) }, (_, i) => i);
  const pick = (heldOut: boolean) =>
    turns
      .filter((i) => isHeldOut(i, request.held_out) === heldOut)
      .flatMap((i) => [...positive.slice(i, i + 1), ...negative.slice(i, i + 1)]);
  return { layers, train: pick(false), heldOut: pick(true), counted };
}

function planLayer(known: KnownModel, { hook, sae }: DirectionsRequest, layer: number): PlannedLayer {
  const { id, layers } = known.info;
  if (layer >= layers)
    throw new TillerError("invalid_request", `There is no layer ${layer} in '${id}': its layers are 0 to ${layers - 1}.`);
  const point: Point = { layer, kind: hook };
  return { layer, point, boundary: boundaryOf(point, layers), sae: sae === undefined ? undefined : findSae(known, sae.set, point) };
}

function findSae({ info, sources }: KnownModel, set: string, point: Point): NonNullable<PlannedLayer["sae"]> {
  const source = `${point.layer}-${set}`;
  const found = info.sources.find(({ id }) => id === source);
  if (found?.point === formatPoint(point)) return { sae: sources.sae(source), source };
  const there = info.sources
    .filter(({ id, architecture }) => parseSource(id)?.name === set && architecture !== "directions")
    .map((each) => parsePoint(each.point))
    .filter(({ kind }) => kind === point.kind)
    .map(({ layer }) => layer)
    .sort((a, b) => a - b);
  const instead =
    there.length > 0
      ? `'${set}' has autoencoders of ${point.kind} at layers: ${there.join(", ")}.`
      : `No autoencoder of ${point.kind} is called '${set}'; the model's sources are: ${info.sources.map(({ id }) => id).join(", ") || "none"}.`;
  if (found === undefined) throw new TillerError("feature_not_found", `Model '${info.id}' has no source '${source}'. ${instead}`);
  throw new TillerError("invalid_request", `Source '${source}' is of ${found.point}, and hook is ${point.kind}. ${instead}`);
}

/** The positive side and the negative one. */
function writtenTexts({ positive = [], negative = [], pairs }: DirectionsRequest): Written[][] {
  const side = (name: "positive" | "negative", texts: readonly string[]): Written[] =>
    pairs === undefined
      ? texts.map((text, i) => ({ name: `${name}[${i}]`, prompt: undefined, text, positive: name === "positive" }))
      : pairs.map((pair, i) => ({
          name: `pairs[${i}].${name}`,
          prompt: pair.prompt,
          text: pair[name],
          positive: name === "positive",
        }));
  return [side("positive", positive), side("negative", negative)];
}

function checkTexts({ method, held_out, pairs }: DirectionsRequest, sides: readonly (readonly Written[])[]): void {
  const refuse = (sentence: string) => new TillerError("invalid_request", sentence);
  const size = (text: string | undefined) => Buffer.byteLength(text ?? "");
  // The prompt of a pair was sent once.
  const bytes = sides.flat().reduce((sum, { prompt, text, positive }) => sum + size(text) + (positive ? size(prompt) : 0), 0);
  if (bytes > DIRECTION_LIMITS.bytes)
    throw refuse(`The texts have ${bytes} bytes together; at most ${DIRECTION_LIMITS.bytes} are read for one direction. Send fewer.`);
  const [sorted, other] = sides.map((side) => side.map(({ prompt, text }) => JSON.stringify([prompt, text])).sort());
  if (sorted?.join() === other?.join())
    throw refuse("Both sides have the same texts: give positive ones that show what the direction is for, and negative ones that do not.");
  const [positive = 0, negative = 0] = sides.map(({ length }) => length);
  if (method === "pca" && positive !== negative)
    throw refuse(
      `The method pca takes the i-th positive and the i-th negative text for a pair: give as many of both, not ${positive} and ${negative}.`,
    );
  const [most, left] = [Math.max(positive, negative), Math.min(positive, negative)].map((texts) => texts - Math.floor(texts * held_out));
  const least = method === "pca" ? LEAST_PAIRS : method === "probe" ? LEAST_PROBED : 1;
  if ((left as number) < least) {
    const what = method === "pca" || pairs !== undefined ? "pairs" : "texts of each side";
    const counts = left === most ? `${left}` : `${most} and ${left}`;
    throw refuse(
      `The method ${method} needs at least ${least} ${what} that are not held out, and there are ${counts}: give more, or hold out a smaller share.`,
    );
  }
}

/** Which positions of a text count (CountedTokens). */
function countedBy({ tokenizer }: KnownModel, { tokens }: DirectionsRequest): Plan["counted"] {
  return ({ ids, answer }) => {
    if (typeof tokens === "number") return ids.length + tokens < 0 ? [] : [ids.length + tokens];
    const from = tokens === "answer" ? answer : 0;
    const found: number[] = [];
    for (let t = from; t < ids.length; t++) if (!tokenizer.specialIds.has(ids[t] as number)) found.push(t);
    return tokens === "last" ? found.slice(-1) : found;
  };
}

async function tokenizeSide(
  known: KnownModel,
  request: DirectionsRequest,
  side: readonly Written[],
  counted: Plan["counted"],
  pace: Pace,
): Promise<PlannedText[]> {
  const planned: PlannedText[] = [];
  let since = PART;
  for (const written of side) {
    if (since >= PART) {
      await pace();
      since = 0;
    }
    since += written.text.length + (written.prompt?.length ?? 0);
    planned.push(tokenize(known, request, written, counted));
  }
  return planned;
}

function tokenize(
  { tokenizer, chat, info }: KnownModel,
  request: DirectionsRequest,
  { name, prompt, text, positive }: Written,
  counted: Plan["counted"],
): PlannedText {
  const read = (asked: string) =>
    request.chat ? tokenizer.encode(renderMessages(chat, [{ role: "user", content: asked }])) : tokenizer.encodePrompt(asked);
  const before = read(prompt ?? text);
  // An answer is tokenized by itself, as one that is generated comes after its prompt.
  const ids = prompt === undefined ? before : [...before, ...tokenizer.encode(text)];
  const answer = prompt === undefined ? 0 : before.length;
  if (ids.length > info.context) {
    const whole = prompt === undefined ? "" : " with its prompt";
    throw new TillerError(
      "prompt_too_long",
      `${name} has ${ids.length} tokens${whole}, and this model takes at most ${info.context}. Shorten it.`,
    );
  }
  const tokens = counted({ ids, answer }).length;
  if (tokens > 0) return { ids, answer, positive, tokens };
  const why =
    typeof request.tokens === "number"
      ? `there is no token ${request.tokens} from its end`
      : `none ${request.tokens === "answer" ? "of its answer " : ""}counts: special tokens do not`;
  throw new TillerError("invalid_request", `${name} has ${ids.length} ${ids.length === 1 ? "token" : "tokens"}, and ${why}. Leave it out.`);
}
