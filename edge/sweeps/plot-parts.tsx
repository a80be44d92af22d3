// What both plots of a sweep are made of: colours, markers, texts that know how wide they are.
import { clean } from "./plot-data.ts";

/** Colours and font: CSS variables where the page decides, fixed ones in a picture. */
export interface Theme {
  readonly ink: string;
  readonly quiet: string;
  readonly line: string;
  readonly paper: string;
  /** Of lines that have no colour of their own. */
  readonly faint: string;
  readonly warn: string;
  /** Of the heat map, at its hottest. */
  readonly heat: string;
  /** One for each line that has a colour of its own. */
  readonly series: readonly string[];
  readonly font: string;
}

export const PAGE: Theme = {
  ...{
    ink: "var(--ink)",
    quiet: "var(--quiet)",
    line: "var(--line)",
    paper: "var(--paper)",
    faint: "var(--faint)",
    warn: "var(--warn)",
    heat: "var(--heat)",
  },
  series: ["var(--s1)", "var(--s2)", "var(--s3)", "var(--s4)", "var(--s5)", "var(--s6)"],
  font: "ui-sans-serif, system-ui, sans-serif",
};

/** The page's light colours. */
export const picture = (font: string): Theme => ({
  ...{ ink: "#1c2024", quiet: "#5d6670", line: "#d9d6cf", paper: "#fbfaf7", faint: "#b4b6b6", warn: "#b3372f", heat: "#62a6ad" },
  series: ["#1f6f78", "#c2571a", "#5a4fb0", "#a07a00", "#b0336e", "#4c7a2a"],
  font,
});

export const SIZE = 13;

/** About how wide a text is, rather more than less; exact widths would need the reader's font. */
export function widthOf(text: string, size = SIZE): number {
  let ems = 0;
  for (const char of text) ems += /[ilj.,:;'|!()[\] ]/.test(char) ? 0.36 : /[mwMW%…]/.test(char) ? 0.92 : char < "\u2e80" ? 0.62 : 1.05;
  return ems * size;
}

/** As much of a text as has room: the beginning, and of a name also the end, which is what tells it from others. */
export function shorten(text: string, width: number, { size = SIZE, isName = false } = {}): string {
  const chars = [...clean(text).replace(/\s+/g, " ").slice(0, 400)];
  const shown = (most: number): string => {
    if (most >= chars.length) return chars.join("");
    const tail = isName ? Math.floor(most * 0.6) : 0;
    return `${chars.slice(0, most - 1 - tail).join("")}…${chars.slice(chars.length - tail).join("")}`;
  };
  let most = chars.length;
  while (most > 1 && widthOf(shown(most), size) > width) most--;
  return shown(most);
}

/** A shape for each line, so that colour is not all that tells them apart; around 0, 0. */
const SHAPES = [
  "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
  "M-3.6 -3.6H3.6V3.6H-3.6Z",
  "M0 -4.8L4.6 3.6H-4.6Z",
  "M0 -5.2L5.2 0L0 5.2L-5.2 0Z",
  "M0 4.8L4.6 -3.6H-4.6Z",
  "M-1.5 -4.6H1.5V-1.5H4.6V1.5H1.5V4.6H-1.5V1.5H-4.6V-1.5H-1.5Z",
];

/** @param place of a line among those with a colour; undefined for a grey one. */
export const colourOf = (theme: Theme, place: number | undefined): string =>
  place === undefined ? theme.faint : (theme.series[place] ?? theme.faint);

export const Marker = ({ theme, place }: { theme: Theme; place: number | undefined }) =>
  place === undefined ? (
    <circle r="2.5" fill={theme.faint} />
  ) : (
    <path d={SHAPES[place] ?? SHAPES[0]} fill={colourOf(theme, place)} stroke={theme.paper} stroke-width="1" />
  );

export const BaselineMarker = ({ theme }: { theme: Theme }) => (
  <path d="M0 -6L6 0L0 6L-6 0Z" fill={theme.paper} stroke={theme.ink} stroke-width="1.5" />
);

/** A line with its marker, as the legend shows it; 24 wide. */
const Sample = ({ theme, place }: { theme: Theme; place: number | undefined }) => (
  <>
    <path d="M0 0H24" stroke={colourOf(theme, place)} stroke-width="2" />
    <g transform="translate(12 0)">
      <Marker theme={theme} place={place} />
    </g>
  </>
);

export interface LegendItem {
  readonly text: string;
  readonly of: { readonly place: number | undefined } | "baseline";
}

export const LEGEND_ROW = 21;
const SAMPLE = 30;
const GAP = 20;

/** Where each item of a legend goes: rows from the left, as many as it takes. */
export function layOut(
  items: readonly LegendItem[],
  width: number,
): { readonly rows: number; readonly places: readonly (LegendItem & { x: number; row: number })[] } {
  let [x, row] = [0, 0];
  const places = items.map((item) => {
    const text = shorten(item.text, width - SAMPLE, { isName: true });
    const needed = SAMPLE + widthOf(text);
    if (x > 0 && x + needed > width) [x, row] = [0, row + 1];
    const place = { ...item, text, x, row };
    x += needed + GAP;
    return place;
  });
  return { rows: places.length === 0 ? 0 : row + 1, places };
}

export const Legend = (props: { theme: Theme; x: number; y: number; places: ReturnType<typeof layOut>["places"] }) => (
  <g>
    {props.places.map(({ x, row, text, of }) => (
      <g transform={`translate(${round(props.x + x)} ${round(props.y + row * LEGEND_ROW)})`}>
        {of === "baseline" ? (
          <g transform="translate(12 0)">
            <BaselineMarker theme={props.theme} />
          </g>
        ) : (
          <Sample theme={props.theme} place={of.place} />
        )}
        <text x={SAMPLE} y="4.5" fill={props.theme.ink}>
          {text}
        </text>
      </g>
    ))}
  </g>
);

/** Tenths of a pixel are enough. */
export const round = (value: number): number => Math.round(value * 10) / 10;
