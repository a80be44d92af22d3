// Tells Discord the commands, and people what changes by it.
import type { REST } from "@discordjs/rest";
import { Routes } from "discord-api-types/v10";
import type { Command } from "./command.ts";

type Data = Command["data"];

export interface Deployment {
  readonly rest: REST;
  readonly applicationId: string;
  readonly wanted: readonly Data[];
  /** To this server only; undefined = everywhere. */
  readonly guildId: string | undefined;
  readonly say: (line: string) => void;
}

/** Prints the difference, and writes the list where there is one. */
export async function deploy({ rest, applicationId, wanted, guildId, say }: Deployment): Promise<void> {
  const route = guildId === undefined ? Routes.applicationCommands(applicationId) : Routes.applicationGuildCommands(applicationId, guildId);
  const current = (await rest.get(route)) as Data[];
  const list = guildId === undefined ? wanted : wanted.map(inGuild);
  const lines = planDeploy(current, list);
  for (const line of lines) say(line);
  const where = guildId === undefined ? "everywhere" : `in server ${guildId}`;
  if (lines.every((line) => line.startsWith("="))) return say(`Discord has these commands ${where} already.`);
  await rest.put(route, { body: list.map(toWire) });
  say(`Discord has these commands ${where} now.`);
}

/** Commands of one server have no contexts: they are nowhere else. */
const inGuild = ({ contexts: _, integration_types: __, ...data }: Data): Data => data;

/** Discord's document wants permissions as a number, its types as a text. */
const toWire = ({ default_member_permissions: permissions, ...data }: Data) =>
  permissions == null ? data : { ...data, default_member_permissions: Number(permissions) };

/** One line for each command: + new, - gone, ~ changed, = as it is. Changed ones are followed by what differs. */
export function planDeploy(current: readonly Data[], wanted: readonly Data[]): string[] {
  const lines: string[] = [];
  const before = new Map(current.map((command) => [command.name, command]));
  for (const command of wanted) {
    const old = before.get(command.name);
    before.delete(command.name);
    if (old === undefined) {
      lines.push(`+ /${command.name}`);
      continue;
    }
    // Discord tells its own choice where we make none.
    const asked = command.integration_types === undefined ? { ...old, integration_types: null } : old;
    const changes = differences(flatten(asked), flatten(command));
    lines.push(changes.length === 0 ? `= /${command.name}` : `~ /${command.name}`, ...changes.map((change) => `    ${change}`));
  }
  return [...lines, ...[...before.keys()].map((name) => `- /${name}`)];
}

/** What Discord adds on its own, and what says nothing when it is this. */
const OWN: ReadonlySet<string> = new Set(["id", "application_id", "guild_id", "version", "dm_permission", "default_permission", "handler"]);
const NOTHING: ReadonlySet<unknown> = new Set([null, undefined, false, ""]);

/** A command as paths and values: options by their names, whatever their order of fields. */
function flatten(value: unknown, path = ""): Map<string, string> {
  const all = new Map<string, string>();
  if (Array.isArray(value)) {
    value.forEach((each: unknown, i) => {
      // Lists of plain values, such as types of channels, have no order.
      const name = typeof each === "object" && each !== null && "name" in each ? String(each.name) : String(each);
      for (const [key, text] of flatten(each, `${path} ${name}`)) all.set(key, text);
      if (typeof each === "object") all.set(`${path} ${name} place`, String(i));
    });
  } else if (typeof value === "object" && value !== null) {
    for (const [key, each] of Object.entries(value)) {
      if (OWN.has(key) || key.endsWith("_localizations") || key.endsWith("_localized")) continue;
      const below = key === "options" || key === "choices" ? path : `${path} ${key}`;
      for (const [found, text] of flatten(each, below)) all.set(found, text);
    }
  } else if (!NOTHING.has(value)) all.set(path, String(value));
  return all;
}

function differences(before: ReadonlyMap<string, string>, after: ReadonlyMap<string, string>): string[] {
  const keys = [...new Set([...before.keys(), ...after.keys()])].filter((key) => before.get(key) !== after.get(key));
  return keys.map((key) => `${key.trim()}: ${before.get(key) ?? "nothing"} -> ${after.get(key) ?? "nothing"}`);
}
