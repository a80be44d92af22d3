// How every kind of promise is kept.
import type { BotRoom } from "./asked.ts";
import { newTurns } from "./chats.ts";
import { newDerivations } from "./derivations.ts";
import type { Keepers } from "./promised.ts";
import { STEERS } from "./steers.ts";
import { newSweeps } from "./sweeps.ts";

export const newKeepers = (room: BotRoom): Keepers => ({
  steer: STEERS,
  "steer-chat": newTurns(room),
  derive: newDerivations(room),
  sweep: newSweeps(room),
});
