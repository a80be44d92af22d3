// What this tool asks of Modal, and Modal's failures as sentences. The only file that imports Modal's SDK.
import type { Function_, ModalClient } from "modal";
import type { GpuModel } from "./models.ts";

/** Name of the app that gpu-functions/gpu/modal_app.py deploys. */
const APP = "tiller";
const DEPLOY = "npm run gpu -- deploy";

/** Codes of gRPC that say something to a person: https://grpc.io/docs/guides/status-codes/ */
const GRPC = { invalid: 3, deadline: 4, notFound: 5, denied: 7, exhausted: 8, unavailable: 14, unauthenticated: 16 } as const;

/** There is no such app, or no such class in it. */
export class NotDeployed extends Error {}

/** Stands for the result of a call that still runs. */
export const RUNNING = Symbol("running");

export interface Stats {
  /** Inputs that wait for a container. */
  readonly backlog: number;
  /** Containers there are. */
  readonly runners: number;
}

/**
 * Connects nowhere yet, but checks that there are credentials.
 * @throws Error, one sentence, when there are none.
 */
export async function openModal(): Promise<Modal> {
  // Imported when it is needed: help and engines elsewhere do without, and the import reads ~/.modal.toml.
  const { ModalClient } = await import("modal");
  const client = await explained(undefined, async () => new ModalClient());
  const { tokenId, tokenSecret, oauthRefreshToken } = client.profile;
  if ((!tokenId || !tokenSecret) && !oauthRefreshToken)
    throw new Error("There are no Modal credentials: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run modal token new.");
  return new Modal(client);
}

export class Modal {
  private readonly client: ModalClient;

  constructor(client: ModalClient) {
    this.client = client;
  }

  /** @throws NotDeployed; Error with one sentence. */
  getClass(model: GpuModel): Promise<ModalClass> {
    return this.explained(async () => {
      const found = await this.client.cls.fromName(APP, model.class).catch((error: unknown) => {
        if ((error as Error).name !== "NotFoundError") throw error;
        throw new NotDeployed(`'${model.id}' is not deployed: ${DEPLOY}.`, { cause: error });
      });
      const instance = await found.instance();
      return new ModalClass(this, (name) => instance.method(name));
    });
  }

  /**
   * What a call that was started earlier answered, or RUNNING.
   * @throws Error, one sentence: there is no such call, or it failed.
   */
  getResult(callId: string): Promise<unknown> {
    return this.explained(async () => {
      try {
        const call = await this.client.functionCalls.fromId(callId);
        return await call.get({ timeoutMs: 0 });
      } catch (error) {
        const { name, code } = error as Error & { code?: number };
        if (name === "TimeoutError") return RUNNING;
        if (code !== GRPC.notFound && code !== GRPC.invalid) throw error;
        throw new Error(`There is no call '${callId}', or it is so old that Modal has forgotten its result.`, { cause: error });
      }
    });
  }

  /** Runs something against Modal; what it throws becomes a sentence. */
  explained<Result>(work: () => Promise<Result>): Promise<Result> {
    return explained(this.client.profile.serverUrl, work);
  }
}

/** A deployed class; all of its methods run in the same containers. */
export class ModalClass {
  private readonly modal: Modal;
  private readonly find: (name: string) => Function_;

  constructor(modal: Modal, find: (name: string) => Function_) {
    this.modal = modal;
    this.find = find;
  }

  /** Calls a method and waits for its answer, for a container to start too. */
  call(method: "generate" | "ready", ...args: readonly object[]): Promise<unknown> {
    return this.modal.explained(() => this.find(method).remote([...args]));
  }

  /** Starts a call. @returns its id. */
  spawn(method: "generate", request: object): Promise<string> {
    return this.modal.explained(async () => (await this.find(method).spawn([request])).functionCallId);
  }

  stats(): Promise<Stats> {
    return this.modal.explained(async () => {
      const { backlog, numTotalRunners } = await this.find("ready").getCurrentStats();
      return { backlog, runners: numTotalRunners };
    });
  }

  /** So many containers stay up from now on, whether anybody calls or not. */
  keep(containers: number): Promise<void> {
    return this.modal.explained(async () => {
      await this.find("ready").updateAutoscaler({ minContainers: containers });
    });
  }

  /** Address of its HTTP endpoint, without a trailing slash. */
  getUrl(): Promise<string> {
    return this.modal.explained(async () => {
      const url = await this.find("web").getWebUrl();
      if (url === undefined) throw new Error(`The class has no HTTP endpoint: deploy it again with ${DEPLOY}.`);
      return url.replace(/\/+$/, "");
    });
  }
}

async function explained<Result>(server: string | undefined, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof NotDeployed) throw error;
    throw new Error(sentenceFor(error as Error & { code?: number; details?: string }, server), { cause: error });
  }
}

/** By name, not by class: FunctionTimeoutError claims errors of other classes, and warns of it on the console. */
function sentenceFor(error: Error & { code?: number; details?: string }, server = ""): string {
  switch (error.name) {
    case "RemoteError":
      return `The container failed: ${error.message.replace(/^Remote error: /, "")}`;
    case "FunctionTimeoutError":
      return "The call ran longer than its class may: ask for fewer tokens, or raise the timeout in gpu-functions/gpu/modal_app.py.";
    case "InternalFailure":
      return `Modal could not run the call (${error.message.replace(/^Internal failure: /, "")}): run the command again.`;
    case "NotFoundError":
      return `${error.message}: what is deployed is older than this checkout, deploy it again with ${DEPLOY}.`;
    case "ClientError":
      return sentenceForStatus(error.code, error.details ?? error.message, server);
    default:
      return error.message;
  }
}

function sentenceForStatus(code: number | undefined, details: string, server: string): string {
  switch (code) {
    case GRPC.unauthenticated:
      return `Modal does not accept these credentials (${details}): check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run modal token new.`;
    case GRPC.denied:
      return `These Modal credentials may not do that: ${details}.`;
    case GRPC.exhausted:
      return `A limit of this Modal workspace is reached: ${details}.`;
    case GRPC.unavailable:
    case GRPC.deadline: {
      const why = /Last error: (?:Error: )?(.+?)\. Resolution note/.exec(details)?.[1] ?? details;
      return `Modal cannot be reached at ${server} (${why}): check the network and run the command again.`;
    }
    default:
      return `Modal refused: ${details}.`;
  }
}
