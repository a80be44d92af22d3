// Every number that a caller can hit at the edge. The engine's own limits are in shared/protocol.ts.

export const LIMITS = {
  bodyBytes: 1_000_000,
  /** Of a vector file, and of an upload of features. */
  uploadBytes: 8_000_000,
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
  /** Calls an hour that look something up at an engine, or search for it, with a key and without. */
  lookupsPerHour: 10_000,
  anonymousLookupsPerHour: 2000,
  /** Texts of one call that reads, and characters of each. */
  readTexts: 4,
  readChars: 10_000,
  vectorsPerUser: 1000,
  vectorsPerPage: 100,
  /** A vector's default strength, either way. */
  vectorStrength: 300,
  labelChars: 200,
  descriptionChars: 2000,
  /** Vectors made of one file. */
  vectorsPerFile: 64,
  keysPerUser: 20,
  /** What an administrator can allow a user in an hour. */
  largestHourlyLimit: 1_000_000,
  modelsPerUser: 50,
  sourceSetsPerUser: 200,
  /** Layers of a model that a user describes. */
  layers: 127,
  /** Features of one upload, and what each may have. */
  featuresPerUpload: 128,
  /** Uploaded features of one user. */
  featuresPerUser: 200_000,
  exampleTokens: 1024,
  examplesPerFeature: 64,
  tokenChars: 200,
  /** Texts with activations of one upload, and of one vector. */
  activationsPerUpload: 100,
  activationsPerVector: 1000,
  labelsPerUser: 10_000,
  labelDescriptionChars: 512,
  /** Labels on one page of a search. */
  labelsPerPage: 20,
  listsPerUser: 500,
  listItems: 300,
  listItemsPerCall: 100,
  testTextChars: 500,
  commentChars: 2000,
  commentsPerList: 1000,
  /** Features of one batch read. */
  featuresPerRead: 100,
  featuresPerPage: 25,
  sharesPerPage: 50,
  /** Jobs that run at once, of all users and of one; and that wait, of one. */
  jobsRunning: 8,
  jobsRunningPerUser: 2,
  jobsQueuedPerUser: 100,
  jobsPerPage: 50,
  /** What a bot remembers under one key. */
  noteKeyChars: 200,
  noteChars: 100_000,
  noteSeconds: 30 * 24 * 3600,
  notesPerPage: 100,
  /** Log probabilities that a job's answer may have: tokens of both sides, times one more than n_logprobs. */
  jobLogprobs: 12_000,
  /** Characters of one row of a job's input. */
  inputPartChars: 400_000,
  /** Texts that are derived from while the caller waits, and their characters; more is a job. */
  derivedAtOnce: 400,
  derivedAtOnceChars: 100_000,
  /** Latents that a report lists, over all its layers. */
  derivedLatents: 4000,
  /** Vectors that one is combined of. */
  combinedVectors: 64,
  sweepPrompts: 16,
  sweepDirections: 32,
  sweepLayers: 64,
  sweepStrengths: 41,
  sweepSeeds: 16,
  /** Tokens of one text of a sweep, texts of a sweep, and tokens of all of them. */
  sweepTokens: 128,
  sweepRows: 640,
  sweepAllTokens: 40_000,
  scorerWords: 2000,
  /** Instructions of RE2's program of a pattern: what matching takes is this times the text's length. */
  scorerProgram: 1000,
} as const;

export const WINDOW_MS = 3_600_000;
/** The window as Neuronpedia's 429 body spells it. */
export const WINDOW_NAME = "60 m";
/** One call of a job may take as long as its model needs; an engine that says nothing at all is noticed by its pings. */
export const JOB_TIMEOUT_MS = 25 * 60_000;
