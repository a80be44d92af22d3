// How many tests passed, failed and were skipped, as one line that machines read.

/** The part of vitest's JSON report that counts. */
export interface VitestReport {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly testResults: readonly {
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string }[];
  }[];
}

/**
 * Counts a run. A file that could not be loaded has no tests to fail, and an unhandled error belongs to none: both count as failures,
 * or a broken run would look like a small one.
 * @param report undefined when vitest ended without one.
 * @param code vitest's exit code.
 */
export function countTests(report: VitestReport | undefined, code: number): { readonly line: string; readonly failed: number } {
  const broken = (report?.testResults ?? []).filter(
    (file) => file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed"),
  );
  const counted = (report?.numFailedTests ?? 0) + broken.length;
  const failed = counted === 0 && (code !== 0 || report === undefined) ? 1 : counted;
  const skipped = (report?.numPendingTests ?? 0) + (report?.numTodoTests ?? 0);
  const line = `${report?.numPassedTests ?? 0} passed, ${failed} failed`;
  return { line: skipped === 0 ? line : `${line}, ${skipped} skipped`, failed };
}
