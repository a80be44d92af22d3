// What a job keeps, as JSON in the tables `jobs` and `job_chunks`.
import type { GenerateRequest, GenerateResult, TokenEvent } from "../../shared/protocol.ts";
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

/** Tokens in the order they came. */
export type JobTokens = readonly TokenEvent[];

/** What the engine said at the end, besides the texts: those are in the saved steer, whose id is the job's. */
export type JobResult = Pick<GenerateResult, "usage" | "timing">;
