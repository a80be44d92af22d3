// How the client of the HTTP API sends a request and reads its answer or failure.
import type { Person } from "./client-types.ts";
import { ERRORS, isErrorCode, TillerError, type TillerErrorOptions } from "./errors.ts";

/** Sends a request for a person; undefined = the service's own calls. It rejects when nobody answers. */
export type Send = (request: Request, who: Person | undefined) => Promise<Response>;

/** A failure as the service tells it: a sentence for a person, and the id to report it with. */
export class ServiceError extends TillerError {
  readonly requestId: string | undefined;

  constructor(code: TillerError["code"], message: string, options: TillerErrorOptions & { readonly requestId?: string | undefined } = {}) {
    super(code, message, options);
    this.requestId = options.requestId;
  }
}

const TIMEOUT_MS = 20_000;
const UNREACHABLE = "The steering service does not answer at the moment. Try again in a minute.";

/** Sends over the network, with a service key. */
export function overNetwork(key: string, fetch: (request: Request) => Promise<Response>): Send {
  return (request, who) => {
    request.headers.set("authorization", `Bearer ${key}`);
    if (who !== undefined) {
      request.headers.set("x-acting-for", `discord:${who.id}`);
      request.headers.set("x-acting-name", encodeURIComponent(who.name.toWellFormed()));
    }
    return fetch(request);
  };
}

/** Fields and files, by their names. */
export interface Form {
  readonly fields: Readonly<Record<string, string>>;
  readonly files: Readonly<Record<string, NamedFile>>;
}

export interface NamedFile {
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

export interface Calls {
  get<T>(path: string): Promise<T>;
  post<T>(path: string, body: object, headers?: Readonly<Record<string, string>>): Promise<T>;
  /** @throws ServiceError for every answer that is no success. */
  send(path: string, init: RequestInit): Promise<Response>;
  /** As `multipart/form-data`. */
  postForm<T>(path: string, form: Form, headers?: Readonly<Record<string, string>>): Promise<T>;
  /** The JSON of an answer. @throws ServiceError when it is none. */
  read<T>(response: Response): Promise<T>;
  readBytes(response: Response): Promise<Uint8Array<ArrayBuffer>>;
}

export function newCalls(origin: string, deliver: Send, who: Person | undefined): Calls {
  const send = async (path: string, init: RequestInit): Promise<Response> => {
    let response: Response;
    try {
      response = await deliver(new Request(origin + path, { signal: AbortSignal.timeout(TIMEOUT_MS), ...init }), who);
    } catch (cause) {
      throw new ServiceError("engine_unavailable", UNREACHABLE, { cause });
    }
    if (!response.ok) throw await toServiceError(response);
    return response;
  };
  const whole = <T>(body: Promise<T>): Promise<T> =>
    body.catch((cause: unknown) => {
      throw new ServiceError("engine_unavailable", UNREACHABLE, { cause });
    });
  const read = <T>(response: Response): Promise<T> => whole(response.json() as Promise<T>);
  return {
    ...{ send, read },
    readBytes: async (response) => new Uint8Array(await whole(response.arrayBuffer())),
    get: async (path) => read(await send(path, {})),
    post: async (path, body, headers = {}) =>
      read(await send(path, { method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body) })),
    async postForm(path, form, headers = {}) {
      const { type, body } = await encodeForm(form);
      return read(await send(path, { method: "POST", headers: { "content-type": type, ...headers }, body }));
    },
  };
}

/**
 * A form as bytes (RFC 7578). The same form has the same bytes, so that one that is sent again with its Idempotency-Key is the same request:
 * the boundary is the hash of all that is in it, which nothing in it can hold.
 */
async function encodeForm({ fields, files }: Form): Promise<{ readonly type: string; readonly body: Blob }> {
  const quoted = (text: string) => text.replace(/["\r\n]/g, encodeURIComponent);
  const parts: (readonly [head: string, value: string | Uint8Array<ArrayBuffer>])[] = [
    ...Object.entries(fields).map(([name, value]) => [`name="${quoted(name)}"\r\n`, value] as const),
    ...Object.entries(files).map(
      ([name, file]) =>
        [`name="${quoted(name)}"; filename="${quoted(file.name)}"\r\ncontent-type: application/octet-stream\r\n`, file.bytes] as const,
    ),
  ];
  const hash = await crypto.subtle.digest("SHA-256", await new Blob(parts.flat()).arrayBuffer());
  const boundary = Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const body = parts.flatMap(([head, value]) => [`--${boundary}\r\ncontent-disposition: form-data; ${head}\r\n`, value, "\r\n"]);
  return { type: `multipart/form-data; boundary=${boundary}`, body: new Blob([...body, `--${boundary}--\r\n`]) };
}

async function toServiceError(response: Response): Promise<ServiceError> {
  const body = ((await response.json().catch(() => null)) ?? {}) as { code?: unknown; message?: unknown; requestId?: unknown };
  const code = isErrorCode(body.code) ? body.code : "internal";
  const wait = Number(response.headers.get("retry-after"));
  return new ServiceError(code, typeof body.message === "string" ? body.message : ERRORS[code].sentence, {
    ...(wait > 0 ? { retryAfterSeconds: wait } : {}),
    requestId: typeof body.requestId === "string" ? body.requestId : (response.headers.get("x-request-id") ?? undefined),
  });
}
