// Makes openapi.json, the part of Discord's OpenAPI document that the tests check payloads against:
//   node bots/discord/test/reduce-openapi.ts <openapi.json of https://github.com/discord/discord-api-spec> > bots/discord/test/openapi.json
import { readFileSync } from "node:fs";

const OPERATIONS = [
  "PUT /applications/{application_id}/commands",
  "PUT /applications/{application_id}/guilds/{guild_id}/commands",
  "POST /interactions/{interaction_id}/{interaction_token}/callback",
  "PATCH /webhooks/{webhook_id}/{webhook_token}/messages/@original",
  "POST /webhooks/{webhook_id}/{webhook_token}",
  "POST /channels/{channel_id}/messages",
  "PATCH /channels/{channel_id}/messages/{message_id}",
  "POST /channels/{channel_id}/messages/{message_id}/threads",
  "PATCH /channels/{channel_id}",
] as const;

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
interface Operation {
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: Json }>> };
}
interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Json>> };
}

const document = JSON.parse(readFileSync(process.argv[2] as string, "utf8")) as Document;
const operations: Record<string, Json> = {};
const $defs: Record<string, Json> = {};
for (const name of OPERATIONS) {
  const [method = "", path = ""] = name.split(" ");
  const body = document.paths[path]?.[method.toLowerCase()]?.requestBody;
  if (body === undefined) throw new Error(`the document has no body for ${name}`);
  operations[name] = moved(body.content["application/json"]?.schema ?? null);
}
console.log(JSON.stringify({ $comment: "From Discord's OpenAPI document: see LICENSE-openapi and reduce-openapi.ts.", operations, $defs }));

/** The schema with its references pointing at $defs, which get what it needs; words for people are left out. */
function moved(schema: Json): Json {
  if (Array.isArray(schema)) return schema.map(moved);
  if (typeof schema !== "object" || schema === null) return schema;
  return Object.fromEntries(
    Object.entries(schema)
      .filter(([key, value]) => !((key === "description" || key === "title") && typeof value === "string"))
      .map(([key, value]) => {
        if (key !== "$ref" || typeof value !== "string") return [key, moved(value)];
        const name = value.split("/").at(-1) as string;
        if (!(name in $defs)) {
          $defs[name] = null;
          $defs[name] = moved(document.components.schemas[name] ?? null);
        }
        return [key, `#/$defs/${name}`];
      }),
  );
}
