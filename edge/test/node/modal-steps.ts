/** What Modal's proxy asks for. */
export const MODAL_KEYS = { key: "wk-test-key", secret: "ws-test-secret" } as const;

/** What it answers in the engine's place. `ever` at the end of a list: the step before it again and again. */
export type ModalStep = "502" | "503" | "504" | "303" | "away" | "silence" | "ever" | undefined;

/** A request as it came. */
export interface ModalCall {
  readonly method: string;
  /** Below the engine's address. */
  readonly path: string;
  readonly host: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}
