import { REST } from "@discordjs/rest";
import { ApplicationCommandOptionType as Type } from "discord-api-types/v10";
import { describe, expect, it } from "vitest";
import type { Command } from "./command.ts";
import { COMMANDS } from "./commands/index.ts";
import { deploy, planDeploy } from "./deploy.ts";
import { newCheck } from "./test/openapi.ts";

type Data = Command["data"];
const APPLICATION_ID = "12345678901234567890";
const GUILD_ID = "98765432109876543210";
const REAL: readonly Data[] = COMMANDS.map(({ data }) => data);

const WANTED: readonly Data[] = [
  {
    ...{ type: 1, name: "steer", description: "Write on" },
    options: [
      { type: Type.String, name: "prompt", description: "From what", required: true, max_length: 2000 },
      { type: Type.Number, name: "strength", description: "How hard", min_value: 0, max_value: 100 },
      {
        ...{ type: Type.String, name: "method", description: "How" },
        choices: [
          { name: "add", value: "ADD" },
          { name: "clamp", value: "CLAMP" },
        ],
      },
    ],
  },
  {
    ...{ type: 1, name: "settings", description: "What is allowed" },
    ...{ default_member_permissions: "32", contexts: [0] },
    options: [
      {
        ...{ type: Type.Subcommand, name: "channels", description: "Where" },
        options: [{ type: Type.Channel, name: "channel", description: "Which", channel_types: [0, 5, 15] }],
      },
    ],
  },
  { type: 1, name: "help", description: "What there is" },
];

/** An option as Discord tells it: what says nothing is left out, and the order of fields is its own. */
function toldOption({ required, autocomplete, ...option }: Record<string, unknown>): object {
  const { options, channel_types: types } = option as { options?: Record<string, unknown>[]; channel_types?: number[] };
  return {
    ...(required === true ? { required } : {}),
    ...(autocomplete === true ? { autocomplete } : {}),
    ...Object.fromEntries(Object.entries(option).reverse()),
    ...(types === undefined ? {} : { channel_types: types.toReversed() }),
    ...{ name_localizations: null, description_localizations: null },
    ...(options === undefined ? {} : { options: options.map(toldOption) }),
  };
}

/** A command as Discord tells it, whatever of it was sent. */
function told(sent: object, i: number, guildId?: string): Data {
  const { options, default_member_permissions: permissions, contexts, ...rest } = sent as unknown as Record<string, unknown>;
  return {
    ...{ id: String(1000 + i), application_id: APPLICATION_ID, version: "1234", dm_permission: true, nsfw: false },
    ...{ name_localizations: null, description_localizations: null, default_permission: true },
    ...{ default_member_permissions: permissions == null ? null : String(permissions), contexts: contexts ?? null },
    ...(guildId === undefined ? { integration_types: [0, 1] } : { guild_id: guildId, contexts: null }),
    ...rest,
    ...(options === undefined ? {} : { options: (options as Record<string, unknown>[]).map(toldOption) }),
  } as unknown as Data;
}
const toldAll = (sent: readonly object[]): Data[] => sent.map((each, i) => told(each, i)).toReversed();

/** WANTED with one command changed. */
const changed = (name: string, change: (data: Data) => unknown): Data[] =>
  WANTED.map((data) => (data.name === name ? (change(structuredClone(data)) as Data) : data));
const optionsOf = (data: Data) => data.options as unknown as Record<string, unknown>[];

describe("the plan", () => {
  it("sees no difference in what Discord tells of the same commands", () => {
    for (const list of [WANTED, REAL]) expect(planDeploy(toldAll(list), list)).toEqual(list.map(({ name }) => `= /${name}`));
  });

  it("has + for what is new, - for what is gone, ~ and what differs for what is changed", () => {
    const current = toldAll([
      ...changed("steer", (data) => ({ ...data, description: "Write" })).slice(0, 2),
      { ...WANTED[2], name: "old" },
    ]);
    expect(planDeploy(current, WANTED)).toEqual([
      ...["~ /steer", "    description: Write -> Write on", "= /settings", "+ /help", "- /old"],
    ]);
    expect(planDeploy([], WANTED)).toEqual(["+ /steer", "+ /settings", "+ /help"]);
    expect(planDeploy(toldAll(WANTED), [])).toEqual(["- /help", "- /settings", "- /steer"]);
  });

  it.each<[string, string, (data: Data) => unknown, string[]]>([
    [
      "an option that is no longer required",
      "steer",
      (data) => ({ ...data, options: [{ ...optionsOf(data)[0], required: false }, ...optionsOf(data).slice(1)] }),
      ["prompt required: true -> nothing"],
    ],
    [
      "a limit",
      "steer",
      (data) => ({
        ...data,
        options: optionsOf(data).map((each) => ({ ...each, ...(each.name === "strength" ? { min_value: -5 } : {}) })),
      }),
      ["strength min_value: 0 -> -5"],
    ],
    [
      "a choice's value",
      "steer",
      (data) => ({
        ...data,
        options: optionsOf(data).map((each) => ({ ...each, ...(each.choices ? { choices: [{ name: "add", value: "SUM" }] } : {}) })),
      }),
      ["add value: ADD -> SUM", "clamp name: clamp -> nothing", "clamp place: 1 -> nothing", "clamp value: CLAMP -> nothing"].map(
        (each) => `method ${each}`,
      ),
    ],
    [
      "the order of options",
      "steer",
      (data) => ({ ...data, options: [0, 2, 1].map((i) => optionsOf(data)[i]) }),
      ["strength place: 1 -> 2", "method place: 2 -> 1"],
    ],
    ["who may use it", "settings", (data) => ({ ...data, default_member_permissions: "8" }), ["default_member_permissions: 32 -> 8"]],
    [
      "who may use it, of nobody",
      "settings",
      (data) => ({ ...data, default_member_permissions: "0" }),
      ["default_member_permissions: 32 -> 0"],
    ],
    ["where it may be used", "help", (data) => ({ ...data, contexts: [0] }), ["contexts 0: nothing -> 0"]],
    ["how it is installed", "help", (data) => ({ ...data, integration_types: [0] }), ["integration_types 1: 1 -> nothing"]],
    ["an age limit", "help", (data) => ({ ...data, nsfw: true }), ["nsfw: nothing -> true"]],
    [
      "a subcommand's option",
      "settings",
      (data) => {
        const [channels] = optionsOf(data);
        const [channel] = (channels?.options ?? []) as object[];
        return { ...data, options: [{ ...channels, options: [{ ...channel, channel_types: [0, 5] }] }] };
      },
      ["channels channel channel_types 15: 15 -> nothing"],
    ],
  ])("tells %s", (_, name, change, differences) => {
    const lines = planDeploy(toldAll(WANTED), changed(name, change));
    const begin = lines.indexOf(`~ /${name}`);
    expect(
      lines
        .filter((line) => line.startsWith("    "))
        .map((line) => line.trim())
        .sort(),
    ).toEqual([...differences].sort());
    expect(lines[begin + 1]).toMatch(/^ {4}\S/);
    expect(lines.filter((line) => line.startsWith("=")).length).toBe(2);
  });
});

interface Double {
  readonly rest: REST;
  /** Method and path of every request, without the version. */
  readonly calls: string[];
  /** The list of the last PUT. */
  readonly sent: () => readonly Record<string, unknown>[];
}

/** A Discord that keeps one list for everywhere and one for each server, behind the real REST client. */
function newDiscord(): Double {
  const lists = new Map<string, Data[]>();
  const calls: string[] = [];
  let sent: Record<string, unknown>[] = [];
  const rest = new REST({
    async makeRequest(url, { method, body }) {
      const path = new URL(url).pathname.replace(/^\/api\/v\d+/, "");
      calls.push(`${method} ${path}`);
      if (method === "PUT") {
        sent = JSON.parse(String(body)) as typeof sent;
        lists.set(
          path,
          sent.map((command, i) => told(command, i, /\/guilds\/(\d+)\//.exec(path)?.[1])),
        );
      }
      return Response.json(lists.get(path) ?? []);
    },
  }).setToken("a token of the tests");
  return { ...{ rest, calls }, sent: () => sent };
}

async function said(rest: REST, wanted: readonly Data[], guildId?: string): Promise<string[]> {
  const lines: string[] = [];
  await deploy({ ...{ rest, applicationId: APPLICATION_ID, wanted, guildId }, say: (line) => lines.push(line) });
  return lines;
}

describe.each([
  ["everywhere", undefined, `/applications/${APPLICATION_ID}/commands`],
  [`in server ${GUILD_ID}`, GUILD_ID, `/applications/${APPLICATION_ID}/guilds/${GUILD_ID}/commands`],
])("a deployment %s", (where, guildId, path) => {
  it("writes the list once, and the next one says that there is nothing to do", async () => {
    for (const list of [WANTED, REAL]) {
      const { rest, calls } = newDiscord();
      expect(await said(rest, list, guildId)).toEqual([
        ...list.map(({ name }) => `+ /${name}`),
        `Discord has these commands ${where} now.`,
      ]);
      expect(await said(rest, list, guildId)).toEqual([
        ...list.map(({ name }) => `= /${name}`),
        `Discord has these commands ${where} already.`,
      ]);
      expect(calls).toEqual([`GET ${path}`, `PUT ${path}`, `GET ${path}`]);
    }
  });

  it("writes the whole list for one difference, also when a command is only gone", async () => {
    const { rest, calls, sent } = newDiscord();
    await said(rest, WANTED, guildId);
    const without = WANTED.slice(0, 2);
    expect(await said(rest, without, guildId)).toEqual([
      ...["= /steer", "= /settings", "- /help", `Discord has these commands ${where} now.`],
    ]);
    expect(sent().map(({ name }) => name)).toEqual(["steer", "settings"]);
    expect(calls.filter((call) => call.startsWith("PUT"))).toHaveLength(2);
  });

  it("sends what Discord takes, with permissions as a number", async () => {
    const { rest, sent } = newDiscord();
    await said(rest, REAL, guildId);
    const operation = `PUT /applications/{application_id}${guildId === undefined ? "" : "/guilds/{guild_id}"}/commands`;
    expect(newCheck()(operation, sent(), [])).toEqual([]);
    expect(sent().map(({ name }) => name)).toEqual(REAL.map(({ name }) => name));
    expect(sent().find(({ name }) => name === "settings")?.default_member_permissions).toBe(32);
  });
});

it("a command of one server has no contexts: it is nowhere else", async () => {
  const { rest, sent } = newDiscord();
  await said(rest, WANTED);
  expect(sent().map(({ contexts }) => contexts)).toEqual([undefined, [0], undefined]);
  await said(rest, WANTED, GUILD_ID);
  expect(sent().map(({ contexts }) => contexts)).toEqual([undefined, undefined, undefined]);
});
