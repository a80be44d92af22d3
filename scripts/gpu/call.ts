// `call`: one generation, plain and steered, through Modal's own calls instead of the HTTP endpoint.
import { readFileSync } from "node:fs";
import { formatPoint } from "../../shared/address.ts";
import { decodeFloat32, encodeFloat32 } from "../../shared/base64.ts";
import { type Edit, GenerateRequest, GenerateResult } from "../../shared/protocol.ts";
import { type FileVector, readVectorFile } from "../../shared/vector-files/index.ts";
import type { Io } from "./io.ts";
import { openModal, RUNNING } from "./modal.ts";
import type { GpuModel } from "./models.ts";

export interface CallOptions {
  readonly prompt: string;
  /** File of the direction. */
  readonly vector: string | undefined;
  readonly layer: number | undefined;
  readonly strength: number | undefined;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly seed: number;
}

/** Generates and shows the texts. */
export async function call(model: GpuModel, options: CallOptions, json: boolean, io: Io): Promise<void> {
  const request = newRequest(model, options);
  const deployed = await (await openModal()).getClass(model);
  say(await deployed.call("generate", request), json, io);
}

/** Starts a generation and shows the id of the call. */
export async function spawnCall(model: GpuModel, options: CallOptions, io: Io): Promise<void> {
  const request = newRequest(model, options);
  const deployed = await (await openModal()).getClass(model);
  const id = await deployed.spawn("generate", request);
  io.say(id);
  io.say(`Its result: npm run gpu -- call --result ${id}`);
}

/** Shows what a call that was started earlier answered. @returns whether it has. */
export async function showResult(id: string, json: boolean, io: Io): Promise<boolean> {
  const result = await (await openModal()).getResult(id);
  if (result === RUNNING) io.say(`Call ${id} is not ready yet.`);
  else say(result, json, io);
  return result !== RUNNING;
}

function newRequest({ id }: GpuModel, options: CallOptions): GenerateRequest {
  const { prompt, vector: file, layer, strength, maxTokens, temperature, seed } = options;
  if (file === undefined && (layer ?? strength) !== undefined) throw new Error("--layer and --strength say how --vector FILE is added.");
  const steered = file === undefined ? [] : [{ name: "STEERED", edits: [newEdit(readVector(file), file, layer, strength)] }];
  const parsed = GenerateRequest.safeParse({
    ...{ model: id, prompt, rows: [{ name: "DEFAULT", edits: [] }, ...steered] },
    ...{ sampling: { temperature, seed }, max_tokens: maxTokens },
  });
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new Error(`This cannot be asked for: ${issue?.path.join(".")}: ${issue?.message}.`);
}

function newEdit(vector: FileVector, file: string, asked: number | undefined, strength: number | undefined): Partial<Edit> {
  if (strength === undefined) throw new Error("--vector needs --strength X.");
  const layer = asked ?? vector.layer;
  if (layer === undefined) throw new Error(`${file} does not say where its vector acts: add --layer N.`);
  if (vector.layer !== undefined && layer !== vector.layer)
    throw new Error(`${file} says that its vector acts at layer ${vector.layer}: leave --layer out, or say the same.`);
  const point = formatPoint({ layer, kind: vector.hook ?? "resid_pre" });
  return { vector: encodeFloat32(vector.values), point, method: "SIMPLE_ADDITIVE", strength };
}

/** @throws Error, one sentence, when the file holds anything but one vector. */
function readVector(file: string): FileVector {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (cause) {
    throw new Error(`${file} cannot be read (${(cause as NodeJS.ErrnoException).code}).`, { cause });
  }
  const words = bytes.toString("latin1").trim().split(/\s+/);
  // Base64, in one line or several; what begins with a number is a list of numbers.
  const text = Number.isNaN(Number(words[0])) ? words.join("") : "";
  const values = /^[A-Za-z0-9+/]+={0,2}$/.test(text) ? decodeFloat32(text) : undefined;
  if (values !== undefined) return { name: file, values: Float64Array.from(values) };
  const vectors = readVectorFile(bytes, file);
  const [vector, ...rest] = vectors;
  if (vector === undefined || rest.length > 0) throw new Error(`${file} holds ${vectors.length} vectors: give a file of one.`);
  return vector;
}

function say(answer: unknown, json: boolean, io: Io): void {
  const result = GenerateResult.safeParse(answer);
  if (!result.success) {
    const issue = result.error.issues[0];
    throw new Error(`The answer is no result of a generation (${issue?.path.join(".")}: ${issue?.message}): deploy this checkout again.`);
  }
  if (json) io.say(JSON.stringify(result.data, null, 2));
  else sayTexts(result.data, io);
}

function sayTexts({ rows, usage, timing }: GenerateResult, io: Io): void {
  for (const { name, text, receipts } of rows) {
    io.say(`${name}\n${text}`);
    for (const { method, strength, point, positions, positions_changed, mean_relative_delta } of receipts)
      io.say(
        `  ${method} ${strength} at ${point}: changed ${positions_changed} of ${positions} positions, by ${(100 * mean_relative_delta).toFixed(1)}% of the residual on average`,
      );
    io.say("");
  }
  const [queue, prefill, decode] = [timing.queue_ms, timing.prefill_ms, timing.decode_ms].map(Math.round);
  io.say(
    `${usage.prompt_tokens} tokens read, ${usage.completion_tokens} written; waited ${queue} ms, prefill ${prefill} ms, decode ${decode} ms`,
  );
}
