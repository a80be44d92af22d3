// The fake Discord's REST API: https://discord.com/developers/docs/reference
import type { IncomingMessage, ServerResponse } from "node:http";
import type { FakeGateway } from "./gateway.ts";
import type { Check } from "./openapi.ts";
import { type FakeChannel, type FakeMessage, type FakeUser, type Handle, snowflake } from "./state.ts";

/** A command as it was deployed, or an option of one. */
export interface Registered {
  readonly name: string;
  readonly type: number;
  readonly required?: boolean;
  readonly options?: readonly Registered[];
}
export interface Call {
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
  readonly at: number;
}
interface Options {
  readonly token: string;
  readonly clientSecret: string;
  readonly applicationId: string;
  readonly bot: { readonly id: string; readonly username: string };
  readonly check: Check;
  readonly problems: string[];
  readonly origin: () => string;
}
interface Answer {
  readonly status: number;
  readonly body?: unknown;
}

const EPHEMERAL = 64;
const refuse = (status: number, code: number, message: string): Answer => ({ status, body: { code, message } });
const GONE = () => refuse(404, 10_008, "Unknown Message");

export class Rest {
  readonly interactions = new Map<string, Handle>();
  /** Of a component's interaction: the message it is on. */
  readonly origins = new Map<string, FakeMessage>();
  readonly channels = new Map<string, FakeChannel>();
  readonly files = new Map<string, File>();
  /** Of people who let the application know who they are: good once. */
  readonly codes = new Map<string, { readonly user: FakeUser; readonly redirectUri: string }>();
  readonly calls: Call[] = [];
  messages: FakeMessage[] = [];
  commands: Registered[] = [];
  gateway: FakeGateway | undefined;
  private readonly options: Options;
  /** By their token. */
  private readonly signedIn = new Map<string, FakeUser>();
  private readonly limits: { readonly route: RegExp; readonly seconds: number }[] = [];
  private readonly failures: { readonly route: RegExp; readonly answer: Answer }[] = [];

  constructor(options: Options) {
    this.options = options;
  }

  /** The next call of a route, such as /PATCH .*@original/, is answered with 429. */
  limitNext(route: RegExp, seconds: number): void {
    this.limits.push({ route, seconds });
  }

  failNext(route: RegExp, status: number, code = 0): void {
    this.failures.push({ route, answer: refuse(status, code, "made to fail") });
  }

  newChannel(channel: Omit<FakeChannel, "id">): FakeChannel {
    const made = { id: snowflake(), ...channel };
    this.channels.set(made.id, made);
    return made;
  }

  say(user: FakeUser, channel: FakeChannel, content: string): string {
    const [id, intents] = [snowflake(), this.gateway?.intents() ?? 0];
    const isGuild = channel.guild_id !== undefined;
    const canRead = !isGuild || (intents & (1 << 15)) !== 0;
    this.messages.push({ id, channel_id: channel.id, author: user, content, embeds: [], components: [], attachments: [], flags: 0 });
    if (isGuild ? (intents & (1 << 9)) === 0 : (intents & (1 << 12)) === 0) return id;
    this.gateway?.dispatch("MESSAGE_CREATE", {
      ...{ id, channel_id: channel.id, guild_id: channel.guild_id, author: { ...user, discriminator: "0", avatar: null }, type: 0 },
      ...{
        content: canRead ? content : "",
        timestamp: new Date().toISOString(),
        edited_timestamp: null,
        tts: false,
        mention_everyone: false,
      },
      ...{ mentions: [], mention_roles: [], attachments: [], embeds: [], pinned: false, components: [] },
    });
    return id;
  }

  /** A message as the API shows it. */
  shown(message: FakeMessage): object {
    return {
      ...message,
      ...{
        type: 0,
        timestamp: new Date().toISOString(),
        edited_timestamp: null,
        tts: false,
        mention_everyone: false,
        mentions: [],
        mention_roles: [],
        pinned: false,
      },
      attachments: message.attachments.map(({ id, filename, url, text }) => ({ id, filename, url, proxy_url: url, size: text.length })),
    };
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", this.options.origin());
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { body, files } = await parse(Buffer.concat(chunks), request.headers["content-type"] ?? "");
    const path = decodeURIComponent(url.pathname).replace(/^\/api\/v\d+/, "");
    const method = request.method ?? "GET";
    const attachment = /^\/attachments\/(\d+)\//.exec(path)?.[1];
    if (attachment !== undefined)
      return void response.end(Buffer.from((await this.files.get(attachment)?.arrayBuffer()) ?? new ArrayBuffer(0)));
    this.calls.push({ method, path, body, at: Date.now() });
    const limit = this.limits.findIndex(({ route }) => route.test(`${method} ${path}`));
    const headers = {
      "content-type": "application/json",
      "x-ratelimit-limit": "50",
      "x-ratelimit-remaining": "49",
      "x-ratelimit-reset-after": "1",
      "x-ratelimit-bucket": "bucket",
    };
    if (limit >= 0) {
      const [{ seconds } = { seconds: 1 }] = this.limits.splice(limit, 1);
      const wait = { message: "You are being rate limited.", retry_after: seconds, global: false };
      return void response
        .writeHead(429, { ...headers, "retry-after": String(seconds), "x-ratelimit-scope": "user" })
        .end(JSON.stringify(wait));
    }
    const failure = this.failures.findIndex(({ route }) => route.test(`${method} ${path}`));
    const [failed] = failure < 0 ? [] : this.failures.splice(failure, 1);
    const { status, body: answer } = failed?.answer ?? this.route(method, path, body, files, request.headers.authorization);
    if (answer === undefined) return void response.writeHead(status).end();
    response.writeHead(status, headers).end(JSON.stringify(answer));
  }

  private route(method: string, path: string, body: unknown, files: File[], authorization: string | undefined): Answer {
    const { token, applicationId, bot, problems } = this.options;
    const at = (pattern: RegExp) => pattern.exec(`${method} ${path}`);
    const callback = at(/^POST \/interactions\/(\d+)\/([^/]+)\/callback$/);
    if (callback !== null) {
      const handle = this.interactions.get(callback[2] as string);
      return handle?.id === callback[1] ? this.callback(handle as Handle, body, files) : refuse(404, 10_062, "Unknown interaction");
    }
    const webhook = at(/^(\w+) \/webhooks\/(\d+)\/([^/]+)(\/messages\/@original)?$/);
    if (webhook !== null) return this.webhook(webhook[1] as string, webhook[3] as string, webhook[4] !== undefined, body, files);
    if (at(/^POST \/api\/oauth2\/token$/)) return this.exchange(body as Readonly<Record<string, string>>);
    const signedIn = at(/^GET \/users\/@me$/) && this.signedIn.get((authorization ?? "").replace(/^Bearer /, ""));
    if (signedIn) return { status: 200, body: { ...signedIn, discriminator: "0", avatar: null } };
    if (authorization !== `Bot ${token}`) return refuse(401, 0, "401: Unauthorized");
    if (at(/^GET \/gateway\/bot$/)) {
      const limit = { total: 1000, remaining: 1000, reset_after: 0, max_concurrency: 1 };
      return {
        status: 200,
        body: { url: `${this.options.origin().replace("http", "ws")}/gateway`, shards: 1, session_start_limit: limit },
      };
    }
    if (at(/^GET \/(applications\/@me|oauth2\/applications\/@me)$/))
      return { status: 200, body: { id: applicationId, name: bot.username } };
    if (at(/^(GET|PUT) \/applications\/\d+\/(guilds\/\d+\/)?commands$/)) {
      if (method === "PUT") {
        this.complain(
          path.includes("/guilds/")
            ? "PUT /applications/{application_id}/guilds/{guild_id}/commands"
            : "PUT /applications/{application_id}/commands",
          body,
          files,
        );
        this.commands = body as Registered[];
      }
      const more = { application_id: applicationId, version: "1", default_member_permissions: null, nsfw: false, name_localizations: null };
      return { status: 200, body: this.commands.map((command, i) => ({ ...more, id: String(1000 + i), ...command })) };
    }
    const channel = at(/^(\w+) \/channels\/(\d+)(.*)$/);
    if (channel !== null) return this.inChannel(method, channel[2] as string, channel[3] as string, body, files);
    problems.push(`${method} ${path} is not known here`);
    return refuse(404, 0, "404: Not Found");
  }

  /** Gives a token for a code: https://discord.com/developers/docs/topics/oauth2#authorization-code-grant */
  private exchange(form: Readonly<Record<string, string>>): Answer {
    const { applicationId, clientSecret } = this.options;
    if (form.client_id !== applicationId || form.client_secret !== clientSecret) return { status: 401, body: { error: "invalid_client" } };
    const granted = this.codes.get(form.code ?? "");
    if (granted === undefined || form.grant_type !== "authorization_code" || form.redirect_uri !== granted.redirectUri)
      return { status: 400, body: { error: "invalid_grant" } };
    this.codes.delete(form.code as string);
    const access_token = snowflake();
    this.signedIn.set(access_token, granted.user);
    return { status: 200, body: { access_token, token_type: "Bearer", expires_in: 604_800, refresh_token: "r", scope: "identify" } };
  }

  /** An interaction's one answer, by REST or by the HTTP transport. */
  callback(handle: Handle, body: unknown, files: File[]): Answer {
    if (handle.acknowledged !== undefined) return refuse(400, 40_060, "Interaction has already been acknowledged.");
    this.complain("POST /interactions/{interaction_id}/{interaction_token}/callback", body, files);
    const { type, data } = body as { type: number; data?: Record<string, unknown> };
    handle.acknowledged = type;
    if (type === 6 || type === 7) handle.message = this.origins.get(handle.token);
    if (type === 4 || type === 5) handle.message = this.post(handle.at.channel.id, { flags: 0, ...data });
    if (type === 8) handle.choices = data?.choices as Handle["choices"];
    if (type === 9) handle.modal = data as Handle["modal"];
    handle.changed();
    return { status: 204 };
  }

  private webhook(method: string, token: string, original: boolean, body: unknown, files: File[]): Answer {
    const handle = this.interactions.get(token);
    if (handle === undefined || handle.acknowledged === undefined) return refuse(404, 10_015, "Unknown Webhook");
    if (handle.expired) return refuse(401, 50_027, "Invalid Webhook Token");
    const name = "/webhooks/{webhook_id}/{webhook_token}";
    if (!original) {
      this.complain(`POST ${name}`, body, files);
      const message = this.post(handle.at.channel.id, body as object, files);
      handle.followups.push(message);
      handle.changed();
      return { status: 200, body: this.shown(message) };
    }
    const { message } = handle;
    if (message === undefined || !this.messages.includes(message)) return GONE();
    if (method === "DELETE") {
      this.messages = this.messages.filter((each) => each !== message);
      handle.removed = true;
      handle.changed();
      return { status: 204 };
    }
    if (method === "PATCH") {
      this.complain(`PATCH ${name}/messages/@original`, body, files);
      this.write(message, body as object, files);
      handle.edits.push(Date.now());
      handle.changed();
      // Those who pressed a button of the message, and those who wait for the message itself.
      for (const other of this.interactions.values()) if (other !== handle && other.message === message) other.changed();
    }
    return { status: 200, body: this.shown(message) };
  }

  private inChannel(method: string, id: string, rest: string, body: unknown, files: File[]): Answer {
    const channel = this.channels.get(id);
    if (channel === undefined) return refuse(404, 10_003, "Unknown Channel");
    if (rest === "" && method === "PATCH") {
      this.complain("PATCH /channels/{channel_id}", body, files);
      return { status: 200, body: channel };
    }
    if (rest === "/typing") return { status: 204 };
    if (rest === "/messages" && method === "POST") {
      this.complain("POST /channels/{channel_id}/messages", body, files);
      const { nonce, enforce_nonce } = body as { nonce?: string; enforce_nonce?: boolean };
      const twin = enforce_nonce ? this.messages.find((message) => (message as { nonce?: string }).nonce === nonce) : undefined;
      return { status: 200, body: this.shown(twin ?? this.post(id, body as object, files)) };
    }
    const [, messageId, more] = /^\/messages\/(\d+)(\/threads)?$/.exec(rest) ?? [];
    const message = this.messages.find((each) => each.id === messageId);
    if (message === undefined) return GONE();
    if (more !== undefined) {
      this.complain("POST /channels/{channel_id}/messages/{message_id}/threads", body, files);
      const thread = { type: 11, guild_id: channel.guild_id, nsfw: false, parent_id: id, name: String((body as { name?: string }).name) };
      // A thread has the id of the message it begins at.
      this.channels.set(message.id, { id: message.id, ...thread });
      this.gateway?.dispatch("THREAD_CREATE", { id: message.id, ...thread, owner_id: this.options.bot.id });
      return { status: 201, body: { id: message.id, ...thread } };
    }
    if (method === "DELETE") {
      this.messages = this.messages.filter((each) => each !== message);
      return { status: 204 };
    }
    if (method === "PATCH") {
      this.complain("PATCH /channels/{channel_id}/messages/{message_id}", body, files);
      this.write(message, body as object, files);
      for (const handle of this.interactions.values()) handle.changed();
    }
    return { status: 200, body: this.shown(message) };
  }

  private post(channelId: string, body: object, files: File[] = []): FakeMessage {
    const reference = (body as { message_reference?: { message_id?: string } }).message_reference?.message_id;
    const { id, username } = this.options.bot;
    const message: FakeMessage = {
      ...{
        id: snowflake(),
        channel_id: channelId,
        author: { id, username, bot: true },
        content: "",
        embeds: [],
        components: [],
        attachments: [],
      },
      ...{ flags: (body as { flags?: number }).flags ?? 0, reference },
      ...("nonce" in body ? { nonce: body.nonce } : {}),
    };
    this.write(message, body, files);
    this.messages.push(message);
    for (const handle of this.interactions.values()) handle.changed();
    return message;
  }

  private write(message: FakeMessage, body: object, files: File[]): void {
    const { content, embeds, components, attachments } = body as Partial<FakeMessage>;
    if (content !== undefined) message.content = content;
    if (embeds !== undefined) message.embeds = embeds;
    if (components !== undefined) message.components = components;
    if (attachments === undefined) return;
    message.attachments = files.map((file) => {
      const id = snowflake();
      this.files.set(id, file);
      return {
        id,
        filename: file.name,
        url: `${this.options.origin()}/attachments/${id}/${file.name}`,
        text: (file as File & { read: string }).read,
      };
    });
  }

  private complain(operation: string, body: unknown, files: readonly File[]): void {
    this.options.problems.push(
      ...this.options.check(
        operation,
        body,
        files.map(({ name }) => name),
      ),
    );
  }

  isEphemeral = (message: FakeMessage): boolean => (message.flags & EPHEMERAL) !== 0;
}

/** A body and its files; JSON, or multipart with the JSON in payload_json. */
async function parse(bytes: Buffer, type: string): Promise<{ body: unknown; files: File[] }> {
  if (bytes.length === 0) return { body: undefined, files: [] };
  if (type.startsWith("application/x-www-form-urlencoded"))
    return { body: Object.fromEntries(new URLSearchParams(bytes.toString("utf8"))), files: [] };
  if (!type.startsWith("multipart/")) return { body: JSON.parse(bytes.toString("utf8")), files: [] };
  const form = await new Response(new Uint8Array(bytes), { headers: { "content-type": type } }).formData();
  const files: File[] = [];
  for (const [name, value] of form)
    if (name !== "payload_json" && typeof value !== "string")
      files.push(Object.assign(value, { read: value.type.startsWith("text/") ? await value.text() : "" }));
  return { body: JSON.parse(String(form.get("payload_json") ?? "{}")), files };
}
