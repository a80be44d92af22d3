import { describe, expect, it } from "vitest";
import type { Tiller, TillerUser } from "../../shared/client.ts";
import type { Preset } from "../../shared/client-types.ts";
import type { Asked, BotRoom, Place } from "./asked.ts";
import { type Controls, readControls, requireAllowed, TOKENS, writeControls } from "./controls.ts";

const SOURCE = "3-tales-directions";
const at = (index: number, layer = SOURCE) => ({ ...{ modelId: "tales", layer, index, strength: 8 } });
const preset = (name: string, ...indexes: number[]): Preset => ({
  ...{ name, features: indexes.map((index) => ({ ...at(index), explanation: name })) },
});
const PRESETS: Readonly<Record<string, readonly Preset[]>> = {
  // The service tells some indexes as texts.
  tales: [preset("Joy", 0), preset("Sea and Sky", 1, 2), { name: "Fear", features: [{ ...at(0), index: "3" as never, explanation: "" }] }],
  other: [preset("Calm", 0)],
};

interface Double {
  readonly asked: (place?: Partial<Place>) => Pick<Asked, "room" | "place" | "tiller">;
  readonly set: (controls: Partial<Controls>, guildId?: string) => Promise<void>;
  /** Models whose presets were asked for. */
  readonly calls: string[];
  readonly room: Pick<BotRoom, "tiller">;
}

/** A service that remembers notes and has presets. */
function newDouble(): Double {
  const kept = new Map<string, string>();
  const calls: string[] = [];
  const user = {
    presets: async (modelId: string) => {
      calls.push(modelId);
      return PRESETS[modelId] ?? [];
    },
  } as Partial<TillerUser> as TillerUser;
  const notes: Partial<Tiller["notes"]> = {
    async put(key, value) {
      kept.set(key, JSON.stringify(value));
      return true;
    },
    async get<T>(key: string) {
      const text = kept.get(key);
      return text === undefined ? undefined : (JSON.parse(text) as T);
    },
  };
  const room = { tiller: { as: () => user, notes } as Tiller } as BotRoom;
  const everything: Controls = { channels: [], maxTokens: TOKENS.usual, off: [], ageRestricted: [] };
  return {
    ...{ calls, room },
    asked: (place = {}) => ({
      ...{ room, tiller: user },
      place: { guildId: "100", channelId: "200", parentId: undefined, ageRestricted: false, inThread: false, ...place },
    }),
    set: (controls, guildId = "100") => writeControls(room, guildId, { ...everything, ...controls }),
  };
}

const STEER = { tokens: 60, modelId: "tales", features: [at(9)] };
const using = (...indexes: number[]) => ({ ...STEER, features: indexes.map((index) => at(index)) });
const DM: Partial<Place> = { guildId: undefined };

describe("the settings of a server", () => {
  it("are the usual ones until somebody sets others, and each server has its own", async () => {
    const { room, set } = newDouble();
    const usual = { channels: [], maxTokens: 512, off: [], ageRestricted: [] };
    expect(await readControls(room, { guildId: "100" })).toEqual(usual);
    await set({ channels: ["200"], maxTokens: 8, off: ["joy"] });
    expect(await readControls(room, { guildId: "100" })).toEqual({ channels: ["200"], maxTokens: 8, off: ["joy"], ageRestricted: [] });
    expect(await readControls(room, { guildId: "101" })).toEqual(usual);
    expect(await readControls(room, { guildId: undefined })).toEqual(usual);
  });
});

describe("channels", () => {
  it("are all allowed where none is listed", async () => {
    await expect(requireAllowed(newDouble().asked(), STEER)).resolves.toBeUndefined();
  });

  it("are refused where others are listed, with a sentence that names those", async () => {
    const { asked, set } = newDouble();
    await set({ channels: ["201", "202"] });
    await expect(requireAllowed(asked(), STEER)).rejects.toMatchObject({
      ...{ code: "invalid_request", message: "Steering is not allowed in this channel. Here it is: <#201>, <#202>." },
    });
    await expect(requireAllowed(asked({ channelId: "202" }), STEER)).resolves.toBeUndefined();
    await expect(requireAllowed(asked({ guildId: "101" }), STEER)).resolves.toBeUndefined();
    await expect(requireAllowed(asked(DM), STEER)).resolves.toBeUndefined();
  });

  it("allow their threads, and a list of many stays a sentence", async () => {
    const { asked, set } = newDouble();
    await set({ channels: Array.from({ length: 60 }, (_, i) => String(10 ** 18 + i * 1000)) });
    const thread = { channelId: "300", inThread: true };
    await expect(requireAllowed(asked({ ...thread, parentId: String(10 ** 18) }), STEER)).resolves.toBeUndefined();
    await expect(requireAllowed(asked({ ...thread, parentId: "200" }), STEER)).rejects.toThrow(/^.{0,500}$/);
    await expect(requireAllowed(asked({ ...thread, parentId: undefined }), STEER)).rejects.toThrow(/not allowed in this channel/);
  });
});

describe("tokens", () => {
  it.each([
    ["a server that set none", {}, undefined, 512],
    ["a server that set few", {}, 8, 8],
    ["a server that set many", {}, 4096, 4096],
    ["a direct message", DM, 8, 512],
  ])("are limited in %s", async (_, place, maxTokens, most) => {
    const { asked, set } = newDouble();
    if (maxTokens !== undefined) await set({ maxTokens });
    await expect(requireAllowed(asked(place), { ...STEER, tokens: most })).resolves.toBeUndefined();
    await expect(requireAllowed(asked(place), { ...STEER, tokens: most + 1 })).rejects.toMatchObject({
      ...{ code: "invalid_request", message: expect.stringContaining(`At most ${most} tokens`) },
    });
  });
});

describe("a preset that is switched off", () => {
  const OFF = /The preset (Joy|Sea and Sky|Fear) is switched off in this server/;

  it.each([
    ["its one feature", ["joy"], using(0)],
    ["one of its features", ["sea and sky"], using(2)],
    ["its feature among others", ["joy"], using(9, 0)],
    ["its feature, whose index is a text", ["fear"], using(3)],
    ["it, written in another way", [" JOY "], using(0)],
  ])("is refused also by the address of %s", async (_, off, steer) => {
    const { asked, set } = newDouble();
    await set({ off });
    await expect(requireAllowed(asked(), steer)).rejects.toThrow(OFF);
    await expect(requireAllowed(asked({ ageRestricted: true }), steer)).rejects.toThrow(OFF);
    await expect(requireAllowed(asked(DM), steer)).resolves.toBeUndefined();
    await expect(requireAllowed(asked({ guildId: "101" }), steer)).resolves.toBeUndefined();
  });

  it("leaves other features, layers and models alone", async () => {
    const { asked, set } = newDouble();
    await set({ off: ["joy", "none"] });
    for (const steer of [using(1), using(9), { ...STEER, features: [at(0, "4-tales-directions")] }, { ...using(0), modelId: "other" }])
      await expect(requireAllowed(asked(), steer)).resolves.toBeUndefined();
  });

  it("counts by what a choice carries of a name that is too long for one", async () => {
    const { asked, set } = newDouble();
    const long = `${"Very ".repeat(25)}long`;
    const found = async () => [preset(long, 0)];
    await set({ off: [long.slice(0, 100).toLowerCase()] });
    const { tiller, ...rest } = asked();
    await expect(requireAllowed({ ...rest, tiller: { ...tiller, presets: found } }, using(0))).rejects.toThrow(/is switched off/);
  });
});

describe("a preset for age-restricted channels", () => {
  it("is refused elsewhere, also by its feature, and may be used in them and in direct messages", async () => {
    const { asked, set } = newDouble();
    await set({ ageRestricted: ["sea and sky"] });
    for (const steer of [using(1), using(2), using(1, 2)]) {
      await expect(requireAllowed(asked(), steer)).rejects.toThrow("The preset Sea and Sky is for age-restricted channels only");
      await expect(requireAllowed(asked({ ageRestricted: true }), steer)).resolves.toBeUndefined();
      await expect(requireAllowed(asked(DM), steer)).resolves.toBeUndefined();
    }
    await expect(requireAllowed(asked(), using(0))).resolves.toBeUndefined();
  });
});

it("presets are only asked for where some are limited", async () => {
  const { asked, calls, set } = newDouble();
  await requireAllowed(asked(), STEER);
  expect(calls).toEqual([]);
  await set({ off: ["joy"] });
  await requireAllowed(asked(), STEER);
  expect(calls).toEqual(["tales"]);
});
