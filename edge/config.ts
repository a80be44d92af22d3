// Unchecked bindings -> Config, once per isolate. Nobody else reads the environment.
import { type DrizzleD1Database, drizzle } from "drizzle-orm/d1";
import { z } from "zod";
import type { RateWindow } from "./rate-window.ts";
import type { WebhookSettings } from "./webhooks/address.ts";

export interface EngineAddress {
  /** Pattern of model ids: `*` stands for any text. */
  readonly models: string;
  /** Base address, without a trailing slash. */
  readonly url: string;
  /** Bearer token; undefined = the engine asks for none. */
  readonly token: string | undefined;
  /** The proxy auth token of an engine on Modal: its id (wk-...) and its secret (ws-...). */
  readonly modal?: { readonly key: string; readonly secret: string };
}

export interface Config {
  /** `$client` is for statements that drizzle cannot put into a batch: raw ones with values. */
  readonly db: DrizzleD1Database & { readonly $client: D1Database };
  readonly rateWindows: DurableObjectNamespace<RateWindow>;
  readonly assets: Fetcher;
  /** In order: the first whose pattern fits a model serves it. */
  readonly engines: readonly EngineAddress[];
  /** undefined = rate limits live in the Durable Object alone. */
  readonly upstash: { readonly url: string; readonly token: string } | undefined;
  readonly workflows: { readonly jobs: Workflow<{ jobId: string }>; readonly deliveries: Workflow<{ deliveryId: string }> };
  /** Where webhooks may go. */
  readonly webhooks: WebhookSettings;
  /** What an administrator sends in x-admin-secret; undefined = nobody is one. */
  readonly adminSecret: string | undefined;
  /** The Discord application; undefined = there is none. */
  readonly discord: DiscordSettings | undefined;
  /** Origin of share links; undefined = the origin that was called. */
  readonly publicUrl: string | undefined;
  /** After this long without an end, an engine's answer is given up. */
  readonly engineTimeoutMs: number;
  /** For so long a request waits for an engine on Modal to start. */
  readonly coldStartMs: number;
  /** The first wait between two tries of such a request; later ones are up to five times as long. */
  readonly coldStartWaitMs: number;
  /** How often a silent stream is written to, so that a client that has gone is noticed. */
  readonly pingMs: number;
}

export interface DiscordSettings {
  readonly applicationId: string;
  /** In hex: interactions over HTTP are checked with it; undefined = there are none. */
  readonly publicKey: string | undefined;
  /** For signing in with Discord; undefined = nobody does. */
  readonly clientSecret: string | undefined;
  /** The bot's; undefined = it writes only where an interaction lets it. */
  readonly token: string | undefined;
  /** Without a trailing slash. */
  readonly api: string;
}

/** The deployment is wrong: its message says which setting and what it should be, and never repeats a value. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

const EngineRows = z
  .array(
    z
      .strictObject({
        models: z.string().min(1),
        url: z.url({ protocol: /^https?$/ }),
        token: z.string().min(1).optional(),
        modal: z.strictObject({ key: z.string().min(1), secret: z.string().min(1) }).optional(),
      })
      .refine(({ url, modal }) => isPrivate(url, modal !== undefined), {
        path: ["url"],
        error: "what is on Modal must have an https address: its keys could be read on the way",
      }),
  )
  .min(1);

/** Whether nobody on the way reads Modal's keys. An address on this machine may stand in for one of Modal's. */
function isPrivate(url: string, modal: boolean): boolean {
  const { protocol, hostname } = new URL(url);
  if (protocol === "https:") return true;
  return !hostname.endsWith(".modal.run") && (!modal || hostname === "127.0.0.1" || hostname === "localhost");
}

/** Shorter ones can be guessed. */
const SECRET_LENGTH = 24;

const origin = z.url({ protocol: /^https?$/ });

/**
 * Reads the Worker's bindings.
 * @throws ConfigError naming the setting that is missing or malformed.
 */
export function parseConfig(env: Env): Config {
  const settings = env as unknown as Readonly<Record<string, unknown>>;
  const text = (name: string): string | undefined => {
    const value = settings[name];
    if (value === undefined || value === "") return undefined;
    if (typeof value !== "string") throw new ConfigError(`${name} must be a text.`);
    return value;
  };
  for (const binding of ["DB", "RATE_WINDOWS", "ASSETS", "JOBS", "DELIVERIES"]) {
    if (settings[binding] === undefined) throw new ConfigError(`The binding ${binding} is missing: see wrangler.toml.`);
  }
  const publicUrl = text("PUBLIC_URL");
  if (publicUrl !== undefined && !origin.safeParse(publicUrl).success) throw new ConfigError("PUBLIC_URL must be an http(s) address.");
  const adminSecret = text("ADMIN_SECRET");
  if (adminSecret !== undefined && adminSecret.length < SECRET_LENGTH)
    throw new ConfigError(`ADMIN_SECRET must be at least ${SECRET_LENGTH} characters long.`);
  return {
    db: drizzle(env.DB),
    rateWindows: env.RATE_WINDOWS as DurableObjectNamespace<RateWindow>,
    assets: env.ASSETS,
    engines: parseEngines(text("ENGINES"), text),
    upstash: parseUpstash(text("UPSTASH_REDIS_REST_URL"), text("UPSTASH_REDIS_REST_TOKEN")),
    adminSecret,
    discord: parseDiscord(text),
    workflows: { jobs: env.JOBS as Workflow<{ jobId: string }>, deliveries: env.DELIVERIES as Workflow<{ deliveryId: string }> },
    webhooks: parseWebhooks(text("WEBHOOK_DNS"), text("WEBHOOK_ALLOW")),
    publicUrl: publicUrl?.replace(/\/+$/, ""),
    engineTimeoutMs: 300_000,
    coldStartMs: 120_000,
    coldStartWaitMs: 1000,
    pingMs: 1000,
  };
}

function parseEngines(json: string | undefined, secret: (name: string) => string | undefined): readonly EngineAddress[] {
  const form = 'ENGINES must be a JSON list such as [{"models":"*","url":"http://127.0.0.1:8788","token":"ENGINE_TOKEN"}]';
  if (json === undefined) throw new ConfigError(`${form}; it is missing.`);
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw new ConfigError(`${form}; it is not JSON.`);
  }
  const rows = EngineRows.safeParse(value);
  if (!rows.success) {
    const issue = rows.error.issues[0];
    throw new ConfigError(`${form}; at ${issue?.path.join(".") || "the top"}: ${issue?.message}.`);
  }
  const named = (name: string): string => {
    const value = secret(name);
    if (value === undefined) throw new ConfigError(`ENGINES names the secret ${name}, which is not set.`);
    return value;
  };
  return rows.data.map(({ models, url, token, modal }) => ({
    models,
    url: url.replace(/\/+$/, ""),
    token: token === undefined ? undefined : named(token),
    ...(modal === undefined ? {} : { modal: { key: named(modal.key), secret: named(modal.secret) } }),
  }));
}

function parseDiscord(text: (name: string) => string | undefined): DiscordSettings | undefined {
  const names = ["DISCORD_PUBLIC_KEY", "DISCORD_CLIENT_SECRET", "DISCORD_TOKEN"] as const;
  const [publicKey, clientSecret, token] = names.map(text);
  const applicationId = text("DISCORD_APPLICATION_ID");
  if (applicationId === undefined) {
    const given = names.find((name) => text(name) !== undefined);
    if (given === undefined) return undefined;
    throw new ConfigError(`${given} needs DISCORD_APPLICATION_ID: it is on the General Information page of the application.`);
  }
  if (!/^\d{5,20}$/.test(applicationId)) throw new ConfigError("DISCORD_APPLICATION_ID must be the application's id, in digits.");
  if (publicKey !== undefined && !/^[0-9a-f]{64}$/i.test(publicKey))
    throw new ConfigError("DISCORD_PUBLIC_KEY must be the application's public key: 64 hex digits.");
  const api = (text("DISCORD_API") ?? "https://discord.com/api").replace(/\/+$/, "");
  if (!/^(https:\/\/|http:\/\/(127\.0\.0\.1|localhost)[:/])/.test(api)) throw new ConfigError("DISCORD_API must be an https address.");
  return { applicationId, publicKey, clientSecret, token, api };
}

function parseWebhooks(dns: string | undefined, allow: string | undefined): WebhookSettings {
  if (dns !== undefined && !z.url({ protocol: /^https$/ }).safeParse(dns).success)
    throw new ConfigError("WEBHOOK_DNS must be an https address.");
  const hosts = (allow ?? "").split(",").map((host) => host.trim());
  return { dnsUrl: dns, allow: hosts.filter((host) => host !== "") };
}

function parseUpstash(url: string | undefined, token: string | undefined): Config["upstash"] {
  if (url === undefined && token === undefined) return undefined;
  if (url === undefined || token === undefined) {
    throw new ConfigError("UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN belong together: set both or neither.");
  }
  if (!origin.safeParse(url).success) throw new ConfigError("UPSTASH_REDIS_REST_URL must be an http(s) address.");
  return { url, token };
}
