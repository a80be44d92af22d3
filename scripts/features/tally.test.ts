import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { extremes } from "./describe.ts";
import { automaticLabel } from "./label.ts";
import { BINS, SPAN, Tally } from "./tally.ts";
import { openText, readDocuments, readWindows } from "./texts.ts";

/** One window of one latent. */
const add = (tally: Tally, window: number, values: readonly number[], ids: readonly number[] = values.map((_, t) => 1000 * window + t)) =>
  tally.add(window, ids, Float32Array.from(values));

describe("a histogram", () => {
  it("has the same bins whatever the order of the values, and loses none", () => {
    const values = Array.from({ length: 500 }, (_, i) => Math.fround(Math.abs(Math.sin(i * 1.3)) ** 5 * (i % 7 === 0 ? 90 : 2)));
    const orders = [values, values.toReversed(), values.toSorted((a, b) => a - b)];
    const found = orders.map((order) => {
      const tally = new Tally(1, 1);
      for (const [window, value] of order.entries()) add(tally, window, [value]);
      return tally.histogramOf(0);
    });
    expect(found[1]).toEqual(found[0]);
    expect(found[2]).toEqual(found[0]);
    const { width, counts } = found[0] as { width: number; counts: number[] };
    const active = values.filter((value) => value > 0);
    expect(counts.reduce((a, b) => a + b)).toBe(active.length);
    const wanted = counts.map((_, k) => active.filter((value) => Math.floor(value / width) === k).length);
    expect(counts).toEqual(wanted);
    expect(counts.length).toBeGreaterThan(BINS / 2);
  });

  it.each([1, 40, 39.999, 2 ** -20, 1e30, 0.3])("begins with the least width of a power of two that holds %s", (value) => {
    const tally = new Tally(1, 1);
    add(tally, 0, [value]);
    const { width, counts } = tally.histogramOf(0);
    expect(Number.isInteger(Math.log2(width))).toBe(true);
    expect(Math.fround(value) < BINS * width && Math.fround(value) >= (BINS / 2) * width).toBe(true);
    expect(counts.at(-1)).toBe(1);
  });

  it("of a latent that was active nowhere is empty", () => {
    expect(new Tally(1, 1).histogramOf(0)).toEqual({ width: 0, counts: [] });
  });
});

describe("examples", () => {
  const peaks = (tally: Tally) => tally.examplesOf(0).map(({ ids, values }) => [ids[0], Math.max(...values)]);

  it("are the most active windows, the first of equals", () => {
    const tally = new Tally(1, 3);
    for (const [window, peak] of [1, 5, 5, 0, 7, 5, 6].entries()) add(tally, window, [0, peak]);
    expect(peaks(tally)).toEqual([
      [4000, 7],
      [6000, 6],
      [1000, 5],
    ]);
  });

  it("show no text twice, but where it was most active", () => {
    const tally = new Tally(1, 3);
    add(tally, 0, [2, 0], [8, 9]);
    add(tally, 1, [4, 0], [8, 9]);
    add(tally, 2, [3, 0], [8, 9]);
    add(tally, 3, [1, 0], [7, 9]);
    expect(peaks(tally)).toEqual([
      [8, 4],
      [7, 1],
    ]);
  });

  it.each([
    [3, 0],
    [30, 15],
    [59, 60 - SPAN],
  ])("are cut so that what led to the peak at %s is seen", (peak, start) => {
    const tally = new Tally(1, 1);
    add(
      tally,
      0,
      Array.from({ length: 60 }, (_, t) => (t === peak ? 2 : 1)),
    );
    const [example] = tally.examplesOf(0);
    expect([example?.ids[0], example?.ids.length, example?.values.indexOf(2)]).toEqual([start, SPAN, peak - start]);
  });

  it("are never made of numbers that are none", () => {
    expect(() => add(new Tally(1, 1), 0, [1, Number.NaN])).toThrow(/feature 0 is NaN on token 1/);
    expect(() => add(new Tally(1, 1), 0, [Number.POSITIVE_INFINITY])).toThrow(/feature 0 is Infinity/);
  });
});

describe("an automatic label", () => {
  it.each([
    [[" cat", "Cat", "CAT ", " dog"], 'the token "cat"'],
    [[" cat", " dog", "Dog", " cow", " pig"], 'the tokens "cat", "dog", "cow"'],
    [["\n", "\n", " a"], 'the token "\\n"'],
    [[" a", " b"], 'the tokens "a", "b"'],
    [['"', ' "'], 'the token "\\""'],
  ])("of peaks at %j is %s", (tokens, label) => {
    expect(automaticLabel(tokens)).toBe(label);
  });

  it("is none where nothing was active", () => {
    expect(automaticLabel([])).toBeNull();
  });
});

describe("the ends of a list", () => {
  it("are those that sorting finds", () => {
    const logits = Float32Array.from({ length: 300 }, (_, i) => Math.round(Math.sin(i * 2.1) * 20));
    const sorted = [...logits.keys()].sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
    const reversed = [...logits.keys()].sort((a, b) => (logits[a] as number) - (logits[b] as number) || a - b);
    expect(extremes(logits)).toEqual([sorted.slice(0, 10), reversed.slice(0, 10)]);
    expect(extremes(Float32Array.from([1, 3, 2]))).toEqual([
      [1, 2, 0],
      [0, 2, 1],
    ]);
  });
});

describe("texts", () => {
  const write = (content: string) => {
    const folder = mkdtempSync(path.join(tmpdir(), "texts-"));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const file = path.join(folder, "t.txt");
    writeFileSync(file, content);
    return file;
  };
  const documents = async (content: string) => Array.fromAsync(readDocuments(await openText(write(content))));

  it("end at blank lines, or at marks where a file has them", async () => {
    expect(await documents("\n a\nb \n\n\n c\r\n \r\nd\n")).toEqual(["a\nb", "c", "d"]);
    expect(await documents("a\n\nb<|endoftext|>\n<|endoftext|>c\n")).toEqual(["a\n\nb", "c"]);
    expect(await documents(" \n")).toEqual([]);
  });

  it("are the same wherever the file is cut for reading, also within a character or a mark", async () => {
    // Files are read in pieces of 64 KiB.
    for (const shift of [0, 1, 2, 3, 5, 8]) {
      const long = Array.from({ length: 9000 }, (_, i) => `${"x".repeat(shift)}é${i}日本`);
      expect(await documents(long.join("\n\n"))).toEqual(long);
      expect(await documents(long.join("<|endoftext|>"))).toEqual(long);
      const start = "x".repeat(2 ** 16 - shift);
      expect(await documents(`${start}<|endoftext|>a\n\nb`)).toEqual([start, "a\n\nb"]);
    }
  });

  it("that never end are cut between words", async () => {
    const word = "word ".repeat(60_000);
    const found = await documents(word);
    expect(found.join(" ")).toBe(word.trim());
    expect(found.length).toBeGreaterThan(3);
    expect(await documents("y".repeat(200_000))).toHaveLength(4);
  });

  it("are read in windows, up to a limit", async () => {
    const file = await openText(write("abcde\n\nfg\n\nhij"));
    const encode = (text: string) => [...text].map((char) => char.charCodeAt(0));
    const windows = async (limit: number) =>
      (await Array.fromAsync(readWindows([file], encode, { context: 2, limit }))).map(
        ({ ids, document }) => `${document}${String.fromCharCode(...ids)}`,
      );
    expect(await windows(100)).toEqual(["0ab", "0cd", "0e", "1fg", "2hi", "2j"]);
    expect(await windows(6)).toEqual(["0ab", "0cd", "0e", "1f"]);
    expect(await windows(5)).toEqual(["0ab", "0cd", "0e"]);
  });
});
