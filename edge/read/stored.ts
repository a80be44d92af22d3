// What a shared activation test keeps, as JSON in the table `activation_tests`.

export interface StoredTest {
  readonly source: string;
  readonly index: number;
  readonly ignoreBos: boolean;
  /** One per text. */
  readonly results: readonly { readonly tokens: readonly string[]; readonly values: readonly number[] }[];
}
