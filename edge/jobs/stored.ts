// What a job keeps, as JSON in the tables `jobs` and `job_chunks`.
import type { GenerateRequest, GenerateResult, TokenEvent } from "../../shared/protocol.ts";
import type { Derived, StoredDerivation } from "../directions/contract.ts";
import type { StoredRequest } from "../steer/stored.ts";
import type { SweepResult, SweepRow } from "../sweeps/contract.ts";
import type { StoredSweep } from "../sweeps/stored.ts";

/** What every job's plan has. Everything in a plan was checked when the job was made, and never again. */
export interface CommonPlan {
  /** Whose places of the quota it took, and how many (one where nothing is said): given back when the failure is ours. */
  readonly quota: { readonly identifier: string; readonly limit: number; readonly places?: number };
  /** Where links begin. */
  readonly origin: string;
}

export interface SteerPlan extends CommonPlan {
  readonly engineRequest: GenerateRequest;
  readonly stored: StoredRequest;
  /** Fields of the request that mean nothing here. */
  readonly ignored: readonly string[];
}

export interface DerivePlan extends CommonPlan {
  readonly derivation: StoredDerivation;
}

export interface SweepPlan extends CommonPlan {
  readonly sweep: StoredSweep;
}

/** Tokens in the order they came. */
export type JobTokens = readonly TokenEvent[];

/** What a sweep has found: the texts of a cell, by its place; -1 is the baseline. An error is a cell's that has none. */
export interface SweptCell {
  readonly cell: number;
  readonly rows: readonly SweepRow[];
  readonly change: number;
  readonly error: string | null;
}

/** What the engine said at the end, besides the texts: those are in the saved steer, whose id is the job's. */
export type SteerJobResult = Pick<GenerateResult, "usage" | "timing">;

/** By kind: what it was asked for, what it keeps while it runs, what it ends with. */
export interface JobKinds {
  readonly steer: { readonly plan: SteerPlan; readonly item: TokenEvent; readonly result: SteerJobResult };
  readonly "steer-chat": JobKinds["steer"];
  readonly derive: { readonly plan: DerivePlan; readonly item: never; readonly result: Derived };
  readonly sweep: { readonly plan: SweepPlan; readonly item: SweptCell; readonly result: SweepResult };
}
export type JobPlan = JobKinds[keyof JobKinds]["plan"];
export type JobItem = JobKinds[keyof JobKinds]["item"];
export type JobResult = JobKinds[keyof JobKinds]["result"];
