import { describe, expect, it } from "vitest";
import { boundaryOf, formatPoint, parsePoint, parseSource } from "./address.ts";
import { decodeFloat32, encodeFloat32 } from "./base64.ts";
import { ERRORS, TillerError } from "./errors.ts";
import { Edit, fromEngineError, GenerateRequest, toEngineError } from "./protocol.ts";
import { formatEvent, PING, parseEvents } from "./sse.ts";

describe("points and sources", () => {
  it("round-trip through their names", () => {
    for (const name of ["blocks.0.hook_resid_pre", "blocks.11.hook_resid_post"]) expect(formatPoint(parsePoint(name))).toBe(name);
  });

  it("resid_pre of a layer and resid_post of the one before are the same boundary", () => {
    expect(boundaryOf(parsePoint("blocks.3.hook_resid_pre"), 6)).toBe(boundaryOf(parsePoint("blocks.2.hook_resid_post"), 6));
    expect(boundaryOf(parsePoint("blocks.5.hook_resid_post"), 6)).toBe(6);
  });

  it("refuse what is not a residual point of the model, naming what is", () => {
    for (const name of ["blocks.1.attn.hook_z", "blocks.-1.hook_resid_pre", "blocks.1.hook_resid_pre ", "hook_embed"]) {
      expect(() => parsePoint(name)).toThrow(/blocks\.L\.hook_resid_pre or blocks\.L\.hook_resid_post/);
    }
    expect(() => boundaryOf(parsePoint("blocks.6.hook_resid_pre"), 6)).toThrow(/its layers are 0 to 5/);
  });

  it("read the layer of a source before its first dash", () => {
    expect(parseSource("6-res-jb")).toEqual({ layer: 6, name: "res-jb" });
    for (const id of ["res-jb", "6", "6-", "-6-a", "6_res", "6-../x"]) expect(parseSource(id)).toBeUndefined();
  });
});

describe("base64 float32", () => {
  it("round-trips long vectors bit for bit, little-endian", () => {
    const values = Float32Array.from({ length: 24_576 }, (_, i) => Math.sin(i) * 10 ** ((i % 60) - 30));
    expect(decodeFloat32(encodeFloat32(values))).toEqual(values);
    expect(encodeFloat32([1])).toBe("AACAPw==");
  });

  it("refuses text that is not whole float32 values", () => {
    for (const text of ["", "!!!", "AAAA", "AACAPwA="]) expect(decodeFloat32(text)).toBeUndefined();
  });
});

describe("server-sent events", () => {
  const stream = (chunks: readonly Uint8Array[]) =>
    new ReadableStream<Uint8Array>({
      start(controller) {
        for (const chunk of chunks) controller.enqueue(chunk);
        controller.close();
      },
    });
  const collect = async (chunks: readonly Uint8Array[]) => {
    const events = [];
    for await (const event of parseEvents(stream(chunks))) events.push(event);
    return events;
  };
  const bytes = new TextEncoder().encode(
    `${PING}${formatEvent("token", { text: "né\n🙂" })}data: plain\r\n\r\nevent: x\ndata: a\ndata: b\n\ndata: unfinished`,
  );
  const wanted = [
    { event: "token", data: JSON.stringify({ text: "né\n🙂" }) },
    { event: "message", data: "plain" },
    { event: "x", data: "a\nb" },
  ];

  it("parse the same however the bytes are cut", async () => {
    expect(await collect([bytes])).toEqual(wanted);
    for (let cut = 1; cut < bytes.length; cut++) expect(await collect([bytes.slice(0, cut), bytes.slice(cut)])).toEqual(wanted);
    expect(await collect(Array.from(bytes, (byte) => Uint8Array.of(byte)))).toEqual(wanted);
  });

  it("a reader that stops closes the connection", async () => {
    let cancelled = false;
    const body = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new TextEncoder().encode(formatEvent("token", 1))),
      cancel: () => {
        cancelled = true;
      },
    });
    for await (const _event of parseEvents(body)) break;
    expect(cancelled).toBe(true);
  });
});

describe("the engine protocol", () => {
  const edit = { vector: "AACAPw==", point: "blocks.0.hook_resid_pre", method: "ABLATE", strength: 0 };
  const refused = (value: object) => Edit.safeParse(value).success === false;

  it("refuses an edit with two directions, none, or an option its method does not have", () => {
    expect(Edit.safeParse(edit).success).toBe(true);
    expect(refused({ ...edit, feature: { model: "m", source: "0-x", index: 0 } })).toBe(true);
    expect(refused({ method: "ABLATE", strength: 0 })).toBe(true);
    expect(refused({ ...edit, point: undefined })).toBe(true);
    expect(refused({ ...edit, max: 1 })).toBe(true);
    expect(refused({ ...edit, method: "PROJECTION_CLAMP" })).toBe(true);
    expect(refused({ ...edit, method: "PROJECTION_CLAMP", min: 2, max: 1 })).toBe(true);
    expect(refused({ ...edit, schedule: "decay" })).toBe(true);
    expect(refused({ ...edit, strength: Number.POSITIVE_INFINITY })).toBe(true);
    expect(refused({ ...edit, positions: [[3, 3]] })).toBe(true);
  });

  it("refuses rows with the same name and fields it does not know", () => {
    const request = { model: "m", prompt: "p", rows: [{ name: "A", edits: [] }], sampling: { temperature: 1, seed: 1 }, max_tokens: 1 };
    expect(GenerateRequest.safeParse(request).success).toBe(true);
    expect(GenerateRequest.safeParse({ ...request, rows: [...request.rows, ...request.rows] }).success).toBe(false);
    expect(GenerateRequest.safeParse({ ...request, n: 2 }).success).toBe(false);
  });

  it("takes a prompt or messages, not both and not neither", () => {
    const { prompt, ...request } = {
      model: "m",
      prompt: "p",
      rows: [{ name: "A", edits: [] }],
      sampling: { temperature: 1, seed: 1 },
      max_tokens: 1,
    };
    const messages = [{ role: "user", content: "Hello" }];
    const accepted = (more: object) => GenerateRequest.safeParse({ ...request, ...more }).success;
    expect([accepted({ prompt }), accepted({ messages }), accepted({}), accepted({ prompt, messages })]).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });

  it("keeps an error's code, words and retry time across the wire", () => {
    const error = new TillerError("engine_busy", "full", { retryAfterSeconds: 7 });
    expect(fromEngineError(JSON.parse(JSON.stringify(toEngineError(error))))).toMatchObject({
      code: "engine_busy",
      message: "full",
      retryAfterSeconds: 7,
      status: 503,
    });
    expect(fromEngineError({ error: { code: "surprise", message: "secret detail" } })).toMatchObject({
      code: "engine_failed",
      message: ERRORS.engine_failed.sentence,
    });
  });

  it("hides the words of a foreign error and keeps it as the cause", () => {
    const foreign = new Error("password=hunter2");
    expect(TillerError.from(foreign)).toMatchObject({ code: "internal", message: ERRORS.internal.sentence, cause: foreign });
  });
});
