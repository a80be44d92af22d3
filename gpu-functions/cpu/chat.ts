// A model's chat template: a conversation to the text of its prompt, as transformers' apply_chat_template renders it. The Jinja is
// @huggingface/jinja's; this file knows where a model keeps its template and what a template may use.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { Environment, Interpreter, Template } from "@huggingface/jinja";
import { z } from "zod";
import { TillerError } from "../../shared/errors.ts";
import type { Message } from "../../shared/protocol.ts";

export interface ChatTemplate {
  /**
   * The prompt that asks for the assistant's next message.
   * @throws TillerError `invalid_request` with the template's own words where it refuses the messages.
   */
  render(messages: readonly Message[]): string;
}

/**
 * The text of a conversation.
 * @throws TillerError `invalid_request` when the model has no template, and what `render` throws.
 */
export function renderMessages(template: ChatTemplate | undefined, messages: readonly Message[]): string {
  if (template === undefined) throw new TillerError("invalid_request", "This model has no chat template: send a prompt.");
  return template.render(messages);
}

interface Found {
  readonly file: string;
  readonly source: string;
}

const Named = z.array(z.object({ name: z.string(), template: z.string() })).min(1);

/**
 * Loads the template of a model directory: chat_template.jinja, chat_template.json, or `chat_template` of tokenizer_config.json,
 * the first there is; undefined when there is none.
 * @param now Read by templates that write today's date, in local time.
 * @throws Error with the file and the reason when a template cannot be read or is not Jinja that can be run.
 */
export function loadChatTemplate(directory: string, now: () => Date): ChatTemplate | undefined {
  const settingsFile = path.join(directory, "tokenizer_config.json");
  const settings = readObject(settingsFile);
  const found = findTemplate(directory, settingsFile, settings);
  if (found === undefined) return undefined;
  let template: Template;
  try {
    template = new Template(found.source);
  } catch (cause) {
    throw new Error(`${found.file}: the chat template does not compile: ${(cause as Error).message}`, { cause });
  }
  const tokens = specialTokens(settings);
  return {
    render(messages) {
      const environment = newEnvironment(now());
      const variables = { ...tokens, messages, add_generation_prompt: true, tools: null, documents: null };
      for (const [name, value] of Object.entries(variables)) environment.set(name, value);
      try {
        return (new Interpreter(environment).run(template.parsed) as { value: string }).value;
      } catch (error) {
        if (error instanceof TillerError) throw error;
        const reason = (error as Error).message.replace(/\.$/, "");
        throw new TillerError("invalid_request", `The model's chat template cannot write these messages: ${reason}.`, { cause: error });
      }
    },
  };
}

function readObject(file: string): Record<string, unknown> {
  if (!existsSync(file)) return {};
  const text = readFileSync(file, "utf8");
  try {
    return z.record(z.string(), z.unknown()).parse(JSON.parse(text));
  } catch (cause) {
    throw new Error(`${file} is not a JSON object`, { cause });
  }
}

function findTemplate(directory: string, settingsFile: string, settings: Record<string, unknown>): Found | undefined {
  const jinja = path.join(directory, "chat_template.jinja");
  if (existsSync(jinja)) return { file: jinja, source: readFileSync(jinja, "utf8") };
  const json = path.join(directory, "chat_template.json");
  for (const [file, { chat_template }] of [[json, readObject(json)] as const, [settingsFile, settings] as const]) {
    if (chat_template === undefined || chat_template === null) continue;
    if (typeof chat_template === "string") return { file, source: chat_template };
    const named = Named.safeParse(chat_template);
    if (!named.success) throw new Error(`${file}: chat_template must be a text or a list of {name, template}`);
    const source = named.data.find(({ name }) => name === "default")?.template;
    if (source === undefined) {
      const names = named.data.map(({ name }) => name).join(", ");
      throw new Error(`${file}: chat_template has no template called 'default', only ${names}; name one so`);
    }
    return { file, source };
  }
  return undefined;
}

/** bos_token, eos_token and the like, each a text or {content}; those that are null stay undefined, as in transformers. */
function specialTokens(settings: Record<string, unknown>): Record<string, string> {
  const Token = z.union([z.string(), z.object({ content: z.string() }).transform(({ content }) => content)]);
  return Object.fromEntries(
    Object.entries(settings).flatMap(([name, value]) => {
      const token = name.endsWith("_token") ? Token.safeParse(value) : undefined;
      return token?.success ? [[name, token.data]] : [];
    }),
  );
}

/** The globals that transformers gives templates. The library's own set has the wall clock in it and cannot be overridden. */
function newEnvironment(now: Date): Environment {
  const environment = new Environment();
  const globals: Record<string, unknown> = {
    true: true,
    True: true,
    false: false,
    False: false,
    none: null,
    None: null,
    range,
    raise_exception: (message: unknown) => {
      throw new TillerError("invalid_request", `The model's chat template refuses these messages: ${String(message)}`);
    },
    strftime_now: (format: unknown) => strftime(now, String(format)),
  };
  for (const [name, value] of Object.entries(globals)) environment.set(name, value);
  return environment;
}

/** Python's range. */
function range(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  const length = Math.ceil((stop - start) / step);
  // A template that counts to more than any conversation has is wrong; this keeps it from taking the memory.
  if (!(length <= 100_000)) throw new Error(`range(${start}, ${stop}, ${step}) is too long`);
  return Array.from({ length: Math.max(length, 0) }, (_, i) => start + i * step);
}

/** Python's strftime in the C locale, for the directives that dates are made of. */
function strftime(date: Date, format: string): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const name = (options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat("en-US", options).format(date);
  const directives: Record<string, () => string> = {
    Y: () => String(date.getFullYear()),
    y: () => two(date.getFullYear() % 100),
    m: () => two(date.getMonth() + 1),
    B: () => name({ month: "long" }),
    b: () => name({ month: "short" }),
    d: () => two(date.getDate()),
    A: () => name({ weekday: "long" }),
    a: () => name({ weekday: "short" }),
    H: () => two(date.getHours()),
    I: () => two(date.getHours() % 12 || 12),
    p: () => (date.getHours() < 12 ? "AM" : "PM"),
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    "%": () => "%",
  };
  return format.replace(/%(.)/gs, (directive, letter: string) => {
    const write = directives[letter];
    if (write === undefined) throw new Error(`strftime_now does not know ${directive}`);
    return write();
  });
}
