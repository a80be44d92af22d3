import type { StdioOptions } from "node:child_process";

/** What the tool needs of the world. */
export interface Io {
  readonly environment: Readonly<NodeJS.ProcessEnv>;
  readonly say: (line: string) => void;
  /** Where what another program prints goes. */
  readonly stdio: StdioOptions;
  readonly now: () => number;
}
