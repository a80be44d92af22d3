// Where webhooks may go: public addresses over http(s), in whatever spelling somebody writes the others.
import { TillerError } from "../../shared/errors.ts";

export interface WebhookSettings {
  /** `host[:port]` that may be reached although it is private, for local development: `*` is any text, as in `127.0.0.1:*`. */
  readonly allow: readonly string[];
  /** A DNS-over-HTTPS resolver that answers JSON; undefined = names are not resolved. */
  readonly dnsUrl: string | undefined;
}

const URL_CHARS = 2000;
const DNS_TIMEOUT_MS = 5000;

/** First address and prefix length of what is not the public internet. */
const PRIVATE_V4: readonly (readonly [string, number])[] = [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  // A cloud's metadata.
  ["168.63.129.16", 32],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.88.99.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  // Multicast, reserved, broadcast.
  ["224.0.0.0", 3],
];

/** Parts of 2000::/3, the one block of public IPv6 addresses, that are not public: tunnels (they hide an IPv4 address), documentation. */
const PRIVATE_V6: readonly (readonly [string, number])[] = [
  ["2001::", 23],
  ["2001:db8::", 32],
  ["2002::", 16],
  ["3fff::", 20],
];

const PRIVATE_NAMES = ["localhost", "localdomain", "local", "internal", "intranet", "lan", "home.arpa"];

/**
 * The address, if a request on a user's behalf may go there. Names are looked up: the answer can change, so it is asked before each request.
 * @throws TillerError `invalid_request` saying what is wrong, and what is allowed.
 */
export async function checkAddress(
  address: string,
  settings: WebhookSettings,
  ask: typeof fetch = (...args) => fetch(...args),
): Promise<URL> {
  if (address.length > URL_CHARS) throw refused(`is longer than ${URL_CHARS} characters`);
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    throw refused("is not a URL");
  }
  if (url.protocol !== "http:" && url.protocol !== "https:")
    throw refused(`begins with ${url.protocol.slice(0, 32)}, not with http: or https:`);
  if (url.username !== "" || url.password !== "") throw refused("has a user name or a password in it: leave it out");
  if (isAllowed(url, settings.allow)) return url;
  const host = url.hostname.replace(/\.+$/, "");
  if (isAddress(host)) {
    if (!isPublic(host)) throw refused(`leads to ${host}, which is not a public address`);
    return url;
  }
  if (!host.includes(".") || PRIVATE_NAMES.some((name) => host === name || host.endsWith(`.${name}`)))
    throw refused(`leads to ${host.slice(0, 253)}, which is a name of a private network`);
  if (settings.dnsUrl !== undefined) await checkName(host, settings.dnsUrl, ask);
  return url;
}

const refused = (what: string): TillerError =>
  new TillerError("invalid_request", `The webhook's address ${what}. It must be an http(s) URL of a host on the public internet.`);

/** A pattern without a port is for the scheme's own. */
function isAllowed(url: URL, patterns: readonly string[]): boolean {
  const own = url.protocol === "https:" ? "443" : "80";
  const place = `${url.hostname.replace(/\.+$/, "")}:${url.port || own}`;
  return patterns.some((pattern) => {
    const whole = /:(\d+|\*)$/.test(pattern.replace(/^\[[^\]]*\]/, "")) ? pattern : `${pattern}:${own}`;
    const source = whole
      .toLowerCase()
      .split("*")
      .map((part) => part.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"))
      .join(".*");
    return new RegExp(`^${source}$`).test(place);
  });
}

/** The URL parser has made every spelling of an IPv4 address four decimals, and put IPv6 ones in brackets. */
const isAddress = (host: string): boolean => host.startsWith("[") || /^\d+\.\d+\.\d+\.\d+$/.test(host);

function isPublic(host: string): boolean {
  if (!host.startsWith("[")) return !PRIVATE_V4.some(([base, length]) => shares(bitsOfV4(host), bitsOfV4(base), length));
  const bits = bitsOfV6(host.slice(1, -1));
  return bits.startsWith("001") && !PRIVATE_V6.some(([base, length]) => shares(bits, bitsOfV6(base), length));
}

const shares = (a: string, b: string, length: number): boolean => a.slice(0, length) === b.slice(0, length);
const bitsOfV4 = (address: string): string =>
  address
    .split(".")
    .map((part) => Number(part).toString(2).padStart(8, "0"))
    .join("");

function bitsOfV6(address: string): string {
  const [before = "", after] = address.split("::");
  const left = before === "" ? [] : before.split(":");
  const right = after === undefined || after === "" ? [] : after.split(":");
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => "0");
  return [...left, ...zeros, ...right].map((part) => Number.parseInt(part, 16).toString(2).padStart(16, "0")).join("");
}

/** @throws TillerError when one of the name's addresses is not public, when it has none, and when nobody says. */
async function checkName(name: string, dnsUrl: string, ask: typeof fetch): Promise<void> {
  const answers = await Promise.all(["A", "AAAA"].map((type) => resolve(name, type, dnsUrl, ask)));
  const found = answers.flat();
  if (found.length === 0) throw refused(`leads to ${name.slice(0, 253)}, a name without an address`);
  for (const address of found) {
    if (!isPublic(address)) throw refused(`leads to ${name.slice(0, 253)}, which is at ${address}, not a public address`);
  }
}

/** Addresses as URLs have them. */
async function resolve(name: string, type: string, dnsUrl: string, ask: typeof fetch): Promise<string[]> {
  const url = new URL(dnsUrl);
  url.searchParams.set("name", name);
  url.searchParams.set("type", type);
  try {
    const response = await ask(url.href, { headers: { accept: "application/dns-json" }, signal: AbortSignal.timeout(DNS_TIMEOUT_MS) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const { Status, Answer = [] } = (await response.json()) as { Status?: number; Answer?: { type: number; data: string }[] };
    // 3 = there is no such name.
    if (Status !== 0 && Status !== 3) throw new Error(`DNS status ${Status}`);
    return Answer.filter((row) => row.type === 1 || row.type === 28).map(({ type, data }) => {
      const { hostname } = new URL(`http://${type === 1 ? data : `[${data}]`}`);
      if (!isAddress(hostname)) throw new Error("an answer that is no address");
      return hostname;
    });
  } catch (cause) {
    const sentence = `The webhook's address leads to ${name.slice(0, 253)}, a name that could not be looked up just now. Try again in a moment.`;
    throw new TillerError("invalid_request", sentence, { cause });
  }
}
