// Options that several subcommands of /vector have.
import { type APIApplicationCommandBasicOption, ApplicationCommandOptionType as Type } from "discord-api-types/v10";

export const name = { type: Type.String, name: "name", description: "What you call it", max_length: 200 } as const;
export const model = {
  type: Type.String,
  name: "model",
  description: "Which model; the first one when you leave it out",
  autocomplete: true,
} as const;
export const strength = {
  type: Type.Number,
  name: "strength",
  description: "A strength that shows (10)",
  min_value: -300,
  max_value: 300,
} as const;
export const description = {
  type: Type.String,
  name: "description",
  description: "What it is and where it comes from",
  max_length: 2000,
} as const;
export const visibility: APIApplicationCommandBasicOption = {
  type: Type.String,
  name: "visibility",
  description: "Who may steer with it (unlisted: whoever has its address)",
  choices: ["private", "unlisted", "public"].map((value) => ({ name: value, value })),
};
export const which = { type: Type.String, name: "vector", description: "Which of yours", required: true, autocomplete: true } as const;
export const hook: APIApplicationCommandBasicOption = {
  type: Type.String,
  name: "hook",
  description: "Before the layer (hook_resid_pre), or after it",
  choices: ["hook_resid_pre", "hook_resid_post"].map((value) => ({ name: value, value })),
};
