// Upstash's REST protocol in front of a real Redis: the few calls that the rate limiter makes, answered by Redis itself.
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { Redis } from "ioredis";

export interface UpstashProxy {
  readonly url: string;
  readonly token: string;
  /** How many commands came. */
  commands(): number;
  /** From now on commands are taken and never answered. */
  hang(): void;
  close(): Promise<void>;
}

const TOKEN = "upstash-test-token";
/** Upstash's own flag in the first line of a script; Redis refuses scripts with flags it does not know. */
const UPSTASH_FLAGS = /^#!lua[^\n]*allow-key-locking[^\n]*\n/;

/** Starts the proxy on a free port. @param redisPort where Redis listens on this machine. */
export async function startUpstashProxy(redisPort: number): Promise<UpstashProxy> {
  const redis = new Redis(redisPort, "127.0.0.1", { maxRetriesPerRequest: 0, retryStrategy: () => null, lazyConnect: true });
  // Without a listener a lost connection would end the process; every command fails with it anyway.
  redis.on("error", () => undefined);
  await redis.connect();
  /** The SHA-1 that the client knows a script by -> the script as Redis takes it. */
  const scripts = new Map<string, string>();
  let commands = 0;
  let hangs = false;

  async function run([name = "", ...args]: string[]): Promise<unknown> {
    if (name.toLowerCase() === "eval") {
      const [script = "", ...rest] = args;
      const plain = script.replace(UPSTASH_FLAGS, "");
      scripts.set(createHash("sha1").update(script).digest("hex"), plain);
      return redis.call("EVAL", plain, ...rest);
    }
    if (name.toLowerCase() === "evalsha") {
      const [sha = "", ...rest] = args;
      const plain = scripts.get(sha);
      if (plain !== undefined) return redis.call("EVAL", plain, ...rest);
    }
    return redis.call(name, ...args);
  }

  const server = createServer((request, response) => {
    const send = (status: number, value: unknown) =>
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
    if (request.headers.authorization !== `Bearer ${TOKEN}`) return void send(401, { error: "Unauthorized" });
    readCommand(request)
      .then(async (command) => {
        commands++;
        if (hangs) return;
        const result = await run(command);
        send(200, { result: request.headers["upstash-encoding"] === "base64" ? toBase64(result) : result });
      })
      .catch((error: unknown) => send(400, { error: error instanceof Error ? error.message : "ERR" }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    token: TOKEN,
    commands: () => commands,
    hang: () => {
      hangs = true;
    },
    close: async () => {
      redis.disconnect();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    },
  };
}

async function readCommand(request: IncomingMessage): Promise<string[]> {
  let text = "";
  for await (const chunk of request) text += String(chunk);
  const values: unknown = JSON.parse(text);
  if (!Array.isArray(values)) throw new Error("ERR a command is a list");
  return values.map((value) => (typeof value === "object" ? JSON.stringify(value) : String(value)));
}

function toBase64(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(toBase64);
  return typeof value === "string" && value !== "OK" ? Buffer.from(value).toString("base64") : value;
}
