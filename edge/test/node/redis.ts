// A real redis-server of this machine, on a free port, without a file of its own.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { createInterface } from "node:readline";

export interface RedisServer {
  readonly port: number;
  /** Ends it at once. */
  kill(): Promise<void>;
}

/**
 * Whether redis-server is installed. Where it must be (REQUIRE_REDIS=1, as in CI) its absence is an error; elsewhere the tests that need it are
 * skipped, and this says so.
 */
export function hasRedis(): boolean {
  if (spawnSync("redis-server", ["--version"]).status === 0) return true;
  if (process.env.REQUIRE_REDIS === "1") throw new Error("REQUIRE_REDIS=1, but there is no redis-server: apt-get install redis-server.");
  console.warn("SKIPPED: the Upstash tests need a redis-server (apt-get install redis-server).");
  return false;
}

/** Starts Redis and waits until it takes connections. */
export async function startRedis(): Promise<RedisServer> {
  const port = await freePort();
  const child = spawn("redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout });
  for await (const line of lines) if (line.includes("Ready to accept connections")) break;
  child.stdout.resume();
  if (child.exitCode !== null) throw new Error("redis-server ended before it was ready.");
  return {
    port,
    kill: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, "exit");
      child.kill("SIGKILL");
      await exited;
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
