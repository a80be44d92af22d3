import { describe, expect, it } from "vitest";
import { newTiller } from "./client.ts";

const ADA = { id: "12345678901234567890", name: "Ada" };
const bytes = (text: string) => new TextEncoder().encode(text);

/** The service as a function: what was sent, and one answer to everything. */
function serve(answer: () => Response) {
  const seen: Request[] = [];
  const tiller = newTiller("https://tiller.example", async (request) => {
    seen.push(request);
    return answer();
  });
  return { ada: tiller.as(ADA), seen };
}
const job = () => Response.json({ id: "j1" }, { status: 202 });

describe("a derivation", () => {
  const files = {
    positive: { name: 'good "texts".txt', bytes: bytes("A fine day.\r\nWe laughed.") },
    // Bytes that are no text, and what looks like the end of a part.
    negative: { name: "bad\r\n.csv", bytes: new Uint8Array([0, 255, 13, 10, 45, 45, 13, 10, 7]) },
  };
  const fields = { modelId: "m", vectorLabel: "Joy 😀\nand more", layers: "0,1" };

  it("is a form that any reader of forms reads as it was given, and asks to be a job", async () => {
    const { ada, seen } = serve(job);
    expect(await ada.vectors.derive(fields, files, "key-1")).toEqual({ id: "j1" });
    const [request] = seen;
    expect(`${request?.method} ${request?.url}`).toBe("POST https://tiller.example/api/vector/derive");
    expect([request?.headers.get("prefer"), request?.headers.get("idempotency-key")]).toEqual(["respond-async", "key-1"]);
    const form = (await request?.formData()) ?? new FormData();
    expect([...form.keys()]).toEqual(["modelId", "vectorLabel", "layers", "positive", "negative"]);
    for (const [name, value] of Object.entries(fields)) expect(String(form.get(name)).replace(/\r\n/g, "\n")).toBe(value);
    for (const [name, file] of Object.entries(files)) {
      const read = form.get(name) as File;
      expect(new Uint8Array(await read.arrayBuffer())).toEqual(file.bytes);
      expect(decodeURIComponent(read.name.replaceAll("%22", '"'))).toBe(file.name);
    }
  });

  it("is the same bytes when it is asked for again, and others when anything differs", async () => {
    const { ada, seen } = serve(job);
    await ada.vectors.derive(fields, files, "key-1");
    await ada.vectors.derive(fields, files, "key-1");
    await ada.vectors.derive({ ...fields, layers: "0" }, files, "key-1");
    const [first, again, other] = await Promise.all(
      seen.map(async (request) => [request.headers.get("content-type"), await request.text()]),
    );
    expect(again).toEqual(first);
    expect(other?.[0]).not.toEqual(first?.[0]);
  });

  it("with a field that has another form's boundary in it is still one form", async () => {
    const { ada, seen } = serve(job);
    await ada.vectors.derive(fields, files, "key-1");
    const boundary = /boundary=(\w+)/.exec(seen[0]?.headers.get("content-type") ?? "")?.[1];
    const text = `x\r\n--${boundary}\r\ncontent-disposition: form-data; name="visibility"\r\n\r\npublic\r\n--${boundary}--`;
    await ada.vectors.derive({ ...fields, vectorLabel: text }, files, "key-2");
    const form = await seen[1]?.formData();
    expect([form?.get("visibility"), form?.get("vectorLabel")]).toEqual([null, text]);
  });
});

describe("a sweep", () => {
  it("asks to be a job, and its plot is bytes", async () => {
    const body = {
      ...{ modelId: "m", prompts: ["One day"], strengths: [-8, 8], methods: ["SIMPLE_ADDITIVE"] as const, seeds: [1] },
      ...{ directions: [{ modelId: "m", layer: "3-a", index: 0, label: "Joy" }], temperature: 0.7, freq_penalty: 0, n_tokens: 8 },
    };
    const sent = serve(job);
    await sent.ada.startSweep(body, "key-1");
    expect(sent.seen.map(({ url }) => new URL(url).pathname)).toEqual(["/api/sweeps"]);
    expect(await sent.seen[0]?.json()).toEqual(body);
    expect(sent.seen[0]?.headers.get("idempotency-key")).toBe("key-1");

    const png = new Uint8Array([137, 80, 78, 71]);
    const drawn = serve(() => new Response(png));
    expect(await drawn.ada.sweepPlot("s1")).toEqual(png);
    expect(new URL(drawn.seen[0]?.url ?? "").pathname).toBe("/sweep/s1/plot.png");
  });

  it("whose plot breaks off, or is not there, fails with a sentence", async () => {
    const broken = () => new Response(new ReadableStream({ pull: (controller) => controller.error(new Error("gone")) }));
    await expect(serve(broken).ada.sweepPlot("s1")).rejects.toMatchObject({ code: "engine_unavailable" });
    const missing = () => Response.json({ code: "not_found", message: "There is no sweep." }, { status: 404 });
    await expect(serve(missing).ada.sweepPlot("s1")).rejects.toMatchObject({ code: "not_found", message: "There is no sweep." });
  });
});
