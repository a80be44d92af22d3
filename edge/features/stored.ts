// What an uploaded feature keeps, as JSON in the tables `features` and `activations`.

export interface UploadedExample {
  readonly tokens: readonly string[];
  /** One per token. */
  readonly values: readonly number[];
  readonly quantileMin?: number | undefined;
  readonly quantileMax?: number | undefined;
  readonly quantileFraction?: number | undefined;
}

export interface TokenValue {
  readonly token: string;
  readonly value: number;
}

export interface UploadedFeature {
  readonly topLogits: readonly TokenValue[];
  readonly bottomLogits: readonly TokenValue[];
  /** The most active first. */
  readonly examples: readonly UploadedExample[];
}
