// An engine of faults: it speaks the protocol and misbehaves on demand, as its prompt says. The main path is tested against the
// real engine; this one only does what a real engine cannot be asked to do.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { DirectionsRequest } from "../../../shared/directions.ts";
import type { EngineReport, GenerateRequest, GenerateResult, ModelInfo, TokenEvent } from "../../../shared/protocol.ts";
import { formatEvent } from "../../../shared/sse.ts";
import { FAULTS, type Hook } from "./faults.ts";
import { answerDirections } from "./scripted-directions.ts";

export const SCRIPTED_TOKEN = "scripted-token";

const MODEL: ModelInfo = {
  id: "scripted",
  family: "scripted",
  layers: 4,
  width: 8,
  context: 512,
  vocab: 100,
  dtype: "float32",
  revision: "1",
  rows: 8,
  chat_template: false,
  sources: [
    {
      id: "2-scripted",
      point: "blocks.2.hook_resid_pre",
      width: 4,
      architecture: "directions",
      labelled_features: [{ index: 0, label: "first", strength: 5 }],
    },
  ],
};
const NARROW: ModelInfo = {
  ...MODEL,
  id: "scripted-narrow",
  width: 4,
  sources: [{ ...(MODEL.sources[0] as ModelInfo["sources"][number]), id: "1-narrow" }],
};

/** As wide as MODEL: what is kept for one steers the other. */
const TWIN: ModelInfo = { ...MODEL, id: "scripted-twin", layers: 2, sources: [] };

/** One generation as the engine saw it; tests tell theirs apart by the seed. */
export interface Seen {
  readonly request: GenerateRequest;
  /** The connection was closed before the answer ended. */
  abandoned: boolean;
}

export interface ScriptedEngine {
  readonly port: number;
  close(): Promise<void>;
}

/** Starts the engine on a free port. `GET /seen/<seed>` answers with the `Seen` of that generation, or null. */
export async function startScriptedEngine(): Promise<ScriptedEngine> {
  const seen = new Map<number, Seen>();
  const hooks = new Map<string, Hook[]>();
  const server: Server = createServer((request, response) => {
    const hook = /^\/hooks\/(\w+)$/.exec(request.url ?? "")?.[1];
    const work = hook === undefined ? answer(request, response, seen) : receive(request, response, hook, hooks);
    work.catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/**
 * POST keeps a webhook under a name, and answers 500 to the first two of a name that begins with "twice"; one that begins with "scores" gives
 * texts that have an "a" in them 0.75 and others 0.25. GET tells what came.
 */
async function receive(request: IncomingMessage, response: ServerResponse, name: string, hooks: Map<string, Hook[]>): Promise<void> {
  const known = hooks.get(name) ?? [];
  if (request.method === "GET") return void response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(known));
  let body = "";
  for await (const chunk of request) body += String(chunk);
  hooks.set(name, [...known, { headers: request.headers, body }]);
  if (name.startsWith("scores")) {
    const { texts } = JSON.parse(body) as { texts: string[] };
    const scores = texts.map((text) => (text.includes("a") ? 0.75 : 0.25));
    return void response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ scores }));
  }
  response.writeHead(name.startsWith("twice") && known.length < 2 ? 500 : 204).end();
}

async function answer(request: IncomingMessage, response: ServerResponse, seen: Map<number, Seen>): Promise<void> {
  const json = (status: number, value: unknown) =>
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
  const failure = (status: number, code: string, message: string) => json(status, { error: { code, message } });
  const asked = /^\/seen\/(-?\d+)$/.exec(request.url ?? "");
  if (asked !== null) return void json(200, seen.get(Number(asked[1])) ?? null);
  if (request.url === "/health") return void json(200, { status: "ok" });
  if (request.headers.authorization !== `Bearer ${SCRIPTED_TOKEN}`) return void failure(401, "unauthorized", "wrong token");
  if (request.url === "/models") return void json(200, { models: [MODEL, NARROW, TWIN] });
  let text = "";
  for await (const chunk of request) text += String(chunk);
  // One token a character, and nothing runs under a name here.
  if (request.url === "/tokenize") {
    const ids = [...(JSON.parse(text) as { text: string }).text].map((char) => char.charCodeAt(0) % MODEL.vocab);
    return void json(200, { ids, tokens: ids.map((id, i) => ({ id, token: "x", start: i, end: i + 1, special: false })) });
  }
  if (request.url === "/cancel") return void json(200, { canceled: false });
  const kept = /^\/generations\/(\w+)$/.exec(request.url ?? "");
  if (kept !== null) {
    const one = [...seen.values()].find(({ request: { id, prompt } }) => id === kept[1] && prompt === FAULTS.keeps)?.request;
    return one === undefined ? void failure(404, "not_found", "no such generation") : void json(200, newReport(one));
  }
  if (request.url === "/directions") return answerDirections(JSON.parse(text) as DirectionsRequest, MODEL.width, response);
  if (request.url !== "/generate") return void failure(404, "not_found", "no such call");
  const body = JSON.parse(text) as GenerateRequest;
  const record: Seen = { request: body, abandoned: false };
  seen.set(body.sampling.seed, record);
  response.on("close", () => {
    record.abandoned = !response.writableFinished;
  });

  switch (body.prompt) {
    case FAULTS.refuses:
      return void failure(503, "engine_busy", "All slots are taken.");
    case FAULTS.unauthorized:
      return void failure(401, "unauthorized", "wrong token");
    case FAULTS.tooLong:
      return void failure(400, "prompt_too_long", "The prompt has 600 tokens; it may have 511.");
    case FAULTS.garbage:
      return void response.writeHead(200, { "content-type": "application/json" }).end("<html>oops</html>");
    case FAULTS.wrongShape:
      return void json(200, { rows: "none" });
    case FAULTS.hangs:
      return;
    case FAULTS.accepts:
      if (body.rows.every(({ generated }) => generated === undefined)) return void json(202, {});
      break;
    case FAULTS.keeps:
      return void json(202, {});
  }
  const tokens = tokensOf(body);
  const result = newResult(body);
  if (request.headers.accept !== "text/event-stream") {
    for (const row of result.rows) row.tokens = tokens.filter((event) => event.row === row.name);
    return void json(200, result);
  }
  await stream(body, result, tokens, response);
}

async function stream(body: GenerateRequest, result: GenerateResult, tokens: TokenEvent[], response: ServerResponse): Promise<void> {
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.flushHeaders();
  const ordered = tokens.toSorted((a, b) => a.index - b.index);
  const send = (events: TokenEvent[]) => {
    for (const event of events) response.write(formatEvent("token", event));
  };
  switch (body.prompt) {
    case FAULTS.diesInStream:
      send(ordered.slice(0, 2));
      // What goes on after everything was generated has nothing to die of.
      if (ordered.length === 0) break;
      return void setImmediate(() => response.destroy());
    case FAULTS.endsEarly:
      send(ordered.slice(0, 2));
      return void response.end();
    case FAULTS.errorEvent:
      send(ordered.slice(0, 2));
      return void response.end(formatEvent("error", { error: { code: "engine_timeout", message: "A step took too long." } }));
    case FAULTS.badEvent:
      return void response.end("event: token\ndata: {not json\n\n");
    case FAULTS.silentStream:
      return send(ordered.slice(0, 1));
    case FAULTS.endless: {
      let index = 0;
      const timer = setInterval(() => send([token(body, "STEERED", index), token(body, "DEFAULT", index++)]), 20);
      return void response.on("close", () => clearInterval(timer));
    }
  }
  send(ordered);
  response.end(formatEvent("done", result));
}

/** What every row still generates. */
const tokensOf = (body: GenerateRequest): TokenEvent[] =>
  body.rows.flatMap((row) =>
    Array.from({ length: body.max_tokens }, (_, index) => token(body, row.name, index)).slice(row.generated?.length ?? 0),
  );

/** What an engine that calls back says of a generation, when all is done. */
const newReport = (body: GenerateRequest): EngineReport => ({ tokens: tokensOf(body), done: newResult(body) });

const token = (body: GenerateRequest, row: string, index: number): TokenEvent => ({
  row,
  index,
  id: index,
  text: ` ${row.toLowerCase()}${index}`,
  token: ` ${row.toLowerCase()}${index}`,
  logprob: -0.5,
  top: [{ id: index, token: " a", logprob: -0.5 }].slice(0, body.sampling.logprobs),
  ...(body.kl_baseline === undefined || body.kl_baseline === row ? {} : { kl: 0.25 }),
});

function newResult(body: GenerateRequest): GenerateResult {
  return {
    rows: body.rows
      .filter((row) => body.prompt !== FAULTS.missingRow || row.name !== "STEERED")
      .map((row) => ({
        name: row.name,
        text: Array.from({ length: body.max_tokens }, (_, index) => token(body, row.name, index).text).join(""),
        finish_reason: "length" as const,
        receipts:
          body.prompt === FAULTS.noReceipts
            ? []
            : row.edits.map((edit, i) => ({
                edit: i,
                point: edit.point ?? "blocks.2.hook_resid_pre",
                method: edit.method,
                strength: edit.strength,
                positions: 3,
                positions_changed: 3,
                mean_relative_delta: 0.1,
              })),
      })),
    usage: { prompt_tokens: 3, completion_tokens: body.max_tokens * body.rows.length },
    timing: { queue_ms: 0, prefill_ms: 1, decode_ms: 2 },
  };
}
