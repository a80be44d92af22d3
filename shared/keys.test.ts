import { describe, expect, it } from "vitest";
import { ID_PATTERN, newId } from "./ids.ts";
import { constantTimeEqual, hashApiKey, looksLikeApiKey, newApiKey } from "./keys.ts";

describe("an id", () => {
  it("has the form that its pattern describes, uses the whole alphabet and does not come twice", () => {
    const ids = Array.from({ length: 2000 }, newId);
    for (const id of ids) expect(id).toMatch(ID_PATTERN);
    expect(new Set(ids).size).toBe(ids.length);
    expect(new Set(ids.map((id) => id.slice(2)).join("")).size).toBe(36);
  });
});

describe("an API key", () => {
  it("has the documented form, a prefix to show and the hash of the whole key", async () => {
    const { key, prefix, hash } = await newApiKey();
    expect(key).toMatch(/^sk-til-[A-Za-z0-9_-]{43}$/);
    expect(looksLikeApiKey(key)).toBe(true);
    expect(key.startsWith(prefix)).toBe(true);
    expect(prefix).toHaveLength(12);
    expect(hash).toBe(await hashApiKey(key));
    expect((await newApiKey()).key).not.toBe(key);
  });

  it("is hashed with SHA-256, in hex", async () => {
    expect(await hashApiKey("abc")).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  });

  it.each([
    "",
    "sk-til-",
    "sk-np-abc",
    `sk-til-${"a".repeat(42)}`,
    `sk-til-${"a".repeat(44)}`,
    `sk-til-${"a".repeat(42)}!`,
    ` sk-til-${"a".repeat(43)}`,
  ])("is told from '%s'", (text) => {
    expect(looksLikeApiKey(text)).toBe(false);
  });
});

it.each([
  ["", "", true],
  ["abc", "abc", true],
  ["abc", "abd", false],
  ["abc", "ab", false],
  ["ab", "abc", false],
  ["", "a", false],
  ["aa", "a", false],
])("compares '%s' with '%s': %s", (a, b, same) => {
  expect(constantTimeEqual(a, b)).toBe(same);
});
