// Whether a payload is one that Discord takes: its own OpenAPI schemas, the limits that are not in them, and our own rule that nothing pings.
import { readFileSync } from "node:fs";
import path from "node:path";
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";

interface Part {
  readonly type?: number;
  readonly custom_id?: string;
  readonly label?: string;
  readonly components?: readonly Part[];
  readonly component?: Part;
  readonly options?: readonly { readonly value: string; readonly label: string }[];
}
interface Embed {
  readonly title?: string;
  readonly description?: string;
  readonly fields?: readonly { readonly name: string; readonly value: string }[];
  readonly footer?: { readonly text: string };
  readonly author?: { readonly name: string };
  readonly image?: { readonly url: string };
}
interface Message {
  readonly content?: string;
  readonly embeds?: readonly Embed[];
  readonly components?: readonly Part[];
  readonly attachments?: readonly { readonly id: number | string; readonly filename?: string }[];
  readonly allowed_mentions?: { readonly parse?: readonly string[] };
}
interface Option {
  readonly type: number;
  readonly name: string;
  readonly description: string;
  readonly required?: boolean;
  readonly options?: readonly Option[];
}

const document = JSON.parse(readFileSync(path.join(import.meta.dirname, "openapi.json"), "utf8")) as {
  readonly operations: Readonly<Record<string, object>>;
  readonly $defs: Readonly<Record<string, object>>;
};
const EMBEDS_CHARS = 6000;
/** Operations that write a message. */
const MESSAGES = /(\/callback|\/messages(\/\{message_id\}|\/@original)?|\/webhooks\/\{webhook_id\}\/\{webhook_token\})$/;

/** @returns what is wrong with the body of an operation such as "PATCH /channels/{channel_id}", one sentence each. */
export type Check = (operation: string, body: unknown, files: readonly string[]) => string[];

export function newCheck(): Check {
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  for (const number of ["int32", "int64", "double"]) ajv.addFormat(number, true);
  ajv.addFormat("snowflake", /^(0|[1-9]\d{0,19})$/);
  ajv.addFormat("uri", (text: string) => URL.canParse(text));
  ajv.addFormat("date-time", (text: string) => !Number.isNaN(Date.parse(text)));
  ajv.addFormat("nonce", true);
  const compiled = new Map<string, ValidateFunction>();
  return (operation, body, files) => {
    const schema = document.operations[operation];
    if (schema === undefined) return [];
    const validate = compiled.get(operation) ?? ajv.compile({ ...schema, $defs: document.$defs });
    compiled.set(operation, validate);
    const problems = validate(body)
      ? []
      : (validate.errors ?? []).slice(0, 5).map(({ instancePath, message }) => `${instancePath} ${message}`);
    return [...problems, ...beyond(operation, body, files)].map((problem) => `${operation}: ${problem}`);
  };
}

/** What Discord refuses besides. */
function beyond(operation: string, body: unknown, files: readonly string[]): string[] {
  if (operation.endsWith("/commands")) return (body as Option[]).flatMap((command) => checkOptions(command.name, command.options ?? []));
  if (!MESSAGES.test(operation)) return [];
  if (!operation.endsWith("/callback")) return checkMessage(body as Message, files);
  const { type, data } = body as { type: number; data?: Message & { choices?: { name: string; value: unknown }[]; title?: string } };
  if (type === 4 || type === 7) return checkMessage(data ?? {}, files);
  if (type === 9)
    return [
      ...(data?.title && data.title.length <= 45 ? [] : ["a modal's title has 1 to 45 characters"]),
      ...checkParts(data?.components ?? []),
    ];
  if (type !== 8) return [];
  const bad = (data?.choices ?? []).filter(({ name, value }) => name.length < 1 || name.length > 100 || String(value).length > 100);
  return (data?.choices?.length ?? 0) > 25 || bad.length > 0
    ? [`choices beyond 25, or of more than 100 characters: ${JSON.stringify(bad[0])}`]
    : [];
}

function checkMessage(message: Message, files: readonly string[]): string[] {
  const problems: string[] = [];
  const limit = (what: string, text: string | undefined, max: number, min = 0) => {
    if (text !== undefined && (text.length > max || text.length < min))
      problems.push(`${what} has ${text.length} characters, ${min} to ${max} are allowed`);
  };
  if (message.allowed_mentions?.parse?.length !== 0) problems.push("allowed_mentions.parse is not empty: somebody may be pinged");
  limit("content", message.content, 2000);
  let sum = 0;
  for (const { title, description, fields = [], footer, author, image } of message.embeds ?? []) {
    const [, picture] = /^attachment:\/\/(.*)$/.exec(image?.url ?? "") ?? [];
    if (picture !== undefined && !files.includes(picture)) problems.push(`the picture ${picture} is not attached`);
    limit("title", title, 256);
    limit("description", description, 4096);
    limit("footer", footer?.text, 2048);
    if (fields.length > 25) problems.push(`${fields.length} fields`);
    for (const { name, value } of fields) {
      limit("a field's name", name, 256, 1);
      limit("a field's value", value, 1024, 1);
    }
    const texts = [title, description, footer?.text, author?.name, ...fields.flatMap(({ name, value }) => [name, value])];
    sum += texts.reduce((all, text) => all + (text?.length ?? 0), 0);
  }
  if (sum > EMBEDS_CHARS) problems.push(`the embeds have ${sum} characters together`);
  const given = (message.attachments ?? []).filter(({ filename }) => filename !== undefined).map(({ filename }) => filename);
  if (files.some((file) => !given.includes(file))) problems.push(`files without an attachment: ${files.join(", ")}`);
  if (given.length > files.length) problems.push(`attachments without a file: ${given.join(", ")}`);
  const empty = !message.content && (message.embeds ?? []).length === 0 && files.length === 0;
  if (empty && "content" in message) problems.push("the message is empty");
  return [...problems, ...checkParts(message.components ?? [])];
}

function checkParts(rows: readonly Part[]): string[] {
  const problems: string[] = [];
  if (rows.length > 5) problems.push(`${rows.length} rows`);
  const ids: string[] = [];
  for (const row of rows) {
    const parts = row.components ?? (row.component === undefined ? [] : [row.component]);
    const selects = parts.filter(({ type }) => type !== 2);
    if (parts.length === 0 || parts.length > 5 || (selects.length > 0 && parts.length > 1))
      problems.push("a row has up to 5 buttons, or one other part");
    for (const { custom_id, label, options = [] } of parts) {
      if (custom_id !== undefined) ids.push(custom_id);
      if (custom_id !== undefined && (custom_id.length < 1 || custom_id.length > 100)) problems.push(`custom_id ${custom_id} is too long`);
      if (label !== undefined && (label.length < 1 || label.length > 80)) problems.push(`label ${label} is too long`);
      if (options.length > 25) problems.push("a select has up to 25 options");
      if (options.some((option) => option.label.length > 100 || option.label.length < 1)) problems.push("an option's label is too long");
      if (new Set(options.map(({ value }) => value)).size !== options.length) problems.push("two options of a select have one value");
    }
  }
  if (new Set(ids).size !== ids.length) problems.push(`a custom_id comes twice: ${ids.join(", ")}`);
  return problems;
}

function checkOptions(where: string, options: readonly Option[]): string[] {
  const problems: string[] = [];
  if (options.length > 25) problems.push(`${where} has ${options.length} options`);
  if (new Set(options.map(({ name }) => name)).size !== options.length) problems.push(`${where} has two options of one name`);
  let optional = false;
  for (const option of options) {
    if (option.required && optional) problems.push(`${where}: the required option ${option.name} comes after an optional one`);
    if (!option.required) optional = true;
    if (!/^[-_'\p{L}\p{N}]{1,32}$/u.test(option.name) || option.name !== option.name.toLowerCase())
      problems.push(`${where}: ${option.name} is no name`);
    if (option.description.length < 1 || option.description.length > 100)
      problems.push(`${where} ${option.name}: its description is too long`);
    problems.push(...checkOptions(`${where} ${option.name}`, option.options ?? []));
  }
  return problems;
}
