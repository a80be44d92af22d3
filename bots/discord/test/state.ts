// What the fake Discord knows: users, channels, messages, interactions.
import { EventEmitter } from "node:events";

export interface FakeUser {
  readonly id: string;
  readonly username: string;
  readonly global_name: string;
}
export interface FakeChannel {
  readonly id: string;
  readonly type: number;
  readonly name: string;
  readonly guild_id: string | undefined;
  readonly nsfw: boolean;
  readonly parent_id: string | undefined;
}
export interface FakeFile {
  readonly id: string;
  readonly filename: string;
  readonly url: string;
  /** Of a text. */
  readonly text: string;
}
export interface FakeMessage {
  readonly id: string;
  readonly channel_id: string;
  readonly author: { readonly id: string; readonly username: string; readonly bot?: boolean };
  content: string;
  embeds: {
    title?: string;
    url?: string;
    description?: string;
    fields?: { name: string; value: string; inline?: boolean }[];
    footer?: { text: string };
    image?: { url: string };
  }[];
  components: {
    type: number;
    components: { type: number; label?: string; custom_id?: string; url?: string; options?: { label: string; value: string }[] }[];
  }[];
  attachments: FakeFile[];
  flags: number;
  reference?: string | undefined;
}
export interface At {
  readonly user: FakeUser;
  readonly channel: FakeChannel;
  /** Bits of the member; ManageGuild is 0x20. */
  readonly permissions?: bigint;
}

/** An interaction and all that came of it. */
export class Handle {
  readonly id: string;
  readonly token: string;
  readonly at: At;
  readonly type: number;
  readonly payload: Readonly<Record<string, unknown>>;
  /** Type of the callback. */
  acknowledged: number | undefined;
  message: FakeMessage | undefined;
  modal: { custom_id: string; title: string; components: unknown[] } | undefined;
  choices: { name: string; value: string | number }[] | undefined;
  readonly followups: FakeMessage[] = [];
  /** When the answer was written over, in milliseconds. */
  readonly edits: number[] = [];
  expired = false;
  removed = false;
  private readonly changes = new EventEmitter().setMaxListeners(100);

  constructor(id: string, token: string, type: number, at: At, payload: Readonly<Record<string, unknown>>) {
    this.id = id;
    this.token = token;
    this.type = type;
    this.at = at;
    this.payload = payload;
  }

  changed(): void {
    this.changes.emit("change");
  }

  /** Waits until something is so, without asking again and again. */
  async when<T>(look: () => T | undefined | false, what = "something", timeoutMs = 40_000): Promise<T> {
    return new Promise((resolve, reject) => {
      const stop = () => {
        clearTimeout(timer);
        this.changes.off("change", check);
      };
      const timer = setTimeout(() => {
        stop();
        reject(
          new Error(`waited for ${what}; the message is ${JSON.stringify(this.message)}, told besides ${JSON.stringify(this.followups)}`),
        );
      }, timeoutMs);
      const check = () => {
        const found = look();
        if (found === undefined || found === false) return;
        stop();
        resolve(found);
      };
      this.changes.on("change", check);
      check();
    });
  }

  /** The answer, once it is as wanted. */
  until(test: (message: FakeMessage) => boolean, timeoutMs?: number): Promise<FakeMessage> {
    return this.when(() => (this.message !== undefined && test(this.message) ? this.message : undefined), "an answer", timeoutMs);
  }

  /** What only the person sees, besides the answer. */
  whisper(): Promise<FakeMessage> {
    return this.when(() => this.followups[0], "a whisper");
  }
}

const EPOCH = 1_420_070_400_000;
let counter = 0n;
/** Ids that grow, and tell when they were made. */
export const snowflake = (): string => String((BigInt(Date.now() - EPOCH) << 22n) + (++counter % 4096n));
