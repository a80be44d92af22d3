/** What the prompt makes the engine do. Any other prompt is answered well. */
export const FAULTS = {
  refuses: "engine: answer 503 busy",
  unauthorized: "engine: answer 401",
  tooLong: "engine: the prompt is too long",
  garbage: "engine: answer no JSON",
  wrongShape: "engine: answer another JSON",
  noReceipts: "engine: leave the receipts out",
  missingRow: "engine: leave the steered row out",
  diesInStream: "engine: die after two tokens",
  endsEarly: "engine: end the stream without done",
  errorEvent: "engine: send an error event after two tokens",
  badEvent: "engine: send an event that is no JSON",
  hangs: "engine: never answer",
  silentStream: "engine: one token, then nothing",
  endless: "engine: tokens for ever",
  accepts: "engine: accept what nothing was generated of, and forget it",
  keeps: "engine: accept, and tell the whole when it is asked",
} as const;

/** A webhook as the scripted receiver got it. */
export interface Hook {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}
