import { expect, it } from "vitest";
import { nextAttempt, SCHEDULE } from "./schedule.ts";

const NOW = Date.parse("2026-03-01T00:00:00Z");

it("waits as long as the schedule says, give or take a tenth", () => {
  expect(SCHEDULE.map((ms) => ms / 1000)).toEqual([0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]);
  for (let tries = 1; tries < 10; tries++) {
    const wait = SCHEDULE[tries] as number;
    expect([0, 0.5, 1].map((random) => (nextAttempt(tries, NOW, null, random) as number) - NOW)).toEqual([
      wait * 0.9,
      wait,
      Math.round(wait * 1.1),
    ]);
  }
  expect(nextAttempt(10, NOW, "5", 0.5)).toBeUndefined();
});

it.each([
  ["60", 60],
  ["3", 5],
  ["Sun, 01 Mar 2026 00:01:00 GMT", 60],
  ["Sat, 28 Feb 2026 00:00:00 GMT", 5],
  ["999999999", 86_400],
  ["soon", 5],
  ["-7", 5],
  ["", 5],
])("with Retry-After: %s waits %i seconds", (text, seconds) => {
  expect(nextAttempt(1, NOW, text, 0.5)).toBe(NOW + seconds * 1000);
});
