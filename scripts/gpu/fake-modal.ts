// Modal's control plane on this machine, as far as this tool asks it something, for tests of the real SDK. The definition of the
// service is Modal's own: the SDK carries it and does not export it.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { decode, encode } from "cbor-x";
import { type CallContext, type CompatServiceDefinition, createServer, ServerError, type ServiceImplementation, Status } from "nice-grpc";
import { ROOT } from "../edge-bundle.ts";

/** The only credentials that are taken. */
export const CREDENTIALS = { MODAL_TOKEN_ID: "ak-right", MODAL_TOKEN_SECRET: "as-right" };
const CBOR = 4;
const STATUS = { success: 1, failure: 2 };

export interface FakeClass {
  readonly methods: Readonly<Record<string, (...args: never[]) => unknown>>;
  /** Address of its method `web`. */
  readonly webUrl: string;
  readonly stats?: { readonly backlog: number; readonly numTotalTasks: number };
}

interface Call {
  readonly settled: Promise<void>;
  result?: { readonly status: number; readonly data?: Uint8Array; readonly exception?: string };
}

type Definition = CompatServiceDefinition & { readonly methods: object };
type Input = { readonly methodName: string; readonly args?: Uint8Array; readonly argsBlobId?: string };
type Handler = (request: never, context: CallContext) => Promise<object>;

export class FakeModal {
  /** What is deployed, by `app/class`. */
  readonly deployed = new Map<string, FakeClass>();
  /** Containers that stay up, by class. */
  readonly kept = new Map<string, number>();
  url = "";
  private readonly calls = new Map<string, Call>();
  private readonly blobs = new Map<string, Uint8Array>();
  private readonly server = createServer();
  /** Inputs that are too large for a call are put here first. */
  private readonly storage = createHttpServer(async (request, response) => {
    this.blobs.set((request.url ?? "").slice(1), Buffer.concat(await request.toArray()));
    response.end();
  });

  async start(): Promise<void> {
    const definition = await importDefinition();
    const handlers = this.handlers();
    const missing: Handler = async () => {
      throw new ServerError(Status.UNIMPLEMENTED, "not here");
    };
    const implementation = Object.fromEntries(Object.keys(definition.methods).map((name) => [name, handlers[name] ?? missing]));
    this.server.add(definition, implementation as ServiceImplementation<CompatServiceDefinition>);
    this.url = `http://127.0.0.1:${await this.server.listen("127.0.0.1:0")}`;
    await new Promise<void>((resolve) => this.storage.listen(0, "127.0.0.1", resolve));
  }

  stop(): void {
    this.server.forceShutdown();
    this.storage.closeAllConnections();
    this.storage.close();
  }

  private handlers(): Record<string, Handler> {
    return {
      authTokenGet: async (_: never, { metadata }) => {
        const sent = [metadata.get("x-modal-token-id"), metadata.get("x-modal-token-secret")];
        if (sent.join() !== Object.values(CREDENTIALS).join()) throw new ServerError(Status.UNAUTHENTICATED, "Token ID not found");
        return { token: jwt({ exp: Date.now() / 1000 + 3600 }) };
      },
      functionGet: async ({ appName, objectTag }: { appName: string; objectTag: string }) => {
        const name = `${appName}/${objectTag.replace(/\.\*$/, "")}`;
        const { methods, webUrl } = this.find(name);
        const of = (functionName: string) => ({ functionName, supportedInputFormats: [CBOR], supportedOutputFormats: [CBOR] });
        const named = Object.keys(methods).map((method) => [method, { ...of(method), useMethodName: method }]);
        const methodHandleMetadata = Object.fromEntries([...named, ["web", { ...of("web"), webUrl }]]);
        return { functionId: `fu-${name}`, handleMetadata: { ...of(objectTag), methodHandleMetadata } };
      },
      functionMap: async ({ functionId, pipelinedInputs }: { functionId: string; pipelinedInputs: { input: Input }[] }) => {
        const { input } = pipelinedInputs[0] as { input: Input };
        const [args] = decode(input.args ?? this.blobs.get(input.argsBlobId ?? "") ?? new Uint8Array()) as [never[]];
        const method = this.find(functionId.slice("fu-".length)).methods[input.methodName];
        const work = (async () => await method?.(...args))();
        const call: Call = {
          settled: work.then(
            (value) => {
              call.result = { status: STATUS.success, data: encode(value) };
            },
            (error: unknown) => {
              call.result = { status: STATUS.failure, exception: (error as Error).message };
            },
          ),
        };
        const functionCallId = `fc-${this.calls.size + 1}`;
        this.calls.set(functionCallId, call);
        return { functionCallId, functionCallJwt: "jwt", pipelinedInputs: [{ idx: 0, inputId: "in-1", inputJwt: "jwt" }] };
      },
      functionGetOutputs: async ({ functionCallId, timeout }: { functionCallId: string; timeout: number }) => {
        const call = this.calls.get(functionCallId);
        if (timeout > 0) await call?.settled;
        return { outputs: call?.result === undefined ? [] : [{ idx: 0, result: call.result, dataFormat: CBOR }] };
      },
      functionCallFromId: async ({ functionCallId }: { functionCallId: string }) => {
        if (!this.calls.has(functionCallId)) throw new ServerError(Status.NOT_FOUND, `No Function Call with ID '${functionCallId}' found`);
        return { functionCallId };
      },
      functionGetCurrentStats: async ({ functionId }: { functionId: string }) =>
        this.find(functionId.slice("fu-".length)).stats ?? { backlog: 0, numTotalTasks: 0 },
      functionUpdateSchedulingParams: async (request: { functionId: string; settings: { minContainers: number } }) => {
        this.kept.set(request.functionId.slice("fu-".length), request.settings.minContainers);
        return {};
      },
      blobCreate: async () => {
        const blobId = `bl-${this.blobs.size + 1}`;
        return { blobId, uploadUrl: `http://127.0.0.1:${(this.storage.address() as AddressInfo).port}/${blobId}` };
      },
    };
  }

  private find(name: string): FakeClass {
    const found = this.deployed.get(name);
    if (found === undefined) throw new ServerError(Status.NOT_FOUND, `No ${name}`);
    return found;
  }
}

const jwt = (claims: object): string =>
  [{ alg: "none" }, claims, {}].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");

/** The SDK's bundle again, with the definition among its exports; beside the packages, where its imports are found. */
async function importDefinition(): Promise<Definition> {
  const cache = path.join(ROOT, "node_modules", ".cache");
  mkdirSync(cache, { recursive: true });
  const folder = mkdtempSync(path.join(cache, "fake-modal-"));
  try {
    const source = readFileSync(path.join(ROOT, "node_modules", "modal", "dist", "index.js"), "utf8");
    const exports = source.lastIndexOf("\nexport {") + "\nexport {".length;
    const file = path.join(folder, "modal.mjs");
    writeFileSync(file, `${source.slice(0, exports)}ModalClientDefinition,${source.slice(exports)}`);
    const sdk = (await import(pathToFileURL(file).href)) as { ModalClientDefinition: Definition };
    return sdk.ModalClientDefinition;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
