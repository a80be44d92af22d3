import { eq } from "drizzle-orm";
import { Webhook } from "standardwebhooks";
import { beforeEach, describe, expect, it } from "vitest";
import { newId } from "../../shared/ids.ts";
import { deliveries, endpoints, jobs } from "../jobs-schema.ts";
import { config, newUser, type TestUser } from "../test/worker/client.ts";
import { attemptDelivery } from "./deliver.ts";
import { newWebhooks, type SavedEndpoint } from "./store.ts";

const settings = { ...config(), webhooks: { allow: [], dnsUrl: undefined } };
const { db } = settings;
const webhooks = newWebhooks(settings);
const URL_ = "https://hooks.example.com/x";
const [HOUR, DAY] = [3_600_000, 86_400_000];

let user: TestUser;
let endpoint: SavedEndpoint;
let clock: number;
beforeEach(async () => {
  user = await newUser();
  endpoint = await webhooks.create(user.id, { url: URL_, description: "" });
  clock = Date.now() + 1000;
});

type Receiver = (input: string, init: RequestInit) => Response | Promise<Response>;
const attempt = (id: string, receiver: Receiver, timeoutMs = 15_000) =>
  attemptDelivery(
    { config: settings, fetch: (async (input: string, init: RequestInit) => receiver(input, init)) as unknown as typeof fetch, timeoutMs },
    id,
    () => clock,
    () => 0.5,
  );
const newDelivery = async (): Promise<string> => (await webhooks.test(user.id, endpoint.id))?.id as string;
const read = async (id: string) => {
  const delivery = await webhooks.delivery(user.id, id);
  if (delivery === undefined) throw new Error("no delivery");
  return delivery;
};
const endpointNow = async () => (await webhooks.get(user.id, endpoint.id)) as SavedEndpoint;

/** A job that has ended. */
async function newJob(webhookUrl: string | null = null): Promise<typeof jobs.$inferSelect> {
  const now = Date.now();
  const [job] = await db
    .insert(jobs)
    .values({
      ...{ id: newId(), user_id: user.id, kind: "steer", model_id: "m", state: "failed", plan: {} as never, tokens_total: 1 },
      ...{ webhook_url: webhookUrl, created_at: now, updated_at: now },
    })
    .returning();
  return job as typeof jobs.$inferSelect;
}
async function tell(job: typeof jobs.$inferSelect): Promise<string[]> {
  for (const statement of webhooks.eventStatements(job, "job.failed", '{"a":1}')) await db.batch([statement] as never);
  return webhooks.deliveriesOf(job.id);
}

describe("a delivery", () => {
  it("is posted with a signature that verifies, under both secrets while they overlap", async () => {
    const id = await newDelivery();
    const rotated = (await webhooks.rotate(user.id, endpoint.id, 3600)) as SavedEndpoint;
    let seen: RequestInit = {};
    const result = await attempt(id, (input, init) => {
      expect(input).toBe(URL_);
      seen = init;
      return new Response("thanks", { status: 202 });
    });
    expect(result).toEqual({ done: true });
    expect(seen).toMatchObject({ method: "POST", redirect: "manual" });
    const headers = seen.headers as Record<string, string>;
    expect(headers).toMatchObject({ "user-agent": "Tiller-Webhooks/1", "content-type": "application/json", "webhook-id": id });
    for (const secret of [endpoint.secret, rotated.secret])
      expect(new Webhook(secret).verify(seen.body as string, headers)).toMatchObject({ type: "webhook.test" });
    const { row, attempts } = await read(id);
    expect(row).toMatchObject({ state: "succeeded", attempts: 1, next_attempt_at: null, finished_at: clock });
    expect(attempts).toMatchObject([{ number: 1, at: clock, status: 202, answer: "thanks", error: null }]);
  });

  it.each<[string, Receiver, number | null, RegExp]>([
    ["500", () => new Response("oh no", { status: 500 }), 500, /answered 500/],
    [
      "a redirect",
      () => new Response(null, { status: 302, headers: { location: "http://169.254.169.254/" } }),
      302,
      /redirects are not followed/,
    ],
    ["nothing", () => Promise.reject(new TypeError("connection refused")), null, /could not be reached/],
    ["no head", () => new Promise<Response>(() => undefined), null, /within 0.05 seconds/],
    ["a head and no end", () => new Response(new ReadableStream({}), { status: 200 }), 200, /within 0.05 seconds/],
  ])("whose receiver answers %s is tried again", async (_, receiver, status, error) => {
    const id = await newDelivery();
    let calls = 0;
    const counted: Receiver = (...request) => {
      calls++;
      return receiver(...request);
    };
    const result = await attempt(id, counted, 50);
    expect(result).toEqual({ retryAt: clock + 5000 });
    expect(calls).toBe(1);
    const { row, attempts } = await read(id);
    expect(row).toMatchObject({ state: "pending", tries: 1, attempts: 1 });
    expect(attempts).toMatchObject([{ status, error: expect.stringMatching(error) }]);
    expect((await endpointNow()).failing_since).toBe(clock);
  });

  it("reads 64 KB of a large answer, keeps one, and hangs up", async () => {
    const id = await newDelivery();
    let [sent, canceled] = [0, false];
    const body = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          sent += 4096;
          if (sent > 10_000_000) controller.close();
          else controller.enqueue(new Uint8Array(4096).fill(97));
        },
        cancel() {
          canceled = true;
        },
      },
      { highWaterMark: 0 },
    );
    expect(await attempt(id, () => new Response(body))).toEqual({ done: true });
    expect([sent, canceled]).toEqual([65_536, true]);
    expect((await read(id)).attempts[0]?.answer).toBe("a".repeat(1024));
  });

  it("waits as long as Retry-After asks", async () => {
    const id = await newDelivery();
    const busy = () => new Response("", { status: 503, headers: { "retry-after": "120" } });
    expect(await attempt(id, busy)).toEqual({ retryAt: clock + 120_000 });
  });

  it("is not sent before its time, and not after its end", async () => {
    const id = await newDelivery();
    await attempt(id, () => new Response("", { status: 500 }));
    const never = () => Promise.reject(new Error("must not be called"));
    expect(await attempt(id, never)).toEqual({ retryAt: clock + 5000 });
    clock += 5000;
    expect(await attempt(id, () => new Response(""))).toEqual({ done: true });
    expect(await attempt(id, never)).toEqual({ done: true });
    expect((await read(id)).attempts).toHaveLength(2);
    expect((await endpointNow()).failing_since).toBeNull();
  });

  it("is one request when two try at once", async () => {
    const id = await newDelivery();
    let calls = 0;
    const receiver = () => {
      calls++;
      return new Response("");
    };
    await Promise.all([attempt(id, receiver), attempt(id, receiver), attempt(id, receiver)]);
    expect(calls).toBe(1);
    expect((await read(id)).attempts).toHaveLength(1);
  });

  it("is tried again when an attempt was killed", async () => {
    const id = await newDelivery();
    await db
      .update(deliveries)
      .set({ next_attempt_at: clock + 60_000 })
      .where(eq(deliveries.id, id));
    expect(await attempt(id, () => new Response(""))).toEqual({ retryAt: clock + 60_000 });
    clock += 60_000;
    expect(await attempt(id, () => new Response(""))).toEqual({ done: true });
  });

  it("fails for good after the last of ten attempts", async () => {
    const id = await newDelivery();
    // In all less than the five days after which the endpoint would be disabled.
    let result: Awaited<ReturnType<typeof attempt>> = { retryAt: clock };
    for (let n = 0; n < 10 && "retryAt" in result; n++) {
      clock = result.retryAt;
      result = await attempt(id, () => new Response("", { status: 500 }));
    }
    expect(result).toEqual({ done: true });
    expect((await read(id)).row).toMatchObject({ state: "failed", attempts: 10, next_attempt_at: null });
  });

  it("is checked for its address at every attempt", async () => {
    const id = await newDelivery();
    await db.update(deliveries).set({ url: "http://169.254.169.254/" }).where(eq(deliveries.id, id));
    const result = await attempt(id, () => Promise.reject(new Error("must not be called")));
    expect(result).toEqual({ retryAt: clock + 5000 });
    expect((await read(id)).attempts).toMatchObject([{ status: null, error: expect.stringMatching(/not a public address/) }]);
  });

  it("reaches a receiver that was down for an hour, every one", async () => {
    const down = clock + HOUR;
    const ids = await Promise.all(Array.from({ length: 5 }, newDelivery));
    const got: string[] = [];
    const receiver: Receiver = (_, init) => {
      if (clock < down) throw new TypeError("refused");
      got.push((init.headers as Record<string, string>)["webhook-id"] as string);
      return new Response("");
    };
    for (let n = 0; n < 200 && got.length < 5; n++) {
      for (const id of (await webhooks.due(clock, 500)).filter((due) => ids.includes(due))) await attempt(id, receiver);
      clock += 60_000;
    }
    expect(got.sort()).toEqual([...ids].sort());
  });
});

describe("an endpoint", () => {
  it("that answers 410 is disabled, and what waits for it fails", async () => {
    const [id, waiting] = [await newDelivery(), await newDelivery()];
    expect(await attempt(id, () => new Response("", { status: 410 }))).toEqual({ done: true });
    expect(await endpointNow()).toMatchObject({ disabled_at: clock, disabled_reason: expect.stringMatching(/410/) });
    expect((await read(id)).row.state).toBe("failed");
    const { row, attempts } = await read(waiting);
    expect(row.state).toBe("failed");
    expect(attempts).toMatchObject([{ number: 1, status: null, error: expect.stringMatching(/^Not sent.*410/) }]);
    expect(await tell(await newJob())).toEqual([]);
  });

  it("that has only failed for five days is disabled, and not before ten attempts", async () => {
    const fails = () => new Response("", { status: 500 });
    const first = clock;
    for (let n = 0; n < 9; n++) await attempt(await newDelivery(), fails);
    clock = first + 5 * DAY - 1;
    await attempt(await newDelivery(), fails);
    expect((await endpointNow()).disabled_at).toBeNull();
    clock = first + 5 * DAY;
    const last = await newDelivery();
    expect(await attempt(last, fails)).toEqual({ done: true });
    expect(await endpointNow()).toMatchObject({ disabled_at: clock, disabled_reason: expect.stringMatching(/5 days.*500/) });
    expect((await read(last)).attempts.at(-1)?.error).toMatch(/^Not sent/);
  });

  it("that failed little for five days stays", async () => {
    const fails = () => new Response("", { status: 500 });
    await attempt(await newDelivery(), fails);
    clock += 6 * DAY;
    await attempt(await newDelivery(), fails);
    expect((await endpointNow()).disabled_at).toBeNull();
  });

  it("that was disabled meanwhile gets nothing", async () => {
    const id = await newDelivery();
    await db.update(endpoints).set({ disabled_at: clock, disabled_reason: "A test." }).where(eq(endpoints.id, endpoint.id));
    expect(await attempt(id, () => Promise.reject(new Error("must not be called")))).toEqual({ done: true });
    expect((await read(id)).attempts).toMatchObject([{ error: "Not sent. A test." }]);
  });
});

describe("a job's event", () => {
  it("goes once to every endpoint and to the job's own address, signed with the account's secret", async () => {
    const job = await newJob("https://own.example.com/y");
    const ids = await tell(job);
    expect(ids).toHaveLength(2);
    expect((await tell(job)).sort()).toEqual([...ids].sort());
    const rows = await Promise.all(ids.map(async (id) => (await read(id)).row));
    const own = rows.find(({ endpoint_id }) => endpoint_id === null);
    expect(own?.url).toBe("https://own.example.com/y");
    const secrets = await Promise.all(Array.from({ length: 4 }, () => webhooks.accountSecret(user.id)));
    expect(new Set(secrets).size).toBe(1);
    await attempt(own?.id as string, (_, init) => {
      expect(new Webhook(secrets[0] as string).verify(init.body as string, init.headers as Record<string, string>)).toEqual({ a: 1 });
      return new Response("");
    });
    expect((await read(own?.id as string)).row.state).toBe("succeeded");
    expect(await tell(job)).toHaveLength(1);
  });

  it("is not told of a job that ended otherwise", async () => {
    expect(await tell({ ...(await newJob(URL_)), state: "succeeded" })).toEqual([]);
  });
});
