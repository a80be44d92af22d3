// Dose and response as a picture: success and perplexity against strength, a line for each method. SVG, without a dependency.
import type { CellResult } from "./metrics.ts";

const [WIDTH, HEIGHT] = [460, 300];
const [LEFT, RIGHT, TOP, BOTTOM] = [52, 22, 34, 42];
const LEGEND = 30;
/** Told apart in print and by people who do not see all colours (Okabe and Ito). */
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
const TICKS = 5;

interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

interface Panel {
  readonly title: string;
  readonly x: string;
  readonly series: readonly Series[];
  /** Where the unsteered texts are. */
  readonly baseline: number | null;
  readonly format: (y: number) => string;
  /** The range of y, where it is known before. */
  readonly range?: readonly [number, number];
}

/** @param sides the names of the positive and the negative side. @param unit what strengths are counted in. */
export function plot(
  results: readonly CellResult[],
  title: string,
  sides: { readonly positive: string; readonly negative: string },
  unit: string,
): string {
  const [baseline, ...cells] = results;
  const methods = [...new Set(cells.map(({ method }) => method))];
  const seriesOf = (value: (cell: CellResult) => number | null): Series[] =>
    methods.map((method) => ({
      name: method,
      points: [...cells.filter((cell) => cell.method === method), ...(baseline === undefined ? [] : [baseline])]
        .sort((a, b) => a.strength - b.strength)
        .flatMap((cell) => {
          const y = value(cell);
          return y === null ? [] : [[cell.strength, y] as const];
        }),
    }));
  const percent = (y: number) => `${Math.round(100 * y)}%`;
  const x = `strength (${unit})`;
  const share = (side: "positive" | "negative"): Panel => ({
    ...{ title: `texts that are ${sides[side]}`, x, format: percent, range: [0, 1] },
    series: seriesOf(({ metrics }) => metrics[side]),
    baseline: baseline?.metrics[side] ?? null,
  });
  const perplexity: Panel = {
    ...{ title: "perplexity, geometric mean", x, format: short },
    series: seriesOf(({ metrics }) => metrics.perplexity_geometric),
    baseline: baseline?.metrics.perplexity_geometric ?? null,
  };
  const panels = [share("positive"), share("negative"), perplexity];
  const [width, height] = [panels.length * WIDTH, HEIGHT + LEGEND];
  const legend = methods.map((method, i) => {
    const at = LEFT + i * 150;
    return `<path d="M${at} 18h24" stroke="${colour(i)}" stroke-width="2"/><text x="${at + 30}" y="22">${escapeText(method)}</text>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="12" fill="#333">`,
    `<title>${escapeText(title)}</title>`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    ...legend,
    ...panels.map((panel, i) => `<g transform="translate(${i * WIDTH} ${LEGEND})">${draw(panel)}</g>`),
    "</svg>\n",
  ].join("\n");
}

const colour = (i: number): string => COLOURS[i % COLOURS.length] as string;
const escapeText = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const short = (y: number): string => (Math.abs(y) >= 1000 ? `${Number((y / 1000).toPrecision(2))}k` : String(Number(y.toPrecision(3))));
/** Tenths of a pixel. */
const px = (value: number): string => String(Math.round(10 * value) / 10);

function draw({ title, x, series, baseline, format, range }: Panel): string {
  const points = series.flatMap((each) => each.points);
  const [left, right] = bounds(points.map(([at]) => at));
  const [low, high] = range ?? bounds([...points.map(([, y]) => y), ...(baseline === null ? [] : [baseline]), 0]);
  const toX = (at: number) => LEFT + ((at - left) / (right - left)) * (WIDTH - LEFT - RIGHT);
  const toY = (y: number) => HEIGHT - BOTTOM - ((y - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const lines = ticks(low, high).map((y) => {
    const at = px(toY(y));
    return `<path d="M${LEFT} ${at}H${WIDTH - RIGHT}" stroke="#ddd"/><text x="${LEFT - 6}" y="${px(toY(y) + 4)}" text-anchor="end">${format(y)}</text>`;
  });
  const strengths = ticks(left, right).map(
    (at) => `<text x="${px(toX(at))}" y="${HEIGHT - BOTTOM + 16}" text-anchor="middle">${short(at)}</text>`,
  );
  const level = baseline === null ? "" : `<path d="M${LEFT} ${px(toY(baseline))}H${WIDTH - RIGHT}" stroke="#888" stroke-dasharray="4 4"/>`;
  const curves = series.map(({ points: own }, i) => {
    const path = own.map(([at, y], k) => `${k === 0 ? "M" : "L"}${px(toX(at))} ${px(toY(y))}`).join("");
    const dots = own.map(([at, y]) => `<circle cx="${px(toX(at))}" cy="${px(toY(y))}" r="2.5"/>`).join("");
    return `<g fill="${colour(i)}"><path d="${path}" fill="none" stroke="${colour(i)}" stroke-width="2"/>${dots}</g>`;
  });
  return [
    `<text x="${LEFT}" y="${TOP - 12}" font-weight="600">${escapeText(title)}</text>`,
    ...lines,
    ...strengths,
    `<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 8}" text-anchor="middle">${escapeText(x)}</text>`,
    level,
    ...curves,
  ].join("");
}

/** From the least to the greatest value, and never a range of nothing. */
function bounds(values: readonly number[]): [number, number] {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return values.length === 0 || low === high ? [(values[0] ?? 0) - 1, (values[0] ?? 0) + 1] : [low, high];
}

/** Round numbers within a range, about TICKS of them. */
function ticks(low: number, high: number): number[] {
  const rough = (high - low) / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}
