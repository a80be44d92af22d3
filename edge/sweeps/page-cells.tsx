// Tables of the page of a sweep: the numbers of every cell, and the texts of each.
import type { CellMetrics, SweepResult, SweepRow } from "./contract.ts";
import { cut, isOver, namerOf, short } from "./plot-data.ts";
import { formatNumber } from "./scale.ts";

const PROMPT_CHARS = 80;

const share = (value: number | null): string => (value === null ? "" : `${short(100 * value)}%`);
const number = (value: number | null): string => (value === null ? "" : short(value));

/** What the table says of a cell. */
const NUMBERS: readonly [name: string, of: (metrics: CellMetrics) => string][] = [
  ["Success", ({ success }) => share(success)],
  ["Perplexity", ({ perplexity }) => number(perplexity)],
  ["× baseline", ({ perplexityRatio }) => number(perplexityRatio)],
  ["KL", ({ kl }) => number(kl)],
  ["Activation", ({ activation }) => number(activation)],
  ["Dist-1", ({ dist1 }) => number(dist1)],
  ["Dist-2", ({ dist2 }) => number(dist2)],
  ["Dist-3", ({ dist3 }) => number(dist3)],
  ["Repeated", ({ repetition }) => share(repetition)],
  ["Change", ({ change }) => share(change)],
];

export const Cells = ({ result }: { result: SweepResult }) => {
  const nameOf = namerOf(result);
  // A number that no cell has is no column.
  const all = [result.baseline, ...result.cells].flatMap(({ metrics }) => (metrics === null ? [] : [metrics]));
  const numbers = NUMBERS.filter(([, of]) => all.some((metrics) => of(metrics) !== ""));
  return (
    <section>
      <h2>Every cell</h2>
      <div class="scroll">
        <table class="numbers">
          <thead>
            <tr>
              <th>Direction</th>
              <th>Strength</th>
              {numbers.map(([name]) => (
                <th>{name}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            <tr>
              <td>
                <a href="#texts-baseline">baseline</a>
              </td>
              <td />
              {numbers.map(([, of]) => (
                <td>{of(result.baseline.metrics)}</td>
              ))}
            </tr>
            {result.cells.map((cell, place) => (
              <tr class={place === result.suggested?.cell ? "suggested" : isOver(result, cell.metrics) ? "quiet" : undefined}>
                <td>
                  <a href={`#texts-${place}`}>{nameOf(cell)}</a>
                </td>
                <td>{formatNumber(cell.strength)}</td>
                {cell.metrics === null ? (
                  <td colspan={numbers.length}>failed: {cell.error}</td>
                ) : (
                  numbers.map(([, of]) => <td>{cell.metrics === null ? "" : of(cell.metrics)}</td>)
                )}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="quiet">
        Perplexity: of the texts, read without steering. KL: from the model without steering, in nats per token. Dist-n: distinct n-grams of
        words / words. Repeated: 4-grams that stood in the text before. Change: of the residual stream's length.
      </p>
    </section>
  );
};

export const Texts = ({ result }: { result: SweepResult }) => {
  const nameOf = namerOf(result);
  return (
    <section>
      <h2>Texts</h2>
      <details open>
        <summary>Baseline</summary>
        <div id="texts-baseline">
          <Rows prompts={result.prompts} rows={result.baseline.rows} />
        </div>
      </details>
      {result.cells.map((cell, place) => (
        <details open={place === result.suggested?.cell}>
          <summary>
            {nameOf(cell)}, strength {formatNumber(cell.strength)}
            {place === result.suggested?.cell ? <strong> suggested</strong> : null}
          </summary>
          <div id={`texts-${place}`}>
            {cell.error === null ? <Rows prompts={result.prompts} rows={cell.rows} /> : <p class="failed">{cell.error}</p>}
          </div>
        </details>
      ))}
    </section>
  );
};

/** Texts with what each is a continuation of. */
export const Rows = (props: { prompts: readonly string[]; rows: readonly (SweepRow & { readonly name?: string })[] }) => (
  <div class="texts">
    {props.rows.map(({ prompt, seed, text, success, perplexity, name }) => (
      <p>
        <span class="quiet">
          {[
            ...(name === undefined ? [] : [name]),
            ...[cut(props.prompts[prompt]?.trim() ?? "", PROMPT_CHARS), `seed ${seed}`],
            ...(success === null ? [] : [success ? "a success" : "no success"]),
            ...(perplexity === null ? [] : [`perplexity ${short(perplexity)}`]),
          ].join(" · ")}
        </span>
        {text.trim()}
      </p>
    ))}
  </div>
);
