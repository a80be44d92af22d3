import { expect, it } from "vitest";
import { DosePlot } from "./plot-dose.tsx";
import { picture } from "./plot-parts.tsx";
import { FONT_FAMILY, toPng } from "./png.ts";
import { testSweep } from "./test-result.ts";

interface Image {
  readonly width: number;
  readonly height: number;
  /** RGBA at a pixel. */
  at(x: number, y: number): readonly number[];
}

/** PNG (W3C), 8 bits RGBA without interlacing: its chunks, and its rows through their filters. */
async function decode(png: Uint8Array): Promise<Image> {
  expect([...png.subarray(0, 8)]).toEqual([137, 80, 78, 71, 13, 10, 26, 10]);
  const view = new DataView(png.buffer, png.byteOffset);
  const data: Uint8Array[] = [];
  let header: DataView | undefined;
  for (let at = 8; at < png.length; at += 12 + view.getUint32(at)) {
    const kind = String.fromCharCode(...png.subarray(at + 4, at + 8));
    const content = png.slice(at + 8, at + 8 + view.getUint32(at));
    if (kind === "IHDR") header = new DataView(content.buffer);
    if (kind === "IDAT") data.push(content);
  }
  const [width, height] = [header?.getUint32(0) ?? 0, header?.getUint32(4) ?? 0];
  expect([header?.getUint8(8), header?.getUint8(9), header?.getUint8(12)]).toEqual([8, 6, 0]);
  const raw = new Uint8Array(await new Response(new Blob(data).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
  const row = width * 4;
  const pixels = new Uint8Array(row * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (row + 1)];
    for (let i = 0; i < row; i++) {
      const left = i >= 4 ? (pixels[y * row + i - 4] ?? 0) : 0;
      const up = y > 0 ? (pixels[(y - 1) * row + i] ?? 0) : 0;
      const corner = i >= 4 && y > 0 ? (pixels[(y - 1) * row + i - 4] ?? 0) : 0;
      const guess = left + up - corner;
      const [toLeft, toUp, toCorner] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
      const paeth = toLeft <= toUp && toLeft <= toCorner ? left : toUp <= toCorner ? up : corner;
      const predicted = [0, left, up, (left + up) >> 1, paeth][filter ?? 0] ?? 0;
      pixels[y * row + i] = (raw[y * (row + 1) + 1 + i] ?? 0) + predicted;
    }
  }
  return { width, height, at: (x, y) => [...pixels.subarray(4 * (y * width + x), 4 * (y * width + x) + 4)] };
}

const PAPER = [251, 250, 247, 255];

it("draws an SVG at the size that is asked for, shapes where they are", async () => {
  const svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 10"><rect x="10" y="5" width="10" height="5" fill="#ff0000"/></svg>';
  const { width, height, at } = await decode(await toPng(svg, 200));
  expect([width, height]).toEqual([200, 100]);
  expect([at(150, 75), at(150, 25), at(50, 75)]).toEqual([
    [255, 0, 0, 255],
    [0, 0, 0, 0],
    [0, 0, 0, 0],
  ]);
});

it("draws letters with the font it brings along, and not boxes for want of one", async () => {
  const inkOf = async (text: string) => {
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 40"><text y="30" font-size="30" font-family="${FONT_FAMILY}">${text}</text></svg>`;
    const { width, height, at } = await decode(await toPng(svg, 100));
    return Array.from({ length: width * height }, (_, i) => at(i % width, Math.floor(i / width))[3] ?? 0).join();
  };
  const texts = await Promise.all(["", "a", "b", "\u2212", "×", "…", "ж", "λ"].map(inkOf));
  expect(new Set(texts).size).toBe(texts.length);
});

it("draws a plot: paper, lines in their colours, letters", async () => {
  const result = testSweep();
  const theme = picture(FONT_FAMILY);
  const { width, height, at } = await decode(
    await toPng(String(DosePlot({ result, theme, width: 800, height: 450, title: "Strengths of joy" })), 1200),
  );
  expect([width, height, at(2, 2), at(1197, 672)]).toEqual([1200, 675, PAPER, PAPER]);
  const colours = new Map<string, number>();
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const colour = `#${at(x, y)
        .slice(0, 3)
        .map((part) => part.toString(16).padStart(2, "0"))
        .join("")}`;
      colours.set(colour, (colours.get(colour) ?? 0) + 1);
    }
  for (const colour of [theme.series[0], theme.ink, theme.warn, theme.line]) expect(colours.get(colour ?? "")).toBeGreaterThan(100);
  expect(colours.get(theme.paper)).toBeGreaterThan(0.85 * width * height);
  expect(colours.get(theme.paper)).toBeLessThan(0.99 * width * height);
});
