// Modal's proxy in front of the engine of faults: it answers in the engine's place what an address tells it to, and lets to the engine
// whoever has its keys.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { MODAL_KEYS, type ModalCall, type ModalStep } from "./modal-steps.ts";

export interface ModalProxy {
  readonly port: number;
  close(): Promise<void>;
}

/**
 * Starts the proxy on a free port. Requests to `/<name>/<call>-<step>-<step>/...` go to the engine, but for the first of that call: each
 * step is what one of them is answered with. `GET /seen/<name>` answers with the `ModalCall`s of that name.
 */
export async function startModalProxy(engineUrl: string): Promise<ModalProxy> {
  const seen = new Map<string, ModalCall[]>();
  const server = createServer((request, response) => {
    answer(request, response, engineUrl, seen).catch(() => response.destroy());
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

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  engineUrl: string,
  seen: Map<string, ModalCall[]>,
): Promise<void> {
  const json = (value: unknown) => response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value));
  const { pathname, searchParams, href } = new URL(request.url ?? "/", `http://${request.headers.host}`);
  const asked = /^\/seen\/(\w+)$/.exec(pathname)?.[1];
  if (asked !== undefined) return void json(seen.get(asked) ?? []);
  const [, name = "", script = "", path = ""] = /^\/(\w+)\/([\w-]+)(\/.*)$/.exec(pathname) ?? [];
  const [call, ...steps] = script.split("-");
  const { headers, method = "" } = request;
  let body = "";
  for await (const chunk of request) body += String(chunk);
  const earlier = seen.get(name) ?? [];
  const one: ModalCall = { method, path, host: headers.host ?? "", headers: { ...headers }, body };
  seen.set(name, [...earlier, one]);
  const before = earlier.filter((other) => other.path === path).length;
  const step = path === `/${call}` ? stepOf(steps, before) : undefined;
  switch (step) {
    case "502":
    case "503":
    case "504":
      return void response.writeHead(Number(step)).end();
    case "303":
      return void response.writeHead(303, { location: `${pathname}?__modal_function_call_id=fc-1` }).end();
    case "away":
      return void response.writeHead(303, { location: href.replace("127.0.0.1", "localhost") }).end();
    case "silence":
      return;
  }
  if (headers["modal-key"] !== MODAL_KEYS.key || headers["modal-secret"] !== MODAL_KEYS.secret)
    return void response.writeHead(401).end("modal-http: invalid credentials for proxy authorization");
  // The address that it redirected to waits for the call that was made first.
  const made = searchParams.has("__modal_function_call_id") ? earlier.find((other) => other.path === path && other.method === "POST") : one;
  if (made === undefined) return void response.writeHead(404).end();
  const { authorization = "", accept = "" } = made.headers as Record<string, string>;
  const sent = await fetch(engineUrl + path, {
    method: made.method,
    headers: { authorization, accept },
    ...(made.method === "POST" ? { body: made.body } : {}),
  });
  response.writeHead(sent.status, { "content-type": sent.headers.get("content-type") ?? "" });
  Readable.fromWeb(sent.body as Parameters<typeof Readable.fromWeb>[0]).pipe(response);
}

/** What the request after so many others of its call is answered with. */
function stepOf(steps: readonly string[], before: number): ModalStep {
  const step = steps[before] ?? steps.at(-1);
  return (step === "ever" ? steps.at(-2) : steps[before]) as ModalStep;
}
