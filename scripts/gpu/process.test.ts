// The GPU engine as it is deployed: a process with a token, the checks of `npm run gpu -- conformance`, and generations that report.
import { type ChildProcess, spawn } from "node:child_process";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { Webhook } from "standardwebhooks";
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from "vitest";
import { findPython, hasTorch } from "../../gpu-functions/gpu/python.ts";
import { EngineReport, GenerateResult } from "../../shared/protocol.ts";
import { conformance } from "./conformance.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const MAIN = path.join(import.meta.dirname, "..", "..", "gpu-functions", "gpu", "main.ts");
const TOKEN = "a-token-of-the-engine";
const MODEL = "tiller-tales";
const python = findPython();
const authorised = { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" };
const children: ChildProcess[] = [];

/** Starts the engine. @returns its address. */
async function start(more: NodeJS.ProcessEnv = {}): Promise<string> {
  const env = { ...python.env, PYTHON: python.command, DEVICE: "cpu", THREADS: "1", SLOTS: "8", PORT: "0", ENGINE_TOKEN: TOKEN, ...more };
  const child = spawn(process.execPath, [MAIN], { env, stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  let text = "";
  for await (const chunk of child.stdout) {
    text += chunk;
    const line = text.split("\n").find((each) => each.startsWith("{"));
    if (line !== undefined) return `http://127.0.0.1:${(JSON.parse(line) as { port: number }).port}`;
  }
  throw new Error(`the engine did not start: ${text}`);
}

interface Received {
  readonly request: IncomingMessage;
  readonly body: string;
}

/** A server that keeps what it is sent, and answers what it is told to. */
async function receiver(answer: (received: Received, count: number) => { status: number; body: unknown }) {
  const received: Received[] = [];
  const server = createServer(async (request, response) => {
    const one = { request, body: Buffer.concat(await request.toArray()).toString() };
    received.push(one);
    const { status, body } = answer(one, received.length);
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { received, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

const body = (more: object = {}) => ({
  ...{ model: MODEL, prompt: "The cat", rows: [{ name: "A", edits: [] }], sampling: { temperature: 0, seed: 1 }, max_tokens: 30 },
  ...more,
});
const post = (url: string, payload: object) => fetch(url, { method: "POST", headers: authorised, body: JSON.stringify(payload) });
/** @throws Error when the signature is wrong. */
const verified = ({ request, body }: Received): EngineReport =>
  EngineReport.parse(new Webhook(btoa(TOKEN)).verify(body, request.headers as Record<string, string>));

describe.skipIf(!(await hasTorch(python)))("the GPU engine's process", () => {
  let url: string;
  let direct: GenerateResult;
  beforeAll(async () => {
    url = await start();
    direct = GenerateResult.parse(await (await post(`${url}/generate`, body())).json());
  });
  afterAll(() => {
    for (const child of children) child.kill("SIGKILL");
  });
  const row = () => direct.rows[0] as GenerateResult["rows"][number];

  it("keeps to the protocol", async () => {
    const lines: string[] = [];
    const io = { environment: { ENGINE_TOKEN: TOKEN }, say: (line: string) => lines.push(line), stdio: "ignore", now: () => 0 } as const;
    expect(await conformance(MODEL, url, io), lines.join("\n")).toBe(true);
    expect(lines.filter((line) => line.startsWith("ok "))).toHaveLength(lines.length - 1);
  });

  it("says when each phase of its start was over", async () => {
    const { phases } = (await (await fetch(`${url}/health`)).json()) as { phases: Record<string, Record<string, number>> };
    expect(Object.keys(phases[MODEL] as object)).toContain("weights_ms");
  });

  it("tells a generation to its caller's address, signed, and says the same when it is asked", async () => {
    const { received, url: callback_url } = await receiver(() => ({ status: 200, body: { state: "running" } }));
    const answer = await post(`${url}/generate`, body({ id: "job-1", callback_url }));
    expect([answer.status, await answer.json()]).toEqual([202, { id: "job-1" }]);
    await expect.poll(() => received.some((one) => verified(one).done !== undefined)).toBe(true);
    const reports = received.map(verified);
    expect(reports.at(-1)?.done?.rows[0]?.text).toBe(row().text);
    expect(reports.flatMap(({ tokens }) => tokens)).toEqual(row().tokens);
    const found = await fetch(`${url}/generations/job-1`, { headers: authorised });
    expect(EngineReport.parse(await found.json())).toMatchObject({ tokens: row().tokens, done: { rows: [{ text: row().text }] } });
    expect((await fetch(`${url}/generations/job-2`, { headers: authorised })).status).toBe(404);
    expect((await fetch(`${url}/generations/job-1`)).status).toBe(401);
  });

  it("tells what went wrong, and tells it again when nobody listened", async () => {
    const { received, url: callback_url } = await receiver((_, count) => ({ status: count === 1 ? 500 : 200, body: {} }));
    await post(`${url}/generate`, body({ id: "job-3", callback_url, max_tokens: 5000 }));
    await expect.poll(() => received.length).toBe(2);
    for (const one of received) expect(verified(one)).toMatchObject({ tokens: [], error: { code: "prompt_too_long" } });
    expect(received[0]?.request.headers["webhook-id"]).not.toBe(received[1]?.request.headers["webhook-id"]);
  });

  it("hands generations to another process where it is told to, which runs them here", async () => {
    const calls = await receiver(({ request }) =>
      request.method === "POST" ? { status: 202, body: {} } : { status: 200, body: { tokens: [], done: direct } },
    );
    const other = await start({ SPAWN_URL: calls.url });
    const { received, url: callback_url } = await receiver(() => ({ status: 200, body: {} }));
    const request = body({ id: "job-4", callback_url });
    expect((await post(`${other}/generate`, request)).status).toBe(202);
    const [handed] = calls.received;
    expect(JSON.parse(handed?.body ?? "")).toMatchObject(request);
    expect(received).toEqual([]);
    expect(await (await fetch(`${other}/generations/elsewhere`, { headers: authorised })).json()).toMatchObject({ done: {} });
    // What the other process does with it.
    expect((await post(`${other}/run`, JSON.parse(handed?.body ?? "") as object)).status).toBe(200);
    expect(verified(received.at(-1) as Received).done?.rows[0]?.text).toBe(row().text);
  });
});
