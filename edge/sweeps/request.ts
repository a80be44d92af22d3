// A validated body -> what a sweep has to do. Everything that can be refused without writing a text is refused here.
import { boundaryOf, formatPoint, type Point } from "../../shared/address.ts";
import { TillerError } from "../../shared/errors.ts";
import type { Config } from "../config.ts";
import { read } from "../engine.ts";
import { LIMITS } from "../limits.ts";
import type { ServedModel } from "../models.ts";
import { chatStops } from "../steer/chat.ts";
import type { Directions } from "../steer/edits.ts";
import { checkAddress } from "../webhooks/address.ts";
import type { SweepBody, SweepColumn } from "./contract.ts";
import { type Resolved, resolveDirections, valuesOf } from "./directions.ts";
import { checkScorer } from "./scorers.ts";
import type { StoredSweep, SweepInput } from "./stored.ts";
import { describeScorer } from "./success.ts";

/** Rows of one generation at most, where the model has room for more: as many texts as one reading takes with all their targets. */
const ROWS = 31;
/** Rows that are left to others: those of a steer. */
const PAIR = 2;

export interface PlannedSweep {
  readonly sweep: StoredSweep;
  readonly input: SweepInput;
  /** Of all cells, and of the baseline. */
  readonly texts: number;
}

/** @throws TillerError naming the field and what is allowed. */
export async function planSweep(
  body: SweepBody,
  served: ServedModel,
  directions: Directions,
  userId: string,
  config: Config,
  signal: AbortSignal,
): Promise<PlannedSweep> {
  const { info } = served;
  const { webhook: _, directions: given, layers, scorer, ...rest } = body;
  for (const field of ["strengths", "methods", "seeds", "layers"] as const) checkDistinct(field, body[field] ?? []);
  if (body.methods.includes("ABLATE") && body.strengths.length > 1) {
    const sentence = `methods: ABLATE knows no strength, so its ${body.strengths.length} strengths would be the same: sweep it by itself, with one.`;
    throw new TillerError("invalid_request", sentence);
  }
  if (rest.chat && !info.chat_template)
    throw new TillerError(
      "invalid_request",
      `chat: ${info.id} has no chat template. Leave chat out: prompts are then continued as they are.`,
    );
  if (scorer !== undefined) checkScorer(scorer);

  const texts = countTexts(body);

  const sought = scorer?.kind === "projection" && scorer.direction !== undefined ? [scorer.direction] : [];
  const whereOf = (i: number) => (i < given.length ? `directions[${i}]` : "scorer.direction");
  const found = await resolveDirections([...given, ...sought], whereOf, served, directions, userId);
  const resolved = found.slice(0, given.length);
  for (const [i, { latent }] of resolved.entries()) checkKind(body, latent, whereOf(i));
  const columns = resolved.flatMap((each, direction) => {
    const { modelId = info.id, layer, index } = given[direction] ?? {};
    const isFeature = layers === undefined && layer !== undefined && index !== undefined;
    return columnsOf(each, direction, layers, info.layers).map((column) =>
      isFeature ? { ...column, feature: { modelId, layer, index } } : column,
    );
  });
  const stop = rest.chat ? chatStops(info, rest.stop) : rest.stop;
  if (scorer?.kind === "webhook") await checkAddress(scorer.url, config.webhooks);
  await checkPrompts(body, served, config, signal);

  // -0 is 0.
  const strengths = rest.strengths.map((strength) => strength + 0).sort((a, b) => a - b);
  const sweep = {
    ...{ body: { ...rest, strengths, stop }, columns, rows: Math.max(1, Math.min(ROWS, info.rows - PAIR)) },
    ...(scorer === undefined ? {} : { success: describeScorer(scorer) }),
  };
  const values = await Promise.all(
    resolved.map((each) => (layers === undefined ? each.target : valuesOf(each, directions.models, config, signal))),
  );
  const scored = scorer?.kind === "projection" ? (found[given.length] ?? found[0])?.target : undefined;
  const input: SweepInput = {
    directions: values.map(({ feature, vector }) => (feature === undefined ? { vector } : { feature })),
    ...(scorer === undefined ? {} : { scorer }),
    ...(scored === undefined ? {} : { scored }),
  };
  return { sweep, input, texts };
}

function checkDistinct(field: string, values: readonly (string | number)[]): void {
  const twice = values.find((value, i) => values.indexOf(value) !== i);
  if (twice !== undefined) throw new TillerError("invalid_request", `${field} has ${twice} twice: give each value once.`);
}

/** @returns how many texts there are, the baseline's too. @throws TillerError when they are too many, or too long together. */
function countTexts({ directions, layers, methods, strengths, prompts, seeds, n_tokens }: SweepBody): number {
  const cells = directions.length * (layers?.length ?? 1) * methods.length * strengths.length;
  const texts = (cells + 1) * prompts.length * seeds.length;
  const parts = [
    ...[`directions ${directions.length}`, `layers ${layers?.length ?? 1}`, `methods ${methods.length}`, `strengths ${strengths.length}`],
    ...[`prompts ${prompts.length}`, `seeds ${seeds.length}`],
  ];
  const sum = `(${parts.slice(0, 4).join(" x ")} + the baseline) x ${parts.slice(4).join(" x ")} are ${texts} texts`;
  if (texts > LIMITS.sweepRows) throw new TillerError("invalid_request", `${sum}; a sweep has at most ${LIMITS.sweepRows}. Ask for fewer.`);
  if (texts * n_tokens <= LIMITS.sweepAllTokens) return texts;
  throw new TillerError(
    "invalid_request",
    `${sum}, with n_tokens ${n_tokens} up to ${texts * n_tokens} tokens; a sweep has at most ${LIMITS.sweepAllTokens}. Ask for fewer texts, or for n_tokens of at most ${Math.floor(LIMITS.sweepAllTokens / texts)}.`,
  );
}

/** Whether the methods and layers make sense for a direction. */
function checkKind({ methods, layers }: SweepBody, latent: boolean, where: string): void {
  if (methods.includes("LATENT_CLAMP") && !latent) {
    throw new TillerError(
      "invalid_request",
      `${where}: LATENT_CLAMP acts on a latent of a sparse autoencoder, and this is none: leave the method out, or sweep latents alone.`,
    );
  }
  if (layers === undefined || !latent) return;
  throw new TillerError(
    "invalid_request",
    `${where} is a latent of a sparse autoencoder, which belongs to its layer: leave layers out, or give its decoder row as a vector.`,
  );
}

function columnsOf(
  { label, point, feature }: Resolved,
  direction: number,
  layers: readonly number[] | undefined,
  modelLayers: number,
): SweepColumn[] {
  return (layers ?? [point.layer]).map((layer) => {
    const at: Point = { layer, kind: point.kind };
    boundaryOf(at, modelLayers);
    return { label, layer, hookName: formatPoint(at), direction, ...(layers !== undefined || feature === undefined ? {} : { feature }) };
  });
}

/** @throws TillerError when a prompt and what is generated after it do not fit into the model's context. */
async function checkPrompts(
  { prompts, chat, n_tokens }: SweepBody,
  { info, engine }: ServedModel,
  config: Config,
  signal: AbortSignal,
): Promise<void> {
  const lengths = await Promise.all(
    prompts.map(async (text) => {
      const asked = chat ? { messages: [{ role: "user", content: text }] } : { text };
      return (await read(engine, config, "/tokenize", { model: info.id, ...asked }, signal)).ids.length;
    }),
  );
  for (const [i, length] of lengths.entries()) {
    const left = info.context - length;
    if (n_tokens <= left) continue;
    throw new TillerError(
      "prompt_too_long",
      `prompts[${i}] is ${length} tokens long and ${n_tokens} more are asked for; ${info.id} has room for ${info.context} together. ${left > 0 ? `Ask for at most ${left}, or shorten it.` : "Shorten it."}`,
    );
  }
}
