import { describe, expect, it } from "vitest";
import { toMessage } from "./asked.ts";
import { namesOf, type Progress, pressId, readPress, steerMessage, type View } from "./render.ts";
import { newCheck } from "./test/openapi.ts";

// As long as they get.
const OWNER = "12345678901234567890";
const STEER_ID = `cm${"k3x9".repeat(6).slice(0, 23)}`;
const JOB_ID = `cm${"j7q2".repeat(6).slice(0, 23)}`;
const SHARE_URL = `https://tiller.example/s/${STEER_ID}`;

const LONG = {
  stars: "*".repeat(10_000),
  mentions: "@everyone ".repeat(1000),
  lines: "\n".repeat(9999).concat("a"),
  emoji: "😀".repeat(5000),
  mixed: "*@everyone\n😀# <@1>\\ ".repeat(500),
} as const;
const LONGEST = Object.entries(LONG);

const feature = (strength: number, label = "Joy", index = 0) => ({
  ...{ modelId: "tiller-tales", layer: "3-tales-directions", index, strength, label },
});
const view = (changes: Partial<View> = {}): View => ({
  ...{ prompt: "One day", modelId: "tiller-tales", features: [feature(8)], ownerId: OWNER },
  ...changes,
});
const succeeded = (texts: { DEFAULT: string; STEERED: string }): Progress => ({
  ...{ state: "succeeded", steerId: STEER_ID, shareUrl: SHARE_URL, texts, tokens: 60, changed: { positions: 31, of: 40 } },
});
const growing = (state: "queued" | "running", texts = { DEFAULT: "", STEERED: "" }): Progress => ({
  ...{ state, jobId: JOB_ID, texts, tokens: 12, of: 60 },
});
const everyState = (texts: { DEFAULT: string; STEERED: string }): Progress[] => [
  ...[growing("queued", texts), growing("running", texts), succeeded(texts), { state: "canceled", texts } as const],
];

const check = newCheck();
/** What Discord would refuse. */
function problemsOf(asked: View, progress: Progress): string[] {
  const { body, files } = toMessage(steerMessage(asked, progress));
  const names = files.map(({ name }) => name);
  return check("PATCH /webhooks/{webhook_id}/{webhook_token}/messages/@original", JSON.parse(JSON.stringify(body)), names);
}

interface Part {
  readonly type: number;
  readonly label?: string;
  readonly custom_id?: string;
  readonly url?: string;
  readonly options?: readonly { readonly value: string; readonly label: string; readonly default: boolean }[];
}
const partsOf = (asked: View, progress: Progress): Part[] =>
  (steerMessage(asked, progress).components ?? []).flatMap((row) => (row as { components: Part[] }).components);
const labelsOf = (asked: View, progress: Progress) => partsOf(asked, progress).flatMap(({ label }) => label ?? []);
const embedOf = (asked: View, progress: Progress) => {
  const [embed] = steerMessage(asked, progress).embeds ?? [];
  if (embed === undefined) throw new Error("no embed");
  return embed;
};
const sidesOf = (progress: Progress) =>
  Object.fromEntries((embedOf(view(), progress).fields ?? []).map(({ name, value }) => [name, value.replace(/\\(.)/gs, "$1")]));

describe("a message about a steer", () => {
  it.each(LONGEST)("holds Discord's limits for long texts of %s, in every state", (_, text) => {
    const features = Array.from({ length: 8 }, (_, index) => feature(-1234.5678 * (index + 1), text, index));
    for (const progress of everyState({ DEFAULT: text, STEERED: text }))
      expect(problemsOf(view({ prompt: text, modelId: text.slice(0, 200), features }), progress)).toEqual([]);
  });

  it("holds them for texts of nothing", () => {
    for (const text of ["", " \n ", "\u200b"])
      for (const progress of everyState({ DEFAULT: text, STEERED: text })) expect(problemsOf(view({ prompt: text }), progress)).toEqual([]);
  });

  it.each(LONGEST)("shows the beginning of both long texts of %s once it is done, and the end while it grows", (_, text) => {
    const texts = { DEFAULT: `plain ${text} the end`, STEERED: `steered ${text} at last` };
    for (const progress of [succeeded(texts), { state: "canceled", texts } as const])
      expect(sidesOf(progress)).toEqual({ DEFAULT: expect.stringMatching(/^plain /), STEERED: expect.stringMatching(/^steered /) });
    expect(sidesOf(growing("running", texts))).toEqual({
      DEFAULT: expect.stringMatching(/^… [\s\S]* the end ▌$/),
      STEERED: expect.stringMatching(/^… [\s\S]* at last ▌$/),
    });
  });

  it("shows what was written as it was written", () => {
    const texts = { DEFAULT: "**Hi** <@1>\n# you", STEERED: "[a](https://x.org) @everyone" };
    expect(sidesOf(succeeded(texts))).toEqual(texts);
    const [DEFAULT, STEERED] = embedOf(view(), succeeded(texts)).fields ?? [];
    expect(DEFAULT?.value).toBe("\\*\\*Hi\\*\\* \\<\\@1\\>\n\\# you");
    expect(STEERED?.value).not.toMatch(/(?<!\\)@|\]\(/);
    expect(embedOf(view({ prompt: "*a* <@1>" }), growing("queued")).description).toBe("**Prompt** \\*a\\* \\<\\@1\\>");
  });

  it("tells how far it has come", () => {
    const footers = everyState({ DEFAULT: "a", STEERED: "b" }).map((progress) => embedOf(view(), progress).footer?.text);
    expect(footers).toEqual([
      "Waits for its turn",
      "Writing: 12 of at most 60 tokens",
      `60 tokens · the edit changed 31 of 40 positions · ${STEER_ID}`,
      "Stopped",
    ]);
  });

  it("names the model and every feature with its strength", () => {
    const features = [feature(12), feature(-0.5, "Sea")];
    expect(namesOf(features)).toBe("Joy 12 + Sea -0.5");
    expect(embedOf(view({ features }), growing("queued")).title).toBe("tiller-tales: Joy 12 + Sea -0.5");
  });

  it("is linked once there is something to open", () => {
    const texts = { DEFAULT: "a", STEERED: "b" };
    expect(everyState(texts).map((progress) => embedOf(view(), progress).url)).toEqual([undefined, undefined, SHARE_URL, undefined]);
  });
});

describe("the file of an answer", () => {
  const filesOf = (asked: View, progress: Progress) => steerMessage(asked, progress).files ?? [];

  it.each(LONGEST)("has the whole texts, for long ones of %s", (_, text) => {
    const [prompt, DEFAULT, STEERED] = [`prompt ${text}`, `plain ${text}`, `steered ${text}`];
    const [file] = filesOf(view({ prompt }), succeeded({ DEFAULT, STEERED }));
    expect(file?.name).toBe(`steer-${STEER_ID}.txt`);
    for (const whole of [prompt, DEFAULT, STEERED, "Joy 8", "tiller-tales"])
      expect(file).toMatchObject({ text: expect.stringContaining(whole) });
  });

  it("is there when something is cut, whichever it is, and only then", () => {
    const [fits, long] = ["a".repeat(1024), "a".repeat(1025)];
    const count = (prompt: string, DEFAULT: string, STEERED: string) => filesOf(view({ prompt }), succeeded({ DEFAULT, STEERED })).length;
    expect(count("One day", fits, fits)).toBe(0);
    expect(count("One day", long, "short")).toBe(1);
    expect(count("One day", "short", long)).toBe(1);
    expect(count("a".repeat(1100), "short", "short")).toBe(0);
    expect(count("a".repeat(1300), "short", "short")).toBe(1);
    // An escape takes room too.
    expect(count("One day", "*".repeat(600), "short")).toBe(1);
    expect(sidesOf(succeeded({ DEFAULT: fits, STEERED: "short" })).DEFAULT).toBe(fits);
  });

  it("does not come before the answer is done", () => {
    const texts = { DEFAULT: LONG.mixed, STEERED: LONG.mixed };
    for (const progress of [growing("queued", texts), growing("running", texts), { state: "canceled", texts } as const])
      expect(filesOf(view(), progress)).toEqual([]);
  });
});

describe("what can be done with it", () => {
  const texts = { DEFAULT: "a", STEERED: "b" };

  it("is to stop it while it is written, to go on from it once it is done, and nothing when it was stopped", () => {
    const done = ["Weaker", "Stronger", "Flip", "Again", "Share", "Delete", "Open"];
    expect(everyState(texts).map((progress) => labelsOf(view(), progress))).toEqual([["Stop"], ["Stop"], done, []]);
  });

  it("is about this steer or job, and knows whose message it is on", () => {
    const presses = (progress: Progress) => partsOf(view(), progress).flatMap(({ custom_id }) => custom_id ?? []);
    for (const id of [...presses(growing("running")), ...presses(succeeded(texts))]) expect(id.length).toBeLessThanOrEqual(100);
    expect(presses(growing("running")).map(readPress)).toEqual([{ verb: "stop", about: JOB_ID, ownerId: OWNER }]);
    const verbs = ["weaker", "stronger", "flip", "again", "strength", "share", "delete"];
    expect(presses(succeeded(texts)).map(readPress)).toEqual(verbs.map((verb) => ({ verb, about: STEER_ID, ownerId: OWNER })));
    expect(partsOf(view(), succeeded(texts)).find(({ label }) => label === "Open")?.url).toBe(SHARE_URL);
  });

  it.each([
    ["one strength", [feature(8)], "8", "-16"],
    ["the strength 0", [feature(0)], "0", "0"],
    ["a strength below 0", [feature(-4)], "-4", "8"],
    ["two features", [feature(8), feature(-2)], "8 + -2", "-16 + 4"],
    ["many features", Array.from({ length: 40 }, () => feature(-1234)), "-1234 + -1234", "2468 + 2468"],
  ])("offers strengths as a list of different choices, for %s", (_, features, same, first) => {
    const asked = view({ features });
    expect(problemsOf(asked, succeeded(texts))).toEqual([]);
    const { options = [] } = partsOf(asked, succeeded(texts)).find(({ type }) => type === 3) ?? {};
    const values = options.map(({ value }) => Number(value));
    expect(new Set(values).size).toBe(options.length);
    expect(values.every(Number.isFinite)).toBe(true);
    expect(options.filter((option) => option.default).map(({ value }) => value)).toEqual(["1"]);
    expect(options.find((option) => option.default)?.label.startsWith(same)).toBe(true);
    expect(options.find(({ value }) => value === "-2")?.label.startsWith(first)).toBe(true);
  });
});

describe("the id of a press", () => {
  it("is read as it was written", () => {
    const press = { verb: "stronger", about: STEER_ID, ownerId: OWNER };
    expect(readPress(pressId(press))).toEqual(press);
  });

  it("is no press when something is missing, as on messages of others", () => {
    for (const id of ["", "stop", "stop:1"]) expect(readPress(id)).toBeUndefined();
  });
});
