// Everything real but Discord: engine with the bundled model, edge, and the bot as the process that `npm run bot` starts.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { ROOT } from "../../../scripts/edge-bundle.ts";
import { startEdge } from "../../../scripts/local-edge.ts";
import { startEngine } from "../../../scripts/local-engine.ts";
import { Program } from "../../../scripts/test/program.ts";
import { type FakeDiscord, startFakeDiscord } from "./fake-discord.ts";

const ADMIN = "an administrator's secret of the tests";
const TOKEN = "discord-tests";

export interface World {
  readonly discord: FakeDiscord;
  /** Origin of the edge. */
  readonly url: string;
  /** The model that is served. */
  readonly model: string;
  /** The bot's own. */
  readonly key: string;
  /** Starts the bot and waits until it is connected. */
  startBot(args?: readonly string[], env?: Readonly<Record<string, string>>): Promise<Program>;
  /** Runs the bot's command line to its end. @param env settings other than this world's. */
  runBot(
    args: readonly string[],
    env?: Readonly<Record<string, string>>,
  ): Promise<{ readonly code: number | string; readonly printed: string }>;
  /** A call with the bot's own key. */
  service(path: string, body: object): Promise<Record<string, unknown>>;
  /** Runs the edge's cron. */
  cron(): Promise<void>;
  /** A call with the administrator's secret. */
  admin(path: string, body: object): Promise<Record<string, unknown>>;
  stopEdge(): Promise<void>;
  close(): Promise<void>;
}

export async function startWorld(): Promise<World> {
  const state = await mkdtemp(path.join(tmpdir(), "tiller-discord-"));
  const engine = await startEngine({ port: 0, token: TOKEN, models: [path.join(ROOT, "gpu-functions", "bundled", "tiller-tales")] });
  const discord = await startFakeDiscord();
  const bindings = {
    ADMIN_SECRET: ADMIN,
    ...{
      DISCORD_APPLICATION_ID: discord.applicationId,
      DISCORD_PUBLIC_KEY: discord.publicKey,
      DISCORD_CLIENT_SECRET: discord.clientSecret,
      DISCORD_TOKEN: discord.token,
      DISCORD_API: discord.api,
    },
  };
  const edge = await startEdge({ port: 0, state, engine: { url: engine.url, token: TOKEN }, bindings });
  const call = async (address: string, body: object, secret: Readonly<Record<string, string>>): Promise<Record<string, unknown>> => {
    const headers = { "content-type": "application/json", ...secret };
    const response = await fetch(edge.url + address, { method: "POST", headers, body: JSON.stringify(body) });
    if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
    return (await response.json()) as Record<string, unknown>;
  };
  const admin = (address: string, body: object) => call(address, body, { "x-admin-secret": ADMIN });
  const { key } = await admin("/api/admin/service-key/new", { name: "bot of the tests" });
  const programs: Program[] = [];
  const run = (args: readonly string[], changes: Readonly<Record<string, string>> = {}): Program => {
    const env = {
      DISCORD_TOKEN: discord.token,
      DISCORD_API: discord.api,
      TILLER_SERVICE_KEY: String(key),
      TILLER_URL: edge.url,
      ...changes,
    };
    const program = new Program([path.join(ROOT, "bots", "discord", "main.ts"), ...args], env);
    programs.push(program);
    return program;
  };
  return {
    ...{ discord, url: edge.url, model: "tiller-tales", key: String(key), admin, cron: edge.cron },
    service: (address, body) => call(address, body, { "x-api-key": String(key) }),
    async startBot(args = [], env = {}) {
      const program = run(args, env);
      await program.prints(/is connected/);
      return program;
    },
    async runBot(args, env) {
      const program = run(args, env);
      const code = await program.exited;
      return { code, printed: program.stdout + program.stderr };
    },
    stopEdge: () => edge.close(),
    async close() {
      for (const program of programs) program.child.kill("SIGKILL");
      await discord.close();
      await edge.close().catch(() => undefined);
      await engine.stop();
      await rm(state, { recursive: true, force: true });
    },
  };
}
