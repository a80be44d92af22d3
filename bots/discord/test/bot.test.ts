import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { Program } from "../../../scripts/test/program.ts";
import { type FakeMessage, startFakeDiscord } from "./fake-discord.ts";
import type { At } from "./state.ts";
import { startWorld, type World } from "./world.ts";

// Engine, edge and bot are real processes here.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const MANAGE_GUILD = 0x20n;
const SOURCE = "3-tales-directions";
const STEER = { prompt: "One day a little girl", feature: `${SOURCE}/0`, strength: 8, tokens: 16, seed: 4, temperature: 0.7 };

let world: World;
let bot: Program;
beforeAll(async () => {
  world = await startWorld();
  bot = await startDeployed();
});
afterAll(() => world.close());
// Whatever was sent: Discord would have taken it, and nobody was pinged.
afterEach(() => expect(world.discord.problems.splice(0)).toEqual([]));

async function startDeployed(): Promise<Program> {
  expect((await world.runBot(["deploy"])).printed).toMatch(/\+ \/steer[\s\S]*Discord has these commands everywhere now/);
  return world.startBot();
}

let people = 0;
const place = (more: { nsfw?: boolean; guild?: string } = {}): At => ({
  user: world.discord.user(`ada${++people}`),
  channel: world.discord.channel({ guild: world.discord.guild(), ...more }),
});
const fieldsOf = (message: FakeMessage) => Object.fromEntries((message.embeds[0]?.fields ?? []).map(({ name, value }) => [name, value]));
const isDone = ({ embeds }: FakeMessage) => /changed \d+ of \d+ positions/.test(embeds[0]?.footer?.text ?? "");
const isTold = ({ content }: FakeMessage) => content !== "";
/** As people see it. */
const shown = (text: string | undefined) => (text ?? "").replace(/\\(.)/g, "$1").trim();
const textsOf = (message: FakeMessage) => [shown(fieldsOf(message).DEFAULT), shown(fieldsOf(message).STEERED)];

/** What the API itself answers. */
async function direct(changes: { n_tokens?: number; seed?: number } = {}, strength = STEER.strength): Promise<string[]> {
  const body = {
    ...{ prompt: STEER.prompt, modelId: world.model, temperature: 0.7, n_tokens: 16, seed: 4, freq_penalty: 0.5, strength_multiplier: 1 },
    features: [{ modelId: world.model, layer: SOURCE, index: 0, strength }],
    ...changes,
  };
  const headers = { "content-type": "application/json" };
  const response = await fetch(`${world.url}/api/steer`, { method: "POST", headers, body: JSON.stringify(body) });
  const { DEFAULT, STEERED } = (await response.json()) as { STEERED: string; DEFAULT: string };
  return [DEFAULT.trim(), STEERED.trim()];
}

describe("/steer", () => {
  it("shows both texts, the same as the API answers, and what can be done with them", async () => {
    const message = await world.discord.command("steer", STEER, place()).until(isDone);
    expect(textsOf(message)).toEqual(await direct());
    expect(JSON.stringify(message.components)).toMatch(/Weaker.*Stronger.*Flip.*Again.*Share.*Delete.*Open/s);
    expect((await fetch(message.embeds[0]?.url ?? "")).status).toBe(200);
  });

  it("grows while it is written, at most once a second, and puts what is too long into a file", async () => {
    const asked = world.discord.command("steer", { ...STEER, tokens: 250 }, place());
    const message = await asked.until(isDone);
    expect(asked.edits.length).toBeGreaterThan(1);
    // The last one is the end, which does not wait.
    const gaps = asked.edits.slice(1, -1).map((time, i) => time - (asked.edits[i] as number));
    for (const gap of gaps) expect(gap).toBeGreaterThanOrEqual(950);
    const [DEFAULT, STEERED] = await direct({ n_tokens: 250 });
    const whole = [...message.attachments.map(({ text }) => text), ...textsOf(message)].join("\n");
    expect(whole).toContain(DEFAULT);
    expect(whole).toContain(STEERED);
  });

  it("suggests models, features by what is typed, and presets", async () => {
    const at = place();
    const choices = async (options: Record<string, string>, focused: string) => {
      const asked = world.discord.suggest("steer", options, focused, at);
      return (await asked.when(() => asked.choices, "choices")).map(({ name }) => name);
    };
    expect(await choices({ model: "tal" }, "model")).toEqual(["tiller-tales"]);
    const all = await choices({ feature: "" }, "feature");
    const [label = ""] = all[0]?.split(" · ") ?? [];
    expect((await choices({ feature: label.slice(0, 4) }, "feature"))[0]).toBe(all[0]);
    expect(await choices({ feature: "nothing is about this" }, "feature")).toEqual([]);
    expect((await choices({ preset: "" }, "preset")).length).toBeGreaterThan(0);
    expect(await choices({ vector: "" }, "vector")).toEqual([]);
  });

  it.each([
    ["no direction", { feature: undefined }, /Choose one direction/],
    ["two directions", { preset: "x" }, /Choose one direction/],
    ["a feature that is none", { feature: "joy" }, /Choose the feature from the list/],
    ["a feature that is not there", { feature: `${SOURCE}/999999` }, /999999/],
    ["an unknown model", { model: "none" }, /There is no model none here. These are served: tiller-tales/],
    ["an unknown preset", { feature: undefined, preset: "none @everyone" }, /has no preset none \\@everyone/],
    ["more than the model has room for", { tokens: 4000 }, /At most 512 tokens are allowed/],
    ["more than the model has room for, where it is allowed", { tokens: 512 }, /has room for 256 together/],
  ])("with %s is answered with a sentence", async (_, changes, words) => {
    const message = await world.discord.command("steer", { ...STEER, ...changes }, place()).until(isTold);
    expect(message.content).toMatch(words);
  });

  it("tells when the next one is possible, once the hour's are used up", async () => {
    const at = place();
    await world.discord.command("usage", {}, at).until(isTold);
    const { users } = (await world.admin("/api/admin/user/list", { query: at.user.username })) as { users: { id: string }[] };
    await world.admin("/api/admin/user/update", { userId: users[0]?.id, hourlyLimit: 1 });
    // The edge knows the old limit for ten seconds at most: a new name is asked for anew.
    const renamed = { ...at, user: { ...at.user, global_name: `${at.user.global_name} the second` } };
    await world.discord.command("steer", STEER, renamed).until(isDone);
    const refused = await world.discord.command("steer", { ...STEER, seed: 5 }, renamed).until(isTold);
    expect(refused.content).toMatch(/used up your steers of this hour. You can try again <t:\d+:R>.\n-# request \S+/);
  });
});

describe("a button below an answer", () => {
  it("changes the strength or the seed, over the message of whoever asked", async () => {
    const at = place();
    const message = await world.discord.command("steer", STEER, at).until(isDone);
    const before = message.embeds[0]?.url;
    const again = async (press: () => ReturnType<World["discord"]["press"]>, url: string | undefined) => {
      const pressed = press();
      return pressed.until((now) => isDone(now) && now.embeds[0]?.url !== url);
    };
    const stronger = await again(() => world.discord.press(message, "Stronger", at), before);
    expect(stronger.id).toBe(message.id);
    expect(textsOf(stronger)).toEqual(await direct({}, 12));
    const flipped = await again(() => world.discord.press(message, "Flip", at), stronger.embeds[0]?.url);
    expect(textsOf(flipped)).toEqual(await direct({}, -12));
    const chosen = await again(() => world.discord.select(message, ["-0.5"], at), flipped.embeds[0]?.url);
    expect(textsOf(chosen)).toEqual(await direct({}, 6));
    const [, steered] = textsOf(chosen);
    const reseeded = await again(() => world.discord.press(message, "Again", at), chosen.embeds[0]?.url);
    expect(textsOf(reseeded)[1]).not.toBe(steered);
  });

  it("makes a message of their own for somebody else, and only the owner shares or deletes", async () => {
    const at = place();
    const other = { ...at, user: world.discord.user("grace") };
    const message = await world.discord.command("steer", STEER, at).until(isDone);
    const theirs = await world.discord.press(message, "Weaker", other).until(isDone);
    expect(theirs.id).not.toBe(message.id);
    expect((await world.discord.press(message, "Share", other).until(isTold)).content).toMatch(/Only who asked/);
    expect((await world.discord.press(message, "Delete", other).whisper()).content).toMatch(/Only who asked/);
    expect((await world.discord.press(message, "Share", at).until(isTold)).content).toContain(message.embeds[0]?.url);
    const url = message.embeds[0]?.url ?? "";
    const deleted = world.discord.press(message, "Delete", at);
    await deleted.when(() => deleted.removed, "the message to go");
    await vi.waitFor(async () => expect((await fetch(url)).status).toBe(404));
  });
});

describe("/vector", () => {
  const numbers = (n: number) => Array.from({ length: n }, (_, i) => Math.sin(i).toFixed(4));
  const width = async () => {
    const { models } = (await (await fetch(`${world.url}/api/models`)).json()) as { models: { width: number }[] };
    return models[0]?.width ?? 0;
  };

  it("keeps pasted numbers, a window's and a file's, shows, edits and deletes them; they steer", async () => {
    const at = place();
    const opened = world.discord.command("vector", { new: { name: "sines *", layer: 3 } }, at);
    await opened.when(() => opened.modal, "a window");
    const kept = await world.discord.submit(opened, { numbers: numbers(await width()).join(", ") }, at).until(isTold);
    const [, address = ""] = /`(3-neuronpedia-resid-pre\/\d+)`/.exec(kept.content) ?? [];
    expect(address).not.toBe("");
    expect(world.discord.rest.isEphemeral(kept)).toBe(true);

    const file = new File([JSON.stringify(numbers(await width()).map(Number))], "cosines.json");
    const uploaded = await world.discord
      .command("vector", { new: { name: "from a file", layer: 2, file } }, at)
      .until(({ embeds }) => embeds.length > 0);
    expect(uploaded.embeds[0]?.description).toContain("from a file");

    const listed = await world.discord.command("vector", { list: {} }, at).until(({ embeds }) => embeds.length > 0);
    expect(shown(listed.embeds[0]?.description)).toMatch(/from a file[\s\S]*sines \*/);
    const shownOne = await world.discord.command("vector", { show: { vector: address } }, at).until(({ embeds }) => embeds.length > 0);
    expect(JSON.parse(shownOne.attachments[0]?.text ?? "")).toHaveLength(await width());
    const edited = await world.discord.command("vector", { edit: { vector: address, strength: 30 } }, at).until(isTold);
    expect(edited.content).toMatch(/strength 30, unlisted, version 2/);
    const { feature: _, strength: __, ...rest } = STEER;
    const steered = await world.discord.command("steer", { ...rest, vector: address }, at).until(isDone);
    expect(steered.embeds[0]?.title).toBe("tiller-tales: sines * 30");

    const asked = await world.discord.command("vector", { delete: { vector: address } }, at).until(isTold);
    const deleted = world.discord.press(asked, "Delete it", at);
    await deleted.until(({ content }) => content.includes("is deleted"));
    const gone = await world.discord.command("vector", { show: { vector: address } }, at).until(isTold);
    expect(gone.content).toMatch(/You keep no such vector/);
    const others = await world.discord.command("vector", { list: {} }, place()).until(isTold);
    expect(others.content).toMatch(/You keep no such vector/);
  });

  it("says what is wrong with numbers", async () => {
    const message = await world.discord.command("vector", { new: { name: "short", layer: 3, numbers: "1, 2" } }, place()).until(isTold);
    expect(message.content).toMatch(/128|width|values/);
  });
});

describe("the smaller commands", () => {
  it.each([
    ["models", /tiller.*layers/s],
    ["presets", /at \d/],
    ["usage", /\*\*100\*\* of 100 steers left/],
    ["link", /\/link\/[\w-]{43}/],
    ["help", /\/steer/],
  ])("/%s tells the person alone", async (name, words) => {
    const message = await world.discord.command(name, {}, place()).until((now) => isTold(now) || now.embeds.length > 0);
    expect(JSON.stringify(message)).toMatch(words);
    expect(world.discord.rest.isEphemeral(message)).toBe(true);
  });
});

describe("/settings", () => {
  it("are for those who manage the server, and hold", async () => {
    const guild = world.discord.guild();
    const at = place({ guild });
    const chief = { ...at, permissions: MANAGE_GUILD };
    const elsewhere = { ...at, channel: world.discord.channel({ guild }) };
    const nsfw = { ...at, channel: world.discord.channel({ guild, nsfw: true }) };
    const set = async (options: Record<string, Record<string, string | number>>, who: At = chief) =>
      (await world.discord.command("settings", options, who).until(isTold)).content;
    const steer = async (changes: object, where: At) => {
      const message = await world.discord.command("steer", { ...STEER, ...changes }, where).until((now) => isDone(now) || isTold(now));
      return isDone(message) ? "done" : message.content;
    };
    expect(await set({ show: {} }, at)).toMatch(/Only members who may manage/);
    expect(await set({ channels: { action: "allow", channel: at.channel.id } })).toContain(`<#${at.channel.id}>`);
    expect(await steer({}, elsewhere)).toContain(`Steering is not allowed in this channel. Here it is: <#${at.channel.id}>`);
    expect(await steer({}, at)).toBe("done");
    expect(await set({ channels: { action: "all" } })).toMatch(/\*\*Channels\*\* all/);
    await set({ tokens: { max: 8 } });
    expect(await steer({}, at)).toMatch(/At most 8 tokens are allowed/);
    await set({ tokens: { max: 20 } });

    const asked = world.discord.suggest("steer", { preset: "" }, "preset", at);
    const presets = await asked.when(() => asked.choices, "presets");
    const name = String(presets[0]?.value);
    await set({ preset: { name, state: "off" } });
    expect(await steer({ feature: undefined, preset: name }, at)).toMatch(/is switched off in this server/);
    expect(await steer({}, at)).toMatch(/is switched off in this server/);
    const fewer = world.discord.suggest("steer", { preset: "" }, "preset", at);
    expect((await fewer.when(() => fewer.choices, "presets")).map(({ value }) => value)).not.toContain(name);
    await set({ preset: { name, state: "age-restricted" } });
    expect(await steer({ feature: undefined, preset: name }, at)).toMatch(/age-restricted channels only/);
    expect(await steer({ feature: undefined, preset: name }, nsfw)).toBe("done");
    await set({ preset: { name, state: "on" } });
    expect(await steer({ feature: undefined, preset: name }, at)).toBe("done");
  });
});

describe("/chat", () => {
  it("answers every message of its thread, and goes on from what was said", async () => {
    const at = place();
    const { prompt: _, seed: __, ...steering } = STEER;
    const opened = await world.discord.command("chat", { start: steering }, at).until(({ components }) => components.length > 0);
    const thread = world.discord.thread(at.channel.id);
    if (thread === undefined) throw new Error("no thread was made");
    const replies = (to: string) => world.discord.messages(thread.id).filter(({ reference }) => reference === to);
    const said = async (user: At["user"], text: string) => {
      const id = world.discord.say(user, thread, text);
      return vi.waitUntil(() => replies(id).find(({ content }) => /-# \d+ tokens/.test(content)), { timeout: 60_000 });
    };
    const first = await said(at.user, "Can we go to the park?");
    const other = world.discord.user("grace");
    await said(other, "And @everyone may come?");
    const jobs = world.discord.messages(thread.id);
    expect(jobs.length).toBe(4);

    // The Reply button of an answer, for those whose messages no bot reads.
    const window = world.discord.press(first, "Reply", { ...at, channel: thread });
    await window.when(() => window.modal, "a window");
    const replied = await world.discord
      .submit(window, { said: "What did they see there?" }, { ...at, channel: thread })
      .until(({ content }) => /-# \d+ tokens/.test(content));
    expect(shown(replied.content)).toContain("What did they see there?");

    expect((await world.discord.press(opened, "Stop chat", { ...at, user: other }).until(isTold)).content).toMatch(/Only who began/);
    expect((await world.discord.press(opened, "Stop chat", at).until(isTold)).content).toMatch(/is over/);
    const count = world.discord.messages(thread.id).length;
    world.discord.say(at.user, thread, "Still there?");
    expect((await world.discord.command("chat", { stop: {} }, { ...at, channel: thread }).until(isTold)).content).toMatch(
      /no conversation to stop/,
    );
    expect(world.discord.messages(thread.id).filter(({ author }) => author.bot).length).toBeLessThanOrEqual(count + 1);
  });

  it("leaves out what no longer fits into the model's context", async () => {
    const at = place();
    const { prompt: _, ...steering } = STEER;
    await world.discord.command("chat", { start: { ...steering, tokens: 60 } }, at).until(({ components }) => components.length > 0);
    const thread = world.discord.thread(at.channel.id);
    if (thread === undefined) throw new Error("no thread was made");
    let left = false;
    for (let turn = 0; turn < 6 && !left; turn++) {
      const id = world.discord.say(at.user, thread, `Tell me more about the little dog and the big tree, please, number ${turn}.`);
      const reply = await vi.waitUntil(
        () =>
          world.discord.messages(thread.id).find(({ reference, content }) => reference === id && /-# (\d+ tokens|request)/.test(content)),
        { timeout: 60_000 },
      );
      left = /no longer fit/.test(reply.content);
    }
    expect(left).toBe(true);
  });
});

describe("whatever happens", () => {
  it("an interaction that Discord delivers twice is answered once", async () => {
    const at = place();
    const asked = world.discord.command("steer", STEER, at);
    world.discord.redeliver(asked);
    await asked.until(isDone);
    world.discord.redeliver(asked);
    const usage = await world.discord.command("usage", {}, at).until(isTold);
    expect(usage.content).toContain("**99** of 100");
  });

  it("a lost connection is resumed, and what came meanwhile is answered", async () => {
    const { gateway } = world.discord;
    const before = gateway.resumed;
    gateway.drop();
    const asked = world.discord.command("usage", {}, place());
    expect((await asked.until(isTold)).content).toMatch(/steers left/);
    expect(gateway.resumed).toBe(before + 1);
  });

  it("Discord's rate limits are waited out", async () => {
    world.discord.rest.limitNext(/^PATCH .*@original$/, 1);
    await world.discord.command("steer", STEER, place()).until(isDone);
  });

  it("a bot that is killed posts what it promised after its next start", async () => {
    const at = place();
    const asked = world.discord.command("steer", { ...STEER, tokens: 250, seed: 9 }, at);
    await asked.until(({ embeds }) => /Writing|Waits/.test(embeds[0]?.footer?.text ?? ""));
    await bot.stop("SIGKILL");
    // Nobody is connected when this one comes.
    const late = world.discord.command("steer", { ...STEER, tokens: 250, seed: 10 }, at);
    late.expired = true;
    bot = await world.startBot();
    const message = await asked.until(isDone, 60_000);
    expect(message.embeds[0]?.title).toContain("tiller-tales");
    expect(late.acknowledged).toBeUndefined();
  });

  it("what takes longer than an interaction lives is posted into the channel", async () => {
    const at = place();
    const asked = world.discord.command("steer", { ...STEER, tokens: 250, seed: 11 }, at);
    await asked.until(({ embeds }) => /Writing|Waits/.test(embeds[0]?.footer?.text ?? ""));
    asked.expired = true;
    const posted = await vi.waitUntil(
      () => world.discord.messages(at.channel.id).find((message) => message !== asked.message && isDone(message)),
      { timeout: 60_000 },
    );
    expect(posted.content).toContain(`<@${at.user.id}>`);
  });
});

describe("npm run bot", () => {
  it("deploys nothing that is there already, and tells what is wrong with its settings", async () => {
    expect((await world.runBot(["deploy"])).printed).toMatch(/= \/steer[\s\S]*has these commands everywhere already/);
    const wrong = await world.runBot(["dance"]);
    expect([wrong.code, wrong.printed]).toEqual([1, expect.stringMatching(/There is no "dance"/)]);
    expect((await world.runBot(["--help"])).printed).toContain("DISCORD_TOKEN");
  });

  it.each([
    ["no token", { DISCORD_TOKEN: "" }, /DISCORD_TOKEN is not set: copy it from the Bot page/],
    [
      "a token that Discord does not take",
      { DISCORD_TOKEN: "bm9ib2R5.fake.token" },
      /Discord does not take DISCORD_TOKEN|could not log in to Discord/,
    ],
    ["no service key", { TILLER_SERVICE_KEY: "" }, /TILLER_SERVICE_KEY is not set: npm start -- --bot-key makes one/],
    ["a key that is no service key", { TILLER_SERVICE_KEY: `sk-til-${"x".repeat(43)}` }, /does not take the bot: The API key is not valid/],
    ["no Tiller", { TILLER_URL: "http://127.0.0.1:1" }, /does not take the bot: The steering service does not answer/],
  ])("with %s ends with a sentence", async (_, env, words) => {
    const { code, printed } = await world.runBot([], env);
    expect([code, printed]).toEqual([1, expect.stringMatching(words)]);
    expect(printed).not.toMatch(/sk-til-|fake\.token| {4}at /);
  });

  it("says which switch is missing where Discord does not let it read messages, and runs without", async () => {
    const strict = await startFakeDiscord({ allowMessageContent: false });
    try {
      const env = { DISCORD_API: strict.api, DISCORD_TOKEN: strict.token };
      const refused = await world.runBot([], env);
      expect([refused.code, refused.printed]).toEqual([1, expect.stringMatching(/Message Content Intent .* --no-messages/)]);
      const allowed = await world.startBot(["--no-messages"], env);
      expect(await allowed.stop("SIGINT")).toBe(0);
    } finally {
      await strict.close();
    }
  });
});

describe("when the service does not answer", () => {
  it("a person reads so, with an id to report", async () => {
    await world.stopEdge();
    const message = await world.discord.command("steer", STEER, place()).until(isTold);
    expect(message.content).toMatch(/does not answer at the moment. Try again in a minute.\n-# request \d+/);
    const typed = world.discord.suggest("steer", { feature: "hap" }, "feature", place());
    expect(await typed.when(() => typed.choices, "choices")).toEqual([]);
  });
});
