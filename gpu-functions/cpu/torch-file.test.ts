import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { fixtures } from "./fixture.ts";
import { readTensor } from "./safetensors.ts";
import { openTorch } from "./torch-file.ts";

const SAVED = path.join(fixtures, "saes", "sources", "2-openai-topk", "autoencoder.pt");
const temporary = mkdtempSync(path.join(tmpdir(), "torch-"));
afterAll(() => rmSync(temporary, { recursive: true }));

describe("a file of torch.save", () => {
  it("gives its tensors and the plain values beside them", () => {
    const file = openTorch(SAVED);
    expect([...file.tensors].map(([name, { dtype, shape }]) => [name, dtype, shape])).toEqual([
      ["pre_bias", "F32", [48]],
      ["latent_bias", "F32", [32]],
      ["stats_last_nonzero", "I64", [32]],
      ["encoder.weight", "F32", [32, 48]],
      // Saved as a view of its transpose.
      ["decoder.weight.T", "F32", [32, 48]],
    ]);
    expect(file.values.get("activation")).toBe("TopK");
    expect(file.values.get("activation_state_dict")).toEqual(
      new Map<string, string | number>([
        ["k", 6],
        ["postact_fn", "ReLU"],
      ]),
    );
    expect(readTensor(file, "latent_bias").every(Number.isFinite)).toBe(true);
  });

  it("is refused when it would run something, by the name of what it would run", () => {
    expect(() => openTorch(path.join(fixtures, "saes", "runs-code.pt"))).toThrow(
      /runs-code\.pt: its data\.pkl wants to use posix\.system, which is refused/,
    );
  });

  it("is refused with the file and a reason, whatever byte of its description is wrong", () => {
    const whole = readFileSync(SAVED);
    const start = whole.indexOf("\x80\x02", 0, "latin1");
    const end = whole.indexOf("PK", start, "latin1");
    expect(end - start).toBeGreaterThan(300);
    const name = path.join(temporary, "damaged.pt");
    let refused = 0;
    for (let at = start; at < end; at++) {
      for (const value of [0, 0x28, 0x52, 0xff]) {
        const bytes = Buffer.from(whole);
        bytes[at] = value;
        writeFileSync(name, bytes);
        try {
          openTorch(name);
        } catch (error) {
          refused++;
          expect((error as Error).message.startsWith(`${name}: `), `byte ${at - start} = ${value}: ${(error as Error).stack}`).toBe(true);
        }
      }
    }
    expect(refused).toBeGreaterThan(500);
  });

  it("is refused when it is none, or cut off", () => {
    const name = path.join(temporary, "cut.pt");
    for (const [bytes, message] of [
      [readFileSync(SAVED).subarray(0, 3000), /not a ZIP archive, or the end of it is missing/],
      [Buffer.from("\x80\x02}q\x00."), /not a ZIP archive/],
      [Buffer.alloc(0), /not a ZIP archive/],
    ] as const) {
      writeFileSync(name, bytes);
      expect(() => openTorch(name)).toThrow(message);
    }
    expect(() => openTorch(path.join(fixtures, "saes", "sources", "1-gemma-scope", "params.npz"))).toThrow(
      /no data\.pkl: it was not written by torch\.save/,
    );
  });
});
