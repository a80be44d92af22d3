import { describe, expect, it } from "vitest";
import { checkAddress, type WebhookSettings } from "./address.ts";

const CLOSED: WebhookSettings = { allow: [], dnsUrl: undefined };

describe("an address for webhooks", () => {
  const bad = [
    ...[
      "http://127.0.0.1",
      "http://127.1",
      "http://127.0.1",
      "http://2130706433",
      "http://0x7f000001",
      "http://0x7f.1",
      "http://0177.0.0.1",
    ],
    ...["http://017700000001", "http://0x7F.0x0.0x0.0x1", "http://127.0.0.1.", "http://127.255.255.254:8080/x", "http://①②⑦.0.0.1"],
    ...["http://127。0。0。1", "http://%31%32%37.0.0.1", "http://0", "http://0.0.0.0", "http://0.1.2.3", "http://10.0.0.1", "http://10.1"],
    ...["http://012.0.0.1", "http://167772161", "http://172.16.0.1", "http://172.31.255.255", "http://192.168.1.1", "http://192.168.257"],
    ...[
      "http://3232235777",
      "http://169.254.169.254/latest/meta-data",
      "http://2852039166",
      "http://0xa9fea9fe",
      "http://0251.0376.0251.0376",
    ],
    ...["http://169.254.1", "http://168.63.129.16", "http://100.64.0.1", "http://100.100.100.200", "http://100.127.255.255"],
    ...[
      "http://192.0.0.192",
      "http://192.0.2.1",
      "http://192.88.99.1",
      "http://198.18.0.1",
      "http://198.19.255.255",
      "http://198.51.100.7",
    ],
    ...[
      "http://203.0.113.9",
      "http://224.0.0.1",
      "http://239.255.255.250",
      "http://240.0.0.1",
      "http://255.255.255.255",
      "http://4294967295",
    ],
    ...["http://[::]", "http://[::1]", "http://[0:0:0:0:0:0:0:1]", "http://[::ffff:127.0.0.1]", "http://[::ffff:7f00:1]"],
    ...["http://[::ffff:10.0.0.1]", "http://[::ffff:a9fe:a9fe]", "http://[::127.0.0.1]", "http://[::a00:1]", "http://[::ffff:0:127.0.0.1]"],
    ...["http://[64:ff9b::127.0.0.1]", "http://[64:ff9b::a9fe:a9fe]", "http://[64:ff9b:1::1]", "http://[2002:7f00:1::]"],
    ...["http://[2002:a00:1::1]", "http://[2002:c0a8:101::]", "http://[2001:0:7f00:1::]", "http://[2001:db8::1]", "http://[3fff::1]"],
    ...["http://[fc00::1]", "http://[fd00:ec2::254]", "http://[fdff::1]", "http://[fe80::1]", "http://[febf::1]", "http://[fec0::1]"],
    ...["http://[ff02::1]", "http://[100::1]", "http://[5f00::1]", "http://[fe80::1%25eth0]", "http://[fe80::1%eth0]"],
    ...["http://localhost", "http://LOCALHOST:80", "http://localhost.", "http://a.localhost", "http://localhost.localdomain"],
    ...["http://printer.local", "http://printer.local.", "http://metadata.google.internal", "http://METADATA.google.internal./x"],
    ...["http://db.internal", "http://router.home.arpa", "http://intranet", "http://metadata", "http://ｌｏｃａｌｈｏｓｔ"],
    ...["ftp://example.com", "file:///etc/passwd", "javascript:1", "http://user@example.com", "http://u:p@example.com", "http://", "x", ""],
    ...["http://1.2.3.4.5", "http://256.0.0.1", `https://example.com/${"a".repeat(2000)}`],
  ];
  it.each(bad)("is refused as %s", async (url) => {
    await expect(checkAddress(url, CLOSED)).rejects.toMatchObject({
      code: "invalid_request",
      message: expect.stringMatching(/public internet/),
    });
  });

  const good = [
    ...[
      "https://example.com/hook?x=1",
      "http://8.8.8.8:8080/",
      "http://172.32.0.1",
      "http://100.128.0.1",
      "http://11.0.0.1",
      "http://134744072",
    ],
    ...[
      "http://[2606:4700::1111]/",
      "https://localhost.example.com",
      "https://internal.example.org.",
      "http://198.20.0.1",
      "http://223.255.255.255",
    ],
  ];
  it.each(good)("may be %s", async (url) => {
    expect((await checkAddress(url, CLOSED)).href).toBe(new URL(url).href);
  });

  it.each([
    ["127.0.0.1:*", "http://127.0.0.1:9999/x", true],
    ["127.0.0.1:*", "http://2130706433:9999/x", true],
    ["127.0.0.1:*", "http://127.0.0.2:9999/x", false],
    ["127.0.0.1:*", "http://127.0.0.1.evil.local:1/", false],
    ["127.0.0.1:81", "http://127.0.0.1:82", false],
    ["127.0.0.1", "http://127.0.0.1", true],
    ["127.0.0.1", "http://127.0.0.1:81", false],
    ["[::1]:*", "http://[::1]:81", true],
    ["*.local:80", "http://a.local", true],
    ["127.0.0.1:*", "ftp://127.0.0.1:9999/x", false],
  ])("that %s allows: %s is %s", async (pattern, url, allowed) => {
    const check = checkAddress(url, { allow: [pattern], dnsUrl: undefined });
    if (allowed) await expect(check).resolves.toBeInstanceOf(URL);
    else await expect(check).rejects.toMatchObject({ code: "invalid_request" });
  });
});

describe("a name", () => {
  const seen: string[] = [];
  const dns = (answers: Record<string, unknown>) =>
    (async (input: string, init: RequestInit) => {
      seen.push(`${input} ${new Headers(init.headers).get("accept")}`);
      const answer = answers[new URL(input).searchParams.get("type") ?? ""] ?? { Status: 0 };
      if (answer instanceof Error) throw answer;
      return answer instanceof Response ? answer : Response.json(answer);
    }) as unknown as typeof fetch;
  const a = (...data: string[]) => ({ Status: 0, Answer: data.map((value) => ({ type: 1, data: value })) });
  const aaaa = (...data: string[]) => ({ Status: 0, Answer: data.map((value) => ({ type: 28, data: value })) });
  const check = (answers: Record<string, unknown>) =>
    checkAddress("https://hooks.example.com/x", { allow: [], dnsUrl: "https://dns.example/q" }, dns(answers));

  it("is looked up for both kinds of addresses", async () => {
    seen.length = 0;
    await check({
      A: {
        Status: 0,
        Answer: [
          { type: 5, data: "other.example." },
          { type: 1, data: "8.8.8.8" },
        ],
      },
      AAAA: aaaa("2606:4700::1"),
    });
    expect(seen.sort()).toEqual(
      ["A", "AAAA"].map((type) => `https://dns.example/q?name=hooks.example.com&type=${type} application/dns-json`),
    );
  });

  it.each([
    ["one address is private", { A: a("8.8.8.8", "10.0.0.1") }, /10\.0\.0\.1/],
    ["its IPv6 address is private", { A: a("8.8.8.8"), AAAA: aaaa("::ffff:127.0.0.1") }, /not a public/],
    ["it has none", {}, /without an address/],
    ["there is none", { A: { Status: 3 }, AAAA: { Status: 3 } }, /without an address/],
    ["the resolver fails", { A: a("8.8.8.8"), AAAA: { Status: 2 } }, /looked up/],
    ["the resolver is down", { A: new Error("down") }, /looked up/],
    ["the resolver answers 500", { A: new Response("", { status: 500 }) }, /looked up/],
    ["the resolver answers no address", { A: a("evil.example") }, /looked up/],
  ])("is refused when %s", async (_, answers, message) => {
    await expect(check(answers)).rejects.toMatchObject({ code: "invalid_request", message: expect.stringMatching(message) });
  });
});
