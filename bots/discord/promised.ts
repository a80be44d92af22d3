// What can be promised to somebody: a job of one of four kinds, with all that is needed to begin it, to show it and to post its end.
import type { TillerUser } from "../../shared/client.ts";
import type { Job, JobKind, Person, Sides, SteerBody, SweepBody, WholeJob } from "../../shared/client-types.ts";
import type { Answer, BotRoom } from "./asked.ts";
import type { Named, View } from "./render.ts";

/** Where the answer goes: over the answer of an interaction, or over a message of the bot's. */
export interface Target {
  readonly channelId: string;
  /** Of an interaction: good for 15 minutes. */
  readonly token?: string;
  /** Only the person sees the interaction's answer: nothing of it is ever posted elsewhere. */
  readonly ephemeral?: boolean;
  /** The bot's message, when it has no interaction; absent = a new one is posted. */
  readonly messageId?: string;
  /** The message that a new one answers. */
  readonly replyTo?: string;
}

interface Common {
  /** Of the interaction or message that asked: also the key of the job. */
  readonly id: string;
  readonly transport: BotRoom["transport"];
  readonly person: Person;
  readonly target: Target;
  /** Once it has begun: whoever takes it up again follows this job. */
  readonly jobId?: string;
}

/** By kind, what is asked for and what its message shows. */
interface Contents {
  readonly steer: { readonly body: SteerBody; readonly view: View };
  readonly "steer-chat": {
    readonly body: SteerBody;
    readonly view: View;
    /** Which turn of which thread it is, what was said, and how many old messages had to be left out. */
    readonly turn?: {
      readonly threadId: string;
      readonly id: string;
      readonly name: string;
      readonly question: string;
      readonly left?: number;
    };
  };
  readonly derive: {
    /** As the form has them; the files are read when it begins. */
    readonly body: {
      readonly fields: Readonly<Record<string, string>>;
      readonly files: { readonly positive: AttachedFile; readonly negative: AttachedFile };
    };
    readonly view: { readonly name: string; readonly modelId: string; readonly ownerId: string };
  };
  readonly sweep: { readonly body: SweepBody; readonly view: SweepView };
}

export interface AttachedFile {
  readonly name: string;
  readonly url: string;
}

export interface SweepView {
  readonly prompt: string;
  readonly modelId: string;
  readonly feature: Named;
  readonly ownerId: string;
}

/** A promise of one of these kinds. */
export type Promised<Kind extends JobKind = JobKind> = {
  [Each in Kind]: Common & { readonly kind: Each } & Contents[Each];
}[Kind];

/** How far a job has come that has not ended. */
export interface Growing {
  readonly state: "queued" | "running";
  readonly jobId: string;
  /** Of a steer. */
  readonly texts: Sides;
  /** Tokens of a steer, texts of everything else. */
  readonly done: number;
  readonly of: number;
}

/** How promises of a kind are begun and shown. */
export interface Keeper<Kind extends JobKind = JobKind> {
  /** Asks for the job; asked again for the same promise, it is the same job. @returns it, and the promise as it has become. */
  start(promised: Promised<Kind>, user: TillerUser): Promise<{ readonly job: Job; readonly promised: Promised<Kind> }>;
  growing(promised: Promised<Kind>, now: Growing): Answer;
  /** Of a job that succeeded or was stopped. It may be called twice for one job. */
  done(promised: Promised<Kind>, job: WholeJob<Kind>, user: TillerUser): Promise<Answer>;
}
export type Keepers = { readonly [Kind in JobKind]: Keeper<Kind> };
