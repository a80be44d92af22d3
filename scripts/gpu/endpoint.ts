// An engine over HTTP, as the checks see it: what is asked for one model, and what comes back.
import type { z } from "zod";
import { encodeFloat32 } from "../../shared/base64.ts";
import { EngineErrorBody, GenerateResult, type ModelInfo, ModelList } from "../../shared/protocol.ts";

/** Of one answer: a container may have to start first. */
const PATIENCE_MS = 600_000;
/** Added to the residual stream, times a vector of length one, it drowns what any model has there. */
export const STRONG = 1000;
export const PROMPT = "Once upon a time there was";
const TOKENS = 16;

export interface Answer {
  readonly status: number;
  /** JSON, or the text when it is none. */
  readonly body: unknown;
}

export class Endpoint {
  readonly url: string;
  readonly model: string;
  private readonly headers: Readonly<Record<string, string>>;
  private known: ModelInfo | undefined;

  constructor(url: string, model: string, headers: Readonly<Record<string, string>>) {
    this.url = url;
    this.model = model;
    this.headers = headers;
  }

  /** Whether requests carry a token. */
  get hasToken(): boolean {
    return this.headers.authorization !== undefined;
  }

  /** Sends a body with POST, or GETs when there is none. @throws Error when nobody answers. */
  async send(path: string, body?: object, headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
    const post = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    try {
      const response = await fetch(this.url + path, {
        ...post,
        headers: { "content-type": "application/json", accept: "application/json", ...this.headers, ...headers },
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      return { status: response.status, body: asJson(await response.text()) };
    } catch (error) {
      const { name, message, cause } = error as Error & { cause?: { code?: string } };
      const why = name === "TimeoutError" ? "nothing in ten minutes" : (cause?.code ?? message);
      throw new Error(`${this.url} does not answer (${why})`, { cause: error });
    }
  }

  /** What the engine says of the model. */
  async info(): Promise<ModelInfo> {
    if (this.known !== undefined) return this.known;
    const { models } = expectBody(ModelList, await this.send("/models"));
    this.known = models.find(({ id }) => id === this.model);
    if (this.known === undefined) throw new Error(`it lists ${models.map(({ id }) => `'${id}'`).join(", ") || "no models"}`);
    return this.known;
  }

  /** A GenerateRequest of one plain row, deterministic unless `more` says otherwise. */
  request(more: object = {}): object {
    const rows = [{ name: "DEFAULT", edits: [] }];
    return { model: this.model, prompt: PROMPT, rows, sampling: { temperature: 0, seed: 1 }, max_tokens: TOKENS, ...more };
  }

  async generate(more: object = {}): Promise<GenerateResult> {
    return expectBody(GenerateResult, await this.send("/generate", this.request(more)));
  }

  /** A plain row, and one with a vector of length one added times `strength` in the middle of the model. */
  async rows(strength: number): Promise<object[]> {
    return [
      { name: "DEFAULT", edits: [] },
      { name: "STEERED", edits: [{ ...(await this.direction()), method: "SIMPLE_ADDITIVE", strength }] },
    ];
  }

  /** A vector of length `scale` with all of the model's dimensions in it, and its point. */
  async direction(scale = 1): Promise<{ readonly vector: string; readonly point: string }> {
    const { width, layers } = await this.info();
    const wave = Array.from({ length: width }, (_, i) => Math.cos(i * i + 1));
    const length = Math.hypot(...wave);
    return { vector: encodeFloat32(wave.map((value) => (scale * value) / length)), point: `blocks.${layers >> 1}.hook_resid_pre` };
  }
}

function asJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** The body of a 200. @throws Error, for people, when it is another answer. */
export function expectBody<Output>(schema: z.ZodType<Output>, { status, body }: Answer): Output {
  if (status !== 200) throw new Error(`it answers ${status} ${codeOf(body) ?? ""}`.trim());
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new Error(`its answer is wrong at ${issue?.path.join(".") || "the top"}: ${issue?.message}`);
}

/** @throws Error, for people, when the answer is not this refusal. */
export function expectRefusal({ status, body }: Answer, wanted: number, code: string): void {
  const found = codeOf(body) ?? "without a code";
  if (status !== wanted || found !== code) throw new Error(`it answers ${status} ${found}, not ${wanted} ${code}`);
}

const codeOf = (body: unknown): string | undefined => EngineErrorBody.safeParse(body).data?.error.code;
