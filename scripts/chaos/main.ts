// `npm run chaos`: jobs go on while edge and engine are killed at random moments. Nothing may be lost, told twice with different
// results, or come out otherwise than without the kills.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { uniform } from "../../gpu-functions/cpu/random.ts";
import { newId } from "../../shared/ids.ts";
import { newApiKey } from "../../shared/keys.ts";
import { describeMachine, table } from "../bench/frame.ts";
import { ROOT } from "../edge-bundle.ts";
import { startEdge } from "../local-edge.ts";
import { claimPort } from "../ports.ts";
import { Receiver } from "./receiver.ts";
import { Victim } from "./victim.ts";

const HELP = `npm run chaos -- [options]

Runs jobs of the bundled model while edge and engine are killed with SIGKILL at random moments, and prints what became of them.

  --kills N     kills, of the edge or the engine by chance (100)
  --jobs N      jobs, of five users (50)
  --seed N      decides when what is killed (1)
  --help        this text`;

const TOKEN = "chaos";
const USERS = 5;
const TOKENS = 240;
/** A kill comes at most so long after there is something to interrupt. */
const MOMENT_MS = 900;
/** After the last kill everything has to be done within this time. */
const PATIENCE_MS = 180_000;

interface Texts {
  readonly STEERED: string;
  readonly DEFAULT: string;
}
const textsOf = ({ STEERED, DEFAULT }: Texts): Texts => ({ STEERED, DEFAULT });

interface User {
  readonly key: string;
  readonly secret: string;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { kills: { type: "string" }, jobs: { type: "string" }, seed: { type: "string" }, help: { type: "boolean", short: "h" } },
  });
  if (values.help) return console.log(HELP);
  const [kills, jobs, seed] = [Number(values.kills ?? 100), Number(values.jobs ?? 50), Number(values.seed ?? 1)];
  for (const line of describeMachine()) console.log(line);
  console.log(`\nchaos: ${jobs} jobs of ${TOKENS} tokens a side, ${USERS} users, ${kills} kills, seed ${seed}`);
  const folder = await mkdtemp(path.join(tmpdir(), "tiller-chaos-"));
  const [edgePort, enginePort] = [await claimPort(18_787, "edge", "--port"), await claimPort(18_788, "engine", "--engine-port")];
  const [url, engineUrl] = [`http://127.0.0.1:${edgePort}`, `http://127.0.0.1:${enginePort}`];
  const edgeEnv = { PORT: String(edgePort), STATE: path.join(folder, "state"), ENGINE_URL: engineUrl, ENGINE_TOKEN: TOKEN };
  const engine = new Victim(
    "engine",
    [path.join(ROOT, "gpu-functions", "cpu", "main.ts")],
    { PORT: String(enginePort), ENGINE_TOKEN: TOKEN },
    /"port":\d+/,
  );
  const edge = new Victim("edge", [path.join(ROOT, "scripts", "chaos", "edge.ts")], edgeEnv, /edge on/);
  const receiver = new Receiver();
  try {
    const hook = await receiver.listen();
    const users = await makeUsers(folder, edgePort, engineUrl);
    receiver.trust(users.map(({ secret }) => secret));
    await engine.start();
    await edge.start();
    const expected = await uninterrupted(url, users, jobs);
    console.log(`  uninterrupted texts of ${expected.length} requests are known`);
    let drawn = 0;
    const random = () => uniform(seed, drawn++);
    const ids: (string | undefined)[] = [];
    let [killed, busy] = [0, 0];
    // As many jobs as are due by the kills so far: all through there is work to interrupt.
    const submitting = submit(url, users, jobs, hook, ids, async (n) => {
      while (killed < kills && n * kills > (killed + 1) * jobs) await sleep(20);
    });
    // It is waited for after the kills.
    submitting.catch(() => undefined);
    for (let n = 0; n < kills; n++) {
      for (let waited = 0; receiver.told.size >= ids.length && waited < MOMENT_MS; waited += 20) await sleep(20);
      await sleep(random() * MOMENT_MS);
      const victim = random() < 0.5 ? edge : engine;
      if (receiver.told.size < ids.length) busy++;
      await victim.kill();
      await victim.start();
      killed++;
      if ((n + 1) % 10 === 0) console.log(`  ${n + 1} kills, ${ids.filter(Boolean).length} jobs made, ${receiver.told.size} told`);
    }
    await submitting;
    await finished(url, users, ids, receiver);
    report(await outcomes(url, users, ids, expected, receiver), edge, engine, receiver, busy);
  } finally {
    await Promise.all([edge.kill(), engine.kill()]);
    receiver.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Users with keys and secrets, written into the database before anything is killed. */
async function makeUsers(folder: string, port: number, engineUrl: string): Promise<User[]> {
  const edge = await startEdge({ port, state: path.join(folder, "state"), engine: { url: engineUrl, token: TOKEN } });
  const users: User[] = [];
  for (let i = 0; i < USERS; i++) {
    const { key, hash, prefix } = await newApiKey();
    const id = newId();
    const secret = `whsec_${Buffer.from(crypto.getRandomValues(new Uint8Array(24))).toString("base64")}`;
    await edge.db.batch([
      edge.db
        .prepare("INSERT INTO users (id, name, created_at, hourly_limit, webhook_secret) VALUES (?, 'chaos', 0, 100000, ?)")
        .bind(id, secret),
      edge.db
        .prepare("INSERT INTO api_keys (id, user_id, hash, prefix, name, created_at) VALUES (?, ?, ?, ?, 'chaos', 0)")
        .bind(newId(), id, hash, prefix),
    ]);
    users.push({ key, secret });
  }
  await edge.close();
  return users;
}

const bodyOf = (n: number) => ({
  ...{ prompt: "One day a little girl", modelId: "tiller-tales", temperature: 0.8, n_tokens: TOKENS, seed: 1000 + n },
  features: [{ modelId: "tiller-tales", layer: "3-tales-directions", index: 0, strength: (n % 9) * 3 - 12 || 2 }],
  ...{ freq_penalty: n % 2 === 0 ? 0.5 : 0, strength_multiplier: 1, n_logprobs: 0 },
});
const userOf = (users: readonly User[], n: number): User => users[n % users.length] as User;

async function call(url: string, user: User, init: RequestInit = {}): Promise<Response> {
  const headers = { "x-api-key": user.key, "content-type": "application/json", ...(init.headers as Record<string, string>) };
  return fetch(url, { ...init, headers, signal: AbortSignal.timeout(30_000) });
}

/** Asks until there is an answer: edge and engine are being killed. */
async function insist<T>(ask: () => Promise<T>): Promise<T> {
  for (let n = 0; ; n++) {
    try {
      return await ask();
    } catch (error) {
      if (n > 200) throw error;
      await sleep(150);
    }
  }
}

async function uninterrupted(url: string, users: readonly User[], jobs: number): Promise<Texts[]> {
  const texts: Texts[] = [];
  for (let n = 0; n < jobs; n++) {
    const response = await call(`${url}/api/steer`, userOf(users, n), { method: "POST", body: JSON.stringify(bodyOf(n)) });
    if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
    texts.push(textsOf((await response.json()) as Texts));
  }
  return texts;
}

/** Makes the jobs, each in its `turn` and with an idempotency key that it is sent with until it is answered, some of them twice. */
async function submit(
  url: string,
  users: readonly User[],
  jobs: number,
  hook: string,
  ids: (string | undefined)[],
  turn: (n: number) => Promise<void>,
): Promise<void> {
  for (let n = 0; n < jobs; n++) {
    await turn(n);
    const send = () =>
      insist(async () => {
        const response = await call(`${url}/api/steer`, userOf(users, n), {
          method: "POST",
          headers: { "idempotency-key": `chaos-${n}` },
          body: JSON.stringify({ ...bodyOf(n), webhook: { url: hook } }),
        });
        const answer = (await response.json()) as { id?: string; error?: string };
        if (response.status !== 202 || answer.id === undefined) throw new Error(`${response.status}: ${answer.error}`);
        return answer.id;
      });
    const [first, again] = await Promise.all([send(), n % 5 === 0 ? send() : undefined]);
    if (again !== undefined && again !== first) throw new Error(`one idempotency key made two jobs: ${first} and ${again}`);
    ids[n] = first;
  }
}

async function finished(url: string, users: readonly User[], ids: readonly (string | undefined)[], receiver: Receiver): Promise<void> {
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    const states = await Promise.all(ids.map((id, n) => insist(async () => stateOf(url, userOf(users, n), id ?? ""))));
    const left = states.filter((state) => state === "queued" || state === "running").length;
    if ((left === 0 && receiver.told.size >= ids.length) || Date.now() > until) return;
    await sleep(1000);
  }
}

async function stateOf(url: string, user: User, id: string): Promise<string> {
  return ((await (await call(`${url}/api/jobs/${id}`, user)).json()) as { state?: string }).state ?? "missing";
}

interface Outcome {
  readonly state: string;
  readonly equal: boolean;
  readonly told: number;
}

async function outcomes(
  url: string,
  users: readonly User[],
  ids: readonly (string | undefined)[],
  expected: readonly Texts[],
  receiver: Receiver,
): Promise<Outcome[]> {
  return Promise.all(
    ids.map(async (id = "", n) => {
      const job = (await (await call(`${url}/api/jobs/${id}`, userOf(users, n))).json()) as {
        state?: string;
        error?: { message: string } | null;
        result?: Texts | null;
      };
      const [wanted, got] = [expected[n], job.result];
      const equal = wanted?.STEERED === got?.STEERED && wanted?.DEFAULT === got?.DEFAULT;
      if (!equal)
        console.log(
          `  job ${n} (${id}): ${job.state} ${job.error?.message ?? ""}\n${JSON.stringify([wanted, got && textsOf(got)], undefined, 2)}`,
        );
      return { state: job.state ?? "missing", equal, told: receiver.told.get(id)?.size ?? 0 };
    }),
  );
}

function report(all: readonly Outcome[], edge: Victim, engine: Victim, receiver: Receiver, busy: number): void {
  const count = (test: (outcome: Outcome) => boolean): string => String(all.filter(test).length);
  const rows = [
    ["what", "count"],
    ["kills of the edge", String(edge.kills)],
    ["kills of the engine", String(engine.kills)],
    ["kills while a job was under way", String(busy)],
    ["jobs", String(all.length)],
    ["succeeded", count(({ state }) => state === "succeeded")],
    ["lost or not ended", count(({ state }) => state !== "succeeded" && state !== "failed" && state !== "canceled")],
    ["texts other than uninterrupted", count(({ equal }) => !equal)],
    ["never told by webhook", count(({ told }) => told === 0)],
    ["told with different results", count(({ told }) => told > 1)],
    ["webhooks received", String(receiver.deliveries)],
    ["with a wrong signature", String(receiver.badSignatures)],
  ];
  for (const line of table(rows)) console.log(`  ${line}`);
  const good = all.every(({ state, equal, told }) => state === "succeeded" && equal && told === 1) && receiver.badSignatures === 0;
  console.log(good ? "\nNothing was lost." : "\nSOMETHING WAS LOST.");
  if (!good) process.exitCode = 1;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

main().catch((error: unknown) => {
  console.error((error as Error).message);
  process.exit(1);
});
