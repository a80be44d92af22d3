// When a delivery that failed is tried again.

const [SECOND, MINUTE, HOUR] = [1000, 60_000, 3_600_000];

/** Milliseconds before each attempt, counted from the one before. */
export const SCHEDULE: readonly number[] = [
  ...[0, 5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR],
  ...[5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR],
];
const JITTER = 0.1;
const LONGEST_WAIT = 24 * HOUR;

/**
 * When to try again after `tries` attempts; undefined = never.
 * @param retryAfter what the receiver asked for: seconds, or an HTTP date. It counts when it is later, up to a day.
 * @param random from 0 to 1.
 */
export function nextAttempt(tries: number, now: number, retryAfter: string | null, random: number): number | undefined {
  const wait = SCHEDULE[tries];
  if (wait === undefined) return undefined;
  const planned = now + Math.round(wait * (1 + JITTER * (2 * random - 1)));
  const asked = retryAfter === null ? undefined : readRetryAfter(retryAfter.trim(), now);
  return asked === undefined ? planned : Math.max(planned, Math.min(asked, now + LONGEST_WAIT));
}

function readRetryAfter(text: string, now: number): number | undefined {
  if (/^\d+$/.test(text)) return now + Number(text) * SECOND;
  // Only what HTTP calls a date: the parser takes much else for one.
  const date = /^[A-Z][a-z]{2}/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : date;
}
