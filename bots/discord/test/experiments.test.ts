// /vector derive and /sweep, over both transports. Everything is real but Discord.
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { Program } from "../../../scripts/test/program.ts";
import type { Derived, Model, SweepResult } from "../../../shared/client-types.ts";
import type { FakeMessage, Handle } from "./fake-discord.ts";
import { type At, snowflake } from "./state.ts";
import { startWorld, type World } from "./world.ts";

// Engine, edge and bot are real processes here.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const FEATURE = "3-tales-directions/0";
const WORDS = "happy, smiled, party, excited, wonderful, hug, hugs, love, loved, fun, friends, laughed";
const SWEEP = { prompt: "One day a little girl", feature: FEATURE, words: WORDS, steps: 7, tokens: 24, seeds: 3 };

let world: World;
let bot: Program;
beforeAll(async () => {
  world = await startWorld();
  await world.runBot(["deploy"]);
  bot = await world.startBot();
});
afterAll(() => world.close());
// Whatever was sent: Discord would have taken it, and nobody was pinged.
afterEach(() => expect(world.discord.problems.splice(0)).toEqual([]));

let people = 0;
const place = (): At => ({
  user: world.discord.user(`eve${++people}`),
  channel: world.discord.channel({ guild: world.discord.guild() }),
});
const isTold = ({ content }: FakeMessage) => content !== "";
const isDerived = ({ embeds }: FakeMessage) => embeds[0]?.fields?.some(({ name }) => name === "Place") === true;
const isSwept = ({ embeds }: FakeMessage) => embeds[0]?.url?.includes("/sweep/") === true;
const isSteered = ({ embeds }: FakeMessage) => /changed \d+ of \d+ positions/.test(embeds[0]?.footer?.text ?? "");
const fieldsOf = (message: FakeMessage) => Object.fromEntries((message.embeds[0]?.fields ?? []).map(({ name, value }) => [name, value]));
const shown = (text: string | undefined) => (text ?? "").replace(/\\(.)/g, "$1").trim();
const bytesOf = async (message: FakeMessage) => new Uint8Array(await (await fetch(message.attachments[0]?.url ?? "")).arrayBuffer());

/** Sends what Discord would send to the Worker, and takes the answer as Discord would. */
async function deliver({ handle, body, headers }: ReturnType<World["discord"]["request"]>): Promise<Handle> {
  const response = await fetch(`${world.url}/discord/interactions`, { method: "POST", body, headers });
  expect(response.status).toBe(200);
  world.discord.accept(handle, await response.json());
  return handle;
}
/** How a command comes to the bot: to its process, or to the Worker. */
const TRANSPORTS: readonly [string, (...asked: Parameters<World["discord"]["command"]>) => Promise<Handle>][] = [
  ["a process", async (...asked) => world.discord.command(...asked)],
  ["the Worker", (...asked) => deliver(world.discord.request(...asked))],
];

/** What the API itself answers to a person of Discord. */
async function direct<T>({ user }: At, path: string, body?: object, headers: Readonly<Record<string, string>> = {}): Promise<T> {
  const acting = { "x-api-key": world.key, "x-acting-for": `discord:${user.id}` };
  const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const response = await fetch(world.url + path, { ...init, headers: { "content-type": "application/json", ...acting, ...headers } });
  return (await response.json()) as T;
}
const keptBy = async (at: At) => (await direct<{ vectors: { vectorLabel: string }[] }>(at, "/api/vector/list-owned", {})).vectors;
const promises = async () => (await world.service("/api/bot/notes/list", { prefix: "promise:" })).notes;

const NAMES = ["Tom", "Lily", "Ben", "Sue", "Max", "Mia", "Tim", "Ann", "Sam", "Zoe", "Leo", "Amy"];
const POSITIVE = NAMES.flatMap((name) => [`${name} was so happy and smiled at the party.`, `${name} had a wonderful day and laughed.`]);
const NEGATIVE = NAMES.flatMap((name) => [`${name} was very sad and cried in the rain.`, `${name} lost the toy and felt bad.`]);
const file = (name: string, text: string) => new File([text], name);
const files = () => ({
  positive: file("happy.txt", POSITIVE.join("\n")),
  negative: file("sad.jsonl", NEGATIVE.map((text) => JSON.stringify({ text })).join("\n")),
});

describe.each(TRANSPORTS)("/vector derive, through %s", (_, ask) => {
  it("makes of two files the vector that the API makes of their texts, tells how good it is, and it steers", async () => {
    const at = place();
    const asked = await ask("vector", { derive: { name: "Cheerful *", ...files() } }, at);
    const message = await asked.until(isDerived);
    expect(world.discord.rest.isEphemeral(message)).toBe(true);
    const known = { modelId: world.model, layers: [0, 1, 2, 3, 4, 5], positive: POSITIVE, negative: NEGATIVE, vectorLabel: "The same" };
    const { vectors, report } = await direct<Derived>(at, "/api/vector/derive", known);
    const best = report.layers.find(({ layer }) => layer === report.bestLayer);
    expect(message.embeds[0]?.title).toBe("tiller-tales: Cheerful *");
    expect(fieldsOf(message)).toMatchObject({
      "AUC on held-out texts": `${best?.aucHeldOut?.toFixed(3)} (0.5 is chance)`,
      "Best layer": String(report.bestLayer),
      "Suggested strength": String(Number(best?.suggestedStrength.toPrecision(4))),
    });
    expect(fieldsOf(message).Layers?.split("\n").length).toBe(6 + 3);
    const [, vector = ""] = /`([\w-]+\/\d+)`/.exec(fieldsOf(message).Place ?? "") ?? [];
    const [source = "", index = ""] = vector.split("/");
    const numbers = async (where: object) => (await direct<{ vector: { vector: number[] } }>(at, "/api/vector/get", where)).vector.vector;
    expect(await numbers({ modelId: world.model, source, index })).toEqual(await numbers(vectors[0] ?? {}));
    const steered = await (await ask("steer", { prompt: "One day", vector, tokens: 8 }, at)).until(isSteered);
    expect(steered.embeds[0]?.title).toContain("Cheerful *");
    await expect.poll(promises).toEqual([]);
  });

  it.each<[string, object, RegExp]>([
    ["a picture", { positive: new File(["x"], "happy.png") }, /positive file must be \.txt/],
    ["a file without texts", { negative: new File(["\n \n"], "sad.txt") }, /negative/],
    ["a damaged file", { negative: new File(['{"text": "a"}\n{'], "sad.jsonl") }, /sad.jsonl, line 2/],
    ["the same file twice", { negative: new File([POSITIVE.join("\n")], "sad.txt") }, /have the same texts/],
    ["too large a file", { positive: new File(["a".repeat(4_000_001)], "happy.txt") }, /has more than 4 MB/],
    ["a layer that is none", { layer: "9" }, /tiller-tales has the layers 0 to 5/],
    ["no autoencoder at the layer", { method: "sae", layer: "0" }, /has no autoencoder at layer 0/],
    ["tokens that are none", { tokens: "first" }, /tokens must be all, last/],
  ])("with %s is answered with a sentence, and keeps nothing", async (__, changes, words) => {
    const at = place();
    const message = await (await ask("vector", { derive: { name: "x", ...files(), ...changes } }, at)).until(isTold);
    expect(shown(message.content)).toMatch(words);
    expect(await keptBy(at)).toEqual([]);
  });
});

describe("a derivation", () => {
  it("of the method sae tells which latents it chose", async () => {
    const derive = { name: "Latents", ...files(), method: "sae", top_k: 20 };
    const message = await world.discord.command("vector", { derive }, place()).until(isDerived);
    expect(fieldsOf(message)["Latents (20)"]).toMatch(/^`\d+` [\d.]+/);
    const typed = world.discord.suggest("vector", { derive: { source_set: "ta" } }, "source_set", place());
    expect((await typed.when(() => typed.choices, "choices")).map(({ value }) => value)).toEqual(["tales-res"]);
  });

  it("that Discord delivers twice is made once", async () => {
    const at = place();
    const asked = world.discord.command("vector", { derive: { name: "Once", ...files() } }, at);
    world.discord.redeliver(asked);
    await asked.until(isDerived);
    expect((await keptBy(at)).map(({ vectorLabel }) => vectorLabel)).toEqual(["Once"]);
  });

  it("that had begun when the bot was killed is told after its next start, though its files are gone", async () => {
    const at = place();
    await bot.stop("SIGKILL");
    const asked = world.discord.command("vector", { derive: { name: "Late", ...files() } }, at);
    // As a bot leaves it that acknowledged the command, began the job, and was killed.
    world.discord.rest.callback(asked, { type: 5, data: { flags: 64 } }, []);
    const known = { modelId: world.model, layer: 3, positive: POSITIVE, negative: NEGATIVE, vectorLabel: "Late" };
    const { id: jobId } = await direct<{ id: string }>(at, "/api/vector/derive", known, { prefer: "respond-async" });
    const gone = { name: "gone.txt", url: `${world.discord.api.replace(/\/api$/, "")}/attachments/${snowflake()}/gone.txt` };
    const promised = {
      ...{ id: asked.id, transport: "gateway", person: { id: at.user.id, name: at.user.username }, kind: "derive", jobId },
      ...{
        body: { fields: {}, files: { positive: gone, negative: gone } },
        view: { name: "Late", modelId: world.model, ownerId: at.user.id },
      },
      target: { token: asked.token, channelId: at.channel.id, ephemeral: true },
    };
    await world.service("/api/bot/notes/put", { key: `promise:${promised.id}`, value: promised });
    bot = await world.startBot();
    const message = await asked.until(isDerived);
    expect(fieldsOf(message).Layer).toBe("3");
    expect(await keptBy(at)).toHaveLength(1);
  });

  it("that ends when only a public message could tell shows nothing of it there", async () => {
    const at = place();
    const asked = world.discord.command("vector", { derive: { name: "My secret", ...files(), visibility: "private" } }, at);
    asked.expired = true;
    const posted = await vi.waitUntil(() => world.discord.messages(at.channel.id).find(({ content }) => content.includes("has ended")), {
      timeout: 60_000,
    });
    expect(posted.content).toContain(`<@${at.user.id}>`);
    expect(JSON.stringify(posted)).not.toMatch(/secret|neuronpedia/);
  });

  it("is allowed where steering is", async () => {
    const at = place();
    const chief = { ...at, permissions: 0x20n };
    const elsewhere = { ...at, channel: world.discord.channel({ guild: at.channel.guild_id ?? "" }) };
    await world.discord.command("settings", { channels: { action: "allow", channel: at.channel.id } }, chief).until(isTold);
    const refused = await world.discord.command("vector", { derive: { name: "x", ...files() } }, elsewhere).until(isTold);
    expect(refused.content).toContain("Steering is not allowed in this channel");
  });
});

describe.each(TRANSPORTS)("/sweep, through %s", (_, ask) => {
  it("shows the numbers and the plot of the sweep's page, and steers at the suggested strength with the text it found", async () => {
    const at = place();
    const asked = await ask("sweep", SWEEP, at);
    const message = await asked.until(isSwept);
    const url = message.embeds[0]?.url ?? "";
    expect((await fetch(url)).status).toBe(200);
    const result = await direct<SweepResult>(at, `/api/sweeps/${url.split("/").at(-1)}`);
    expect(result.cells).toHaveLength(6);
    const rows = (fieldsOf(message).Cells ?? "").split("\n").slice(3, -1);
    expect(rows.map((row) => Number(/-?[\d.]+/.exec(row)?.[0]))).toEqual(result.cells.map(({ strength }) => strength));

    expect(message.embeds[0]?.image?.url).toBe("attachment://dose-response.png");
    expect(message.attachments.map(({ filename }) => filename)).toEqual(["dose-response.png"]);
    const drawn = new Uint8Array(await (await fetch(`${url}/plot.png`)).arrayBuffer());
    expect(await bytesOf(message)).toEqual(drawn);
    expect([...drawn.subarray(0, 4)]).toEqual([0x89, 0x50, 0x4e, 0x47]);

    const best = result.cells[result.suggested?.cell ?? -1];
    if (best === undefined) throw new Error("nothing was suggested");
    expect(shown(message.embeds[0]?.description)).toContain(result.suggested?.sentence);
    const press = [message, `Steer at ${Number(best.strength.toPrecision(4))}`] as const;
    // For whoever presses, in a message of its own.
    const other = { ...at, user: world.discord.user(`frank${++people}`) };
    const pressed = _ === "a process" ? world.discord.press(...press, other) : await deliver(world.discord.pressRequest(...press, other));
    const steered = await pressed.until(isSteered);
    expect(steered.id).not.toBe(message.id);
    expect(shown(fieldsOf(steered).STEERED)).toBe(best.rows[0]?.text.trim());
    expect(shown(fieldsOf(steered).DEFAULT)).toBe(result.baseline.rows[0]?.text.trim());
    await expect.poll(promises).toEqual([]);
  });
});

describe("a sweep", () => {
  it("tells how far it is, and stops for whoever asked", async () => {
    const at = place();
    const asked = world.discord.command("sweep", { ...SWEEP, steps: 21, tokens: 100, seeds: 8 }, at);
    const message = await asked.until(({ embeds }) => /Writing: [1-9]\d* of 168 texts/.test(embeds[0]?.footer?.text ?? ""));
    const other = { ...at, user: world.discord.user("grace") };
    expect((await world.discord.press(message, "Stop", other).whisper()).content).toMatch(/Only who asked/);
    world.discord.press(message, "Stop", at);
    await asked.until(({ content }) => content === "The sweep was stopped.");
  });

  it("without words has its plot, and suggests nothing", async () => {
    const { words: _, ...rest } = SWEEP;
    const message = await world.discord.command("sweep", { ...rest, steps: 2, seeds: 1 }, place()).until(isSwept);
    expect(message.embeds[0]?.description).toMatch(/Nothing says what success is/);
    expect(message.attachments).toHaveLength(1);
    expect(JSON.stringify(message.components)).not.toContain("Steer at");
  });

  it("of a direction at other layers has a row for each, and of a kept vector too", async () => {
    const at = place();
    const derived = await world.discord.command("vector", { derive: { name: "Own", ...files(), layer: "2" } }, at).until(isDerived);
    const [, vector = ""] = /`([\w-]+\/\d+)`/.exec(fieldsOf(derived).Place ?? "") ?? [];
    const options = { prompt: SWEEP.prompt, vector, words: WORDS, layers: "1-2", steps: 2, tokens: 8, seeds: 1 };
    const message = await world.discord.command("sweep", options, at).until(isSwept);
    const rows = (fieldsOf(message).Cells ?? "").split("\n").slice(1, -1);
    expect(
      rows.map(
        (row) =>
          row
            .replace("→", "")
            .trim()
            .split(/\s{2,}/)[1],
      ),
    ).toEqual(["layer", "10 %", "1", "1", "2", "2"].map((each, i) => (i === 1 ? expect.any(String) : each)));
  });

  it("of a feature nobody knows a strength of needs from and to", async () => {
    const { models } = (await (await fetch(`${world.url}/api/models`)).json()) as { models: Model[] };
    const { id, labelledFeatures } = models[0]?.sources.find(({ architecture }) => architecture !== "directions") ?? {};
    const known = new Set(labelledFeatures?.filter(({ strength }) => strength !== undefined).map(({ index }) => index));
    const index = Array.from({ length: known.size + 1 }, (_, i) => i).find((i) => !known.has(i));
    const options = { ...SWEEP, feature: `${id}/${index}`, seeds: 1, tokens: 4 };
    const refused = await world.discord.command("sweep", options, place()).until(isTold);
    expect(refused.content).toMatch(/Give from and to: nothing says which strengths show/);
    await world.discord.command("sweep", { ...options, from: -4, to: 4 }, place()).until(isSwept);
  });

  it.each<[string, object, RegExp]>([
    ["no direction", { feature: undefined }, /Choose one direction/],
    ["no words", { words: " ," }, /Write 1 to 2000 words/],
    ["a layer that is none", { layers: "1-9" }, /layers 0 to 5/],
    ["layers of a latent", { feature: "3-tales-res/978", to: 8, layers: "1,2" }, /belongs to its layer/],
    ["more texts than a sweep has", { steps: 41, seeds: 16 }, /at most 640/],
    ["no room for its texts", { prompt: "One day. ".repeat(60), tokens: 128 }, /has room for 256 together/],
  ])("with %s is answered with a sentence", async (_, changes, words) => {
    const message = await world.discord.command("sweep", { ...SWEEP, ...changes }, place()).until(isTold);
    expect(shown(message.content)).toMatch(words);
  });

  it("counts as several steers, and says so where too few are left", async () => {
    const at = place();
    await world.discord.command("usage", {}, at).until(isTold);
    const { users } = (await world.admin("/api/admin/user/list", { query: at.user.username })) as { users: { id: string }[] };
    await world.admin("/api/admin/user/update", { userId: users[0]?.id, hourlyLimit: 4 });
    // The edge knows the old limit for ten seconds at most: a new name is asked for anew.
    const renamed = { ...at, user: { ...at.user, global_name: `${at.user.global_name} the second` } };
    await world.discord.command("sweep", { ...SWEEP, seeds: 3, tokens: 4 }, renamed).until(isSwept);
    const refused = await world.discord.command("sweep", { ...SWEEP, seeds: 3, tokens: 4 }, renamed).until(isTold);
    expect(refused.content).toMatch(
      /too few steers left in this hour. This request counts as 3, and 1 are left.*You can try again <t:\d+:R>/,
    );
  });

  it("holds to what a server allows: tokens, and presets by what they steer with", async () => {
    const at = place();
    const chief = { ...at, permissions: 0x20n };
    await world.discord.command("settings", { tokens: { max: 16 } }, chief).until(isTold);
    expect((await world.discord.command("sweep", SWEEP, at).until(isTold)).content).toMatch(/At most 16 tokens are allowed/);
    const typed = world.discord.suggest("sweep", { preset: "" }, "preset", at);
    const name = String((await typed.when(() => typed.choices, "choices"))[0]?.value);
    await world.discord.command("settings", { preset: { name, state: "off" } }, chief).until(isTold);
    for (const asked of [
      { ...SWEEP, tokens: 8, feature: undefined, preset: name },
      { ...SWEEP, tokens: 8 },
    ])
      expect((await world.discord.command("sweep", asked, at).until(isTold)).content).toMatch(/is switched off in this server/);
  });
});
