// Vectors made of other vectors: what the terms of a combination are, and what becomes of them.
import { formatPoint, type Point, parsePoint } from "../../shared/address.ts";
import { decodeFloat32 } from "../../shared/base64.ts";
import { TillerError } from "../../shared/errors.ts";
import { FEATURE_LIMITS } from "../../shared/features.ts";
import type { ModelInfo } from "../../shared/protocol.ts";
import { cosine, lengthOf, orthogonalPart, weightedSum, withLength } from "../../shared/vector-arithmetic.ts";
import type { Room } from "../app.ts";
import { read } from "../engine.ts";
import { LIMITS } from "../limits.ts";
import type { ServedModel } from "../models.ts";
import { findSource } from "../read/answers.ts";
import { checkLayer, checkValues } from "../vectors/files.ts";
import { keyOf, type NewVector, pointOf, type VectorAddress, vectorPoint } from "../vectors/store.ts";
import type { CombineBody } from "./contract.ts";
import { clampStrength } from "./keep.ts";

/** A direction that something is made of. */
interface Part {
  readonly values: ArrayLike<number>;
  readonly point: Point;
  readonly label: string;
  /** A strength that shows. */
  readonly strength: number;
}

/** Of a feature that says none, as vector/get answers. */
const STRENGTH = 10;

export interface Combined {
  readonly vector: NewVector;
  /** With each term. */
  readonly cosines: readonly (number | null)[];
}

/**
 * The sum of the terms, without its parts along `orthogonalTo`, brought to its length.
 * @throws TillerError naming the term that is not there or does not fit, and why nothing is left.
 */
export async function combine(
  body: CombineBody,
  room: Pick<Room, "models" | "vectors" | "config">,
  userId: string,
  signal: AbortSignal,
): Promise<Combined> {
  const addresses = [...body.terms, ...body.orthogonalTo];
  const whereOf = (i: number) => (i < body.terms.length ? `terms[${i}]` : `orthogonalTo[${i - body.terms.length}]`);
  const { modelId } = body.terms[0] as VectorAddress;
  const other = addresses.findIndex((each) => each.modelId !== modelId);
  if (other >= 0) throw refuse(`${whereOf(other)}.modelId must be ${modelId}, as that of terms[0]: all must be of one model.`);
  const served = await room.models.get(modelId, signal);
  const parts = await findParts(addresses, whereOf, served, room, userId, signal);
  const terms = body.terms.map(({ weight }, i) => ({ ...(parts[i] as Part), weight }));
  const values = arithmetic(body, terms, parts.slice(terms.length));
  const { layer, kind } = placeOf(body, terms, served.info);
  const suggested = strengthOf(terms, lengthOf(values));
  return {
    vector: {
      ...{ user_id: userId, model_id: modelId, layer, hook: kind, values: checkValues(values, served.info, "The result") },
      ...{ label: body.vectorLabel, visibility: body.visibility },
      description: body.description ?? describe(body, parts),
      default_strength: body.vectorDefaultSteerStrength ?? clampStrength(Number(suggested.toPrecision(3))),
    },
    cosines: terms.map((term) => cosine(term.values, values)),
  };
}

function arithmetic(
  { orthogonalTo, length }: CombineBody,
  terms: readonly (Part & { readonly weight: number })[],
  others: readonly Part[],
): Float64Array {
  const sum = weightedSum(terms);
  if (sum === undefined) throw refuse("The terms cancel each other out: nothing but rounding is left. Change their weights.");
  const rest = orthogonalPart(
    sum,
    others.map(({ values }) => values),
  );
  if (rest === undefined) {
    const what = orthogonalTo.length === 1 ? "is a multiple of orthogonalTo" : "lies in the span of orthogonalTo";
    throw refuse(`Nothing is left: the sum of the terms ${what}.`);
  }
  return length === undefined ? rest : withLength(rest, length);
}

/** How far the terms push at their strengths, the mean by weight, over the length of the result. */
function strengthOf(terms: readonly (Part & { readonly weight: number })[], length: number): number {
  const weights = terms.reduce((sum, { weight }) => sum + Math.abs(weight), 0);
  const push = terms.reduce((sum, { weight, strength, values }) => sum + Math.abs(weight * strength) * lengthOf(values), 0);
  return push / weights / length;
}

function placeOf({ layerNumber, hookType }: CombineBody, terms: readonly Part[], model: ModelInfo): Point {
  const points = [...new Set(terms.map(({ point }) => formatPoint(point)))];
  const own = parsePoint(points[0] as string);
  if (points.length > 1 && (layerNumber === undefined || hookType === undefined))
    throw refuse(`layerNumber and hookType are required fields here: the terms act at different points, ${points.join(", ")}.`);
  const kind = hookType === undefined ? own.kind : hookType === "hook_resid_pre" ? "resid_pre" : "resid_post";
  return { layer: checkLayer(layerNumber ?? own.layer, model), kind };
}

/** What the addresses name, in their order. */
async function findParts(
  addresses: readonly VectorAddress[],
  whereOf: (i: number) => string,
  served: ServedModel,
  { vectors, config }: Pick<Room, "vectors" | "config">,
  userId: string,
  signal: AbortSignal,
): Promise<Part[]> {
  const { info } = served;
  const isKept = ({ source }: VectorAddress) => vectorPoint(source) !== undefined;
  for (const [i, { source, index }] of addresses.entries()) {
    const width = vectorPoint(source) === undefined ? findSource(info, source).width : Number.POSITIVE_INFINITY;
    if (index >= width)
      throw missing(`${whereOf(i)}.index: ${source} of ${info.id} has no feature ${index}; its features are 0 to ${width - 1}.`);
  }
  const parts = await featureParts(
    addresses.filter((address) => !isKept(address)),
    served,
    config,
    signal,
  );
  for (const [key, row] of await vectors.find(addresses.filter(isKept), userId))
    parts.set(key, { values: row.values, point: pointOf(row), label: row.label, strength: row.default_strength });
  return addresses.map((address, i) => {
    const part = parts.get(keyOf(address));
    const { source, index } = address;
    if (part === undefined) throw missing(`${whereOf(i)}: there is no vector ${index} in '${source}' of '${info.id}' that you may use.`);
    if (part.values.length === info.width) return part;
    throw refuse(`${whereOf(i)}: the vector has ${part.values.length} values, ${info.id} needs ${info.width}.`);
  });
}

/** Rows of the model's sources, by `keyOf`. */
async function featureParts(
  features: readonly VectorAddress[],
  { info, engine }: ServedModel,
  config: Room["config"],
  signal: AbortSignal,
): Promise<Map<string, Part>> {
  const parts = new Map<string, Part>();
  for (const source of new Set(features.map((each) => each.source))) {
    const indexes = [...new Set(features.filter((each) => each.source === source).map(({ index }) => index))];
    const known = findSource(info, source).labelled_features;
    for (let start = 0; start < indexes.length; start += FEATURE_LIMITS.indexes) {
      const asked = indexes.slice(start, start + FEATURE_LIMITS.indexes);
      const { point, rows } = await read(engine, config, "/rows", { model: info.id, source, indexes: asked }, signal);
      for (const [i, index] of asked.entries()) {
        const { label = `feature ${index}`, strength = STRENGTH } = known.find((each) => each.index === index) ?? {};
        const values = decodeFloat32(rows[i] ?? "") ?? new Float32Array();
        parts.set(keyOf({ modelId: info.id, source, index }), { values, point: parsePoint(point), label, strength });
      }
    }
  }
  return parts;
}

/** One sentence of how it was made. */
function describe({ terms, orthogonalTo, length }: CombineBody, parts: readonly Part[]): string {
  const named = (address: VectorAddress, i: number) => `'${parts[i]?.label}' (${address.source} ${address.index})`;
  const sum = terms.map((term, i) => `${term.weight} x ${named(term, i)}`).join(" + ");
  const others = orthogonalTo.map((other, i) => named(other, terms.length + i)).join(", ");
  const made = `${sum}${others === "" ? "" : `, orthogonal to ${others}`}${length === undefined ? "" : `, of length ${length}`}.`;
  return made.length <= LIMITS.descriptionChars ? made : `${made.slice(0, LIMITS.descriptionChars - 3)}...`;
}

const refuse = (sentence: string): TillerError => new TillerError("invalid_request", sentence);
const missing = (sentence: string): TillerError => new TillerError("feature_not_found", sentence);
