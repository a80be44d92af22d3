// Every command: what is dispatched, and what is deployed.
import type { Command } from "../command.ts";
import { help, link, usage } from "./about.ts";
import { chat } from "./chat.ts";
import { models, presets } from "./models.ts";
import { settings } from "./settings.ts";
import { steer } from "./steer.ts";
import { sweep } from "./sweep.ts";
import { vector } from "./vector.ts";

export const COMMANDS: readonly Command[] = [steer, sweep, chat, vector, models, presets, usage, link, settings, help];
