// What a job keeps, as JSON in the table `jobs`.
import type { GenerateRequest } from "../../shared/protocol.ts";
import type { StoredRequest } from "../steer/stored.ts";

/** Everything that is needed to run it: checked when it was made, and never again. */
export interface JobPlan {
  readonly engineRequest: GenerateRequest;
  readonly stored: StoredRequest;
  /** Fields of the request that mean nothing here. */
  readonly ignored: readonly string[];
  /** Whose place of the quota it took: given back when the failure is ours. */
  readonly quota: { readonly identifier: string; readonly limit: number };
  /** Where links begin. */
  readonly origin: string;
}

/** One side so far. */
export interface SideProgress {
  readonly text: string;
  /** Token ids: what the engine goes on from. */
  readonly ids: readonly number[];
}

export interface JobProgress {
  readonly STEERED: SideProgress;
  readonly DEFAULT: SideProgress;
}

/** What a finished job says of its steer, which is saved as every steer is. */
export interface JobResult {
  readonly steerId: string;
  readonly promptTokens: number;
  readonly completionTokens: number;
}
