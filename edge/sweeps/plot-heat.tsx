// The heat map: columns by strengths, for one method, as SVG without a script.
import type { SweepCell, SweepResult } from "./contract.ts";
import { columnNames, describeCell, isOver, type Measure, measureOf, short } from "./plot-data.ts";
import { round, SIZE, shorten, type Theme, widthOf } from "./plot-parts.tsx";
import { formatNumber } from "./scale.ts";

export interface HeatProps {
  readonly result: SweepResult;
  readonly method: SweepCell["method"];
  readonly theme: Theme;
  /** What it should fit into; it is wider when there are more strengths than fit. */
  readonly width: number;
  /** Tells the SVG's pattern from those of others on the page. */
  readonly id: string;
}

const [ROW, LEAST_CELL, MOST_CELL, TOP] = [30, 34, 76, 46];
/** Of a width, what the names may take. */
const NAMES = 0.36;

export const HeatMap = ({ result, method, theme, width, id }: HeatProps) => {
  const names = columnNames(result.columns);
  const measure = measureOf(result);
  const strengths = [...new Set(result.strengths)].sort((a, b) => a - b);
  const left = Math.ceil(Math.min(NAMES * width, Math.max(widthOf("strength"), ...names.map((name) => widthOf(name))) + 14));
  const cell = Math.min(MOST_CELL, Math.max(LEAST_CELL, Math.floor((width - left) / strengths.length)));
  const [w, h] = [left + cell * strengths.length + 2, TOP + ROW * names.length + 2];
  const shade = shadesOf(result, measure);
  const places = new Map(strengths.map((strength, place) => [strength, place]));
  return (
    <svg
      {...{ xmlns: "http://www.w3.org/2000/svg", viewBox: `0 0 ${w} ${h}`, width: w, height: h, role: "img" }}
      {...{ "font-size": SIZE, "font-family": theme.font }}
      aria-label={`${measure.name} by column and strength, ${method}`}
    >
      <pattern id={id} width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
        <path d="M0 0V6" stroke={theme.quiet} stroke-width="2" stroke-opacity="0.4" />
      </pattern>
      <text x={left} y="16" fill={theme.quiet}>
        {shorten(measure.name === "success" ? "Success (%) by strength" : "Activation by strength", w - left)}
      </text>
      <g fill={theme.quiet} text-anchor="middle">
        {strengths.map((strength, place) => (
          <text x={round(left + cell * (place + 0.5))} y={TOP - 8}>
            {shorten(formatNumber(strength), cell - 2)}
          </text>
        ))}
      </g>
      <g fill={theme.ink}>
        {names.map((name, row) => (
          <text x={left - 10} y={TOP + ROW * (row + 0.5) + 4.5} text-anchor="end">
            <title>{name}</title>
            {shorten(name, left - 12, { isName: true })}
          </text>
        ))}
      </g>
      {result.cells.map((each, index) =>
        each.method !== method ? null : (
          <g transform={`translate(${left + cell * (places.get(each.strength) ?? 0)} ${TOP + ROW * each.column})`} data-cell={index}>
            <Cell {...{ result, each, measure, theme, shade, cell, pattern: id }} />
          </g>
        ),
      )}
      {result.cells.map((each, index) =>
        each.method !== method || index !== result.suggested?.cell ? null : (
          <rect
            {...{ x: left + cell * (places.get(each.strength) ?? 0), y: TOP + ROW * each.column, width: cell - 1, height: ROW - 1 }}
            {...{ fill: "none", stroke: theme.ink, "stroke-width": 2.5, "pointer-events": "none" }}
          />
        ),
      )}
    </svg>
  );
};

interface CellProps {
  readonly result: SweepResult;
  readonly each: SweepCell;
  readonly measure: Measure;
  readonly theme: Theme;
  readonly shade: (value: number) => number;
  /** Width. */
  readonly cell: number;
  readonly pattern: string;
}

const Cell = ({ result, each, measure, theme, shade, cell, pattern }: CellProps) => {
  const value = measure.of(each.metrics);
  const box = { width: cell - 1, height: ROW - 1 };
  const middle = { x: round((cell - 1) / 2), y: ROW / 2 + 4.5, "text-anchor": "middle" };
  const over = isOver(result, each.metrics);
  return (
    <>
      <title>{describeCell(result, each)}</title>
      <rect {...box} fill={value === null ? "transparent" : theme.heat} fill-opacity={value === null ? 1 : round3(shade(value))} />
      {over ? <rect class="over" {...box} fill={`url(#${pattern})`} /> : null}
      {each.metrics === null ? (
        <text {...middle} fill={theme.warn}>
          ×
        </text>
      ) : (
        <text {...middle} fill={theme.ink}>
          {value === null ? "–" : measure.name === "success" ? Math.round(value) : short(Number(value.toPrecision(2)))}
        </text>
      )}
    </>
  );
};

/** From a number to how much of the colour it gets: success by itself, activations by their place among each other. */
function shadesOf({ cells }: SweepResult, measure: Measure): (value: number) => number {
  const LEAST = 0.06;
  if (measure.name === "success") return (value) => LEAST + ((1 - LEAST) * value) / 100;
  const values = cells.map(({ metrics }) => measure.of(metrics)).filter((value) => value !== null);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return (value) => (high > low ? LEAST + ((1 - LEAST) * (value - low)) / (high - low) : 0.5);
}

const round3 = (value: number): number => Math.round(value * 1000) / 1000;
