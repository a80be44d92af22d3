import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, it } from "vitest";
import { newAttachmentReader } from "./attachments.ts";

const MB = 1_000_000;
let server: Server;
let origin: string;
let asked: string[] = [];
beforeAll(async () => {
  server = createServer((request, response) => {
    asked.push(request.url ?? "");
    if (request.url === "/moved") return void response.writeHead(302, { location: "/file" }).end();
    if (request.url === "/gone") return void response.writeHead(404).end();
    response.end(Buffer.alloc(request.url === "/large" ? 8 * MB + 1 : 8 * MB, 7));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const read = (path: string) => newAttachmentReader(`${origin}/api`)(origin + path);

it("is read whole, as large as a vector file may be", async () => {
  const bytes = await read("/file");
  expect([bytes.length, bytes[0], bytes.at(-1)]).toEqual([8 * MB, 7, 7]);
});

it.each([
  ["/large", /more than 8 MB: attach a smaller one/],
  ["/gone", /no longer has this file: attach it again/],
  ["/moved", /no longer has this file/],
])("%s is refused", async (path, words) => {
  asked = [];
  await expect(read(path)).rejects.toMatchObject({ code: "invalid_request", message: expect.stringMatching(words) });
  expect(asked).toEqual([path]);
});

it.each([
  "http://169.254.169.254/latest/meta-data",
  "http://cdn.discordapp.com/attachments/1/2/a.npy",
  "https://cdn.discordapp.com.evil.example/a.npy",
  "https://cdn.discordapp.com@evil.example/a.npy",
  "https://discord.com/api/v10/users/@me",
  "file:///etc/passwd",
])("nothing is asked for at %s", async (address) => {
  asked = [];
  const reader = newAttachmentReader("https://discord.com/api");
  await expect(reader(address)).rejects.toMatchObject({ code: "invalid_request", message: expect.stringContaining("not at Discord") });
  await expect(reader(`${origin}/file`)).rejects.toMatchObject({ message: expect.stringContaining("not at Discord") });
  expect(asked).toEqual([]);
});
