// biome-ignore lint/style/noRestrictedImports: the other end of the network is real here, and only the tests have it.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { afterEach, describe, expect, it } from "vitest";
import { newTiller, type Tiller, type TillerUser } from "./client.ts";
import { overNetwork, ServiceError } from "./client-calls.ts";
import type { JobEvent } from "./client-types.ts";

const KEY = "a service key of the tests";
const ADA = { id: "12345678901234567890", name: "Ada" };
const NOT_ANSWERING = "The steering service does not answer at the moment. Try again in a minute.";

interface Seen {
  readonly call: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: unknown;
}
interface Service {
  readonly tiller: Tiller;
  readonly ada: TillerUser;
  readonly seen: Seen[];
}
/** @param nth how many requests came before. */
type Answer = (response: ServerResponse, request: Seen, nth: number) => void;

const servers: Server[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

async function listen(server: Server): Promise<string> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as { port: number }).port}`;
}

async function serve(answer: Answer, tryAgainMs = 1): Promise<Service> {
  const seen: Seen[] = [];
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const part of request) text += part;
    const isJson = request.headers["content-type"] === "application/json";
    const each = { call: `${request.method} ${request.url}`, headers: request.headers, body: isJson ? JSON.parse(text) : text };
    answer(response, each, seen.push(each) - 1);
  });
  const tiller = newTiller(await listen(server), overNetwork(KEY, fetch), tryAgainMs);
  return { ...{ tiller, seen }, ada: tiller.as(ADA) };
}

const json = (response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}): void =>
  void response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));

async function failureOf(promise: Promise<unknown>): Promise<ServiceError> {
  const failure = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(failure instanceof ServiceError)) throw new Error(`no ServiceError: ${failure}`);
  return failure;
}

describe("what is sent", () => {
  it("has the key, and for whom it is, whatever the name", async () => {
    const { tiller, ada, seen } = await serve((response) => json(response, 200, { models: [], note: null }));
    await ada.models();
    for (const name of ["Ada 👩‍💻 Лавлейс", "a\r\nx-admin-secret: b", "half a pair \ud83d"]) await tiller.as({ ...ADA, name }).models();
    await tiller.notes.get("start");
    expect(seen.map(({ headers }) => headers.authorization)).toEqual(Array(5).fill(`Bearer ${KEY}`));
    expect(seen.map(({ headers }) => headers["x-acting-for"])).toEqual([...Array(4).fill(`discord:${ADA.id}`), undefined]);
    const names = seen.map(({ headers }) => headers["x-acting-name"] as string | undefined);
    expect(names.map((name) => name && decodeURIComponent(name))).toEqual([
      ...["Ada", "Ada 👩‍💻 Лавлейс", "a\r\nx-admin-secret: b", "half a pair \ufffd", undefined],
    ]);
    expect(names.join("")).toMatch(/^[\x21-\x7e]+$/);
    expect(seen[2]?.headers).not.toHaveProperty("x-admin-secret");
  });

  it("is what the API takes", async () => {
    const { ada, seen } = await serve((response) =>
      json(response, 200, { vectors: [], results: [], explanations: [{ description: "Joy" }] }),
    );
    const body = { modelId: "m", features: [], temperature: 0, n_tokens: 1, freq_penalty: 0, seed: 1, strength_multiplier: 1, prompt: "a" };
    await ada.startSteer("steer", body, "key-1");
    expect(await ada.labelOf("org/m", "3-a", 7)).toBe("Joy");
    await ada.vectors.list({ offset: 100 });
    await ada.vectors.upload({ name: "v.json", bytes: new TextEncoder().encode("[1]") }, { vectorLabel: "Sines" });
    await ada.cancel("j1");
    expect(seen.map(({ call }) => call)).toEqual([
      ...["POST /api/steer", "GET /api/feature/org%2Fm/3-a/7", "POST /api/vector/list-owned", "POST /api/vector/upload"],
      "DELETE /api/jobs/j1",
    ]);
    expect(seen[0]).toMatchObject({ body, headers: { prefer: "respond-async", "idempotency-key": "key-1" } });
    expect(seen[2]?.body).toEqual({ offset: 100, values: false });
    expect(seen[3]?.body).toMatch(/name="vectorLabel"\r\n\r\nSines[\s\S]*filename="v.json"[\s\S]*\[1\]/);
  });

  it("has no label where nobody wrote one", async () => {
    const { ada } = await serve((response) => json(response, 200, { explanations: [] }));
    expect(await ada.labelOf("m", "3-a", 7)).toBeUndefined();
  });
});

describe("a failure", () => {
  it("of the service has its code, its sentence, the request's id and when to try again", async () => {
    const body = { code: "rate_limited", message: "You have used up 100 steers.", requestId: "r1" };
    const { ada } = await serve((response) => json(response, 429, body, { "retry-after": "90", "x-request-id": "r2" }));
    expect(await failureOf(ada.models())).toMatchObject({ ...body, retryAfterSeconds: 90 });
  });

  it.each([
    ["no id in its body", { code: "not_found", message: "None." }, { requestId: "of the header", code: "not_found", message: "None." }],
    ["only a code", { code: "not_found" }, { code: "not_found", message: "There is nothing at this address." }],
    ["a code that is not known", { code: "toString", message: "A sentence." }, { code: "internal", message: "A sentence." }],
    ["fields of other types", { code: 5, message: {}, requestId: [] }, { code: "internal", requestId: "of the header" }],
    ["null as its body", null, { code: "internal", message: expect.stringMatching(/went wrong on our side/) }],
    ["a text as its body", "Bad Gateway", { code: "internal" }],
  ])("with %s is a failure that can be told", async (_, body, expected) => {
    const { ada } = await serve((response) => json(response, 404, body, { "x-request-id": "of the header" }));
    const failure = await failureOf(ada.models());
    expect(failure).toMatchObject(expected);
    expect(failure.retryAfterSeconds).toBeUndefined();
  });

  it("of something between, whose body is no JSON, has the id and the time of its headers", async () => {
    const { ada } = await serve((response) =>
      response.writeHead(502, { "retry-after": "5", "x-request-id": "r3" }).end("<html>Bad Gateway</html>"),
    );
    expect(await failureOf(ada.models())).toMatchObject({ code: "internal", requestId: "r3", retryAfterSeconds: 5 });
  });

  it.each<[string, (ada: TillerUser) => Promise<unknown>]>([
    ["of a reading call", (ada) => ada.models()],
    ["of a writing call", (ada) => ada.share("s1", { visibility: "public" })],
    ["of a cancelled job", (ada) => ada.cancel("j1")],
    ["of a file", (ada) => ada.vectors.upload({ name: "v.json", bytes: new Uint8Array(1) }, {})],
  ])("%s that succeeds with a body that is no JSON, or breaks in it, is a sentence", async (_, call) => {
    for (const rest of ["<html>", '{"models": [']) {
      const { ada } = await serve((response) => response.writeHead(200, { "content-type": "application/json" }).end(rest));
      expect(await failureOf(call(ada))).toMatchObject({ code: "engine_unavailable", message: NOT_ANSWERING });
    }
    const { ada } = await serve((response) => {
      response.writeHead(200, { "content-length": "1000" }).write('{"models"', () => response.destroy());
    });
    expect(await failureOf(call(ada))).toMatchObject({ code: "engine_unavailable", message: NOT_ANSWERING });
  });

  it("to reach anybody is a sentence, and keeps its cause for the log", async () => {
    const server = createServer();
    const origin = await listen(server);
    await new Promise((resolve) => servers.splice(servers.indexOf(server), 1)[0]?.close(resolve));
    const failure = await failureOf(newTiller(origin, overNetwork(KEY, fetch)).as(ADA).models());
    expect(failure).toMatchObject({ code: "engine_unavailable", message: NOT_ANSWERING, requestId: undefined });
    expect(failure.cause).toBeInstanceOf(Error);
  });
});

describe("following a job", () => {
  const DONE = { id: "j1", state: "succeeded" };
  /** Event number i of a job, as the service writes it. */
  const event = (i: number): string =>
    `id: ${i}\nevent: tokens\ndata: ${JSON.stringify({ tokens: [{ side: "STEERED", text: `${i} ✓` }] })}\n\n`;
  const done = (i: number): string => `id: ${i}\nevent: done\ndata: ${JSON.stringify(DONE)}\n\n`;
  const begin = (response: ServerResponse): ServerResponse => response.writeHead(200, { "content-type": "text/event-stream" });
  /** Events of a job with `of` of them, from the one after the last that was seen. */
  const eventsAfter = ({ headers }: Seen, of: number): string[] => {
    const last = Number(headers["last-event-id"] ?? 0);
    return Array.from({ length: of - last }, (_, i) => (last + i + 1 === of ? done(of) : event(last + i + 1)));
  };

  async function all(events: AsyncGenerator<JobEvent>): Promise<string[]> {
    const texts: string[] = [];
    for await (const each of events) texts.push(each.event === "tokens" ? (each.data.tokens[0]?.text ?? "") : each.event);
    return texts;
  }
  const whole = (of: number) => [...Array.from({ length: of - 1 }, (_, i) => `${i + 1} ✓`), "done"];
  const never = () => new AbortController().signal;

  it("ends with what was done", async () => {
    const { ada, seen } = await serve((response, request) => void begin(response).end(eventsAfter(request, 4).join("")));
    expect(await all(ada.follow("j1", never()))).toEqual(whole(4));
    expect(seen.map(({ call, headers }) => [call, headers["last-event-id"]])).toEqual([["GET /api/jobs/j1/events", undefined]]);
  });

  it.each([
    ["breaks", (response: ServerResponse) => void response.destroy()],
    ["ends", (response: ServerResponse) => void response.end()],
  ])("misses nothing and doubles nothing when the connection %s in the middle, wherever that is", async (_, stop) => {
    // Each connection brings one event and half of the next one; the half begins anew with the next connection.
    const { ada, seen } = await serve((response, request, nth) => {
      const [first = "", second = ""] = eventsAfter(request, 6);
      const text = first + second.slice(0, [1, 5, 12, 30, second.length - 1][nth % 5]);
      begin(response).write(text, () => setTimeout(stop, 5, response));
    });
    expect(await all(ada.follow("j1", never()))).toEqual(whole(6));
    expect(seen.map(({ headers }) => headers["last-event-id"])).toEqual([undefined, "1", "2", "3", "4", "5"]);
  });

  it("goes on after failures that pass, and after silence", async () => {
    const { ada, seen } = await serve((response, request, nth) => {
      if (nth === 0) return void begin(response).write(event(1), () => setTimeout(() => response.destroy(), 5));
      if (nth === 1) return void response.destroy();
      if (nth === 2) return json(response, 503, { code: "engine_busy", message: "Full." });
      if (nth === 3) return void response.writeHead(502).end("<html>");
      if (nth === 4) return void begin(response).end(": ping\n\n");
      begin(response).end(eventsAfter(request, 3).join(""));
    });
    expect(await all(ada.follow("j1", never()))).toEqual(whole(3));
    expect(seen).toHaveLength(6);
  });

  it.each([
    ["a job that is not there", 404, "not_found"],
    ["a job of somebody else", 403, "forbidden"],
    ["a key that is no longer one", 401, "unauthorized"],
  ])("gives up at once on %s", async (_, status, code) => {
    const { ada, seen } = await serve((response) => json(response, status, { code, message: "No." }), 60_000);
    expect(await failureOf(all(ada.follow("j1", never())))).toMatchObject({ code, message: "No." });
    expect(seen).toHaveLength(1);
  });

  it("gives up on it after events came, too", async () => {
    const { ada } = await serve((response, _, nth) => {
      if (nth > 0) return json(response, 404, { code: "not_found", message: "Gone." });
      begin(response).write(event(1), () => setTimeout(() => response.destroy(), 5));
    });
    const events = ada.follow("j1", never());
    expect((await events.next()).value).toMatchObject({ event: "tokens" });
    expect(await failureOf(events.next())).toMatchObject({ code: "not_found" });
  });

  it("gives up when nobody answers for long", async () => {
    const { ada, seen } = await serve((response) => void response.destroy(), 0);
    expect(await failureOf(all(ada.follow("j1", never())))).toMatchObject({ code: "engine_unavailable", message: NOT_ANSWERING });
    // fetch itself sends a request again whose connection broke before any answer.
    expect(seen.length).toBeGreaterThanOrEqual(60);
  });

  it("stops without an error when it is told to: before, between events, and while it waits", async () => {
    const closed = Promise.withResolvers<void>();
    const { ada, seen } = await serve((response) => {
      response.on("close", closed.resolve);
      begin(response).write(event(1));
    }, 60_000);
    expect(await all(ada.follow("j1", AbortSignal.abort()))).toEqual([]);
    expect(seen).toEqual([]);

    const control = new AbortController();
    const events = ada.follow("j1", control.signal);
    expect((await events.next()).value).toMatchObject({ event: "tokens" });
    const next = events.next();
    control.abort();
    expect(await next).toEqual({ done: true, value: undefined });
    // The service may stop writing then.
    await closed.promise;
    expect(seen).toHaveLength(1);

    const refused = Promise.withResolvers<void>();
    const busy = await serve((response) => {
      json(response, 503, { code: "engine_busy", message: "Full." });
      refused.resolve();
    }, 60_000);
    const patience = new AbortController();
    const waiting = all(busy.ada.follow("j1", patience.signal));
    await refused.promise;
    patience.abort();
    expect(await waiting).toEqual([]);
    expect(busy.seen).toHaveLength(1);
  });

  it("closes the connection when its reader has had enough", async () => {
    const closed = Promise.withResolvers<void>();
    const { ada } = await serve((response) => {
      response.on("close", closed.resolve);
      begin(response).write(event(1));
    });
    for await (const _ of ada.follow("j1", never())) break;
    await closed.promise;
  });
});

describe("notes", () => {
  /** Keeps notes as the service does, and lists two at a time. */
  const keeper = (): Answer => {
    const kept = new Map<string, unknown>();
    return (response, { call, body }) => {
      const { key = "", value, prefix = "", after = "", ifAbsent } = body as Record<string, string>;
      const note = kept.has(key) ? { key, value: kept.get(key) } : null;
      const verb = call.split("/").at(-1);
      if (verb === "put") {
        const written = !(ifAbsent && note !== null);
        if (written) kept.set(key, value);
        return json(response, 200, { written });
      }
      if (verb === "take") kept.delete(key);
      if (verb !== "list") return json(response, 200, { note });
      const keys = [...kept.keys()].filter((each) => each.startsWith(prefix) && each > after).sort();
      json(response, 200, { notes: keys.slice(0, 2).map((each) => ({ key: each, value: kept.get(each) })) });
    };
  };

  it("are kept, and taken once", async () => {
    const { tiller, seen } = await serve(keeper());
    expect(await tiller.notes.get("a")).toBeUndefined();
    expect(await tiller.notes.put("a", { n: 1 }, { ttlSeconds: 60, ifAbsent: true })).toBe(true);
    expect(await tiller.notes.put("a", { n: 2 }, { ifAbsent: true })).toBe(false);
    expect(await tiller.notes.get("a")).toEqual({ n: 1 });
    expect(await tiller.notes.take("a")).toEqual({ n: 1 });
    expect(await tiller.notes.take("a")).toBeUndefined();
    expect(seen[1]?.body).toEqual({ key: "a", value: { n: 1 }, ttlSeconds: 60, ifAbsent: true });
  });

  it.each([0, 1, 2, 3, 7])("of a prefix are listed whole and in order, all %i, through as many pages as there are", async (count) => {
    const { tiller, seen } = await serve(keeper());
    const keys = Array.from({ length: count }, (_, i) => `job:${i}`);
    for (const key of [...keys.toReversed(), "other", "joe"]) await tiller.notes.put(key, key.length);
    seen.splice(0);
    expect(await tiller.notes.list("job:")).toEqual(keys.map((key) => ({ key, value: key.length })));
    // The last one, which is empty, says that these were all.
    expect(seen).toHaveLength(Math.ceil(count / 2) + 1);
  });
});
