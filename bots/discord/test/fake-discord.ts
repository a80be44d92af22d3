// A Discord for tests, over real sockets: gateway and REST API, as strict as the real one about what a bot sends.
import { generateKeyPairSync, sign } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type FakeGateway, startGateway } from "./gateway.ts";
import { newCheck } from "./openapi.ts";
import { type Call, type Registered, Rest } from "./rest.ts";
import { type At, type FakeChannel, type FakeMessage, type FakeUser, Handle, snowflake } from "./state.ts";

export type { FakeMessage, Handle } from "./state.ts";

type Value = string | number | boolean | File;
type Values = Readonly<Record<string, Value | undefined>>;
interface Signed {
  readonly handle: Handle;
  readonly body: string;
  readonly headers: Record<string, string>;
}

export interface FakeDiscord {
  /** What DISCORD_API is set to. */
  readonly api: string;
  readonly token: string;
  readonly clientSecret: string;
  readonly applicationId: string;
  /** Hex. */
  readonly publicKey: string;
  /** What Discord would have refused, and what was not acknowledged within three seconds. */
  readonly problems: string[];
  readonly calls: Call[];
  readonly gateway: FakeGateway;
  readonly rest: Rest;
  user(name: string): FakeUser;
  guild(): string;
  channel(options?: { guild?: string; nsfw?: boolean }): FakeChannel;
  /** `options` of a subcommand are those of its name: {new: {name: "x"}}. */
  command(name: string, options: Values | Record<string, Values>, at: At): Handle;
  /** The same, as the signed request of the HTTP transport. */
  request(name: string, options: Values | Record<string, Values>, at: At): Signed;
  ping(): Pick<Signed, "body" | "headers">;
  sign(body: string, timestamp?: number): Record<string, string>;
  /** The HTTP transport's answer. */
  accept(handle: Handle, answer: unknown): void;
  suggest(name: string, options: Values | Record<string, Values>, focused: string, at: At): Handle;
  suggestRequest(name: string, options: Values | Record<string, Values>, focused: string, at: At): Signed;
  press(message: FakeMessage, label: string, at: At): Handle;
  pressRequest(message: FakeMessage, label: string, at: At): Signed;
  select(message: FakeMessage, values: readonly string[], at: At): Handle;
  submit(opened: Handle, values: Readonly<Record<string, string>>, at: At): Handle;
  redeliver(handle: Handle): void;
  /** A person is sent to `authorizeUrl` and agrees. @returns where their browser goes next. */
  authorize(user: FakeUser, authorizeUrl: string): string;
  /** A person writes. */
  say(user: FakeUser, channel: FakeChannel, content: string): string;
  messages(channelId: string): FakeMessage[];
  /** A thread that the bot has made. */
  thread(parentId: string): FakeChannel | undefined;
  close(): Promise<void>;
}

const ACKNOWLEDGE_MS = 3000;
const LETTERS: Readonly<Record<string, number>> = { string: 3, number: 10, boolean: 5, object: 11 };

export async function startFakeDiscord({ allowMessageContent = true } = {}): Promise<FakeDiscord> {
  const applicationId = snowflake();
  const bot = { id: applicationId, username: "tiller", discriminator: "0", global_name: null, avatar: null, bot: true };
  const clientSecret = "the-secret-of-the-application";
  const token = `${Buffer.from(applicationId).toString("base64url")}.fake.token`;
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const problems: string[] = [];
  let origin = "";
  const rest = new Rest({ token, clientSecret, applicationId, bot, check: newCheck(), problems, origin: () => origin });
  const server = createServer((request, response) => {
    void rest.answer(request as IncomingMessage, response as ServerResponse).catch((error: Error) => {
      problems.push(`the fake failed: ${error.stack}`);
      response.writeHead(500).end();
    });
  });
  const gateway = startGateway(server, {
    token,
    user: bot,
    applicationId,
    allowMessageContent,
    url: () => `${origin.replace("http", "ws")}/gateway`,
  });
  rest.gateway = gateway;
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const timers = new Set<NodeJS.Timeout>();

  /** The payload of an interaction, remembered. */
  function make(type: number, data: object, at: At, message?: FakeMessage): Handle {
    const id = snowflake();
    const { user, channel, permissions = 0n } = at;
    const person = { ...user, discriminator: "0", avatar: null };
    const member = {
      user: person,
      roles: [],
      joined_at: new Date(0).toISOString(),
      deaf: false,
      mute: false,
      flags: 0,
      permissions: String(permissions),
    };
    const payload = {
      ...{ id, application_id: applicationId, type, token: `token-${id}`, version: 1, data, channel_id: channel.id, locale: "en-US" },
      channel: {
        id: channel.id,
        type: channel.type,
        name: channel.name,
        nsfw: channel.nsfw,
        parent_id: channel.parent_id,
        permissions: "0",
      },
      ...(channel.guild_id === undefined
        ? { user: person }
        : { guild_id: channel.guild_id, guild: { id: channel.guild_id, features: [], locale: "en-US" }, member }),
      ...{ app_permissions: "562949953421311", entitlements: [], authorizing_integration_owners: { "0": channel.guild_id ?? "0" } },
      ...{ context: channel.guild_id === undefined ? 1 : 0, attachment_size_limit: 10_485_760 },
      ...(message === undefined ? {} : { message: rest.shown(message) }),
    };
    const handle = new Handle(id, payload.token, type, at, payload);
    rest.interactions.set(handle.token, handle);
    if (message !== undefined) rest.origins.set(handle.token, message);
    const timer = setTimeout(() => {
      if (handle.acknowledged === undefined && !handle.expired)
        problems.push(`interaction ${JSON.stringify(data)} was not acknowledged within 3 seconds`);
    }, ACKNOWLEDGE_MS);
    timers.add(timer);
    return handle;
  }

  const dispatch = (handle: Handle): Handle => {
    gateway.dispatch("INTERACTION_CREATE", handle.payload);
    return handle;
  };
  const signed = (handle: Handle): Signed => {
    const body = JSON.stringify(handle.payload);
    return { handle, body, headers: signBody(body) };
  };
  function signBody(body: string, timestamp = Math.floor(Date.now() / 1000)): Record<string, string> {
    const signature = sign(null, Buffer.from(timestamp + body), privateKey).toString("hex");
    return { "content-type": "application/json", "x-signature-ed25519": signature, "x-signature-timestamp": String(timestamp) };
  }

  /** What Discord sends of a command; what it could not send is the test's mistake. */
  function commandData(name: string, given: Values | Record<string, Values>, focused?: string): object {
    const command = rest.commands.find((each) => each.name === name);
    if (command === undefined) throw new Error(`/${name} was not deployed`);
    const attachments: Record<string, object> = {};
    const read = (known: readonly Registered[], values: Values): object[] =>
      Object.entries(values).flatMap(([option, value]) => {
        if (value === undefined) return [];
        const found = known.find((each) => each.name === option);
        const isWhole = found?.type === 4 && Number.isInteger(value);
        if (found === undefined || !(isWhole || found.type === LETTERS[typeof value] || (typeof value === "string" && found.type === 7)))
          throw new Error(`/${name} has no option ${option} for ${JSON.stringify(value)}`);
        if (value instanceof File) {
          const id = snowflake();
          rest.files.set(id, value);
          attachments[id] = {
            id,
            filename: value.name,
            size: value.size,
            url: `${origin}/attachments/${id}/${value.name}`,
            proxy_url: "",
            content_type: value.type,
          };
          return [{ name: option, type: found.type, value: id }];
        }
        return [{ name: option, type: found.type, value, ...(option === focused ? { focused: true } : {}) }];
      });
    const [sub, values] = Object.entries(given)[0] ?? [];
    const subcommand = command.options?.find((each) => each.name === sub && each.type === 1);
    if (subcommand === undefined && command.options?.some(({ type }) => type === 1)) throw new Error(`/${name} needs a subcommand`);
    const options =
      subcommand === undefined
        ? read(command.options ?? [], given as Values)
        : [{ name: sub, type: 1, options: read(subcommand.options ?? [], values as Values) }];
    const missing = (subcommand ?? command).options?.find(
      (each) => each.required && !JSON.stringify(options).includes(`"name":"${each.name}"`),
    );
    if (missing !== undefined && focused === undefined) throw new Error(`/${name} needs ${missing.name}`);
    return { id: "1", name, type: 1, options, resolved: { attachments } };
  }

  function pressData(message: FakeMessage, label: string): object {
    const part = message.components.flatMap(({ components }) => components).find((each) => each.label === label);
    if (part?.custom_id === undefined) throw new Error(`the message has no button ${label}: ${JSON.stringify(message.components)}`);
    return { component_type: 2, custom_id: part.custom_id };
  }

  return {
    ...{ api: `${origin}/api`, token, clientSecret, applicationId, problems, calls: rest.calls, gateway, rest },
    publicKey: (publicKey.export({ type: "spki", format: "der" }) as Buffer).subarray(-32).toString("hex"),
    user: (name) => ({ id: snowflake(), username: name, global_name: name }),
    guild: snowflake,
    channel: ({ guild, nsfw = false } = {}) =>
      rest.newChannel({ type: guild === undefined ? 1 : 0, guild_id: guild, nsfw, parent_id: undefined, name: "general" }),
    command: (name, options, at) => dispatch(make(2, commandData(name, options), at)),
    request: (name, options, at) => signed(make(2, commandData(name, options), at)),
    ping() {
      const body = JSON.stringify({ id: snowflake(), application_id: applicationId, type: 1, token: "ping", version: 1 });
      return { body, headers: signBody(body) };
    },
    sign: signBody,
    accept: (handle, answer) => rest.callback(handle, answer, []),
    suggest: (name, options, focused, at) => dispatch(make(4, commandData(name, options, focused), at)),
    suggestRequest: (name, options, focused, at) => signed(make(4, commandData(name, options, focused), at)),
    press: (message, label, at) => dispatch(make(3, pressData(message, label), at, message)),
    pressRequest: (message, label, at) => signed(make(3, pressData(message, label), at, message)),
    select(message, values, at) {
      const part = message.components.flatMap(({ components }) => components).find(({ type }) => type === 3);
      if (part === undefined || values.some((value) => !part.options?.some((option) => option.value === value)))
        throw new Error("no such select or value");
      return dispatch(make(3, { component_type: 3, custom_id: part.custom_id, values }, at, message));
    },
    submit(opened, values, at) {
      if (opened.modal === undefined) throw new Error("no modal was opened");
      const components = Object.entries(values).map(([custom_id, value]) => ({ type: 1, components: [{ type: 4, custom_id, value }] }));
      return dispatch(make(5, { custom_id: opened.modal.custom_id, components }, at));
    },
    authorize(user, authorizeUrl) {
      const { pathname, searchParams } = new URL(authorizeUrl);
      const { client_id, response_type, scope, redirect_uri = "", state = "" } = Object.fromEntries(searchParams);
      if (pathname !== "/oauth2/authorize" || client_id !== applicationId || response_type !== "code" || scope !== "identify")
        throw new Error(`Discord would not show ${authorizeUrl}`);
      const code = snowflake();
      rest.codes.set(code, { user, redirectUri: redirect_uri });
      return `${redirect_uri}?${new URLSearchParams({ code, state })}`;
    },
    redeliver: (handle) => gateway.dispatch("INTERACTION_CREATE", handle.payload),
    say: (user, channel, content) => rest.say(user, channel, content),
    messages: (channelId) => rest.messages.filter((message) => message.channel_id === channelId),
    thread: (parentId) => [...rest.channels.values()].find((channel) => channel.type === 11 && channel.parent_id === parentId),
    async close() {
      for (const timer of timers) clearTimeout(timer);
      gateway.close();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
