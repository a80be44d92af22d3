// The dose-response plot: success and perplexity against strength, in two panels over one axis, as SVG without a script.
import type { CellMetrics, SweepResult } from "./contract.ts";
import { describeBaseline, describeCell, type Measure, measureOf, type Series, seriesOf, short } from "./plot-data.ts";
import {
  BaselineMarker,
  colourOf,
  LEGEND_ROW,
  Legend,
  type LegendItem,
  layOut,
  Marker,
  round,
  SIZE,
  shorten,
  type Theme,
  widthOf,
} from "./plot-parts.tsx";
import { formatNumber, linear, logarithmic, type Scale } from "./scale.ts";

export interface DoseProps {
  readonly result: SweepResult;
  readonly theme: Theme;
  /** In the SVG's own units: what the letters, of 13 units, are sized for. */
  readonly width: number;
  /** Absent: as high as looks well. */
  readonly height?: number;
  /** Above the plot, where it stands alone. */
  readonly title?: string;
}

/** A factor between the least and the greatest perplexity from which on their axis is logarithmic. */
const LOGARITHMIC_FROM = 4;
/** A bound so many times above everything is not drawn. */
const FAR = 10;
const [LEFT, RIGHT, PANEL_GAP, AXIS] = [54, 14, 30, 46];
/** A line of letters with its gap: of the headings, and of what is said of the suggested point. */
const [HEADING, NOTE] = [24, 24];

/** One of the two panels: a number of each cell against strength. */
interface Panel {
  readonly name: Measure["name"] | "perplexity";
  readonly heading: string;
  /** Where the heading stands. */
  readonly line: number;
  readonly of: (metrics: CellMetrics | null) => number | null;
  readonly top: number;
  readonly bottom: number;
  readonly scale: Scale;
  /** A horizontal line with its words. */
  readonly bound?: number | undefined;
}

export const DosePlot = (props: DoseProps) => {
  const { result, theme, width, title } = props;
  const series = seriesOf(result);
  const legend = layOut(legendOf(series), width - LEFT - RIGHT);
  const top = title === undefined ? 0 : 40;
  const below = AXIS + legend.rows * LEGEND_ROW + (title === undefined ? 0 : 8);
  const room = (props.height ?? (width < 500 ? 440 : 500) + legend.rows * LEGEND_ROW) - top - below;
  const panels = panelsOf(result, top, room, width);
  const end = panels.at(-1)?.bottom ?? top;
  const x = linear({
    values: [0, ...result.strengths],
    tight: true,
    range: [LEFT + 10, width - RIGHT - 10],
    ticks: Math.max(2, Math.floor((width - LEFT - RIGHT) / 75)),
  });
  const height = end + below;
  return (
    <svg
      {...{
        xmlns: "http://www.w3.org/2000/svg",
        viewBox: `0 0 ${width} ${height}`,
        role: "img",
        "font-size": SIZE,
        "font-family": theme.font,
      }}
      aria-label={`${panels.map(({ heading }) => heading).join("; ")}; against strength`}
    >
      {title === undefined ? null : (
        <>
          <rect width={width} height={height} fill={theme.paper} />
          <text x={LEFT} y="31" font-size="19" fill={theme.ink}>
            {shorten(title, width - LEFT - RIGHT, { size: 19 })}
          </text>
        </>
      )}
      {panels.map((panel) => (
        <Frame {...{ panel, x, theme, width }} />
      ))}
      <Strengths {...{ x, theme, y: end }} />
      <Suggested {...{ result, x, theme, width, panels }} />
      {panels.map((panel) => (
        <Lines {...{ result, series, panel, x, theme }} />
      ))}
      <Legend theme={theme} x={LEFT} y={end + AXIS + 8} places={legend.places} />
    </svg>
  );
};

function panelsOf(result: SweepResult, top: number, room: number, width: number): Panel[] {
  const { baseline, cells, maxPerplexityRatio } = result;
  const measure = measureOf(result);
  const every = (of: Panel["of"]) => [baseline, ...cells].map(({ metrics }) => of(metrics)).filter((value) => value !== null);
  const ratioOf: Panel["of"] = (metrics) => metrics?.perplexityRatio ?? null;
  const ratios = every(ratioOf).filter((ratio) => ratio > 0);
  const shares = ratios.length === 0 ? [1] : [0.57, 0.43];
  const start = top + HEADING + (result.suggested === null ? 0 : NOTE);
  const between = HEADING + PANEL_GAP;
  const heights = shares.map((share) => share * (room - (start - top) - (shares.length - 1) * between));
  const tops = [start, start + between + (heights[0] ?? 0)].map(round);
  const frame = (place: number) => ({ top: tops[place] ?? 0, bottom: round((tops[place] ?? 0) + (heights[place] ?? 0)) });
  const axis = (place: number, values: readonly number[], unit: string) => {
    const { top, bottom } = frame(place);
    return { values, unit, range: [bottom, top] as const, ticks: Math.max(2, Math.floor((bottom - top) / 36)) };
  };
  const first: Panel = {
    ...{ name: measure.name, of: measure.of, line: top + 14, ...frame(0) },
    heading: measure.name === "success" ? "Success, share of the texts" : "Activation, mean over tokens",
    scale: linear(axis(0, measure.name === "success" ? [0, 100] : [0, ...every(measure.of)], measure.unit)),
  };
  if (ratios.length === 0) return [first];
  const bound = maxPerplexityRatio <= FAR * Math.max(1, ...ratios) ? maxPerplexityRatio : undefined;
  const values = [1, ...ratios, ...(bound === undefined ? [] : [bound])];
  const isLog = Math.max(...values) > LOGARITHMIC_FROM * Math.min(...values);
  const heading = `Perplexity, × baseline${isLog ? ", log scale" : ""}`;
  return [
    first,
    {
      ...{ name: "perplexity", of: ratioOf, line: (tops[1] ?? 0) - 11, ...frame(1), bound },
      heading: shorten(heading, width - LEFT - RIGHT),
      scale: (isLog ? logarithmic : linear)(axis(1, values, "×")),
    },
  ];
}

function legendOf(series: readonly Series[]): LegendItem[] {
  const others = series.filter(({ place }) => place === undefined).length;
  return [
    ...series.filter(({ place }) => place !== undefined).map(({ name, place }) => ({ text: name, of: { place } })),
    ...(others === 0 ? [] : [{ text: others === 1 ? "another one" : `${others} others`, of: { place: undefined } }]),
    { text: "baseline", of: "baseline" as const },
  ];
}

/** A panel's heading, its axis, and the bound. */
const Frame = ({ panel, x, theme, width }: { panel: Panel; x: Scale; theme: Theme; width: number }) => {
  const { heading, line, scale, top, bottom, bound } = panel;
  const y = bound === undefined ? 0 : round(scale.at(bound));
  return (
    <g>
      <text x={LEFT} y={line} fill={theme.quiet}>
        {heading}
      </text>
      {scale.ticks.map(({ value, label }) => (
        <>
          <path d={`M${LEFT} ${round(scale.at(value))}H${width - RIGHT}`} stroke={theme.line} />
          <text x={LEFT - 8} y={round(scale.at(value) + 4.5)} text-anchor="end" fill={theme.quiet}>
            {label}
          </text>
        </>
      ))}
      <path d={`M${LEFT} ${bottom}H${width - RIGHT}`} stroke={theme.line} />
      {x.domain[0] < 0 ? <path d={`M${round(x.at(0))} ${top}V${bottom}`} stroke={theme.line} /> : null}
      {bound === undefined ? null : (
        <g class="bound">
          <path d={`M${LEFT} ${y}H${width - RIGHT}`} stroke={theme.warn} stroke-width="1.5" stroke-dasharray="6 4" />
          <text {...halo(theme)} x={x.domain[0] < 0 ? round(x.at(0)) + 6 : LEFT + 6} y={y - 5} fill={theme.warn}>
            {`bound ${short(bound)}×`}
          </text>
        </g>
      )}
    </g>
  );
};

/** The axis that both panels stand on. */
const Strengths = ({ x, theme, y }: { x: Scale; theme: Theme; y: number }) => (
  <g fill={theme.quiet} text-anchor="middle">
    {x.ticks.map(({ value, label }) => (
      <>
        <path d={`M${round(x.at(value))} ${y}v5`} stroke={theme.quiet} />
        <text x={round(x.at(value))} y={y + 20}>
          {label}
        </text>
      </>
    ))}
    <text x={round((x.at(x.domain[0]) + x.at(x.domain[1])) / 2)} y={y + 38}>
      strength
    </text>
  </g>
);

/** The suggested strength: a line through both panels, with the numbers on top. */
const Suggested = (props: { result: SweepResult; x: Scale; theme: Theme; width: number; panels: readonly Panel[] }) => {
  const { result, x, theme, width, panels } = props;
  const cell = result.cells[result.suggested?.cell ?? -1];
  const [first] = panels;
  if (cell === undefined || first === undefined) return null;
  const at = round(x.at(cell.strength));
  const said = (long: boolean): string => {
    const values = panels.flatMap(({ of, name }) => {
      const value = of(cell.metrics);
      const unit = name === "perplexity" ? "×" : measureOf(result).unit;
      return value === null ? [] : [`${short(value)}${unit}${long ? ` ${name}` : ""}`];
    });
    return `suggested: ${formatNumber(cell.strength)} (${values.join(", ")})`;
  };
  const room = width - LEFT - RIGHT;
  const words = shorten(said(widthOf(said(true)) <= room), room);
  // In the middle over its line, unless it would leave the picture.
  const half = widthOf(words) / 2;
  const middle = round(Math.min(Math.max(at, LEFT + half), Math.max(width - RIGHT - half, LEFT + half)));
  return (
    <g class="suggested">
      <text x={middle} y={first.top - 14} text-anchor="middle" fill={theme.ink}>
        {words}
      </text>
      <path d={`M${at} ${first.top - 9}V${panels.at(-1)?.bottom}`} stroke={theme.ink} stroke-width="1" stroke-dasharray="2 3" />
    </g>
  );
};

/** What was found, as lines with points: grey ones below those with a colour, the suggested one above all. */
const Lines = (props: { result: SweepResult; series: readonly Series[]; panel: Panel; x: Scale; theme: Theme }) => {
  const { result, series, panel, x, theme } = props;
  const baseline = panel.of(result.baseline.metrics);
  const y = (value: number) => round(panel.scale.at(value));
  const depth = ({ place = series.length, cells }: Series) => (cells.some(({ index }) => index === result.suggested?.cell) ? -1 : place);
  return (
    <g class={panel.name}>
      {[...series]
        .sort((a, b) => depth(b) - depth(a))
        .map(({ place, cells }) => (
          <>
            <path d={pathOf(cells, panel, x)} fill="none" stroke={colourOf(theme, place)} stroke-width={place === undefined ? 1 : 2} />
            {cells.map(({ cell, index }) => {
              const value = panel.of(cell.metrics);
              return value === null ? null : (
                <g transform={`translate(${round(x.at(cell.strength))} ${y(value)})`} data-cell={index}>
                  <title>{describeCell(result, cell)}</title>
                  <circle r="9" fill="transparent" />
                  {index === result.suggested?.cell ? <circle r="8.5" fill="none" stroke={theme.ink} stroke-width="2" /> : null}
                  <Marker theme={theme} place={place} />
                </g>
              );
            })}
          </>
        ))}
      {baseline === null ? null : (
        <g transform={`translate(${round(x.at(0))} ${y(baseline)})`} data-cell="baseline">
          <title>{describeBaseline(result)}</title>
          <BaselineMarker theme={theme} />
        </g>
      )}
    </g>
  );
};

/** A gap where a cell has no number. */
function pathOf(cells: Series["cells"], { of, scale }: Panel, x: Scale): string {
  let pen = "M";
  return cells
    .map(({ cell }) => {
      const value = of(cell.metrics);
      const step = value === null ? "" : `${pen}${round(x.at(cell.strength))} ${round(scale.at(value))}`;
      pen = value === null ? "M" : "L";
      return step;
    })
    .join("");
}

/** Letters that stay readable on lines. */
const halo = (theme: Theme) => ({ stroke: theme.paper, "stroke-width": 4, "stroke-linejoin": "round", "paint-order": "stroke" });
