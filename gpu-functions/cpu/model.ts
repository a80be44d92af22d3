// A model directory in Hugging Face layout, read: configuration, weights, tokenizer, sources. Refuses what it cannot run, with
// the file and the reason.
import { existsSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import { boundaryOf, parsePoint } from "../../shared/address.ts";
import { TillerError } from "../../shared/errors.ts";
import { type Edit, type FeatureRef, type GenerateEvent, type GenerateRequest, LIMITS, type ModelInfo } from "../../shared/protocol.ts";
import { type Probe, planProbe } from "./activations.ts";
import type { Shape, Storage } from "./blocks.ts";
import { type ChatTemplate, loadChatTemplate, renderMessages } from "./chat.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { chooseStorage, openDirectory, type Quantise } from "./directory.ts";
import { placeEdit, RowEdits } from "./edits.ts";
import type { FamilyModel } from "./family.ts";
import { Generation } from "./generation.ts";
import { Kept } from "./kept.ts";
import { type MemoryPlan, planMemory } from "./memory.ts";
import { blockBytes, blockShape } from "./quantise.ts";
import type { Reading } from "./reading.ts";
import type { RowPlan } from "./row.ts";
import type { LatentEncoder, Sae } from "./sae.ts";
import { parseFile } from "./source-file.ts";
import { openSources, type SourceStore } from "./sources.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";

/** A model directory that was read and found good, without its weights. */
export interface KnownModel {
  readonly directory: string;
  readonly info: ModelInfo;
  readonly shape: Shape;
  readonly plan: MemoryPlan;
  readonly tokenizer: Tokenizer;
  readonly chat: ChatTemplate | undefined;
  readonly sources: SourceStore;
  readonly family: FamilyModel;
  readonly checkpoint: Checkpoint;
  /** How the matrices are held once it is loaded. */
  readonly storage: Storage;
}

/** Runs what was planned, of many callers at once. */
export interface Runner {
  /** Rows that hold a slot and requests that wait: what health reports and what tests watch. */
  load(): { rows: number; waiting: number };
  /**
   * Runs a generation and yields its events. Leaving the iteration, or aborting the signal, frees its slots within one step.
   * @throws TillerError `engine_busy` at once when too many requests wait, `engine_timeout` after `deadlineMs`; the generation's own
   * error at the end.
   */
  run(generation: Generation, signal: AbortSignal, deadlineMs?: number): AsyncGenerator<GenerateEvent>;
  /** Runs a reading to its end. @throws like `run`. */
  read(reading: Reading, signal: AbortSignal, deadlineMs?: number): Promise<void>;
  /**
   * Reads texts without edits, in whatever order and batches are fastest.
   * @param texts token ids, each at most the context.
   * @param each gets a text's place and its residuals [T, width] at every one of `boundaries`; they die when it resolves. One call at a time,
   * and none goes on when the reading has ended.
   * @throws like `run`, and whatever `each` throws.
   */
  readTexts(
    texts: readonly (readonly number[])[],
    boundaries: readonly number[],
    each: (text: number, residuals: readonly Float32Array[]) => void | Promise<void>,
    signal: AbortSignal,
    deadlineMs?: number,
  ): Promise<void>;
}

/** The encoders of a model that are in memory: loaded when they are asked for, the least recently used make room. */
export interface EncoderStore {
  /** Does `work` with the encoder of an autoencoder. @throws Error with the file when it cannot be read. */
  use<T>(sae: Sae, work: (encoder: LatentEncoder) => Promise<T>): Promise<T>;
}

/** A model in memory, ready to run. */
export interface Model extends KnownModel {
  readonly scheduler: Runner;
  readonly encoders: EncoderStore;
  /** Ends what runs and frees the memory. */
  close(): Promise<void>;
}

/**
 * Reads everything of a model directory but its weights; the model's id is the directory's name.
 * @param cacheBytes what the KV cache may take.
 * @param quantise "auto" holds models above 200M parameters as 8-bit blocks, which are kept beside the weights (sidecar.ts).
 * @throws Error with the file and the reason when anything is missing, corrupt or unsupported.
 */
export function readModel(directory: string, cacheBytes: number, quantise: Quantise = "auto"): KnownModel {
  const id = path.basename(path.resolve(directory));
  const { family, model: familyModel, checkpoint } = openDirectory(directory);
  const { shape } = familyModel;
  const storage = chooseStorage(checkpoint.parameters, quantise);
  const plan = planMemory(shape, PACKED_COPY * weightBytes(familyModel, storage), cacheBytes);
  const chat = loadChatTemplate(directory, () => new Date());
  const sources = openSources(directory, shape);
  const info: ModelInfo = {
    id,
    family: family.id,
    layers: shape.layers,
    width: shape.width,
    context: plan.cacheLength,
    vocab: shape.vocab,
    dtype: storage === "q8" ? "int8 blocks of 32" : "float32",
    revision: "local",
    rows: Math.min(plan.slots, LIMITS.rows),
    chat_template: chat !== undefined,
    ...(chat === undefined ? {} : readChatStop(directory)),
    sources: sources.info(),
  };
  return { directory, info, shape, plan, tokenizer: loadTokenizer(directory), chat, sources, family: familyModel, checkpoint, storage };
}

const Tiller = z.object({ chat: z.object({ stop: z.array(z.string().min(1)) }).optional() });

/** What tiller.json says of conversations. */
function readChatStop(directory: string): { chat_stop?: string[] } {
  const file = path.join(directory, "tiller.json");
  if (!existsSync(file)) return {};
  const { chat } = parseFile(file, Tiller);
  return chat === undefined ? {} : { chat_stop: chat.stop };
}

/** ONNX Runtime packs matrices for its kernels and the checkpoint's values stay beside them. */
const PACKED_COPY = 2;

function weightBytes(family: FamilyModel, storage: Storage): number {
  return [...family.build("affine", storage).weights.values()].reduce(
    (sum, { dims, blocks }) => sum + (blocks === undefined ? 4 * dims.reduce((a, b) => a * b, 1) : blockBytes(blockShape(dims, blocks))),
    0,
  );
}

/** Ids of a prompt, or of messages as the model's template writes them. */
function promptIds({ tokenizer, chat, info }: KnownModel, { prompt, messages }: Pick<GenerateRequest, "prompt" | "messages">): number[] {
  const ids = prompt === undefined ? tokenizer.encode(renderMessages(chat, messages ?? [])) : tokenizer.encodePrompt(prompt);
  if (ids.length === 0) throw new TillerError("invalid_request", "The prompt has no tokens: give the model something to continue.");
  if (ids.length >= info.context) {
    throw new TillerError(
      "prompt_too_long",
      `The prompt is ${ids.length} tokens long; this model takes at most ${info.context - 1}, so that at least one can be generated. Shorten it.`,
    );
  }
  return ids;
}

/**
 * Turns a request into a generation, with everything checked that can be checked before work starts.
 * @throws TillerError naming what is wrong and what is allowed.
 */
export function planGeneration(model: KnownModel, request: GenerateRequest, modelOf: (id: string) => KnownModel): Generation {
  const { context, rows: most } = model.info;
  if (request.rows.length > most)
    throw new TillerError(
      "invalid_request",
      `${request.rows.length} rows are asked for; ${model.info.id} runs ${most} at once: ask for fewer.`,
    );
  // Rows without messages of their own share one array: they are computed together as far as they are the same.
  const shared = request.rows.every((row) => row.messages !== undefined) ? undefined : promptIds(model, request);
  const prompts = request.rows.map(({ messages }) => (messages === undefined ? shared : promptIds(model, { messages })) as number[]);
  const longest = Math.max(...prompts.map((prompt) => prompt.length));
  if (request.max_tokens > context - longest) {
    throw new TillerError(
      "prompt_too_long",
      `The prompt is ${longest} tokens long and ${request.max_tokens} more are asked for; the model's context is ${context}. Ask for at most ${context - longest} tokens or shorten the prompt.`,
    );
  }
  if (request.kl_baseline !== undefined && !request.rows.some((row) => row.name === request.kl_baseline)) {
    throw new TillerError(
      "invalid_request",
      `kl_baseline '${request.kl_baseline}' is not one of the rows: ${request.rows.map((row) => row.name).join(", ")}.`,
    );
  }
  const rows = request.rows.map(({ name, edits, generated }, i) => {
    const prompt = prompts[i] as number[];
    checkGenerated(model, generated, request.max_tokens, i);
    return { name, prompt, generated, edits: planEdits(model, edits, prompt, request.steer_special_tokens, modelOf) };
  });
  const probes = request.compare?.targets.map((target, i) => planProbe(model, target, i, modelOf));
  const kept = probes === undefined ? [] : planKept(model, rows, request.max_tokens, probes);
  return new Generation(
    request,
    rows.map((row, i) => ({ ...row, kept: kept[i] })),
    model.tokenizer,
    probes,
  );
}

/** What is kept of each row to compare its text: nothing where there is nothing to compare, or it would be too much. */
function planKept({ shape }: KnownModel, rows: readonly RowPlan[], tokens: number, probes: readonly Probe[]): (Kept | undefined)[] {
  if (!Kept.fits(rows.length, Math.max(...rows.map(({ prompt }) => prompt.length)), tokens, shape)) return [];
  const asked = probes.map(({ point }) => boundaryOf(parsePoint(point), shape.layers));
  const lowest = rows.map(({ edits: { edits } }) =>
    edits.length === 0 ? undefined : Math.min(...edits.map(({ boundary }) => boundary), ...asked),
  );
  return rows.map(({ prompt }, i) => {
    const own = lowest[i];
    const sharing = lowest.filter((other) => other === own).length;
    return own === undefined ? undefined : new Kept(own, prompt.length, tokens, shape, sharing);
  });
}

function checkGenerated({ info }: KnownModel, generated: readonly number[] | undefined, most: number, row: number): void {
  if (generated === undefined) return;
  const wrong = generated.find((id) => id >= info.vocab);
  if (wrong !== undefined)
    throw new TillerError(
      "invalid_request",
      `rows.${row}.generated has ${wrong}, which is no token of this model: they are 0 to ${info.vocab - 1}.`,
    );
  if (generated.length > most)
    throw new TillerError("invalid_request", `rows.${row}.generated has ${generated.length} tokens, more than max_tokens, ${most}.`);
}

/**
 * One row's edits, looked up and checked.
 * @param prompt tokens of the prompt: positions count from its first.
 * @throws TillerError naming what is wrong and what is allowed.
 */
export function planEdits(
  model: KnownModel,
  edits: readonly Edit[],
  prompt: readonly number[],
  steerSpecialTokens: boolean,
  modelOf: (id: string) => KnownModel,
): RowEdits {
  const untouched = new Set(steerSpecialTokens ? [] : prompt.flatMap((id, i) => (model.tokenizer.specialIds.has(id) ? [i] : [])));
  const features = {
    direction: (feature: FeatureRef) => modelOf(feature.model).sources.direction(feature),
    latent: (feature: FeatureRef) => modelOf(feature.model).sources.latent(feature),
  };
  const placed = edits.flatMap((edit, index) => placeEdit(edit, index, model.shape, features));
  return new RowEdits(placed, prompt.length, untouched, model.shape);
}
