import { expect, it } from "vitest";
import { countTests, type VitestReport } from "./test-count.ts";

const report = (changes: Partial<VitestReport>): VitestReport => ({
  numPassedTests: 7,
  numFailedTests: 0,
  numPendingTests: 0,
  numTodoTests: 0,
  testResults: [{ status: "passed", assertionResults: [{ status: "passed" }] }],
  ...changes,
});

it.each([
  ["all passed", report({}), 0, "7 passed, 0 failed"],
  ["some skipped", report({ numPendingTests: 2, numTodoTests: 1 }), 0, "7 passed, 0 failed, 3 skipped"],
  [
    "one failed",
    report({ numFailedTests: 1, testResults: [{ status: "failed", assertionResults: [{ status: "failed" }] }] }),
    1,
    "7 passed, 1 failed",
  ],
  ["a file that cannot be loaded", report({ testResults: [{ status: "failed", assertionResults: [] }] }), 1, "7 passed, 1 failed"],
  [
    "a failed test and a file that cannot be loaded",
    report({
      numFailedTests: 1,
      testResults: [
        { status: "failed", assertionResults: [{ status: "failed" }] },
        { status: "failed", assertionResults: [] },
      ],
    }),
    1,
    "7 passed, 2 failed",
  ],
  ["an error outside of every test", report({}), 1, "7 passed, 1 failed"],
  ["vitest ended without a report", undefined, 0, "0 passed, 1 failed"],
])("counts: %s", (_, given, code, line) => {
  expect(countTests(given, code).line).toBe(line);
});
