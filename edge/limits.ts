// Every number that a caller can hit at the edge. The engine's own limits are in shared/protocol.ts.

export const LIMITS = {
  bodyBytes: 1_000_000,
  promptChars: 2048,
  /** Characters of one side's conversation, and its messages. */
  chatChars: 8192,
  chatMessages: 128,
  /** Generated tokens of one steer. */
  nTokens: 256,
  seed: 100_000_000,
  strengthMultiplier: 10,
  /** Steers an hour for a user without a limit of their own, and for one address without a key. */
  steersPerHour: 100,
  anonymousSteersPerHour: 20,
  /** Calls an hour that read texts and generate none, with a key and without. */
  readingsPerHour: 1000,
  anonymousReadingsPerHour: 200,
  /** Texts of one such call, and characters of each. */
  readTexts: 4,
  readChars: 10_000,
  vectorsPerUser: 1000,
  vectorsPerPage: 100,
  /** A vector's default strength, either way. */
  vectorStrength: 300,
} as const;

export const WINDOW_MS = 3_600_000;
/** The window as Neuronpedia's 429 body spells it. */
export const WINDOW_NAME = "60 m";
