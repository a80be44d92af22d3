// An SVG as a PNG: resvg in WebAssembly, with a font of its own, as a Worker has none.
import FONT from "@expo-google-fonts/source-sans-3/400Regular/SourceSans3_400Regular.ttf";
import { initWasm, Resvg } from "@resvg/resvg-wasm";
import RESVG from "@resvg/resvg-wasm/index_bg.wasm";

export const FONT_FAMILY = "Source Sans 3";

let ready: Promise<void> | undefined;

/** @param width in pixels; the height follows from the SVG's viewBox. */
export async function toPng(svg: string, width: number): Promise<Uint8Array<ArrayBuffer>> {
  ready ??= initWasm(RESVG);
  await ready;
  const font = { fontBuffers: [new Uint8Array(FONT)], defaultFontFamily: FONT_FAMILY, sansSerifFamily: FONT_FAMILY };
  const drawing = new Resvg(svg, { font, fitTo: { mode: "width", value: width } });
  const image = drawing.render();
  try {
    // A copy, out of the module's memory.
    return new Uint8Array(image.asPng());
  } finally {
    image.free();
    drawing.free();
  }
}
