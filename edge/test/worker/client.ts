// What tests of the Worker share: calling it, users with keys, and the model they steer.
import { createExecutionContext, waitOnExecutionContext } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import type { z } from "zod";
import { newId } from "../../../shared/ids.ts";
import { newApiKey } from "../../../shared/keys.ts";
import type { GenerateRequest } from "../../../shared/protocol.ts";
import { parseEvents } from "../../../shared/sse.ts";
import { newApp } from "../../app.ts";
import { type Config, parseConfig } from "../../config.ts";
import { apiKeys, users } from "../../schema.ts";
import type { SteerRequest, SteerResult } from "../../steer/contract.ts";

export const ORIGIN = "http://edge.test";
export const config = (): Config => parseConfig(env);

/** A request to the Worker under test. */
export const call = (path: string, init?: RequestInit): Promise<Response> => exports.default.fetch(new Request(ORIGIN + path, init));

/** A POST with a JSON body, or with a text that is sent as it is. */
export function post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
  return call(path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
}

/** A request to an app of its own configuration. */
export async function callWith(changes: Partial<Config>, path: string, init?: RequestInit): Promise<Response> {
  const ctx = createExecutionContext();
  const response = await newApp({ ...config(), ...changes }).fetch(new Request(ORIGIN + path, init), env, ctx);
  await waitOnExecutionContext(ctx);
  return response;
}

export interface TestUser {
  readonly id: string;
  readonly key: string;
  readonly headers: { readonly "x-api-key": string };
}

/** A user with one key. */
export async function newUser(options: { hourlyLimit?: number; revoked?: boolean } = {}): Promise<TestUser> {
  const { db } = config();
  const id = newId();
  const { key, hash, prefix } = await newApiKey();
  const now = Date.now();
  await db.insert(users).values({ id, name: "test", created_at: now, hourly_limit: options.hourlyLimit ?? null });
  await db
    .insert(apiKeys)
    .values({ id: newId(), user_id: id, hash, prefix, name: "test", created_at: now, revoked_at: options.revoked ? now : null });
  return { id, key, headers: { "x-api-key": key } };
}

type Body = Partial<z.input<typeof SteerRequest>>;

/** A good body for the engine of faults; `prompt` may be one of its FAULTS. */
export const scripted = (changes: Body = {}): Body => ({
  prompt: "hello",
  modelId: "scripted",
  features: [{ modelId: "scripted", layer: "2-scripted", index: 1, strength: 4 }],
  temperature: 0.5,
  n_tokens: 3,
  freq_penalty: 1,
  seed: nextSeed(),
  strength_multiplier: 1,
  ...changes,
});

let seed = Math.floor(Math.random() * 90_000_000);
/** A seed nobody else uses: the engine of faults tells requests apart by it. */
export const nextSeed = (): number => ++seed;

/** What the engine of faults saw of the request with this seed; null when it never came. */
export async function seenBy(seed: unknown): Promise<{ request: GenerateRequest; abandoned: boolean } | null> {
  return (await fetch(`${env.SCRIPTED_URL}/seen/${String(seed)}`)).json();
}

export interface Direction {
  readonly modelId: string;
  readonly width: number;
  readonly layers: number;
  readonly feature: { readonly modelId: string; readonly layer: string; readonly index: number; readonly strength: number };
}

/** The first labelled direction of the bundled model, as the service itself lists it. */
export async function realDirection(): Promise<Direction> {
  const { models } = (await (await call("/api/models")).json()) as {
    models: {
      id: string;
      width: number;
      layers: number;
      sources: { id: string; labelledFeatures: { index: number; strength?: number }[] }[];
    }[];
  };
  for (const model of models.filter(({ id }) => !id.startsWith("scripted"))) {
    for (const source of model.sources) {
      const [labelled] = source.labelledFeatures;
      if (labelled === undefined) continue;
      return {
        modelId: model.id,
        width: model.width,
        layers: model.layers,
        feature: { modelId: model.id, layer: source.id, index: labelled.index, strength: labelled.strength ?? 4 },
      };
    }
  }
  throw new Error("No engine lists a model with a labelled direction.");
}

export const json = async (response: Response): Promise<SteerResult & Record<string, unknown>> => response.json();

/** An engine's address where nobody listens. */
export const NO_ENGINE: Config["engines"] = [{ models: "*", url: "http://127.0.0.1:1", token: undefined }];

/** The frames of an event stream, without comments: `[event, data]`, event being "message" where it has no name. */
export async function frames(response: Response): Promise<[string, Record<string, unknown>][]> {
  const all: [string, Record<string, unknown>][] = [];
  for await (const { event, data } of parseEvents(response.body as ReadableStream<Uint8Array>)) all.push([event, JSON.parse(data)]);
  return all;
}
