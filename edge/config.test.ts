import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import { ConfigError, parseConfig } from "./config.ts";

const parse = (changes: Record<string, unknown>) => parseConfig({ ...env, ...changes } as Env);

it("reads the engines, their secrets and the rest", () => {
  const { engines, upstash, publicUrl } = parse({
    ENGINES: '[{"models":"a*","url":"https://one.example/","token":"ONE"},{"models":"*","url":"http://127.0.0.1:1"}]',
    ONE: "secret",
    PUBLIC_URL: "https://tiller.example/",
    UPSTASH_REDIS_REST_URL: "https://redis.example",
    UPSTASH_REDIS_REST_TOKEN: "t",
  });
  expect(engines).toEqual([
    { models: "a*", url: "https://one.example", token: "secret" },
    { models: "*", url: "http://127.0.0.1:1", token: undefined },
  ]);
  expect(upstash).toEqual({ url: "https://redis.example", token: "t" });
  expect(publicUrl).toBe("https://tiller.example");
});

const MODAL = {
  ENGINES: '[{"models":"*","url":"https://me--tiller.modal.run","modal":{"key":"MODAL_KEY","secret":"MODAL_SECRET"}}]',
  ...{ MODAL_KEY: "wk-1", MODAL_SECRET: "ws-1" },
};

it("reads the keys of engines on Modal, and repeats none when one is missing", () => {
  const url = "https://me--tiller.modal.run";
  expect(parse(MODAL).engines).toEqual([{ models: "*", url, token: undefined, modal: { key: "wk-1", secret: "ws-1" } }]);
  for (const name of ["MODAL_KEY", "MODAL_SECRET"]) {
    expect(() => parse({ ...MODAL, [name]: "" })).toThrow(new ConfigError(`ENGINES names the secret ${name}, which is not set.`));
  }
});

const KEY = "ab".repeat(32);

it("reads the Discord application, of which all but the id may be left out", () => {
  expect(parse({}).discord).toBeUndefined();
  const more = { publicKey: undefined, clientSecret: undefined, token: undefined, api: "https://discord.com/api" };
  expect(parse({ DISCORD_APPLICATION_ID: "1234567890" }).discord).toEqual({ ...more, applicationId: "1234567890" });
  const all = { DISCORD_PUBLIC_KEY: KEY, DISCORD_CLIENT_SECRET: "s", DISCORD_TOKEN: "t", DISCORD_API: "http://127.0.0.1:1/api/" };
  expect(parse({ DISCORD_APPLICATION_ID: "1234567890", ...all }).discord).toEqual({
    ...{ applicationId: "1234567890", publicKey: KEY, clientSecret: "s", token: "t", api: "http://127.0.0.1:1/api" },
  });
});

describe("a wrong setting is named with what it should be", () => {
  it.each<[string, Record<string, unknown>, RegExp]>([
    ["no engines", { ENGINES: undefined }, /^ENGINES must be a JSON list such as .*missing/],
    ["engines that are no JSON", { ENGINES: "http://127.0.0.1" }, /^ENGINES .*not JSON/],
    ["an empty list of engines", { ENGINES: "[]" }, /^ENGINES/],
    ["an engine without an address", { ENGINES: '[{"models":"*"}]' }, /0\.url/],
    ["an engine over another protocol", { ENGINES: '[{"models":"*","url":"ftp://x"}]' }, /0\.url/],
    ["a misspelt field", { ENGINES: '[{"models":"*","url":"http://x.example","tokn":"A"}]' }, /tokn/],
    ["a secret that is not set", { ENGINES: '[{"models":"*","url":"http://x.example","token":"MISSING"}]' }, /secret MISSING.*not set/],
    ["half of Modal's keys", { ...MODAL, ENGINES: '[{"models":"*","url":"https://x.modal.run","modal":{"key":"A"}}]' }, /0\.modal\.secret/],
    [
      "Modal's keys where all could read them",
      { ...MODAL, ENGINES: MODAL.ENGINES.replace("https://me--tiller.modal.run", "http://x") },
      /0\.url: .*https/,
    ],
    ["Modal where all could read it", { ENGINES: '[{"models":"*","url":"http://x.modal.run"}]' }, /0\.url: .*https/],
    ["half of Upstash", { UPSTASH_REDIS_REST_URL: "https://redis.example" }, /belong together/],
    ["an address that is none", { PUBLIC_URL: "tiller" }, /^PUBLIC_URL must be an http/],
    ["half of Discord", { DISCORD_TOKEN: "t" }, /^DISCORD_TOKEN needs DISCORD_APPLICATION_ID/],
    ["an application that is no id", { DISCORD_APPLICATION_ID: "tiller" }, /^DISCORD_APPLICATION_ID must be .*digits/],
    ["a key of another length", { DISCORD_APPLICATION_ID: "12345", DISCORD_PUBLIC_KEY: "ab" }, /^DISCORD_PUBLIC_KEY .*64 hex digits/],
    ["a Discord that all could read", { DISCORD_APPLICATION_ID: "12345", DISCORD_API: "http://discord.example" }, /^DISCORD_API .*https/],
    ["a missing binding", { DB: undefined }, /binding DB is missing/],
  ])("%s", (_, changes, words) => {
    expect(() => parse(changes)).toThrow(words);
  });
});
