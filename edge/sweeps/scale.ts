// Axes of plots: from numbers to pixels, with ticks at round numbers.

export interface Tick {
  readonly value: number;
  readonly label: string;
}

export interface Scale {
  /** Where a number is, in pixels; numbers outside of the domain lie outside of the range. */
  at(value: number): number;
  readonly ticks: readonly Tick[];
  /** From where to where the axis goes. */
  readonly domain: Span;
}

export type Span = readonly [from: number, to: number];

export interface Axis {
  /** What must be on it. */
  readonly values: readonly number[];
  /** Pixels: where the least and where the greatest value is. */
  readonly range: Span;
  /** About so many ticks, at least 2. */
  readonly ticks: number;
  /** Behind the number of every tick: a unit. */
  readonly unit?: string;
  /** Whether it ends where its values do, and not at ticks. Linear axes only. */
  readonly tight?: boolean;
}

const MANTISSAS = [1, 2, 5, 10];

/** The step of 1, 2 or 5 times a power of ten that cuts a span into at most so many parts. */
export function niceStep(span: number, parts: number): number {
  const power = 10 ** Math.floor(Math.log10(span / parts));
  // The quotient of two decimal fractions may be a hair above a mantissa.
  const step = MANTISSAS.find((mantissa) => mantissa * power * (1 + 1e-9) >= span / parts) ?? 10;
  return step * power;
}

/** Equal steps; both ends are ticks unless the axis is tight. */
export function linear({ values, range, ticks, unit = "", tight = false }: Axis): Scale {
  const [low, high] = spanOf(values);
  const step = niceStep(high - low, ticks);
  const [below, above] = tight ? [Math.ceil, Math.floor] : [Math.floor, Math.ceil];
  const [first, last] = [below(low / step + (tight ? -1e-9 : 1e-9)), above(high / step + (tight ? 1e-9 : -1e-9))];
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const all = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  return scale(
    tight ? [low, high] : [first * step, last * step],
    range,
    all.map((value) => tick(Number(value.toFixed(digits)), unit)),
    (value) => value,
  );
}

/** Equal factors, for positive numbers; both ends are 1, 2 or 5 times a power of ten. */
export function logarithmic({ values, range, ticks, unit = "" }: Axis): Scale {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const [from, to] = [roundDown(least), roundUp(least === most ? most * 2 : most)];
  const decades = Array.from(
    { length: Math.ceil(Math.log10(to)) - Math.floor(Math.log10(from)) + 1 },
    (_, i) => Math.floor(Math.log10(from)) + i,
  );
  const inside = (value: number) => value >= from * (1 - 1e-9) && value <= to * (1 + 1e-9);
  const dense = decades.flatMap((decade) => [1, 2, 5].map((mantissa) => fromParts(mantissa, decade))).filter(inside);
  const powers = decades.map((decade) => fromParts(1, decade)).filter(inside);
  const every = Math.ceil(powers.length / ticks);
  const chosen = dense.length <= ticks + 2 ? dense : powers.length < 2 ? [from, to] : powers.filter((_, i) => i % every === 0);
  return scale(
    [from, to],
    range,
    chosen.map((value) => tick(value, unit)),
    Math.log10,
  );
}

function scale(domain: Span, range: Span, ticks: readonly Tick[], through: (value: number) => number): Scale {
  const [from, to] = [through(domain[0]), through(domain[1])];
  return { domain, ticks, at: (value) => range[0] + ((range[1] - range[0]) * (through(value) - from)) / (to - from) };
}

/** From the least to the greatest, made wider when they are one. */
function spanOf(values: readonly number[]): Span {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (low < high) return [low, high];
  const half = low === 0 ? 1 : Math.abs(low) / 2;
  return [low - half, low + half];
}

const tick = (value: number, unit: string): Tick => ({ value, label: `${compact(value)}${unit}` });

/** 20000 is 20k: letters beside an axis have little room. */
function compact(value: number): string {
  const size = Math.abs(value);
  if (size < 1e4 || size >= 1e9) return formatNumber(value);
  return size < 1e6 ? `${formatNumber(value / 1e3)}k` : `${formatNumber(value / 1e6)}M`;
}

/** A number as axes and cells have it, with a true minus sign. */
export const formatNumber = (value: number): string =>
  (Math.abs(value) >= 1e6 || (value !== 0 && Math.abs(value) < 1e-4) ? value.toExponential(0).replace("e+", "e") : String(value)).replace(
    /-/g,
    "\u2212",
  );

/** 2e-1 is 0.2 when it is read as a text, and 0.2 or a hair more when it is multiplied. */
const fromParts = (mantissa: number, decade: number): number => Number(`${mantissa}e${decade}`);

function roundDown(value: number): number {
  const decade = Math.floor(Math.log10(value) + 1e-9);
  const mantissa = [5, 2, 1].find((candidate) => fromParts(candidate, decade) <= value * (1 + 1e-9)) ?? 1;
  return fromParts(mantissa, decade);
}

function roundUp(value: number): number {
  const decade = Math.floor(Math.log10(value) + 1e-9);
  const mantissa = MANTISSAS.find((candidate) => fromParts(candidate, decade) >= value * (1 - 1e-9)) ?? 10;
  return fromParts(mantissa, decade);
}
